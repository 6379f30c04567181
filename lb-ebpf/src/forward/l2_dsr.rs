//! `l2-dsr`: new MAC addresses and nothing else. The backend holds the VIP and answers the client itself; TTL stays,
//! as on a switch.

use lb_common::abi::{EgressValue, NextHop};

use super::write_macs;
use crate::{
    cursor::{CursorMut, PacketData},
    refusal::Refusal,
};

/// `len`: of the packet, or of the longest that it will be cut into.
#[inline(always)]
pub fn rewrite(
    ctx: &mut impl PacketData,
    way: &EgressValue,
    len: u32,
    next_hop: NextHop,
) -> Result<(), Refusal> {
    if len > way.mtu {
        return Err(Refusal::too_big(way.mtu));
    }
    Ok(write_macs(&mut CursorMut::new(ctx), way, next_hop)?)
}

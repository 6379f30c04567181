//! `l2-dsr`: new MAC addresses and nothing else. The backend holds the VIP and answers the client itself; TTL stays,
//! as on a switch.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{EgressValue, NextHop};

use super::write_macs;
use crate::{cursor::CursorMut, refusal::Refusal};

#[inline(always)]
pub fn rewrite(
    ctx: &mut XdpContext,
    way: &EgressValue,
    total_len: u32,
    next_hop: NextHop,
) -> Result<(), Refusal> {
    if total_len > way.mtu {
        return Err(Refusal::too_big(way.mtu));
    }
    Ok(write_macs(&mut CursorMut::new(ctx), way, next_hop)?)
}

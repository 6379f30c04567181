//! `l2-dsr`: new MAC addresses and nothing else. The backend holds the VIP and answers the client itself; TTL stays,
//! as on a switch.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{DropReason, EgressValue, NextHop};

use super::write_macs;
use crate::cursor::CursorMut;

#[inline(always)]
pub fn rewrite(ctx: &mut XdpContext, way: &EgressValue, next_hop: NextHop) -> Result<(), DropReason> {
    write_macs(&mut CursorMut::new(ctx), way, next_hop)
}

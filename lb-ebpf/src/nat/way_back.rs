//! By which way a client's packets come, and its replies go.

use core::ptr::write_volatile;

use aya_ebpf::programs::XdpContext;
use lb_common::abi::DropReason;

use super::{entry::Reply, scratch::Scratch, table::Place};
use crate::{cursor::CursorMut, forward::read_mac_words};

/// MAC addresses in words, their first bytes lowest.
#[derive(Clone, Copy)]
pub struct WayBack {
    pub next_hop: u64,
    pub source_mac: u64,
    pub ifindex: u32,
}

impl WayBack {
    /// Of a frame as it came.
    #[inline(always)]
    pub fn of(ctx: &mut XdpContext) -> Result<Self, DropReason> {
        let ifindex = ctx.ingress_ifindex() as u32;
        let (source_mac, next_hop) =
            read_mac_words(&CursorMut::new(ctx)).ok_or(DropReason::TruncatedHeader)?;
        Ok(Self { next_hop, source_mac, ifindex })
    }

    /// As a backend's entry has it.
    #[inline(always)]
    pub const fn in_reply(reply: &Reply) -> Self {
        Self { next_hop: reply.next_hop, source_mac: reply.source_mac, ifindex: reply.ifindex }
    }

    /// As the client's entry has it.
    #[inline(always)]
    pub fn came_by(self) -> u64 {
        self.next_hop | (u64::from(self.ifindex) << 48)
    }
}

/// Tells both entries of a flow, whose keys are in the scratch, of another way. The backend's may be another flow's: a port
/// that changes hands does so at once.
#[inline(always)]
pub fn change(scratch: &Scratch, way: WayBack) {
    if let Some(at) = Place::of_flow(&scratch.flow_key) {
        // SAFETY: an aligned word of a live map entry.
        unsafe { write_volatile(&raw mut (*at.flow()).came_by, way.came_by()) };
    }
    if let Some(at) = Place::of_reply_to(scratch) {
        let reply = at.reply();
        // SAFETY: aligned words of a live map entry. A reply on another CPU may find one of them old and another new:
        // one packet that goes astray, at a moment at which the way has just changed.
        unsafe {
            write_volatile(&raw mut (*reply).ifindex, way.ifindex);
            write_volatile(&raw mut (*reply).next_hop, way.next_hop);
            write_volatile(&raw mut (*reply).source_mac, way.source_mac);
        }
    }
}

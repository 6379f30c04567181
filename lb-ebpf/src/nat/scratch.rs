//! What NAT's global functions hand to each other, and what would be too much for a stack.

use lb_common::abi::DropReason;

use super::entry::{Flow, FlowKey, Reply, ReplyKey};
use crate::maps;

#[repr(C)]
pub struct Scratch {
    /// Of the packet that is being handled: its flow's key, its client's entry, and the same of its backend's side.
    pub flow_key: FlowKey,
    pub flow: Flow,
    pub reply_key: ReplyKey,
    pub reply: Reply,
    /// Whom an ICMP error comes from.
    pub from: [u64; 2],
    /// Keys of the flow that `ballast_nat_remove` is asked to remove.
    pub old_flow: FlowKey,
    pub old_reply: ReplyKey,
}

/// Who is at work on this CPU: the controller's program may be interrupted by a packet, so each has its own.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Whose {
    Packet = 0,
    Controller = 1,
}

impl Scratch {
    /// Gives the flow that is being made a port of ours, its two bytes in memory order.
    #[inline(always)]
    pub fn name_port(&mut self, port: u16) {
        // Ours is the second one of replies.
        let ports = self.reply_key.ports & 0xffff | u32::from(port) << 16;
        self.reply_key.ports = ports;
        self.flow.reply_ports = ports;
    }

    /// This CPU's, as [`crate::journey::Journey::of_this_cpu`].
    #[inline(always)]
    pub fn of_this_cpu() -> Result<&'static mut Self, DropReason> {
        Self::of(Whose::Packet)
    }

    #[inline(always)]
    pub fn of(whose: Whose) -> Result<&'static mut Self, DropReason> {
        let scratch = maps::NAT_SCRATCH.get_ptr_mut(whose as u32).ok_or(DropReason::BadMapEntry)?;
        // SAFETY: this CPU's entry, which lives as long as the map. Whoever holds another reference has handed control
        // over, and reads again what it needs afterwards.
        Ok(unsafe { &mut *scratch })
    }
}

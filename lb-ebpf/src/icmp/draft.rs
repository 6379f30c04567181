//! An error that is about to be made.

use lb_common::{
    abi::DropReason,
    wire::icmp::{Message, quoted_len},
};

use crate::maps;

#[repr(C)]
pub struct Draft {
    /// As in the [`Journey`](crate::journey::Journey).
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// Of ICMP, as [`Message::header`].
    pub header: u64,
    /// Where the IP header starts: in the frame that there is, and in the one that will be.
    pub l3: u32,
    /// Where the packet that is quoted starts, and how much of it is quoted.
    pub quote_at: u32,
    pub quote_len: u32,
    /// Of the frame that there is, with all its buffers.
    pub frame_len: u32,
    /// 4 or 6.
    pub family: u32,
    pub _padding: u32,
}

impl Draft {
    /// This CPU's.
    #[inline(always)]
    pub fn of_this_cpu() -> Result<&'static mut Self, DropReason> {
        let draft = maps::DRAFT.get_ptr_mut(0).ok_or(DropReason::BadMapEntry)?;
        // SAFETY: this CPU's entry, which lives as long as the map. Whoever holds another reference has handed control
        // over, and reads again what it needs afterwards.
        Ok(unsafe { &mut *draft })
    }

    /// What is said, and about what: the packet at `at` which is there up to `end`.
    #[inline(always)]
    pub fn say(&mut self, message: Message, at: u32, end: u32) {
        self.header = message.header(self.family as u8);
        self.quote_at = at;
        self.quote_len = quoted_len(self.family as u8, end.saturating_sub(at));
    }
}

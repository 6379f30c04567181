//! The two tables, and how their entries are read and changed while others do the same.
//!
//! A place in a kernel hash map may be given to another flow as soon as its own is removed, even to one that is being
//! read. So an entry counts as read only when its `seen` word has not changed meanwhile: see [`stamp`].

use core::ptr::{from_ref, read_volatile};

use lb_common::abi::{NAT_DEAD, NatFlow, NatFlowKey, NatReply, NatReplyKey, NatSeen};

use super::{
    entry::{Flow, FlowKey, Reply, ReplyKey},
    scratch::Scratch,
};
use crate::{atomic, maps, settings};

/// A live entry of one of the tables.
#[derive(Clone, Copy)]
pub struct Place(*mut u64);

impl Place {
    #[inline(always)]
    pub fn of_flow(key: &FlowKey) -> Option<Self> {
        maps::NAT_FLOWS.get_ptr_mut(flow_key(key)).map(|at| Self(at.cast()))
    }

    #[inline(always)]
    pub fn of_reply(key: &ReplyKey) -> Option<Self> {
        maps::NAT_REPLIES.get_ptr_mut(reply_key(key)).map(|at| Self(at.cast()))
    }

    /// The entry at [`Scratch::reply_key`] if it is that of [`Scratch::flow_key`]'s flow.
    #[inline(always)]
    pub fn of_reply_to(scratch: &Scratch) -> Option<Self> {
        // SAFETY: a live map entry.
        Self::of_reply(&scratch.reply_key)
            .filter(|at| unsafe { &*at.reply() }.flow_key().is(&scratch.flow_key))
    }

    #[inline(always)]
    pub fn seen(self) -> NatSeen {
        // SAFETY: an aligned word of a live map entry.
        NatSeen(unsafe { read_volatile(self.0) })
    }

    /// Copies a place in `NAT_FLOWS`, after it has read the `seen` word that it returns.
    #[inline(always)]
    pub fn copy_flow(self, into: &mut Flow) -> NatSeen {
        // SAFETY: a live map entry, every bit pattern of which is one, and as many words of memory.
        unsafe { self.copy::<{ size_of::<Flow>() / 8 }>((&raw mut *into).cast()) }
    }

    /// The same of `NAT_REPLIES`.
    #[inline(always)]
    pub fn copy_reply(self, into: &mut Reply) -> NatSeen {
        // SAFETY: as above.
        unsafe { self.copy::<{ size_of::<Reply>() / 8 }>((&raw mut *into).cast()) }
    }

    /// Reads a place in `NAT_FLOWS`, its `seen` word first.
    #[inline(always)]
    pub fn read_flow(self) -> Flow {
        let at = self.flow();
        // SAFETY: aligned words of a live map entry.
        unsafe {
            Flow {
                seen: self.seen(),
                backend: read_volatile(&raw const (*at).backend),
                reply_ports: read_volatile(&raw const (*at).reply_ports),
                our_address: read_words(&raw const (*at).our_address),
                came_by: read_volatile(&raw const (*at).came_by),
            }
        }
    }

    /// The same of `NAT_REPLIES`.
    #[inline(always)]
    pub fn read_reply(self) -> Reply {
        let at = self.reply();
        // SAFETY: as above.
        unsafe {
            Reply {
                seen: self.seen(),
                client: read_words(&raw const (*at).client),
                vip: read_words(&raw const (*at).vip),
                ports: read_volatile(&raw const (*at).ports),
                service: read_volatile(&raw const (*at).service),
                backend: read_volatile(&raw const (*at).backend),
                ifindex: read_volatile(&raw const (*at).ifindex),
                next_hop: read_volatile(&raw const (*at).next_hop),
                source_mac: read_volatile(&raw const (*at).source_mac),
            }
        }
    }

    /// Word by word, because the compiler would take the way over the stack.
    ///
    /// # Safety
    ///
    /// Both have `N` words.
    #[inline(always)]
    unsafe fn copy<const N: usize>(self, into: *mut u64) -> NatSeen {
        let seen = self.seen();
        for word in 0..N {
            // SAFETY: aligned words, by the caller's promise.
            unsafe { into.add(word).write(read_volatile(self.0.add(word))) };
        }
        seen
    }

    /// The value of a place in `NAT_FLOWS`, for single words of it.
    #[inline(always)]
    pub const fn flow(self) -> *mut Flow {
        self.0.cast()
    }

    /// The same of `NAT_REPLIES`.
    #[inline(always)]
    pub const fn reply(self) -> *mut Reply {
        self.0.cast()
    }

    /// Makes `old` `new`, and says whether the entry was still what it had been when `old` was read.
    #[inline(always)]
    pub fn stamp(self, old: NatSeen, new: NatSeen) -> bool {
        if old.0 == new.0 || !settings::side_effects() {
            self.seen().0 == old.0
        } else {
            self.exchange(old, new)
        }
    }

    #[inline(always)]
    pub fn exchange(self, old: NatSeen, new: NatSeen) -> bool {
        // SAFETY: an aligned word of a live map entry.
        unsafe { atomic::compare_exchange(self.0, old.0, new.0) }
    }
}

/// One after the other, because the compiler would take the way over the stack.
///
/// # Safety
///
/// Two aligned words of a live map entry.
#[inline(always)]
unsafe fn read_words(at: *const [u64; 2]) -> [u64; 2] {
    let first = at.cast::<u64>();
    // SAFETY: the caller's promise.
    unsafe { [read_volatile(first), read_volatile(first.add(1))] }
}

/// A word that says that somebody is taking the entry away.
#[inline(always)]
pub const fn dead(seen: NatSeen) -> NatSeen {
    NatSeen(seen.0 | ((NAT_DEAD as u64) << 32))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    Exists,
    Full,
}

#[inline(always)]
pub fn insert_flow(key: &FlowKey, flow: &Flow) -> Inserted {
    // SAFETY: words of an ABI structure, for which every bit pattern is one; sizes and alignments are equal.
    let flow = unsafe { &*from_ref(flow).cast::<NatFlow>() };
    inserted(maps::NAT_FLOWS.insert(flow_key(key), flow, NO_EXIST))
}

#[inline(always)]
pub fn insert_reply(key: &ReplyKey, reply: &Reply) -> Inserted {
    // SAFETY: as above.
    let reply = unsafe { &*from_ref(reply).cast::<NatReply>() };
    inserted(maps::NAT_REPLIES.insert(reply_key(key), reply, NO_EXIST))
}

/// Only for whoever made the entry, or has declared it dead.
#[inline(always)]
pub fn remove_flow(key: &FlowKey) {
    // It fails if there is no such entry, which is what is wanted.
    let _ = maps::NAT_FLOWS.remove(flow_key(key));
}

/// As [`remove_flow`].
#[inline(always)]
pub fn remove_reply(key: &ReplyKey) {
    let _ = maps::NAT_REPLIES.remove(reply_key(key));
}

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Inserted {
    match result {
        Ok(()) => Inserted::Yes,
        Err(EXISTS) => Inserted::Exists,
        Err(_) => Inserted::Full,
    }
}

#[inline(always)]
fn flow_key(key: &FlowKey) -> &NatFlowKey {
    // SAFETY: words of an ABI structure, for which every bit pattern is one; sizes and alignments are equal.
    unsafe { &*from_ref(key).cast() }
}

#[inline(always)]
fn reply_key(key: &ReplyKey) -> &NatReplyKey {
    // SAFETY: as above.
    unsafe { &*from_ref(key).cast() }
}

/// Insert, don't replace.
const NO_EXIST: u64 = 1;
/// `EEXIST`.
const EXISTS: i32 = -17;

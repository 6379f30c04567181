//! Where a flow's entry is: in the bucket of `FLOWS` that its hash names.

use core::ptr::read_volatile;

use lb_common::{
    abi::{FLOW_BUCKET_ENTRIES, FlowBucket},
    flow,
};

use crate::{atomic, maps, settings};

/// A live entry of `FLOWS`.
pub struct Bucket(*mut FlowBucket);

impl Bucket {
    #[inline(always)]
    pub fn of(hash: u64) -> Option<Self> {
        // The loader makes the map as large as the mask says; the verifier wants to be told.
        maps::FLOWS.get_ptr_mut(flow::bucket(hash, settings::flow_mask())).map(Self)
    }

    #[inline(always)]
    pub fn load(&self, entry: u32) -> u64 {
        // SAFETY: an aligned word of a live map entry.
        unsafe { read_volatile(self.entry(entry)) }
    }

    #[inline(always)]
    pub fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        // SAFETY: an aligned word of a live map entry.
        unsafe { atomic::compare_exchange(self.entry(entry), old, new) }
    }

    #[inline(always)]
    fn entry(&self, entry: u32) -> *mut u64 {
        // SAFETY: inside the bucket, a live map entry.
        unsafe {
            (&raw mut (*self.0).entries).cast::<u64>().add((entry & (FLOW_BUCKET_ENTRIES - 1)) as usize)
        }
    }
}

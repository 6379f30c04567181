//! The benchmark's flow table: a hash map of the kernel's that evicts the least recently used, as other load balancers
//! keep their flows in. A bucket is one flow's value, so it has one entry, and no place for other flows.

use core::ptr::{null_mut, read_volatile};

use aya_ebpf::macros::map;
#[cfg(not(feature = "flows-in-percpu-lru"))]
use aya_ebpf::maps::LruHashMap as Flows;
#[cfg(feature = "flows-in-percpu-lru")]
use aya_ebpf::maps::LruPerCpuHashMap as Flows;

use crate::{atomic, settings};

/// By flow hash: shorter than a 5-tuple, so this is the quickest such a map can be.
#[map]
static LRU_FLOWS: Flows<u64, u64> = Flows::with_max_entries(1 << 21, 0);

pub struct Bucket {
    hash: u64,
    value: *mut u64,
}

impl Bucket {
    #[inline(always)]
    pub fn of(hash: u64) -> Option<Self> {
        // Read, so that the constant is there for the loader to set.
        let _ = settings::flow_mask();
        Some(Self { hash, value: LRU_FLOWS.get_ptr_mut(hash).unwrap_or(null_mut()) })
    }

    #[inline(always)]
    pub fn load(&self, entry: u32) -> u64 {
        if entry != 0 || self.value.is_null() {
            return 0;
        }
        // SAFETY: an aligned word of a live map entry.
        unsafe { read_volatile(self.value) }
    }

    #[inline(always)]
    pub fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        if entry != 0 {
            return false;
        }
        if self.value.is_null() {
            return LRU_FLOWS.insert(self.hash, new, NO_EXIST).is_ok();
        }
        // SAFETY: an aligned word of a live map entry.
        unsafe { atomic::compare_exchange(self.value, old, new) }
    }
}

/// Insert, don't replace.
const NO_EXIST: u64 = 1;

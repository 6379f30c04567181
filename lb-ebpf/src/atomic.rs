//! Atomic operations on map memory. `core`'s atomics do not exist for this target, or compile to instructions that
//! kernels before 6.13 refuse.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd};

/// Stores `new` if `word` still holds `old`, and says whether it did.
///
/// # Safety
///
/// `word` is an aligned word of a live map entry.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    let (found, _) = unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(word, old, new) };
    found == old
}

/// Adds and returns what was there before. Sequentially consistent, because LLVM 22 miscompiles a weaker addition whose
/// result is used.
///
/// # Safety
///
/// As [`compare_exchange`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(word, value) }
}

//! Load-time constants: the loader writes them into the read-only section, so to the verifier they are numbers, and
//! code they switch off is removed.

use core::ptr::read_volatile;

use lb_common::hash::HashKey;

#[unsafe(no_mangle)]
static HASH_KEY_0: u64 = 0;
#[unsafe(no_mangle)]
static HASH_KEY_1: u64 = 0;
#[unsafe(no_mangle)]
static SERVICE_MASK: u32 = 0;
#[unsafe(no_mangle)]
static FLOW_MASK: u32 = 0;
#[unsafe(no_mangle)]
static MULTI_BUFFER: u32 = 0;
#[unsafe(no_mangle)]
static SELF_CLOCK: u32 = 1;
#[unsafe(no_mangle)]
static SIDE_EFFECTS: u32 = 1;
#[unsafe(no_mangle)]
static TRACING: u32 = 0;
#[unsafe(no_mangle)]
static CAPTURE: u32 = 0;
#[unsafe(no_mangle)]
static REPLICATION: u32 = 0;

/// The fleet's secret.
#[inline(always)]
pub fn hash_key() -> HashKey {
    // SAFETY: plain statics; volatile, because the loader changes them after the compiler is done.
    unsafe { HashKey { k0: read_volatile(&HASH_KEY_0), k1: read_volatile(&HASH_KEY_1) } }
}

/// Entries of one copy of the service table, less one.
#[inline(always)]
pub fn service_mask() -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(&SERVICE_MASK) }
}

/// Buckets of the flow table, less one.
#[inline(always)]
pub fn flow_mask() -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(&FLOW_MASK) }
}

/// Whether a frame may have several buffers, of which the program sees the first.
#[inline(always)]
pub fn multi_buffer() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&MULTI_BUFFER) != 0 }
}

/// Whether the program looks at the kernel's clock.
#[inline(always)]
pub fn self_clock() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&SELF_CLOCK) != 0 }
}

/// Whether this run may leave traces in maps.
#[inline(always)]
pub fn side_effects() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&SIDE_EFFECTS) != 0 }
}

/// Whether this run notes what becomes of the packet, and why; see [`trace`](crate::trace).
#[inline(always)]
pub fn tracing() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&TRACING) != 0 }
}

/// Whether packets are copied to a capture; see [`capture`](crate::capture).
#[inline(always)]
pub fn capture() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&CAPTURE) != 0 }
}

/// Whether the controller is told of flows that other load balancers have to know.
#[inline(always)]
pub fn replication() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&REPLICATION) != 0 }
}

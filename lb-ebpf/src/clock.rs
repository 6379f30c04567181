//! Coarse time: a cell that the controller and, seldom, the packets themselves keep up to date.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::abi::{CLOCK_REFRESH_PACKETS, COARSE_UNIT_NS};

use crate::{maps, settings};

/// Units of coarse time.
#[inline(always)]
pub fn now() -> u64 {
    match maps::CLOCK.get_ptr(0) {
        // SAFETY: an aligned word of the map's only entry, written as a whole.
        Some(cell) => unsafe { read_volatile(&raw const (*cell).now) },
        None => 0,
    }
}

/// Looks at the kernel's clock if this CPU's packet number `received` says so.
#[inline(always)]
pub fn refresh(received: u64) {
    if received & (CLOCK_REFRESH_PACKETS - 1) != 0 || !settings::self_clock() {
        return;
    }
    let Some(cell) = maps::CLOCK.get_ptr_mut(0) else { return };
    // SAFETY: the helper takes nothing, and has been there since 5.11.
    let now = unsafe { bpf_ktime_get_coarse_ns() } / COARSE_UNIT_NS;
    // SAFETY: an aligned word of the map's only entry. Two CPUs may store at once; both have a right time.
    unsafe {
        let now_at = &raw mut (*cell).now;
        if read_volatile(now_at) != now {
            write_volatile(now_at, now);
        }
    }
}

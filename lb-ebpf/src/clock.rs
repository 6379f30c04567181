//! Coarse time: a cell that the controller and, seldom, the packets themselves keep up to date.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::abi::{CLOCK_REFRESH_PACKETS, COARSE_UNIT_NS, ClockJump};

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

/// When the clock stood still.
#[inline(always)]
pub fn jump() -> ClockJump {
    match maps::CLOCK.get_ptr(0) {
        // SAFETY: as above.
        Some(cell) => ClockJump(unsafe { read_volatile(&raw const (*cell).jump) }),
        None => ClockJump(0),
    }
}

/// Looks at the kernel's clock if this CPU's packet number `received` says so.
#[inline(always)]
pub fn refresh(received: u64) {
    if received & (CLOCK_REFRESH_PACKETS - 1) != 0 || !settings::self_clock() {
        return;
    }
    ballast_refresh_clock();
}

/// [`refresh`] for the verifier. Returns what nobody needs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_refresh_clock() -> u64 {
    let Some(cell) = maps::CLOCK.get_ptr_mut(0) else { return 0 };
    // SAFETY: the helper takes nothing, and has been there since 5.11.
    let now = unsafe { bpf_ktime_get_coarse_ns() } / COARSE_UNIT_NS;
    // SAFETY: aligned words of the map's only entry. Two CPUs may store at once; both have a right time.
    unsafe {
        let (now_at, jump_at) = (&raw mut (*cell).now, &raw mut (*cell).jump);
        let was = read_volatile(now_at);
        if was != now {
            write_volatile(jump_at, ClockJump(read_volatile(jump_at)).after(was, now).0);
            write_volatile(now_at, now);
        }
    }
    0
}

//! Which frames are for this host. A switch floods what it does not know the way of, so XDP sees others', too.

use core::ptr::read_volatile;

use lb_common::abi::OwnMacs;

use crate::maps;

/// Whether frames for this MAC address are ours to forward.
#[inline(always)]
pub fn contain(mac: u64) -> bool {
    let Some(control) = maps::CONTROL.get_ptr(0) else { return true };
    // SAFETY: an aligned word of the map's only entry, written as a whole.
    let own = OwnMacs(unsafe { read_volatile(&raw const (*control).own_macs) });
    let Some(place) = maps::OWN_MACS.get_ptr(own.place(mac)) else { return true };
    // SAFETY: an aligned word of the map, written as a whole.
    own.is_any() || unsafe { read_volatile(place) } == mac
}

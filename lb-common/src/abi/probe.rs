//! Health checks over the real path: how the host's own packets say which backend they are for.

use super::slot::MAX_BACKEND_INDEX;

/// A socket's mark with these bits, of those under the mask, belongs to such a check. The other 20 are the backend's index,
/// around two that stay clear: kube-proxy has packets masqueraded or dropped by them (0x4000, 0x8000), whatever else is set.
pub const PROBE_MARK: u32 = 0xba00_0000;
pub const PROBE_MARK_MASK: u32 = 0xffc0_c000;

/// TTL with which a probe leaves its socket. One that nothing carries to its backend ends at the first router: it must
/// not reach the VIP as a client's packet would, and pass for another backend.
pub const PROBE_SENT_TTL: u8 = 1;
/// TTL that it is given when it is carried.
pub const PROBE_TTL: u8 = 64;

/// Of an index: what stands below those two bits.
const LOW_INDEX: u32 = 0x3fff;
const CLEAR_BITS: u32 = 2;

/// The mark of checks of the backend with this index.
pub const fn probe_mark(index: u32) -> u32 {
    PROBE_MARK | (index & LOW_INDEX) | (index & MAX_BACKEND_INDEX & !LOW_INDEX) << CLEAR_BITS
}

/// The index of the backend that packets with this mark are for. `None`: not a check's mark.
#[inline(always)]
pub const fn probed_backend(mark: u32) -> Option<u32> {
    if mark & PROBE_MARK_MASK != PROBE_MARK {
        return None;
    }
    Some((mark & LOW_INDEX) | (mark >> CLEAR_BITS & MAX_BACKEND_INDEX & !LOW_INDEX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_backend_and_other_marks_none() {
        for index in [1, LOW_INDEX, LOW_INDEX + 1, 0xfedcb, MAX_BACKEND_INDEX] {
            assert_eq!(probed_backend(probe_mark(index)), Some(index));
        }
        for foreign in [0, 1, 0x8000, 0xba40_0001, 0x3a00_0001, probe_mark(1) | 0x4000, u32::MAX] {
            assert_eq!(probed_backend(foreign), None, "{foreign:#x}");
        }
    }

    #[test]
    fn no_mark_touches_the_bits_that_kube_proxy_reads() {
        for bit in 0..u32::BITS {
            let mark = probe_mark(1 << bit);
            assert_eq!(mark & 0xc000, 0, "{mark:#x}");
        }
    }
}

//! Health checks over the real path: how the host's own packets say which backend they are for.

use super::slot::MAX_BACKEND_INDEX;

/// A socket's mark whose upper 12 bits are these belongs to such a check. The lower 20 are the backend's index.
pub const PROBE_MARK: u32 = 0xba1 << INDEX_BITS;
pub const PROBE_MARK_MASK: u32 = !MAX_BACKEND_INDEX;

/// TTL with which a probe leaves its socket. One that nothing carries to its backend ends at the first router: it must
/// not reach the VIP as a client's packet would, and pass for another backend.
pub const PROBE_SENT_TTL: u8 = 1;
/// TTL that it is given when it is carried.
pub const PROBE_TTL: u8 = 64;

const INDEX_BITS: u32 = 20;

/// The mark of checks of the backend with this index.
pub const fn probe_mark(index: u32) -> u32 {
    PROBE_MARK | (index & MAX_BACKEND_INDEX)
}

/// The index of the backend that packets with this mark are for. `None`: not a check's mark.
#[inline(always)]
pub const fn probed_backend(mark: u32) -> Option<u32> {
    if mark & PROBE_MARK_MASK == PROBE_MARK { Some(mark & MAX_BACKEND_INDEX) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_backend_and_other_marks_none() {
        for index in [1, 0xfedcb, MAX_BACKEND_INDEX] {
            assert_eq!(probed_backend(probe_mark(index)), Some(index));
        }
        for foreign in [0, 1, 0x8000, 0xba2 << 20, 0x3a1 << 20, u32::MAX] {
            assert_eq!(probed_backend(foreign), None);
        }
    }
}

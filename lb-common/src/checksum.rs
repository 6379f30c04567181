//! The Internet checksum (RFC 1071), whole and incremental (RFC 1624).

/// Checksum of an IPv4 header without options whose checksum field is zero. Words and result are in memory order: the
/// sum does not depend on the order of bytes (RFC 1071 section 2).
#[inline(always)]
pub const fn ipv4_header(words: [u32; 5]) -> u16 {
    let sum = words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64;
    // Below 2^35, so below 2^17 after one step.
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    !fold(sum as u32)
}

/// The checksum (in memory order) after a word that it covers went down by `less` (in host order), without a borrow.
#[inline(always)]
pub const fn add_to(checksum: u16, less: u16) -> u16 {
    let sum = checksum as u32 + less.to_be() as u32;
    // RFC 1624 equation 3 never gives 0xffff. Without a branch, which the verifier would walk both ways of.
    (sum + ((sum + 1) >> 16)) as u16
}

/// The checksum after one 16-bit word it covers changed from `old` to `new` (RFC 1624 equation 3).
#[inline(always)]
pub const fn replace_word(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = (!u16::from_be_bytes(checksum)) as u32
        + (!u16::from_be_bytes(old)) as u32
        + u16::from_be_bytes(new) as u32;
    (!fold(sum)).to_be_bytes()
}

/// What becomes of words that a checksum covers, whatever their order and whatever else it covers (RFC 1624). Words and
/// checksums are in memory order.
#[derive(Clone, Copy, Debug)]
pub struct Change(u64);

impl Change {
    pub const NONE: Self = Self(0);

    #[inline(always)]
    pub const fn word16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    #[inline(always)]
    pub const fn word32(self, old: u32, new: u32) -> Self {
        // The complement of 32 bits is that of both halves, and folding adds those.
        Self(self.0 + !old as u64 + new as u64)
    }

    #[inline(always)]
    pub const fn word64(self, old: u64, new: u64) -> Self {
        self.word32(old as u32, new as u32).word32((old >> 32) as u32, (new >> 32) as u32)
    }

    /// Both changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change. Exact for every checksum that a sender can have made: where something else than
    /// zeros is covered, the sum is never 0.
    #[inline(always)]
    pub const fn mend(self, checksum: u16) -> u16 {
        // A few dozen words of 32 bits at most.
        let sum = self.0 + !checksum as u64;
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        !fold(sum as u32)
    }

    /// The same of UDP: 0 says that there is no checksum, and a computed 0 is written as its other form (RFC 768).
    #[inline(always)]
    pub const fn mend_udp(self, checksum: u16) -> u16 {
        match (checksum, self.mend(checksum)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, mended) => mended,
        }
    }
}

/// What bytes add up to, for [`of`]; as if a zero followed an odd one.
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [first, second] => u16::from_ne_bytes([first, second]),
        [last] => u16::from_ne_bytes([last, 0]),
        _ => 0,
    });
    words.map(u64::from).sum()
}

/// The checksum of what adds up to `sum`, in words of any length up to 32 bits.
#[inline(always)]
pub const fn of(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    !fold(sum as u32)
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_may_be_of_words_of_any_length() {
        // The example of RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7, whose sum is 0xddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let halves: u64 = bytes.chunks_exact(2).map(|b| u64::from(u16::from_ne_bytes([b[0], b[1]]))).sum();
        let words: u64 =
            bytes.chunks_exact(4).map(|b| u64::from(u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))).sum();
        for sum in
            [halves, words, u64::from_ne_bytes(bytes), sum(&bytes), sum(&bytes[..2]) + sum(&bytes[2..])]
        {
            assert_eq!(of(sum).to_ne_bytes(), [!0xdd, !0xf2]);
        }
        assert_eq!((of(0), of(u64::MAX)), (0xffff, 0));
        assert_eq!(of(sum(&[0x01])).to_ne_bytes(), [0xfe, 0xff]);
    }

    /// The example of RFC 1624 section 4.
    #[test]
    fn the_rfc_1624_example_holds() {
        assert_eq!(replace_word([0xdd, 0x2f], [0x55, 0x55], [0x32, 0x85]), [0, 0]);
    }

    #[test]
    fn a_word_that_goes_down_is_one_that_is_replaced() {
        for checksum in 0..=0xffff_u16 {
            for old in [0x0100_u16, 0x0111, 0x4006, 0xff06, 0xffff] {
                let new = old - 0x0100;
                let wanted = replace_word(checksum.to_be_bytes(), old.to_be_bytes(), new.to_be_bytes());
                let changed = add_to(checksum.to_be(), 0x0100).to_ne_bytes();
                assert_eq!(changed, wanted, "{checksum:#x} {old:#x}");
            }
        }
    }

    /// As RFC 1071 says, without a step saved.
    fn whole(words: &[u16]) -> u16 {
        let sum = words.iter().fold(0_u64, |sum, &word| sum + u64::from(word));
        !((0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16)) as u16)
    }

    #[test]
    fn a_mended_checksum_is_the_one_made_anew_for_every_value() {
        // Something that stays, and what changes: two words of 64 bits, one of 32 and one of 16.
        let covered = |first: u16, change: [u16; 11]| [&[first, 0x0011][..], &change].concat();
        let old = [1, 2, 3, 4, 0, 0, 0xffff, 0, 0x5000, 80, 0x4006];
        for new in [[0xffff; 11], [0; 11], [9, 8, 7, 6, 0, 0xfffe, 0xffff, 0, 1, 2, 0x3f06]] {
            for first in 0..=0xffff {
                let word64 = |of: [u16; 11], at: usize| {
                    (0..4).fold(0, |word, n| word | u64::from(of[at + n]) << (16 * n))
                };
                let word32 = |of: [u16; 11]| u32::from(of[8]) | u32::from(of[9]) << 16;
                let change = Change::NONE
                    .word64(word64(old, 0), word64(new, 0))
                    .word64(word64(old, 4), word64(new, 4))
                    .word32(word32(old), word32(new))
                    .word16(old[10], new[10]);
                let (before, after) = (whole(&covered(first, old)), whole(&covered(first, new)));
                assert_eq!(change.mend(before), after, "{first:#x}");
                let after_udp = if after == 0 { 0xffff } else { after };
                let before_udp = if before == 0 { 0xffff } else { before };
                assert_eq!(change.mend_udp(before_udp), after_udp, "{first:#x}");
            }
        }
    }

    #[test]
    fn no_udp_checksum_stays_none() {
        assert_eq!(Change::NONE.word32(1, 2).mend_udp(0), 0);
    }

    #[test]
    fn a_headers_checksum_makes_it_sum_up_to_nothing() {
        let header: [u8; 20] = [
            0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, 64, 6, 0, 0, 0xac, 0x10, 0x0a, 0x63, 0xac, 0x10, 0x0a, 0x0c,
        ];
        let mut words = [0; 5];
        for (word, bytes) in words.iter_mut().zip(header.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        }
        // A well-known example: checksum 0xb1e6.
        assert_eq!(ipv4_header(words).to_ne_bytes(), [0xb1, 0xe6]);
    }
}

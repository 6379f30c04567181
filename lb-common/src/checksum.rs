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

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

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

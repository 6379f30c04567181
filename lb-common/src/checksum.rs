//! The Internet checksum (RFC 1071), whole and incremental (RFC 1624).

/// Checksum of an IPv4 header without options whose checksum field is zero. Network order.
#[inline(always)]
pub fn ipv4_header(header: &[u8; 20]) -> [u8; 2] {
    let mut sum = 0u32;
    let mut i = 0;
    while i < 20 {
        sum += u16::from_be_bytes([header[i], header[i + 1]]) as u32;
        i += 2;
    }
    (!fold(sum)).to_be_bytes()
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
        assert_eq!(replace_word([0xdd, 0x2f], [0x55, 0x55], [0x32, 0x85]), [0x00, 0x00]);
    }

    #[test]
    fn an_incremental_change_equals_a_full_checksum_for_every_ttl_and_protocol() {
        for ttl in 1..=255u8 {
            for protocol in 0..=255u8 {
                let mut header =
                    [0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, ttl, protocol, 0, 0, 10, 0, 0, 1, 203, 0, 113, 10];
                let before = ipv4_header(&header);
                header[8] -= 1;
                let after = ipv4_header(&header);
                assert_eq!(replace_word(before, [ttl, protocol], [ttl - 1, protocol]), after);
            }
        }
    }
}

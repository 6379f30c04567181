//! The Internet checksum, made whole and mended.

/// The checksum of RFC 1071 over any bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !ones_complement(words(bytes).map(u64::from).sum())
}

/// The checksum after `old` became `new`: HC' = ~(~HC + ~m + m') of RFC 1624. It is not made anew, so that what arrived
/// damaged leaves damaged.
pub(super) fn mend(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let changed = words(old).zip(words(new)).filter(|(old, new)| old != new);
    let difference: u64 = changed.map(|(old, new)| u64::from(!old) + u64::from(new)).sum();
    if difference == 0 { sum } else { !ones_complement(u64::from(!sum) + difference) }
}

/// [`mend`] of the checksum at `at`, in place.
pub(super) fn mend_at(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&mend(sum, old, new).to_be_bytes());
}

/// The same of UDP, where 0 says that there is no checksum (RFC 768).
pub(super) fn mend_udp_at(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    if bytes[at..at + 2] == [0, 0] {
        return;
    }
    mend_at(bytes, at, old, new);
    if bytes[at..at + 2] == [0, 0] {
        bytes[at..at + 2].fill(0xff);
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
}

/// A sum in one's-complement arithmetic of 16 bits.
fn ones_complement(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + sum % 0x1_0000;
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_checksum_is_the_one_made_anew() {
        for word in 0..=0xffff_u16 {
            let old = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
            let [high, low] = word.to_be_bytes();
            let new = [0x12, 0x34, high, low, 0x9a, 0xbc];
            assert_eq!(mend(checksum(&old), &old, &new), checksum(&new), "{word:#x}");
        }
    }

    #[test]
    fn no_checksum_stays_none_and_one_that_comes_out_as_none_is_written_otherwise() {
        let mut none = [0, 0];
        mend_udp_at(&mut none, 0, &[1, 2], &[3, 4]);
        assert_eq!(none, [0, 0]);
        let mut sum = [0x00, 0x01];
        mend_udp_at(&mut sum, 0, &[0, 0], &[0, 1]);
        assert_eq!(sum, [0xff, 0xff]);
    }
}

//! Bytes as hexadecimal digits.

/// Two digits a byte, in small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble });
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 0xf)]);
    }
    text
}

/// Bytes of digits, between which there may be space; `None` if there is anything else, or half a byte.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect();
    let digits: Vec<_> = digits.into_iter().collect::<Option<_>>()?;
    let (bytes, rest) = digits.as_chunks::<2>();
    let byte = |[high, low]: &[u32; 2]| u8::try_from(high << 4 | low).ok();
    rest.is_empty().then(|| bytes.iter().map(byte).collect())?
}

/// A MAC address as one writes it.
pub(crate) fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| hex(&[byte])).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes_and_bytes_are_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(hex(&[byte]), format!("{byte:02x}"));
            assert_eq!(unhex(&format!("{byte:02X}")), Some(vec![byte]));
        }
        assert_eq!(hex(&[2, 10, 255]), "020aff");
        assert_eq!(unhex("02 0aFf\n"), Some(vec![2, 10, 255]));
        assert_eq!(unhex("020"), None);
        assert_eq!(unhex("0g"), None);
        assert_eq!(mac([2, 0, 0, 0x1a, 0, 9]), "02:00:00:1a:00:09");
    }
}

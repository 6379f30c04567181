//! What is done to a well-formed frame so that it is well-formed in another way: extension headers, and fragments.

use super::frame::seal_v4;

/// An extension header: its number, and its bytes without the number of the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub kind: u8,
    pub rest: Vec<u8>,
}

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION: u8 = 60;
/// Mobility, HIP and shim6 look like options, as far as somebody on the way is concerned.
pub const LIKE_OPTIONS: [u8; 3] = [135, 139, 140];

impl Extension {
    /// With options that are padding, in `words` words of eight bytes.
    #[must_use]
    pub fn options(kind: u8, words: u8) -> Self {
        let padding = 8 * usize::from(words) - 4;
        let mut rest = vec![words - 1, 1, padding as u8];
        rest.extend(std::iter::repeat_n(0, padding));
        Self { kind, rest }
    }

    /// With as many segments left of a path of one address.
    #[must_use]
    pub fn routing(segments_left: u8) -> Self {
        let mut rest = vec![2, 2, segments_left, 0, 0, 0, 0];
        rest.extend([0xfe; 16]);
        Self { kind: ROUTING, rest }
    }

    /// An authentication header with a check value of 12 bytes.
    #[must_use]
    pub fn authentication() -> Self {
        let mut rest = vec![4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
        rest.extend([0xac; 12]);
        Self { kind: AUTHENTICATION, rest }
    }

    /// At an offset in units of eight bytes.
    #[must_use]
    pub fn fragment(identification: u32, offset: u16, more: bool) -> Self {
        let mut rest = vec![0];
        rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
        rest.extend(identification.to_be_bytes());
        Self { kind: FRAGMENT, rest }
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        [&[next], &self.rest[..]].concat()
    }
}

/// Puts extension headers behind the IPv6 header at `l3`; returns how many bytes they are.
pub fn extend(frame: &mut Vec<u8>, l3: usize, headers: &[Extension]) -> usize {
    let mut next = frame[l3 + 6];
    let mut chain = Vec::new();
    for header in headers.iter().rev() {
        chain = [header.bytes(next), chain].concat();
        next = header.kind;
    }
    frame[l3 + 6] = next;
    let len = u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]) + chain.len() as u16;
    frame[l3 + 4..l3 + 6].copy_from_slice(&len.to_be_bytes());
    let added = chain.len();
    frame.splice(l3 + 40..l3 + 40, chain);
    added
}

/// The frame's packet in parts of at most `size` bytes of payload, a multiple of eight. Padding is lost.
#[must_use]
pub fn fragments(frame: &[u8], l3: usize, identification: u32, size: usize) -> Vec<Vec<u8>> {
    let is_v4 = frame[l3] >> 4 == 4;
    let header_len = if is_v4 { usize::from(frame[l3] & 0xf) * 4 } else { 40 };
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[l3 + at], frame[l3 + at + 1]]));
    let end = l3 + if is_v4 { len(2) } else { 40 + len(4) };
    let (head, payload) = frame[..end].split_at(l3 + header_len);
    let count = payload.len().div_ceil(size);
    let part = |(number, payload): (usize, &[u8])| {
        let (offset, more) = ((number * size / 8) as u16, number + 1 < count);
        let mut part = [head, payload].concat();
        if is_v4 {
            let total = (header_len + payload.len()) as u16;
            part[l3 + 2..l3 + 4].copy_from_slice(&total.to_be_bytes());
            part[l3 + 4..l3 + 6].copy_from_slice(&(identification as u16).to_be_bytes());
            let flags = offset | if more { 0x2000 } else { 0 };
            part[l3 + 6..l3 + 8].copy_from_slice(&flags.to_be_bytes());
            seal_v4(&mut part[l3..]);
        } else {
            part[l3 + 4..l3 + 6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            extend(&mut part, l3, &[Extension::fragment(identification, offset, more)]);
        }
        part
    };
    payload.chunks(size).enumerate().map(part).collect()
}

//! Packets in pieces.

use crate::packet::seal_v4;

/// IPv6: next header of a fragment header, and the header's length (RFC 8200, section 4.5).
const FRAGMENT_HEADER: u8 = 44;
const IPV6_HEADER: usize = 40;

/// The fragments, in order, of a packet without options or extension headers, each with up to `size` bytes behind its
/// IP header (in IPv6: and its fragment header). `size` is a multiple of eight.
///
/// # Panics
///
/// If it is not, or the packet is no IP packet.
#[must_use]
pub fn fragments(packet: &[u8], identification: u32, size: usize) -> Vec<Vec<u8>> {
    assert!(size > 0 && size.is_multiple_of(8), "fragments of {size} bytes");
    let v4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if v4 { usize::from(packet[0] & 0xf) * 4 } else { IPV6_HEADER });
    let pieces = payload.chunks(size).enumerate().map(|(number, piece)| {
        let (offset, more) = (number * size / 8, (number + 1) * size < payload.len());
        if v4 {
            piece_v4(header, piece, offset, more)
        } else {
            piece_v6(header, piece, identification, offset, more)
        }
    });
    pieces.collect()
}

fn piece_v4(header: &[u8], piece: &[u8], offset: usize, more: bool) -> Vec<u8> {
    let mut header = header.to_vec();
    let field = offset as u16 | (u16::from(more) << 13);
    let length = (header.len() + piece.len()) as u16;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[6..8].copy_from_slice(&field.to_be_bytes());
    seal_v4(&mut header);
    [&header, piece].concat()
}

fn piece_v6(header: &[u8], piece: &[u8], identification: u32, offset: usize, more: bool) -> Vec<u8> {
    let mut header = header.to_vec();
    let next = std::mem::replace(&mut header[6], FRAGMENT_HEADER);
    header[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
    let field = ((offset as u16) << 3) | u16::from(more);
    [&header, &[next, 0][..], &field.to_be_bytes(), &identification.to_be_bytes(), piece].concat()
}

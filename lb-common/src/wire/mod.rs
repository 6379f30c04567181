//! Header views over byte arrays.
//!
//! A view is made from an array of the header's fixed length, so no accessor can go out of bounds or panic, whatever
//! the bytes are. Multi-byte fields come back in host order, except addresses, which stay as words in memory order
//! because they are only compared and hashed. Whether a header makes sense is the caller's question.

pub mod ethernet;
pub mod extension;
pub mod gue;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod reset;
pub mod transport;

/// IP protocol numbers of packets that are inside others.
pub const PROTOCOL_IPV4: u8 = 4;
pub const PROTOCOL_IPV6: u8 = 41;

#[inline(always)]
const fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
const fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
const fn ne16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// Four bytes as a word in memory order.
#[inline(always)]
pub const fn ne32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Eight bytes as a word in memory order.
#[inline(always)]
pub const fn ne64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes([
        bytes[at],
        bytes[at + 1],
        bytes[at + 2],
        bytes[at + 3],
        bytes[at + 4],
        bytes[at + 5],
        bytes[at + 6],
        bytes[at + 7],
    ])
}

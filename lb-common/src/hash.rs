//! The one flow hash, and the hash of the service table.

use core::fmt;

/// A 128-bit key, shared by the load balancers of one fleet and kept from everyone else.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct HashKey {
    pub k0: u64,
    pub k1: u64,
}

/// Whatever holds a key may be written to a log.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(hidden)")
    }
}

impl HashKey {
    /// Tells keys apart without giving them away. Never 0.
    pub const fn fingerprint(self) -> u64 {
        siphash13(self, [u64::from_le_bytes(*b"identity")], length(8)) | 1
    }
}

/// SipHash-1-3 (Aumasson and Bernstein, 2012) of `words` followed by `tail`, whose top byte is the input's length in
/// bytes modulo 256: what the byte-wise function gives for the same bytes in little-endian order.
///
/// Keyed, because clients choose their ports and could otherwise aim at one backend.
#[inline(always)]
pub const fn siphash13<const N: usize>(key: HashKey, words: [u64; N], tail: u64) -> u64 {
    let mut state = [
        key.k0 ^ 0x736f_6d65_7073_6575,
        key.k1 ^ 0x646f_7261_6e64_6f6d,
        key.k0 ^ 0x6c79_6765_6e65_7261,
        key.k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut i = 0;
    while i < N {
        state[3] ^= words[i];
        state = round(state);
        state[0] ^= words[i];
        i += 1;
    }
    state[3] ^= tail;
    state = round(state);
    state[0] ^= tail;
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// Slot hash of `source-hash`: the client's IPv4 address (its bytes in memory order).
#[inline(always)]
pub const fn source_v4(key: HashKey, source: u32) -> u64 {
    siphash13(key, [], source as u64 | length(4))
}

/// Slot hash of `source-hash`: the client's IPv6 address as two words in memory order.
#[inline(always)]
pub const fn source_v6(key: HashKey, source: [u64; 2]) -> u64 {
    siphash13(key, source, length(16))
}

/// Hash of an IPv4 5-tuple: source, destination, source port, destination port (each in memory order), protocol.
#[inline(always)]
pub const fn flow_v4(key: HashKey, source: u32, destination: u32, ports: u32, protocol: u8) -> u64 {
    let addresses = source as u64 | ((destination as u64) << 32);
    siphash13(key, [addresses], ports as u64 | ((protocol as u64) << 32) | length(13))
}

/// Hash of an IPv6 5-tuple, in the same order.
#[inline(always)]
pub const fn flow_v6(key: HashKey, source: [u64; 2], destination: [u64; 2], ports: u32, protocol: u8) -> u64 {
    let words = [source[0], source[1], destination[0], destination[1]];
    siphash13(key, words, ports as u64 | ((protocol as u64) << 32) | length(37))
}

/// Hash of a service key. Not secret: the controller builds the table, so it can bound every probe, and a packet that
/// matches nothing costs at most that bound.
#[inline(always)]
pub const fn table_hash(words: [u64; 3], seed: u32) -> u64 {
    let mut hash = seed as u64 | ((seed as u64) << 32);
    let mut i = 0;
    while i < 3 {
        hash = (hash ^ words[i]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
        i += 1;
    }
    hash
}

#[inline(always)]
const fn length(bytes: u64) -> u64 {
    bytes << 56
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    fn reference(key: HashKey, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(key.k0, key.k1);
        hasher.write(bytes);
        hasher.finish()
    }

    fn words(bytes: [u8; 16]) -> [u64; 2] {
        let (a, b) = bytes.split_at(8);
        [a, b].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes")))
    }

    proptest! {
        #[test]
        fn the_flow_hash_is_siphash_of_the_tuple_as_it_is_on_the_wire(
            k0: u64, k1: u64, src4: [u8; 4], dst4: [u8; 4], src6: [u8; 16], dst6: [u8; 16], ports: [u8; 4], protocol: u8,
        ) {
            let key = HashKey { k0, k1 };
            let (s, d, p) = (u32::from_le_bytes(src4), u32::from_le_bytes(dst4), u32::from_le_bytes(ports));
            prop_assert_eq!(source_v4(key, s), reference(key, &src4));
            prop_assert_eq!(source_v6(key, words(src6)), reference(key, &src6));
            let mut tuple = [&src4[..], &dst4, &ports, &[protocol]].iter().fold([0u8; 40], fill);
            prop_assert_eq!(flow_v4(key, s, d, p, protocol), reference(key, &tuple[..13]));
            tuple = [&src6[..], &dst6, &ports, &[protocol]].iter().fold([0u8; 40], fill);
            prop_assert_eq!(flow_v6(key, words(src6), words(dst6), p, protocol), reference(key, &tuple[..37]));
        }
    }

    /// Appends `part`; the last byte keeps the length.
    fn fill(mut buffer: [u8; 40], part: &&[u8]) -> [u8; 40] {
        let at = usize::from(buffer[39]);
        buffer[at..at + part.len()].copy_from_slice(part);
        buffer[39] += part.len() as u8;
        buffer
    }
}

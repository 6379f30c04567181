//! Ethernet II (IEEE 802.3) and VLAN tags (IEEE 802.1Q).

/// Destination, source, type.
pub const HEADER_LEN: usize = 14;
/// One VLAN tag.
pub const TAG_LEN: usize = 4;
/// Tags looked through: QinQ has two.
pub const MAX_TAGS: usize = 2;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A MAC address in the low 48 bits, in memory order: as maps have it.
#[inline(always)]
pub const fn mac_word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

/// The destination's [`mac_word`].
#[inline(always)]
pub const fn destination(header: &[u8; HEADER_LEN]) -> u64 {
    let [a, b, c, d, e, f, ..] = *header;
    mac_word([a, b, c, d, e, f])
}

/// Whether a frame for this address goes to everybody or to a group. A router forwards no such packet (RFC 1812 section
/// 5.3.4).
#[inline(always)]
pub const fn is_group(destination: u64) -> bool {
    destination.to_ne_bytes()[0] & 1 != 0
}

/// Whether this type is followed by a VLAN tag and another type.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == 0x8100 || ethertype == 0x88a8
}

/// Length of the tags before an IP header at `l3`. Masked, so that the kernel's verifier knows how much it is at most.
#[inline(always)]
pub const fn tags_len(l3: usize) -> usize {
    l3.wrapping_sub(HEADER_LEN) & (TAG_LEN | (2 * TAG_LEN))
}

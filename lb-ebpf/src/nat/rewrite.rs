//! New addresses and ports, and every checksum that covers them (RFC 3022 section 4.1).

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{DropReason, PROTOCOL_TCP},
    checksum::Change,
};

use crate::{
    cursor::CursorMut,
    forward::encap::UNTAGGED,
    journey::{Journey, unmapped},
    parse::Address,
};

/// What a packet gets. Addresses as in [`Journey`].
#[derive(Clone, Copy)]
pub struct Endpoints<'a> {
    // References, because the words would fill the stack.
    pub source: &'a [u64; 2],
    pub destination: &'a [u64; 2],
    /// Not of later fragments, which have none.
    pub ports: u32,
    /// Of fragments: the new one, as [`Journey::identification`].
    pub identification: Option<u32>,
}

/// Rewrites all but the MAC addresses, and takes one from the TTL, which is at least 2.
#[inline(always)]
pub fn rewrite(ctx: &mut XdpContext, journey: &Journey, new: &Endpoints<'_>) -> Result<(), DropReason> {
    write(&mut CursorMut::new(ctx), journey, new).ok_or(DropReason::TruncatedHeader)
}

#[inline(always)]
fn write(cursor: &mut CursorMut<'_>, journey: &Journey, new: &Endpoints<'_>) -> Option<()> {
    let change = header(cursor, journey, new)?;
    let l4 = journey.transport_at();
    if journey.is_later_fragment() {
        Some(())
    } else {
        transport(cursor, l4, journey.protocol == PROTOCOL_TCP, new.ports, change)
    }
}

/// [`rewrite`] of a whole packet without tags, options and extension headers.
#[inline(always)]
pub fn plain<A: Address>(ctx: &mut XdpContext, is_tcp: bool, new: &Endpoints<'_>) -> Result<(), DropReason> {
    write_plain::<A>(&mut CursorMut::new(ctx), is_tcp, new).ok_or(DropReason::TruncatedHeader)
}

#[inline(always)]
fn write_plain<A: Address>(cursor: &mut CursorMut<'_>, is_tcp: bool, new: &Endpoints<'_>) -> Option<()> {
    let change = if A::VERSION == 4 { ipv4(cursor, UNTAGGED, new)? } else { ipv6(cursor, UNTAGGED, new)? };
    transport(cursor, UNTAGGED + A::HEADER_LEN, is_tcp, new.ports, change)
}

/// The IP header alone. Says what became of its addresses, which checksums behind it cover too.
#[inline(always)]
pub fn header(cursor: &mut CursorMut<'_>, journey: &Journey, new: &Endpoints<'_>) -> Option<Change> {
    let l3 = journey.ip_at();
    if journey.family == 4 {
        return ipv4(cursor, l3, new);
    }
    if let Some(identification) = new.identification {
        let at = journey.fragment_header as usize & MAX_FRAGMENT_HEADER;
        cursor.write(at + IDENTIFICATION, identification)?;
    }
    ipv6(cursor, l3, new)
}

#[inline(always)]
fn ipv4(cursor: &mut CursorMut<'_>, l3: usize, new: &Endpoints<'_>) -> Option<Change> {
    // All at once: of two places that are looked at one after the other the verifier knows only one.
    let [fragment, ttl_and_sum, source, destination]: [u32; 4] = cursor.read(l3 + IDENTIFICATION)?;
    let (new_source, new_destination) = (unmapped(*new.source), unmapped(*new.destination));
    let addresses = Change::NONE.word32(source, new_source).word32(destination, new_destination);
    let (old_ttl, sum) = (ttl_and_sum as u16, (ttl_and_sum >> 16) as u16);
    // The TTL is the first byte, so the lower one.
    let ttl = old_ttl.wrapping_sub(1);
    let mut new_fragment = fragment;
    let mut header = addresses.word16(old_ttl, ttl);
    if let Some(identification) = new.identification {
        new_fragment = (fragment & 0xffff_0000) | (identification & 0xffff);
        header = header.word32(fragment, new_fragment);
    }
    let ttl_and_sum = u32::from(ttl) | (u32::from(header.mend(sum)) << 16);
    cursor.write(l3 + IDENTIFICATION, [new_fragment, ttl_and_sum, new_source, new_destination])?;
    Some(addresses)
}

#[inline(always)]
fn ipv6(cursor: &mut CursorMut<'_>, l3: usize, new: &Endpoints<'_>) -> Option<Change> {
    let [hop_limit] = cursor.at::<1>(l3 + HOP_LIMIT)?;
    *hop_limit = hop_limit.wrapping_sub(1);
    addresses_v6(cursor, l3, new)
}

/// The addresses of an IPv6 header, which has no checksum.
#[inline(always)]
pub fn addresses_v6(cursor: &mut CursorMut<'_>, l3: usize, new: &Endpoints<'_>) -> Option<Change> {
    let [a, b, c, d]: [u64; 4] = cursor.read(l3 + ADDRESSES_V6)?;
    let ([e, f], [g, h]) = (*new.source, *new.destination);
    cursor.write(l3 + ADDRESSES_V6, [e, f, g, h])?;
    Some(Change::NONE.word64(a, e).word64(b, f).word64(c, g).word64(d, h))
}

/// Whom a packet comes from, if its [`Journey`] says something else.
#[inline(always)]
pub fn source(ctx: &mut XdpContext, journey: &Journey) -> Result<[u64; 2], DropReason> {
    let (cursor, l3) = (CursorMut::new(ctx), journey.ip_at());
    let source = if journey.family == 4 {
        cursor.read(l3 + SOURCE_V4).map(u32::service_words)
    } else {
        cursor.read(l3 + ADDRESSES_V6)
    };
    source.ok_or(DropReason::TruncatedHeader)
}

/// The ports, and the checksum of the header at `l4`.
#[inline(always)]
fn transport(cursor: &mut CursorMut<'_>, l4: usize, is_tcp: bool, ports: u32, change: Change) -> Option<()> {
    if is_tcp { tcp(cursor, l4, ports, change) } else { udp(cursor, l4, ports, change) }
}

#[inline(always)]
fn tcp(cursor: &mut CursorMut<'_>, l4: usize, ports: u32, change: Change) -> Option<()> {
    let change = change.word32(cursor.read(l4)?, ports);
    let sum: u16 = cursor.read(l4 + CHECKSUM_TCP)?;
    cursor.write(l4, ports)?;
    cursor.write(l4 + CHECKSUM_TCP, change.mend(sum))
}

#[inline(always)]
fn udp(cursor: &mut CursorMut<'_>, l4: usize, ports: u32, change: Change) -> Option<()> {
    let [old_ports, rest]: [u32; 2] = cursor.read(l4)?;
    let sum = change.word32(old_ports, ports).mend_udp((rest >> 16) as u16);
    cursor.write(l4, [ports, (rest & 0xffff) | (u32::from(sum) << 16)])
}

/// A bit for each offset of a fragment header: as [`Journey::transport_at`].
const MAX_FRAGMENT_HEADER: usize = 0x3ff;

const IDENTIFICATION: usize = 4;
const SOURCE_V4: usize = 12;
const HOP_LIMIT: usize = 7;
const ADDRESSES_V6: usize = 8;
/// Where it stands in a TCP header.
pub const CHECKSUM_TCP: usize = 16;

//! New addresses and ports, and every checksum that covers them (RFC 3022 section 4.1).

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{DropReason, PROTOCOL_TCP},
    checksum::Change,
};

use crate::{
    cursor::CursorMut,
    journey::{FRAGMENT_LATER, Journey, unmapped},
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
    // The parser's words, which the verifier does not know to be small.
    let (l3, l4) = (journey.l3 as usize & MAX_L3, journey.l4 as usize & MAX_L4);
    let mut cursor = CursorMut::new(ctx);
    let written =
        if journey.family == 4 { ipv4(&mut cursor, l3, new) } else { ipv6(&mut cursor, journey, l3, new) };
    let change = written.ok_or(DropReason::TruncatedHeader)?;
    if journey.fragment == FRAGMENT_LATER {
        return Ok(());
    }
    let written = if journey.protocol == PROTOCOL_TCP {
        tcp(&mut cursor, l4, new.ports, change)
    } else {
        udp(&mut cursor, l4, new.ports, change)
    };
    written.ok_or(DropReason::TruncatedHeader)
}

/// Says what the change of addresses means to checksums behind the header.
#[inline(always)]
fn ipv4(cursor: &mut CursorMut<'_>, l3: usize, new: &Endpoints<'_>) -> Option<Change> {
    let [ttl_and_sum, source, destination]: [u32; 3] = cursor.read(l3 + TTL_V4)?;
    let (new_source, new_destination) = (unmapped(*new.source), unmapped(*new.destination));
    let addresses = Change::NONE.word32(source, new_source).word32(destination, new_destination);
    let (old_ttl, sum) = (ttl_and_sum as u16, (ttl_and_sum >> 16) as u16);
    // The TTL is the first byte, so the lower one.
    let ttl = old_ttl.wrapping_sub(1);
    let mut header = addresses.word16(old_ttl, ttl);
    if let Some(identification) = new.identification {
        let identification = identification as u16;
        header = header.word16(cursor.read(l3 + IDENTIFICATION)?, identification);
        cursor.write(l3 + IDENTIFICATION, identification)?;
    }
    let ttl_and_sum = u32::from(ttl) | (u32::from(header.mend(sum)) << 16);
    cursor.write(l3 + TTL_V4, [ttl_and_sum, new_source, new_destination])?;
    Some(addresses)
}

/// The same of IPv6, whose header has no checksum.
#[inline(always)]
fn ipv6(cursor: &mut CursorMut<'_>, journey: &Journey, l3: usize, new: &Endpoints<'_>) -> Option<Change> {
    let [hop_limit] = cursor.at::<1>(l3 + HOP_LIMIT)?;
    *hop_limit = hop_limit.wrapping_sub(1);
    let [a, b, c, d]: [u64; 4] = cursor.read(l3 + ADDRESSES_V6)?;
    let ([e, f], [g, h]) = (*new.source, *new.destination);
    cursor.write(l3 + ADDRESSES_V6, [e, f, g, h])?;
    if let Some(identification) = new.identification {
        let at = journey.fragment_header as usize & MAX_L4;
        cursor.write(at + IDENTIFICATION, identification)?;
    }
    Some(Change::NONE.word64(a, e).word64(b, f).word64(c, g).word64(d, h))
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

/// Largest offsets there can be, and a bit for each: an IP header stands behind two tags at most, a transport header
/// behind 552 bytes more.
const MAX_L3: usize = 0x1f;
const MAX_L4: usize = 0x3ff;

const IDENTIFICATION: usize = 4;
const TTL_V4: usize = 8;
const HOP_LIMIT: usize = 7;
const ADDRESSES_V6: usize = 8;
const CHECKSUM_TCP: usize = 16;

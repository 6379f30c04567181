//! From a frame with a packet to one with an ICMP error that quotes it.

use aya_ebpf::{
    bindings::{xdp_action::XDP_TX, xdp_md},
    helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use core::ptr::null_mut;
use lb_common::{
    abi::{DropReason, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
    checksum,
    wire::{
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LEN, MAX_TAGS, TAG_LEN},
        icmp, ipv4, ipv6,
    },
};

use super::draft::Draft;
use crate::{
    cursor::{Cursor, CursorMut},
    forward::{read_mac_words, write_mac_words},
    journey::unmapped,
    refusal::{self, Outcome},
};

/// Makes the frame what this CPU's [`Draft`] says, MAC addresses swapped. After an error it may be cut and must be dropped.
#[inline(always)]
pub fn make(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_make(ctx.ctx) })
}

/// [`make`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_make(ctx: *mut xdp_md) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    let made = Draft::of_this_cpu().and_then(|draft| {
        move_edges(&mut ctx, draft)?;
        write(&mut ctx, draft).ok_or(DropReason::TruncatedHeader)
    });
    refusal::to_word(made.map(|()| XDP_TX).map_err(Into::into))
}

/// Length of the headers before the quoted packet.
#[inline(always)]
const fn headers_len(family: u32) -> u32 {
    icmp::HEADER_LEN as u32 + if family == 4 { ipv4::HEADER_LEN as u32 } else { ipv6::HEADER_LEN as u32 }
}

/// Cuts the frame behind the quoted part, makes its front as long as the new headers, and moves the Ethernet header there.
#[inline(always)]
fn move_edges(ctx: &mut XdpContext, draft: &Draft) -> Result<(), DropReason> {
    let ethernet: [u8; MAX_LEN] = *Cursor::new(ctx).at(0).ok_or(DropReason::TruncatedHeader)?;
    let surplus = draft.frame_len as i32 - (draft.quote_at + draft.quote_len) as i32;
    // SAFETY: a live context. No header reference exists: they borrow the context, which is borrowed mutably here.
    if surplus > 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, -surplus) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    let front = draft.quote_at as i32 - (draft.l3 + headers_len(draft.family)) as i32;
    // SAFETY: as above.
    if front != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, front) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    let mut cursor = CursorMut::new(ctx);
    // As much as there may be of tags; what of it is not theirs will be written over.
    *cursor.at(0).ok_or(DropReason::TruncatedHeader)? = ethernet;
    swap_macs(&mut cursor)
}

/// An Ethernet header with all the tags it may have.
const MAX_LEN: usize = HEADER_LEN + MAX_TAGS * TAG_LEN;

/// Back to where the frame came from.
#[inline(always)]
pub fn swap_macs(cursor: &mut CursorMut<'_>) -> Result<(), DropReason> {
    let (destination, source) = read_mac_words(cursor).ok_or(DropReason::TruncatedHeader)?;
    write_mac_words(cursor, source, destination)
}

#[inline(always)]
fn write(ctx: &mut XdpContext, draft: &Draft) -> Option<()> {
    let tags_len = ethernet::tags_len(draft.l3 as usize);
    let icmp_len = icmp::HEADER_LEN as u32 + draft.quote_len;
    let mut cursor = CursorMut::new(ctx).skip(tags_len);
    let (l4, mut sum) = if draft.family == 4 {
        cursor.write(TYPE, ETHERTYPE_IPV4.to_be())?;
        let header = ipv4::outer_header(ipv4::Outer {
            traffic_class: 0,
            total_len: (ipv4::HEADER_LEN as u32 + icmp_len) as u16,
            identification: 0,
            dont_fragment: 0,
            protocol: PROTOCOL_ICMP,
            source: unmapped(draft.source),
            destination: unmapped(draft.destination),
        });
        cursor.write(HEADER_LEN, header)?;
        (HEADER_LEN + ipv4::HEADER_LEN, 0)
    } else {
        cursor.write(TYPE, ETHERTYPE_IPV6.to_be())?;
        cursor.write(HEADER_LEN, ipv6::outer_head(0, 0, icmp_len as u16, PROTOCOL_ICMPV6))?;
        let (source, destination) = (draft.source, draft.destination);
        cursor.write(HEADER_LEN + 8, [source[0], source[1], destination[0], destination[1]])?;
        // RFC 8200 section 8.1.
        let pseudo = u64::from(icmp_len.to_be()) + u64::from(u32::from(PROTOCOL_ICMPV6).to_be());
        let addresses =
            halves(source[0]) + halves(source[1]) + halves(destination[0]) + halves(destination[1]);
        (HEADER_LEN + ipv6::HEADER_LEN, pseudo + addresses)
    };
    cursor.write(l4, draft.header.to_be())?;
    // SAFETY: a live context.
    sum += unsafe { ballast_sum(ctx.ctx, (tags_len + l4) as u32, icmp_len) };
    CursorMut::new(ctx).skip(tags_len).write(l4 + 2, checksum::of(sum))
}

/// Where the type stands behind the tags.
const TYPE: usize = HEADER_LEN - 2;

#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// Sum of `len` bytes at `at`, a multiple of four and less than 1,536, as a checksum has it. In chunks of a length that the
/// verifier, and the helper of some kernels, can do with.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_sum(ctx: *mut xdp_md, at: u32, len: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let cursor = Cursor::new(&ctx);
    // Masks for the verifier. With bits in common, or the compiler would make an OR of their sum, which 6.1 can't bound.
    let (at, len) = ((at & 0x7ff) as usize, (len & 0x7fc) as usize);
    let mut sum = 0;
    if len & 1024 != 0 {
        sum = chunk::<512>(&cursor, at, sum);
        sum = chunk::<512>(&cursor, at + 512, sum);
    }
    // Each where the longer ones end.
    sum = chunk_of_len::<512>(&cursor, at, len, sum);
    sum = chunk_of_len::<256>(&cursor, at, len, sum);
    sum = chunk_of_len::<128>(&cursor, at, len, sum);
    sum = chunk_of_len::<64>(&cursor, at, len, sum);
    sum = chunk_of_len::<32>(&cursor, at, len, sum);
    sum = chunk_of_len::<16>(&cursor, at, len, sum);
    sum = chunk_of_len::<8>(&cursor, at, len, sum);
    sum = chunk_of_len::<4>(&cursor, at, len, sum);
    sum.into()
}

#[inline(always)]
fn chunk_of_len<const N: usize>(cursor: &Cursor<'_>, at: usize, len: usize, sum: u32) -> u32 {
    if len & N == 0 { sum } else { chunk::<N>(cursor, at + (len & !(2 * N - 1)), sum) }
}

#[inline(always)]
fn chunk<const N: usize>(cursor: &Cursor<'_>, at: usize, sum: u32) -> u32 {
    let Some(bytes) = cursor.at::<N>(at) else { return sum };
    // SAFETY: the helper reads as many bytes as there are.
    unsafe { bpf_csum_diff(null_mut(), 0, bytes.as_ptr().cast_mut().cast(), N as u32, sum) as u32 }
}

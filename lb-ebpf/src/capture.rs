//! Copies of packets, as they came and as they leave, for whoever captures them. A program that is not loaded for that
//! (`CAPTURE`) has none of it: it is dead code, which the verifier takes out.
//!
//! What the copies are made of lies in the scratch of the CPU, and what becomes of the packet in its
//! [`Trace`](lb_common::abi::Trace). Both steps are functions of their own, and not global ones, which some kernels verify even
//! where nobody calls them.

use core::{
    ptr::{self, read_volatile},
    slice,
};

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_REDIRECT, XDP_TX},
        xdp_md,
    },
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use lb_common::{
    abi::{
        CAPTURE_ANY_SERVICE, COARSE_UNIT_NS, CaptureCounters, CaptureScratch, CaptureSettings,
        CapturedPacket, MAX_SNAPLEN, TRACE_REPLY, TRACE_SERVICE, Trace, WANTED, WANTED_AS_REPLY, WANTED_NOT,
        WANTED_TO_COUNT,
    },
    wire::{
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::Ipv4,
        ipv6::Ipv6,
        ne64,
    },
};

use crate::{
    atomic, clock,
    cursor::Cursor,
    maps,
    parse::{self, Address as _},
    refusal::{self, Outcome},
    service, settings,
};

/// A packet comes.
#[inline(always)]
pub fn begin(ctx: &XdpContext) {
    if settings::capture() {
        before(ctx.ctx);
    }
}

/// That is what becomes of it.
#[inline(always)]
pub fn end(ctx: &XdpContext, outcome: Outcome) {
    if settings::capture() {
        after(ctx.ctx, refusal::to_word(outcome));
    }
}

/// [`begin`] for the verifier, which need not know what comes of it. Returns what nobody needs, as [`after`].
#[inline(never)]
fn before(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    let (Some(scratch), Some(settings)) = (scratch(), maps::CAPTURE_SETTINGS.get_ptr(0)) else { return 0 };
    // SAFETY: this CPU's entry, which lives as long as the map; nothing interrupts the program on its CPU.
    let scratch = unsafe { &mut *scratch };
    scratch.wanted = WANTED_NOT;
    let wanted = wanted(&ctx, settings);
    if wanted == WANTED_NOT {
        return 0;
    }
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: an aligned word of a live map entry; volatile, because the controller moves it on.
    if now >= unsafe { read_volatile(&raw const (*settings).deadline) } {
        return 0;
    }
    if is_beyond(settings, now) {
        // It is only counted, if it is wanted at all: not worth a copy.
        scratch.wanted = wanted | WANTED_TO_COUNT;
        return 0;
    }
    let length = Cursor::new(&ctx).whole_len() as u32;
    let packet = &mut scratch.packet;
    packet.received = now;
    packet.ifindex = ctx.ingress_ifindex() as u32;
    packet.queue = ctx.rx_queue_index();
    packet.length = length;
    packet.kept = 0;
    let to = scratch.frames.as_mut_ptr();
    if let Some(kept) = keep(&ctx, settings, length, to) {
        scratch.packet.kept = kept;
        scratch.wanted = wanted;
    }
    0
}

/// Whether this packet is wanted, as far as it can be said now.
#[inline(always)]
fn wanted(ctx: &XdpContext, settings: *const CaptureSettings) -> u64 {
    // SAFETY: aligned fields of a live map entry; volatile, because the controller changes them.
    let (deadline, ifindex) = unsafe {
        (read_volatile(&raw const (*settings).deadline), read_volatile(&raw const (*settings).ifindex))
    };
    // Nobody listens any more. This clock costs nothing, so that this is all that is left then.
    if clock::now() * COARSE_UNIT_NS >= deadline {
        return WANTED_NOT;
    }
    if ifindex != 0 && ifindex != ctx.ingress_ifindex() as u32 {
        return WANTED_NOT;
    }
    match ends(ctx, settings) {
        Ends::Any | Ends::From => WANTED,
        Ends::To | Ends::Others if service::translates() => WANTED_AS_REPLY,
        Ends::To | Ends::Others => WANTED_NOT,
    }
}

/// [`end`] for the verifier.
#[inline(never)]
fn after(ctx: *mut xdp_md, outcome: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let (Some(scratch), Some(settings)) = (scratch(), maps::CAPTURE_SETTINGS.get_ptr(0)) else { return 0 };
    // SAFETY: as above.
    let scratch = unsafe { &mut *scratch };
    let wanted = scratch.wanted;
    if wanted == WANTED_NOT {
        return 0;
    }
    let only_counted = wanted & WANTED_TO_COUNT != 0;
    let Some(trace) = maps::TRACE.get_ptr(0) else { return 0 };
    let action = outcome as u32 & 0xff;
    // SAFETY: as above.
    let (actions, service) = unsafe {
        (read_volatile(&raw const (*settings).actions), read_volatile(&raw const (*settings).service))
    };
    // SAFETY: this CPU's entry, as above.
    let trace = unsafe { &*trace };
    let is_of_service =
        service == CAPTURE_ANY_SERVICE || (trace.knows(TRACE_SERVICE) && trace.service == service);
    if (actions >> (action & 31)) & 1 == 0 || !is_of_service {
        return 0;
    }
    let leaves = action == XDP_TX || action == XDP_REDIRECT;
    let is_wanted = wanted & WANTED_AS_REPLY == 0
        || (leaves && trace.knows(TRACE_REPLY) && matches!(ends(&ctx, settings), Ends::To));
    if !is_wanted {
        return 0;
    }
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if only_counted || !may_come(settings, now) {
        count(|counters| &raw mut counters.beyond_rate);
        return 0;
    }
    let packet = &mut scratch.packet;
    packet.decided = now;
    copy(trace, &mut packet.trace);
    packet.action = action;
    packet.reason = if action == XDP_DROP { (outcome >> 8) as u32 & 0xff } else { 0 };
    packet.length_after = 0;
    packet.kept_after = 0;
    // SAFETY: a field of a live map entry. Volatile, so that the verifier sees the bound of what is used.
    let kept = unsafe { read_volatile(&raw const packet.kept) };
    if kept > MAX_SNAPLEN {
        return 0;
    }
    let mut len = size_of::<CapturedPacket>() + kept as usize;
    if leaves {
        let length = Cursor::new(&ctx).whole_len() as u32;
        // SAFETY: as many bytes are left behind it as a frame may have.
        let to = unsafe { scratch.frames.as_mut_ptr().add(kept as usize) };
        let Some(kept_after) = keep(&ctx, settings, length, to) else { return 0 };
        scratch.packet.length_after = length;
        scratch.packet.kept_after = kept_after;
        len += kept_after as usize;
    }
    // SAFETY: the frames follow the packet in memory, with so much room.
    let record = unsafe { slice::from_raw_parts((&raw const scratch.packet).cast::<u8>(), len) };
    if maps::CAPTURED.output::<[u8]>(record, 0).is_err() {
        count(|counters| &raw mut counters.no_room);
    }
    0
}

/// Copies as much of the frame as is kept; says how much that is.
#[inline(always)]
fn keep(ctx: &XdpContext, settings: *const CaptureSettings, length: u32, to: *mut u8) -> Option<u32> {
    // SAFETY: a field of a live map entry.
    let snaplen = unsafe { read_volatile(&raw const (*settings).snaplen) };
    let kept = if length < snaplen { length } else { snaplen };
    // The kernel wants to see both bounds on the number that it is given. 6.1 learns no lower one from a comparison with 0:
    // nothing becomes more than there is room for.
    let kept = (kept.wrapping_sub(1) & 0x3fff) + 1;
    if kept > MAX_SNAPLEN {
        return None;
    }
    let failed = if settings::multi_buffer() {
        // SAFETY: a live context, and room for so many bytes.
        unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, to.cast(), kept) != 0 }
    } else {
        // Before 5.18 there is no other way to copy a number of bytes that is not known in advance.
        // SAFETY: room for so many bytes; the kernel reads what it can and says if it can't.
        unsafe { bpf_probe_read_kernel(to.cast(), kept, ctx.data() as *const _) != 0 }
    };
    if failed { None } else { Some(kept) }
}

/// Word by word, where an assignment would be a call that goes from byte to byte.
#[inline(always)]
fn copy(from: &Trace, to: &mut Trace) {
    let (from, to) = (ptr::from_ref(from).cast::<u64>(), ptr::from_mut(to).cast::<u64>());
    for word in 0..size_of::<Trace>() / size_of::<u64>() {
        // SAFETY: both are made of as many aligned words.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}

/// Whether a client whose packets are wanted is at an end of the packet, as it is now.
enum Ends {
    /// Everybody's are.
    Any,
    From,
    To,
    Others,
}

#[inline(always)]
fn ends(ctx: &XdpContext, settings: *const CaptureSettings) -> Ends {
    // SAFETY: these fields of the live map entry do not change during a capture.
    let (client, mask) = unsafe { (&(*settings).client, &(*settings).client_mask) };
    let mask = [ne64(mask, 0), ne64(mask, 8)];
    if mask[0] | mask[1] == 0 {
        return Ends::Any;
    }
    let client = [ne64(client, 0), ne64(client, 8)];
    let is_wanted =
        |address: [u64; 2]| ((address[0] ^ client[0]) & mask[0]) | ((address[1] ^ client[1]) & mask[1]) == 0;
    match addresses(ctx) {
        Some((source, _)) if is_wanted(source) => Ends::From,
        Some((_, destination)) if is_wanted(destination) => Ends::To,
        _ => Ends::Others,
    }
}

/// Source and destination of an IP packet.
#[inline(always)]
fn addresses(ctx: &XdpContext) -> Option<([u64; 2], [u64; 2])> {
    let cursor = Cursor::new(ctx);
    let (l3, ethertype) = parse::behind_tags(&cursor)?;
    match ethertype {
        ETHERTYPE_IPV4 => {
            let header = Ipv4(cursor.at(l3)?);
            Some((header.source().service_words(), header.destination().service_words()))
        }
        ETHERTYPE_IPV6 => {
            let header = Ipv6(cursor.at(l3)?);
            Some((header.source().service_words(), header.destination().service_words()))
        }
        _ => None,
    }
}

/// Whether one more packet may be captured now. Several CPUs at it may be in each other's way, but hardly three times.
#[inline(always)]
fn may_come(settings: *const CaptureSettings, now: u64) -> bool {
    let Some(rate) = maps::CAPTURE_RATE.get_ptr_mut(0) else { return false };
    for _ in 0..3 {
        // SAFETY: fields of live map entries; all CPUs change the word atomically.
        unsafe {
            let word = &raw mut (*rate).next;
            let was = read_volatile(word);
            let next = if was < now { now } else { was };
            if next - now > (*settings).burst {
                return false;
            }
            if atomic::compare_exchange(word, was, next + (*settings).interval) {
                return true;
            }
        }
    }
    false
}

/// Whether no packet may be captured now.
#[inline(always)]
fn is_beyond(settings: *const CaptureSettings, now: u64) -> bool {
    let Some(rate) = maps::CAPTURE_RATE.get_ptr(0) else { return true };
    // SAFETY: as above.
    unsafe { read_volatile(&raw const (*rate).next).saturating_sub(now) > (*settings).burst }
}

/// Counts a wanted packet that is not captured.
#[inline(always)]
fn count(counter: impl FnOnce(&mut CaptureCounters) -> *mut u64) {
    if let Some(counters) = maps::CAPTURE_COUNTERS.get_ptr_mut(0) {
        // SAFETY: this CPU's entry, which nobody else writes.
        unsafe { *counter(&mut *counters) += 1 };
    }
}

#[inline(always)]
fn scratch() -> Option<*mut CaptureScratch> {
    // SAFETY: takes nothing.
    maps::CAPTURE_SCRATCH.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

//! Fragments: the first one is noted, the others follow it.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX},
        xdp_md,
    },
    programs::XdpContext,
};
use lb_common::{
    abi::{
        CHOSEN_FRAGMENT, DropReason, FATE_FORWARD, FATE_PASS, FATE_REPLY, FragmentFate, FragmentKey,
        PASSED_FRAGMENT, PASSED_NO_SERVICE, TRACE_REPLY,
    },
    wire::{
        extension::{self, EXTENSION_LEN, Extension},
        ipv4::Ipv4,
    },
};

use crate::{
    atomic, clock,
    cursor::Cursor,
    journey::{Journey, bytes},
    maps, nat,
    refusal::{self, Outcome},
    select, service, settings, trace, uncommon,
};

/// The note about a first fragment that has not gone its way yet: nothing is known. Whoever gives the packet new addresses
/// writes all of it but the key; any other forwarded packet's is made of its [`Journey`].
#[inline(always)]
pub fn begin() -> Result<(), DropReason> {
    *draft()? = FragmentFate::default();
    Ok(())
}

/// This CPU's note.
#[inline(always)]
pub fn draft() -> Result<&'static mut FragmentFate, DropReason> {
    let fate = maps::FATE.get_ptr_mut(0).ok_or(DropReason::BadMapEntry)?;
    // SAFETY: this CPU's entry, which lives as long as the map.
    Ok(unsafe { &mut *fate })
}

/// Notes what became of a first fragment, for the others; at least that what is known of an earlier packet with its
/// identification is not about them.
#[inline(always)]
pub fn note(journey: &Journey, outcome: Outcome) {
    ballast_note_fragment(match outcome {
        Ok(XDP_TX | XDP_REDIRECT) => LEFT,
        Ok(_) if service::lives_on_journeys_end(journey.fragments_protocol()) => PASSED,
        _ => LOST,
    });
}

const LEFT: u32 = 0;
/// To the host, though it was for a VIP.
const PASSED: u32 = 1;
/// Dropped, or none of our business.
const LOST: u32 = 2;

/// [`note`] for the verifier. Returns what nobody needs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_note_fragment(what: u32) -> u64 {
    let (Ok(journey), Ok(fate)) = (Journey::of_this_cpu(), draft()) else { return 0 };
    if what == LOST {
        if settings::side_effects() {
            // It fails if there is no such note, which is what is wanted.
            let _ = maps::FRAGMENTS.remove(key(journey));
        }
        return 0;
    }
    fate.seen = clock::now() as u32;
    if what == PASSED {
        fate.kind = FATE_PASS;
    } else if fate.translated == 0 {
        fate.kind = FATE_FORWARD;
        fate.forwarding = journey.forwarding as u8;
        fate.service = journey.service;
        fate.backend = journey.backend;
        fate.hash = journey.hash;
    } else if fate.kind == FATE_REPLY {
        fate.missing = payload_len(journey).wrapping_neg();
    }
    if settings::side_effects() {
        // If there is no room, the others come without a note, and are counted.
        let _ = maps::FRAGMENTS.insert(key(journey), &*fate, 0);
    }
    0
}

/// Where a fragment goes that is not the first.
#[inline(always)]
pub fn follow(ctx: &XdpContext) -> Outcome {
    match refusal::from_word(ballast_recall())? {
        // Asked here: the stack has no room for it where the note was looked for.
        UNKNOWN => {
            let protocol = Journey::of_this_cpu()?.fragments_protocol();
            if service::lives_on_journeys_end(protocol) {
                Err(DropReason::Fragment.into())
            } else {
                trace::passed(PASSED_NO_SERVICE);
                Ok(XDP_PASS)
            }
        }
        SEND => uncommon::depart(ctx),
        // SAFETY: a live context.
        TRANSLATE => unsafe {
            ballast_count_fragment(ctx.ctx);
            refusal::from_word(nat::ballast_nat_follow(ctx.ctx))
        },
        verdict => Ok(verdict),
    }
}

/// In the place of an action: to the backend in the [`Journey`], after the fate in [`draft`], or nobody knows.
const SEND: u32 = 0x10;
const TRANSLATE: u32 = 0x11;
const UNKNOWN: u32 = 0x12;

/// Finds what became of the first fragment of this CPU's [`Journey`], and gives the stack back.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_recall() -> u64 {
    refusal::to_word(recall())
}

#[inline(always)]
fn recall() -> Outcome {
    let journey = Journey::of_this_cpu()?;
    // SAFETY: an entry of the map, which has entries as long as it lives.
    let note = maps::FRAGMENTS.get_ptr(key(journey)).map(|note| unsafe { &*note });
    let Some(fate) = note.filter(|fate| fate.is_recent(clock::now())) else { return Ok(UNKNOWN) };
    if fate.kind == FATE_PASS {
        trace::passed(PASSED_FRAGMENT);
        return Ok(XDP_PASS);
    }
    trace::note(|trace| {
        trace.service(fate.service);
        trace.backend(fate.backend, CHOSEN_FRAGMENT);
        trace.known |= if fate.kind == FATE_REPLY { TRACE_REPLY } else { 0 };
    });
    if fate.translated != 0 {
        *draft()? = *fate;
        return Ok(TRANSLATE);
    }
    let selected = select::Selected { hash: fate.hash, ..select::known(fate.backend)? };
    journey.to(&selected, fate.service, fate.forwarding);
    Ok(SEND)
}

/// Counts a fragment of the reply that [`draft`] is about. With the last of them the note ends, or those of another client's
/// packet that the backend gives the same identification could follow it.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_count_fragment(ctx: *mut xdp_md) -> u64 {
    let (Ok(journey), Ok(fate)) = (Journey::of_this_cpu(), draft()) else { return 0 };
    if fate.kind == FATE_REPLY && settings::side_effects() {
        // It fails if the note is gone, and then there is nothing to be done.
        let _ = count(&Cursor::new(&XdpContext::new(ctx)), journey);
    }
    0
}

#[inline(always)]
fn count(cursor: &Cursor<'_>, journey: &Journey) -> Option<()> {
    let (offset, has_more) = if journey.family == 4 {
        let header = Ipv4(cursor.at(journey.ip_at())?);
        (header.fragment_offset(), header.has_more_fragments())
    } else {
        // As in `Journey::transport_at`.
        let bytes = cursor.at((journey.fragment_header & 0x3ff) as usize)?;
        let header = Extension { kind: extension::FRAGMENT, bytes };
        (header.fragment_offset(), header.has_more_fragments())
    };
    // The last one says how much it all is, and so with what is before it.
    let change = if has_more { payload_len(journey).wrapping_neg() } else { u64::from(offset) * 8 };
    let key = key(journey);
    let note = maps::FRAGMENTS.get_ptr_mut(key)?;
    // SAFETY: an aligned word of a map entry. If it is another packet's by now, that one's note ends too early or too late.
    let missing = unsafe { atomic::add(&raw mut (*note).missing, change) }.wrapping_add(change);
    if missing == 0 {
        maps::FRAGMENTS.remove(key).ok()?;
    }
    Some(())
}

/// Bytes of the packet's payload that are in this fragment: behind IPv4's header, or IPv6's fragment header.
#[inline(always)]
fn payload_len(journey: &Journey) -> u64 {
    let behind =
        if journey.family == 4 { journey.l4 } else { journey.fragment_header + EXTENSION_LEN as u32 };
    journey.end().saturating_sub(behind).into()
}

#[inline(always)]
fn key(journey: &Journey) -> FragmentKey {
    FragmentKey {
        source: bytes(journey.source),
        destination: bytes(journey.destination),
        identification: journey.identification.to_ne_bytes(),
        protocol: journey.fragments_protocol(),
        _padding: [0; 3],
    }
}

//! Fragments: the first one is noted, the others follow it.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX},
        xdp_md,
    },
    programs::XdpContext,
};
use lb_common::abi::{DropReason, FATE_FORWARD, FATE_PASS, FragmentFate, FragmentKey};

use crate::{
    clock,
    journey::Journey,
    maps, nat,
    refusal::{self, Outcome},
    select, service, settings, uncommon,
};

/// Before a first fragment goes its way: nothing is known of the others'. Returns the note, to which whoever gives the
/// packet new addresses adds them, with all but the time; any other forwarded packet's is made of its [`Journey`].
#[inline(always)]
pub fn draft() -> Result<&'static mut FragmentFate, DropReason> {
    let fate = maps::FATE.get_ptr_mut(0).ok_or(DropReason::BadMapEntry)?;
    // SAFETY: this CPU's entry, which lives as long as the map.
    Ok(unsafe { &mut *fate })
}

/// Notes what became of a first fragment, for the others.
#[inline(always)]
pub fn note(journey: &Journey, outcome: Outcome) {
    let passed = match outcome {
        Ok(XDP_TX | XDP_REDIRECT) => false,
        Ok(_) if service::lives_on_journeys_end(journey.fragments_protocol()) => true,
        _ => return,
    };
    ballast_note_fragment(passed.into());
}

/// [`note`] for the verifier. Returns what nobody needs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ballast_note_fragment(passed: u32) -> u64 {
    let (Ok(journey), Ok(fate)) = (Journey::of_this_cpu(), draft()) else { return 0 };
    fate.seen = clock::now() as u32;
    if passed != 0 {
        fate.kind = FATE_PASS;
    } else if fate.translated == 0 {
        fate.kind = FATE_FORWARD;
        fate.forwarding = journey.forwarding as u8;
        fate.service = journey.service;
        fate.backend = journey.backend;
        fate.hash = journey.hash;
    }
    if settings::side_effects() {
        // If there is no room, the others come without a note, and are counted.
        let _ = maps::FRAGMENTS.insert(key(journey), &*fate, 0);
    }
    0
}

/// Where a fragment goes that is not the first.
#[inline(always)]
pub fn follow(ctx: &mut XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_follow_fragment(ctx.ctx) })
}

/// [`follow`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_follow_fragment(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(as_noted(&XdpContext::new(ctx)))
}

#[inline(always)]
fn as_noted(ctx: &XdpContext) -> Outcome {
    let journey = Journey::of_this_cpu()?;
    let note = maps::FRAGMENTS.get_ptr(key(journey));
    // SAFETY: an entry of the map, which has entries as long as it lives.
    let Some(fate) = note.map(|fate| unsafe { &*fate }).filter(|fate| fate.is_recent(clock::now())) else {
        let is_for_a_vip = service::lives_on_journeys_end(journey.fragments_protocol());
        return if is_for_a_vip { Err(DropReason::Fragment.into()) } else { Ok(XDP_PASS) };
    };
    if fate.kind == FATE_PASS {
        return Ok(XDP_PASS);
    }
    if fate.translated != 0 {
        *draft()? = *fate;
        // SAFETY: a live context.
        return refusal::from_word(unsafe { nat::ballast_nat_follow(ctx.ctx) });
    }
    let selected = select::Selected { hash: fate.hash, ..select::known(fate.backend)? };
    journey.to(&selected, fate.service, fate.forwarding);
    uncommon::depart(ctx)
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

#[inline(always)]
fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: as many bytes, none of which means more than itself.
    unsafe { core::mem::transmute(words) }
}

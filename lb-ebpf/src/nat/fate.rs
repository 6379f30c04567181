//! Fragments: what became of the first one, and the others after it.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::abi::{DropReason, FATE_REPLY, FORWARDING_NAT, FragmentFate};

use super::{
    entry::address,
    leg,
    rewrite::{self, Endpoints},
    way_back::WayBack,
};
use crate::{
    fragment,
    journey::{Journey, bytes},
    maps,
    refusal::{self, Outcome},
};

/// What there is to say besides addresses.
pub struct Fate {
    /// `FATE_*`.
    pub kind: u8,
    pub forwarding: u8,
    pub service: u32,
    pub backend: u32,
}

/// Notes where a first fragment went.
#[inline(always)]
pub fn note(journey: &Journey, noted: &mut FragmentFate, fate: &Fate, new: &Endpoints<'_>) {
    noted.kind = fate.kind;
    noted.forwarding = fate.forwarding;
    noted.translated = 1;
    noted.service = fate.service;
    noted.backend = fate.backend;
    noted.hash = 0;
    noted.source = bytes(*new.source);
    noted.destination = bytes(*new.destination);
    noted.identification = new.identification.unwrap_or(journey.identification).to_ne_bytes();
    note_way(noted, &WayBack { next_hop: 0, source_mac: 0, ifindex: 0 });
}

/// Notes by which way, of a reply.
#[inline(always)]
pub fn note_way(noted: &mut FragmentFate, way: &WayBack) {
    noted.ifindex = way.ifindex;
    noted.next_hop = way.next_hop;
    noted.source_mac = way.source_mac;
}

/// Sends a fragment that is not the first after the first one: this CPU's [`Journey`] after [`fragment::draft`], which says
/// `translated`.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_follow(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(follow(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn follow(ctx: &mut XdpContext) -> Outcome {
    let (journey, fate) = (Journey::of_this_cpu()?, fragment::draft()?);
    let identification = u32::from_ne_bytes(fate.identification);
    let new = Endpoints {
        source: &address(&fate.source),
        destination: &address(&fate.destination),
        ports: 0,
        identification: (fate.forwarding == FORWARDING_NAT).then_some(identification),
    };
    // Two closures, because the compiler makes a function of one that is called twice, and the verifier knows no packet
    // there.
    if fate.kind == FATE_REPLY {
        let account = leg::Account { service: fate.service, backend: fate.backend };
        leg::may_reply(journey, account)?;
        let way = WayBack { next_hop: fate.next_hop, source_mac: fate.source_mac, ifindex: fate.ifindex };
        return leg::to_client(ctx, journey, account, &way, |ctx| rewrite::rewrite(ctx, journey, &new));
    }
    let backend = maps::BACKENDS.get(fate.backend).ok_or(DropReason::BadMapEntry)?;
    leg::takes(backend, fate.service)?;
    let road = leg::Road { service: fate.service, index: fate.backend, backend, opens_flow: false };
    leg::to_backend(ctx, journey, &road, |ctx| rewrite::rewrite(ctx, journey, &new))
}

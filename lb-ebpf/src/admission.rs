//! Who may send to a service, and how many flows it takes a second.

use core::ptr::read_volatile;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, maps::lpm_trie::Key};
use lb_common::{
    abi::{
        DropReason, NewFlows, PROTOCOL_TCP, SOURCE_DENY, SOURCE_LIST_BITS, ServiceEntry, SourceKey,
        TRACK_NEVER, translates,
    },
    wire::transport,
};

use crate::{
    atomic, clock,
    journey::{Journey, bytes},
    maps,
    parse::{Address, Packet},
    refusal::{self, Refusal},
    settings, trace,
};

/// Whether the service takes this packet, as far as that can be said without its flow; see [`opens`].
#[inline(always)]
pub fn admit<A: Address>(service: &ServiceEntry, packet: &Packet<A>) -> Result<(), Refusal> {
    Journey::start(packet)?;
    admit_journey(service)
}

/// [`admit`] of this CPU's [`Journey`].
#[inline(always)]
pub fn admit_journey(service: &ServiceEntry) -> Result<(), Refusal> {
    // SAFETY: a reference.
    refusal::from_word(unsafe { ballast_admit(service) }).map(|_| ())
}

/// [`admit_journey`] for the verifier.
///
/// # Safety
///
/// A live service, or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_admit(service: *const ServiceEntry) -> u64 {
    // SAFETY: the caller's promise.
    let admitted = match unsafe { service.as_ref() } {
        Some(service) => ask(service),
        None => Err(DropReason::BadMapEntry),
    };
    refusal::to_word(admitted.map(|()| XDP_PASS).map_err(Refusal::from))
}

#[inline(always)]
fn ask(service: &ServiceEntry) -> Result<(), DropReason> {
    let journey = Journey::of_this_cpu()?;
    trace::note(|trace| trace.service(service.service));
    if service.source_list != 0 && is_denied(service.source_list, journey.source) {
        return Err(DropReason::SourceDenied);
    }
    let opens_flow = if journey.protocol == PROTOCOL_TCP {
        transport::opens_connection(journey.tcp_flags)
    } else {
        // Of other datagrams the flow's entry has to be looked for first.
        service.tracking == TRACK_NEVER && !translates(service.forwarding)
    };
    if opens_flow { opens(service) } else { Ok(()) }
}

/// Counts a packet that opens a flow, if the service may take one more this second.
#[inline(always)]
pub fn opens(service: &ServiceEntry) -> Result<(), DropReason> {
    let limit = service.new_flow_limit;
    if limit == 0 {
        return Ok(());
    }
    let Some(flows) = maps::NEW_FLOWS.get_ptr_mut(service.service) else {
        return Err(DropReason::BadMapEntry);
    };
    if take(flows, limit, clock::now() as u32) { Ok(()) } else { Err(DropReason::NewFlowLimit) }
}

/// Takes one of the second's flows, if there is one left.
#[inline(always)]
fn take(flows: *mut NewFlows, limit: u32, now: u32) -> bool {
    // SAFETY: an aligned word of a live map entry, which all CPUs change atomically.
    let (word, seen) = unsafe {
        let word = &raw mut (*flows).word;
        (word, read_volatile(word))
    };
    let is_old = (seen >> 32) as u32 != now;
    if !settings::side_effects() {
        return is_old || (seen as u32) < limit;
    }
    // SAFETY: as above.
    if is_old && unsafe { atomic::compare_exchange(word, seen, u64::from(now) << 32 | 1) } {
        return true;
    }
    // SAFETY: as above. If another CPU has just begun the second, its flows have to be read again.
    let seen = if is_old { unsafe { read_volatile(word) } } else { seen };
    // SAFETY: as above. Others may have taken the last ones since; what they and this one add beyond the limit is no
    // more than there are CPUs.
    (seen as u32) < limit && (unsafe { atomic::add(word, 1) } as u32) < limit
}

/// By the longest prefix of the list that covers the source. One that none covers is allowed.
#[inline(always)]
fn is_denied(list: u32, source: [u64; 2]) -> bool {
    let address = bytes(source);
    let key = Key::new(SOURCE_LIST_BITS + 128, SourceKey { list: list.to_ne_bytes(), address });
    maps::SOURCES.get(&key).is_some_and(|verdict| *verdict == SOURCE_DENY)
}

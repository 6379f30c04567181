//! Flows that are tracked: their entries, and what is noted on the way. The rules are in `lb_common::flow`.

// The benchmark's variants keep flows in the kernel's hash maps; the product never does.
#[cfg_attr(any(feature = "flows-in-lru", feature = "flows-in-percpu-lru"), path = "flow/lru.rs")]
mod bucket;

use core::{
    mem::offset_of,
    ptr::{addr_of, read_volatile, write_volatile},
};

use aya_ebpf::bindings::BPF_RB_AVAIL_DATA;
use lb_common::{
    abi::{
        BackendValue, CHOSEN_LEAST_LOADED, CHOSEN_NEW, CHOSEN_ROTATION, DropReason, SELECT_HASH,
        SELECT_LEAST_CONNECTIONS, SELECT_ROUND_ROBIN, ServiceEntry, Slot, TRACK_AUTO, limits,
    },
    flow::{
        self, Followed, Kind, Memory, NOTE_CONFIRMED, NOTE_EVICTED, NOTE_EXCEPTION, NOTE_INSERTED,
        NOTE_REFUSED,
    },
    wire::transport,
};

use self::bucket::Bucket;
use crate::{admission, atomic, clock, maps, select, settings, trace};

/// A packet whose flow may have an entry.
pub struct Question {
    /// Of the 5-tuple.
    pub hash: u64,
    pub slot: Slot,
    /// Its slot's number in `LOOKUP`.
    pub slot_number: u32,
    pub tcp_flags: u8,
    /// A datagram, without flags.
    pub datagram: bool,
}

/// Index of the backend that the packet goes to, 0 for none; and whether it opens a flow.
#[inline(always)]
pub fn follow(service: &ServiceEntry, question: &Question) -> Result<(u32, bool), DropReason> {
    let rest = u64::from(question.slot_number)
        | (u64::from(question.tcp_flags) << TCP_FLAGS)
        | (u64::from(question.datagram) << DATAGRAM);
    // SAFETY: a reference.
    let answer = unsafe { ballast_follow(service, question.hash, question.slot.word(), rest) };
    if answer & REFUSED != 0 {
        Err(DropReason::NewFlowLimit)
    } else {
        Ok((answer as u32, answer & OPENS != 0))
    }
}

/// Behind the index: the packet opens a flow; the service takes no more of them now.
const OPENS: u64 = 1 << 32;
const REFUSED: u64 = 1 << 33;

/// Behind a slot's number: where flags stand, and what says that it is a datagram.
const TCP_FLAGS: u32 = 32;
const DATAGRAM: u32 = 40;

/// [`follow`] for the verifier: a global function is verified once, by itself, instead of once for each way that leads
/// here. A [`Question`] in its words, because there is no room for it on the stack of whoever asks.
///
/// # Safety
///
/// A live service, or none.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_follow(
    service: *const ServiceEntry,
    hash: u64,
    slot: u64,
    rest: u64,
) -> u64 {
    // SAFETY: the caller's promise.
    let Some(service) = (unsafe { service.as_ref() }) else { return 0 };
    let slot = Slot::from_word(slot);
    let (slot_number, tcp_flags) = (rest as u32, (rest >> TCP_FLAGS) as u8);
    let kind = if rest >> DATAGRAM != 0 { Kind::Datagram } else { transport::segment(tcp_flags) };
    let Some(bucket) = Bucket::of(hash) else { return 0 };
    let now = clock::now();
    let flows = Flows { bucket, service: service.service };
    if settings::tracing() {
        let (entry, takes) = flow::entry(&flows, flow::tag(hash), kind);
        trace::tracked(entry, takes, now);
    }
    let mut refused = false;
    let followed = flow::follow(&flows, slot, flow::tag(hash), kind, now, |has_entry| {
        // Connections have been asked before they got here.
        refused = matches!(kind, Kind::Datagram) && !has_entry && admission::opens(service).is_err();
        if refused { 0 } else { pick(service, slot, hash) }
    });
    if refused {
        return REFUSED;
    }
    trace::followed(&followed);
    if settings::side_effects() {
        note(service, slot_number, &followed, now);
        if settings::replication() && followed.notes & NOTE_CONFIRMED != 0 {
            tell(service, slot, hash);
        }
    }
    let opens = match kind {
        Kind::Datagram => followed.notes & NOTE_INSERTED != 0,
        kind => matches!(kind, Kind::Opens),
    };
    u64::from(followed.index) | if opens { OPENS } else { 0 }
}

/// The backend of a new flow, by the service's algorithm.
#[inline(always)]
pub fn pick(service: &ServiceEntry, slot: Slot, hash: u64) -> u32 {
    match service.selection {
        SELECT_ROUND_ROBIN => next_in_turn(service),
        SELECT_LEAST_CONNECTIONS => less_loaded(service, slot, hash),
        _ => {
            trace::note(|trace| trace.backend(slot.current(), CHOSEN_NEW));
            slot.current()
        }
    }
}

#[inline(always)]
fn next_in_turn(service: &ServiceEntry) -> u32 {
    let Some(rotation) = maps::ROTATION.get_ptr_mut(service.service) else { return 0 };
    // SAFETY: an aligned word of a live map entry, which all CPUs change atomically.
    let placed = unsafe {
        let placed = &raw mut (*rotation).placed;
        if settings::side_effects() { atomic::add(placed, 1) } else { read_volatile(placed) }
    };
    // No service is published with a rotation of 0; the verifier does not know that, and the compiler guards the division.
    let turn = (placed % u64::from(service.rotation.max(1))) as u32;
    let index = select::slot(service.slots_base.wrapping_add(turn)).map_or(0, Slot::current);
    trace::note(|trace| {
        trace.turn = turn;
        trace.backend(index, CHOSEN_ROTATION);
    });
    index
}

/// Of two slots that the flow's hash names, the backend with fewer live flows for its weight. A backend has slots in
/// proportion to its weight, so it is asked in that proportion too.
#[inline(always)]
fn less_loaded(service: &ServiceEntry, slot: Slot, hash: u64) -> u32 {
    let number = (hash.wrapping_mul(SECOND_CANDIDATE) >> (service.slot_shift & 63)) as u32;
    let one = slot.current();
    let other = select::slot(service.slots_base.wrapping_add(number)).map_or(0, Slot::current);
    // Each load times the other's weight: load for load's weight without a division.
    let index = if load(other) * weight(one) < load(one) * weight(other) { other } else { one };
    if settings::tracing() {
        let loads = [load(one), load(other)];
        trace::note(|trace| {
            trace.candidates = [one, other];
            trace.loads = loads;
            trace.backend(index, CHOSEN_LEAST_LOADED);
        });
    }
    index
}

/// Bytes in the ring with which there is no room for more.
const MOST_NEWS: u64 = (limits::FLOW_NEWS * limits::FLOW_NEWS_RECORD) as u64;

/// Turns a flow's hash into another one.
const SECOND_CANDIDATE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Live flows, up to the largest number whose product with a weight is a word.
#[inline(always)]
fn load(index: u32) -> u64 {
    let Some(load) = maps::FLOW_LOAD.get_ptr(index) else { return 0 };
    // SAFETY: aligned words of a live map entry.
    let (base, changes) =
        unsafe { (read_volatile(&raw const (*load).base), read_volatile(&raw const (*load).changes)) };
    // A scan counts while flows come and go, so the sum may be a little below nothing for a moment.
    let flows = base.wrapping_add(changes) as i64;
    if flows < 0 { 0 } else { flows as u64 & 0xffff_ffff_ffff }
}

#[inline(always)]
fn weight(index: u32) -> u64 {
    maps::BACKENDS.get_ptr(index).map_or(0, |backend| {
        // SAFETY: an aligned field of a live map entry, changed by one store.
        u64::from(unsafe { read_volatile(&raw const (*backend).weight) })
    })
}

#[inline(always)]
fn note(service: &ServiceEntry, slot_number: u32, followed: &Followed, now: u64) {
    if followed.notes & !NOTE_CONFIRMED != 0 {
        stamp(service, slot_number, followed.notes, now as u16);
        count(followed.notes);
    }
    if service.selection == SELECT_LEAST_CONNECTIONS {
        change_load(followed.opened, 1);
        change_load(followed.closed, u64::MAX);
    }
}

/// Tells the controller of the flow, if the table alone does not say where it goes.
#[inline(always)]
fn tell(service: &ServiceEntry, slot: Slot, hash: u64) {
    if slot.is_tracked() || service.selection != SELECT_HASH {
        let bucket = u64::from(flow::bucket(hash, settings::flow_mask()));
        // Where there is no room it is told later. That is known without the lock that all CPUs would wait for in a flood.
        if maps::FLOW_NEWS.query(u64::from(BPF_RB_AVAIL_DATA)) >= MOST_NEWS {
            return;
        }
        let _ = maps::FLOW_NEWS.output::<u64>(bucket, 0);
    }
}

/// Tells the controller about the slot, at most once a unit of time.
#[inline(always)]
fn stamp(service: &ServiceEntry, slot_number: u32, notes: u32, now: u16) {
    let Some(pair) = maps::SLOT_STAMPS.get_ptr_mut(slot_number >> 1) else { return };
    // SAFETY: one of the two stamps of a live map entry.
    let stamp = unsafe {
        (&raw mut (*pair).stamps).cast::<lb_common::abi::SlotStamp>().add((slot_number & 1) as usize)
    };
    // SAFETY: aligned fields of a live map entry, each written as a whole.
    unsafe {
        let (exception, failed) = (&raw mut (*stamp).exception, &raw mut (*stamp).failed);
        // Where every flow has an entry for good, entries of other backends are no exception.
        if notes & NOTE_EXCEPTION != 0 && service.tracking == TRACK_AUTO && read_volatile(exception) != now {
            write_volatile(exception, now);
        }
        if notes & NOTE_REFUSED != 0 && read_volatile(failed) != now {
            write_volatile(failed, now);
        }
    }
}

#[inline(always)]
fn count(notes: u32) {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the pointer is to this CPU's entry, which lives as long as the map; nobody else writes it.
    let counters = unsafe { &mut *counters };
    counters.flows_inserted += u64::from(notes & NOTE_INSERTED != 0);
    counters.flows_evicted += u64::from(notes & NOTE_EVICTED != 0);
    counters.flows_refused += u64::from(notes & NOTE_REFUSED != 0);
}

#[inline(always)]
pub fn change_load(index: u32, change: u64) {
    if index != 0
        && let Some(load) = maps::FLOW_LOAD.get_ptr_mut(index)
    {
        // SAFETY: an aligned word of a live map entry, which all CPUs change atomically.
        unsafe { atomic::add(&raw mut (*load).changes, change) };
    }
}

/// The flow's bucket, and backends of the packet's service.
struct Flows {
    bucket: Bucket,
    service: u32,
}

impl Memory for Flows {
    #[inline(always)]
    fn load(&self, entry: u32) -> u64 {
        self.bucket.load(entry)
    }

    #[inline(always)]
    fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        // A run without side effects goes on as if it had been stored.
        !settings::side_effects() || self.bucket.compare_exchange(entry, old, new)
    }

    #[inline(always)]
    fn state(&self, index: u32) -> u32 {
        let Some(backend) = maps::BACKENDS.get(index) else { return 0 };
        state_in(backend, self.service)
    }
}

/// State and service are one word, so both are of one moment.
#[inline(always)]
pub fn state_in(backend: &BackendValue, service: u32) -> u32 {
    const _: () = assert!(offset_of!(BackendValue, service) == offset_of!(BackendValue, state) + 4);
    const _: () = assert!(offset_of!(BackendValue, state) % 8 == 0);
    // SAFETY: an aligned word of a live map entry.
    let word = unsafe { read_volatile(addr_of!(backend.state).cast::<u64>()) };
    if (word >> 32) as u32 == service { word as u32 } else { 0 }
}

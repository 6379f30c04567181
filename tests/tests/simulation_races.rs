//! Packets on several CPUs in one bucket at once: whatever comes between two steps of `lb_common::flow::follow`.
//!
//! A packet's every look at the bucket may be the moment at which other CPUs handle other packets from beginning to end.

use std::cell::{Cell, RefCell};

use fastrand::Rng;
use lb_common::abi::{
    FLOW_CLOSING, FLOW_CONFIRMED, FLOW_EMPTY, FLOW_UNCONFIRMED, FlowEntry, STATE_EXISTING_FLOWS,
    STATE_IN_USE, STATE_NEW_FLOWS, Slot,
};
use lb_common::flow::{Kind, Memory, NOTE_REFUSED, follow};

const CURRENT: u32 = 1;
const PREVIOUS: u32 = 2;
const OTHER: u32 = 3;
const NOW: u64 = 9000;

/// A bucket, and packets that other CPUs still have to handle.
struct Bucket {
    entries: [Cell<u64>; 8],
    waiting: RefCell<Vec<(u32, Kind)>>,
    /// What became of each packet: tag, kind, backend, and whether it found no place.
    handled: RefCell<Vec<(u32, Kind, u32, bool)>>,
    /// Compare-and-swaps that found another word.
    lost: Cell<u32>,
    rng: RefCell<Rng>,
}

impl Bucket {
    fn new(rng: &mut Rng) -> Self {
        let bucket = Self {
            entries: Default::default(),
            waiting: RefCell::default(),
            handled: RefCell::default(),
            lost: Cell::new(0),
            rng: RefCell::new(rng.fork()),
        };
        for (tag, entry) in (1000..).zip(&bucket.entries) {
            let state =
                [FLOW_EMPTY, FLOW_EMPTY, FLOW_UNCONFIRMED, FLOW_CONFIRMED, FLOW_CLOSING][rng.usize(..5)];
            if state != FLOW_EMPTY {
                entry.set(FlowEntry::new(tag, state, (NOW - rng.u64(..8)) as u32, OTHER).word());
            }
        }
        bucket
    }

    fn packet(&self, tag: u32, kind: Kind) -> u32 {
        let slot = Slot::tracked_since(NOW as u16, CURRENT, PREVIOUS);
        let followed = follow(self, slot, tag, kind, NOW, |_| CURRENT);
        let refused = followed.notes & NOTE_REFUSED != 0;
        self.handled.borrow_mut().push((tag, kind, followed.index, refused));
        followed.index
    }

    /// Other CPUs, now and then.
    fn meanwhile(&self) {
        if self.rng.borrow_mut().u8(..4) != 0 {
            return;
        }
        let next = self.waiting.borrow_mut().pop();
        if let Some((tag, kind)) = next {
            self.packet(tag, kind);
        }
    }

    /// Handles all that waits.
    fn handle(&self, mut packets: Vec<(u32, Kind)>) {
        self.rng.borrow_mut().shuffle(&mut packets);
        *self.waiting.borrow_mut() = packets;
        loop {
            let next = self.waiting.borrow_mut().pop();
            let Some((tag, kind)) = next else { break };
            self.packet(tag, kind);
        }
    }

    fn backends_of(&self, tag: u32) -> Vec<u32> {
        let handled = self.handled.borrow();
        handled.iter().filter(|packet| packet.0 == tag).map(|packet| packet.2).collect()
    }

    fn entries_of(&self, tag: u32) -> usize {
        let entries = self.entries.iter().map(|entry| FlowEntry::from_word(entry.get()));
        entries.filter(|entry| entry.state() != FLOW_EMPTY && entry.tag() == tag).count()
    }
}

impl Memory for Bucket {
    fn load(&self, entry: u32) -> u64 {
        self.meanwhile();
        self.entries[entry as usize].get()
    }

    fn compare_exchange(&self, entry: u32, old: u64, new: u64) -> bool {
        self.meanwhile();
        let entry = &self.entries[entry as usize];
        let is_same = entry.get() == old;
        if is_same {
            entry.set(new);
        } else {
            self.lost.set(self.lost.get() + 1);
        }
        is_same
    }

    fn state(&self, _: u32) -> u32 {
        STATE_IN_USE | STATE_NEW_FLOWS | STATE_EXISTING_FLOWS
    }
}

#[test]
fn connections_that_open_at_once_keep_their_backends() {
    let (mut lost, mut refused) = (0, 0);
    for seed in 0..100_000 {
        let bucket = Bucket::new(&mut Rng::with_seed(seed));
        let tags = 1..=6;
        bucket.handle(tags.clone().map(|tag| (tag, Kind::Opens)).collect());
        bucket.handle(tags.clone().map(|tag| (tag, Kind::Continues)).collect());
        for tag in tags {
            let backends = bucket.backends_of(tag);
            assert!(
                backends.windows(2).all(|pair| pair[0] == pair[1]),
                "seed {seed}, flow {tag}: {backends:?}"
            );
            assert!(bucket.entries_of(tag) <= 1, "seed {seed}, flow {tag} has several entries");
        }
        lost += bucket.lost.get();
        refused += bucket.handled.borrow().iter().filter(|packet| packet.3).count();
    }
    assert!(lost > 5_000 && refused > 10_000, "{lost} races lost, {refused} packets without a place");
}

#[test]
fn a_flow_whose_packets_are_on_several_cpus_keeps_its_backend() {
    let mut lost = 0;
    for seed in 0..100_000 {
        let bucket = Bucket::new(&mut Rng::with_seed(seed));
        // Of an old connection, with others that open.
        let own = [Kind::Continues, Kind::Continues, Kind::Closes, Kind::Observes];
        let others = (2..6).map(|tag| (tag, Kind::Opens));
        bucket.handle(own.into_iter().map(|kind| (1, kind)).chain(others).collect());
        bucket.packet(1, Kind::Continues);
        let backends = bucket.backends_of(1);
        assert!(backends.iter().all(|&backend| backend == PREVIOUS), "seed {seed}: {backends:?}");
        lost += bucket.lost.get();
    }
    assert!(lost > 500, "{lost} races lost");
}

#[test]
fn a_syn_that_comes_twice_at_once_is_one_flow() {
    one_flow(Kind::Opens);
}

#[test]
fn datagrams_that_come_at_once_are_one_flow() {
    one_flow(Kind::Datagram);
}

/// All of them reach one backend, and so does what comes later.
fn one_flow(kind: Kind) {
    let mut lost = 0;
    for seed in 0..100_000 {
        let bucket = Bucket::new(&mut Rng::with_seed(seed));
        bucket.handle(vec![(1, kind); 3]);
        bucket.packet(1, if kind == Kind::Opens { Kind::Continues } else { kind });
        let backends = bucket.backends_of(1);
        assert!(backends.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {backends:?}");
        lost += bucket.lost.get();
    }
    assert!(lost > 500, "{lost} races lost");
}

//! Production's publishing and scanning against the model's, on random slots, tables and times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ballast::dataplane::scan::{self, Moment, Scanner, Tracked, Words, World};
use ballast::dataplane::track;
use fastrand::Rng;
use lb_common::abi::{self, TRACK_ALWAYS, TRACK_AUTO, TRACK_NEVER};
use lb_tests::model::controller::{Member, Pass, Region, Tables, forget, publish};
use lb_tests::model::{Flow, FlowState, Load, Slot, Stamps, flow};

const INDICES: u32 = 12;
const SLOTS: usize = 64;
const BUCKETS: usize = 16;

#[test]
fn slots_are_published_as_the_model_says() {
    let mut rng = Rng::with_seed(0x00ba_11a5);
    let mut stamped = [0; 2];
    for _ in 0..500_000 {
        let old = slot(&mut rng, 1000);
        let accepting = rng.u32(..);
        let accepts = |index: u32| accepting >> index & 1 == 1;
        let (current, now) = (rng.u32(..INDICES), rng.u64(..1 << 20));
        let tracking = [TRACK_AUTO, TRACK_ALWAYS, TRACK_NEVER][rng.usize(..3)];
        let (wanted, stamps) = publish(old, current, tracking != TRACK_NEVER, accepts, now);
        let found = track::publish(word(old), current, tracking, accepts, now);
        assert_eq!(found, word(wanted), "{old:?} to {current} at {now}, tracking {tracking}, {accepting:b}");
        let found = track::forget(word(old), accepts);
        assert_eq!(found, word(forget(old, accepts)), "{old:?}, {accepting:b}");
        stamped[usize::from(stamps)] += 1;
    }
    assert!(stamped.iter().all(|&count| count > 50_000), "{stamped:?}");
}

#[test]
fn a_service_that_tracks_anew_has_slots_as_the_model_says() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..100_000 {
        let (old, now) = (slot(&mut rng, 1000), rng.u64(..1 << 20));
        let (current, previous) = (old.current, old.previous);
        let never = track::reopen(word(old), TRACK_NEVER, now);
        assert_eq!(never, word(Slot::steady(current)));
        let wanted = match (current, previous) {
            (0, 0) => old,
            _ => Slot { current, previous, opened: now as u16, tracked: true },
        };
        assert_eq!(track::reopen(word(old), TRACK_AUTO, now), word(wanted), "{old:?} at {now}");
    }
}

#[test]
fn passes_leave_what_the_model_leaves() {
    let mut totals = [0; 4];
    for seed in 0..300 {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            run.disturb();
            for (total, count) in totals.iter_mut().zip(run.pass()) {
                *total += count;
            }
        }
    }
    let [removed, forgotten, untracked, restamped] = totals;
    println!(
        "{removed} entries removed, {forgotten} slots lost their previous, {untracked} became steady, {restamped} gaps"
    );
    assert!(totals.iter().all(|&count| count > 500), "{totals:?}");
}

/// Production's scanner and the model on the same tables.
struct Run {
    rng: Rng,
    milliseconds: u64,
    ended: Option<u64>,
    scanner: Scanner,
    world: World,
    regions: Vec<Region>,
    members: Vec<Option<Member>>,
    tables: Tables,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let regions = vec![
            Region { first: 0, count: 32, idle: rng.u64(1..20), always: false },
            Region { first: 32, count: 16, idle: rng.u64(1..3600), always: false },
            Region { first: 48, count: 16, idle: rng.u64(1..60), always: true },
        ];
        let open = |region: &Region| scan::Region {
            base: region.first as u32,
            slots: region.count as u32,
            idle: region.idle as u32,
            always: region.always,
            open: true,
        };
        let world = World { regions: regions.iter().map(open).collect(), ..World::default() };
        let tables = Tables {
            slots: vec![Slot::default(); SLOTS],
            stamps: vec![Stamps::default(); SLOTS],
            flows: vec![[0; 8]; BUCKETS],
            loads: vec![Load::default(); INDICES as usize],
        };
        let milliseconds = rng.u64(..1 << 28);
        let members = vec![None; INDICES as usize];
        Self { rng, milliseconds, ended: None, scanner: Scanner::default(), world, regions, members, tables }
    }

    /// Packets, changes and time between two passes.
    fn disturb(&mut self) {
        let rng = &mut self.rng;
        self.milliseconds += match rng.u8(..12) {
            0 => rng.u64(..20_000_000),
            1 | 2 => rng.u64(1000..10_000),
            // The longest that is no gap, and the shortest after which a pass is due.
            _ => 1000,
        };
        let now = self.milliseconds / 1000;
        for _ in 0..rng.usize(..20) {
            let word = &mut self.tables.flows[rng.usize(..BUCKETS)][rng.usize(..8)];
            let state = [FlowState::Unconfirmed, FlowState::Confirmed, FlowState::Closing][rng.usize(..3)];
            let epoch = if rng.u8(..4) == 0 { rng.u64(..) } else { now.wrapping_sub(rng.u64(..10)) };
            let (tag, index) = (rng.u64(..1 << 29), rng.u32(1..INDICES + 2));
            *word = Flow { tag, state, epoch: epoch % flow::EPOCHS, index }.word();
        }
        for _ in 0..rng.usize(..6) {
            let number = rng.usize(..SLOTS);
            self.tables.slots[number] = slot(rng, now);
            let mut stamp = || (now as u16).wrapping_sub(rng.u16(..30)).wrapping_add(1);
            self.tables.stamps[number] = Stamps { exception: stamp(), failed: stamp() };
        }
        for load in &mut self.tables.loads {
            load.changes = load.changes.wrapping_add(rng.u64(..10));
        }
        for member in self.members.iter_mut().skip(1) {
            if rng.u8(..8) == 0 {
                let (accepts_existing, weighed) = (rng.u8(..3) != 0, rng.bool());
                let idle = rng.u64(1..30);
                *member = Some(Member { idle, accepts_existing, weighed }).filter(|_| rng.u8(..6) != 0);
            }
        }
    }

    /// A whole pass, in steps; says how much it removed, forgot, untracked and restamped.
    fn pass(&mut self) -> [u64; 4] {
        let before = self.tables.clone();
        let memory = Memory::of(&self.tables);
        self.world.backends = self.members.iter().map(tracked).collect();
        // Publishing says so.
        self.world.regions.iter_mut().for_each(|region| region.open = true);

        let after_gap = self.ended.is_none_or(|ended| self.milliseconds - ended > 1000);
        let began = self.milliseconds / 1000;
        let mut pass = Pass::begin(&mut self.tables, &self.regions, INDICES as usize, after_gap, began);
        let step = [1, 3, BUCKETS][self.rng.usize(..3)];
        let mut bucket = 0;
        let census = loop {
            let moment = Duration::from_millis(self.milliseconds);
            let moment = Moment { monotonic: moment, boot: moment };
            let census = self.scanner.step(memory.words(), &mut self.world, moment, step * 8);
            for bucket in self.tables.flows.iter_mut().skip(bucket).take(step) {
                pass.look(bucket, &self.members, self.milliseconds / 1000);
            }
            bucket += step;
            if let Some(census) = census {
                break census;
            }
            self.milliseconds += self.rng.u64(..400);
        };
        assert!(bucket >= BUCKETS, "the pass ended early");
        self.ended = Some(self.milliseconds);
        pass.end(&mut self.tables, &self.regions, &self.members);

        memory.assert_holds(&self.tables);
        assert_eq!((census.entries, census.tracked_slots), (pass.entries, pass.tracked));
        let live = |index: usize| census.flows.get(&(index as u32)).copied().unwrap_or_default();
        assert_eq!((0..pass.live.len()).map(live).collect::<Vec<_>>(), pass.live);
        let previous = self.tables.slots.iter().map(|slot| slot.previous).filter(|&index| index != 0);
        assert_eq!(
            census.named.iter().copied().collect::<std::collections::BTreeSet<_>>(),
            pass.named.iter().copied().chain(previous).collect()
        );
        let count = |is: fn(&Slot) -> bool| {
            let of = |tables: &Tables| tables.slots.iter().filter(|slot| is(slot)).count() as u64;
            of(&before) - of(&self.tables)
        };
        let entries =
            |tables: &Tables| tables.flows.iter().flatten().filter(|word| **word != 0).count() as u64;
        [
            entries(&before) - entries(&self.tables),
            count(|slot| slot.previous != 0),
            count(|slot| slot.tracked),
            after_gap.into(),
        ]
    }
}

/// The tables as words.
struct Memory {
    slots: Vec<AtomicU64>,
    stamps: Vec<AtomicU64>,
    flows: Vec<AtomicU64>,
    loads: Vec<AtomicU64>,
}

impl Memory {
    fn of(tables: &Tables) -> Self {
        let pairs = tables.stamps.chunks(2).map(|pair| half(pair[0]) | half(pair[1]) << 32);
        Self {
            slots: tables.slots.iter().map(|slot| AtomicU64::new(word(*slot).word())).collect(),
            stamps: pairs.map(AtomicU64::new).collect(),
            flows: tables.flows.iter().flatten().map(|word| AtomicU64::new(*word)).collect(),
            loads: tables
                .loads
                .iter()
                .flat_map(|load| [load.base, load.changes])
                .map(AtomicU64::new)
                .collect(),
        }
    }

    fn words(&self) -> Words<'_> {
        Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads }
    }

    fn assert_holds(&self, tables: &Tables) {
        let wanted = Self::of(tables);
        let load = |words: &[AtomicU64]| -> Vec<u64> {
            words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
        };
        for (number, slot) in tables.slots.iter().enumerate() {
            let found = self.slots[number].load(Ordering::Relaxed);
            assert_eq!(abi::Slot::from_word(found), word(*slot), "slot {number}, {slot:?}");
        }
        assert_eq!(load(&self.stamps), load(&wanted.stamps), "stamps");
        assert_eq!(load(&self.flows), load(&wanted.flows), "flows");
        assert_eq!(load(&self.loads), load(&wanted.loads), "loads");
    }
}

fn tracked(member: &Option<Member>) -> Tracked {
    member.map_or(Tracked::default(), |member| Tracked {
        idle: member.idle as u32,
        accepts_existing: member.accepts_existing,
        weighed: member.weighed,
    })
}

fn half(stamps: Stamps) -> u64 {
    u64::from(stamps.exception) | u64::from(stamps.failed) << 16
}

/// A slot as the controller may have left it, opened of late.
fn slot(rng: &mut Rng, now: u64) -> Slot {
    let current = if rng.u8(..6) == 0 { 0 } else { rng.u32(..INDICES) };
    if rng.u8(..3) == 0 {
        return Slot::steady(current);
    }
    let previous = if rng.u8(..3) == 0 { 0 } else { rng.u32(..INDICES) };
    let opened = (now as u16).wrapping_sub(rng.u16(..40));
    Slot { current, previous, opened, tracked: true }
}

fn word(slot: Slot) -> abi::Slot {
    if slot.tracked {
        abi::Slot::tracked_since(slot.opened, slot.current, slot.previous)
    } else {
        abi::Slot::steady(slot.current)
    }
}

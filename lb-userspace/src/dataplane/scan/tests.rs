use super::*;

const A: u32 = 1;
const B: u32 = 2;
const IDLE: u32 = 10;

struct Maps {
    slots: Vec<AtomicU64>,
    stamps: Vec<AtomicU64>,
    flows: Vec<AtomicU64>,
    loads: Vec<AtomicU64>,
    world: World,
    scanner: Scanner,
}

impl Maps {
    fn new() -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let backend = Tracked { idle: IDLE, accepts_existing: true, weighed: true };
        let backends = vec![Tracked::default(), backend, backend];
        let regions = vec![Region { base: 0, slots: 4, idle: IDLE, always: false, open: true }];
        Self {
            slots: zeros(4),
            stamps: zeros(2),
            flows: zeros(16),
            loads: zeros(6),
            world: World { regions, backends, ..World::default() },
            scanner: Scanner::default(),
        }
    }

    fn pass(&mut self, second: u64) -> Census {
        let now = Moment { monotonic: Duration::from_secs(second), boot: Duration::from_secs(second) };
        let words =
            Words { slots: &self.slots, stamps: &self.stamps, flows: &self.flows, loads: &self.loads };
        self.scanner.step(words, &mut self.world, now, usize::MAX / 2).expect("a whole pass")
    }

    /// A pass a second, as in production: without one for long everything would be restamped.
    fn passes(&mut self, seconds: std::ops::RangeInclusive<u64>) -> Census {
        seconds.map(|second| self.pass(second)).last().expect("a second")
    }

    fn slot(&self, slot: usize) -> Slot {
        Slot::from_word(self.slots[slot].load(Ordering::Relaxed))
    }

    /// As publishing does it.
    fn set(&mut self, slot: u32, word: Slot, now: u64) {
        self.world.regions[0].open = true;
        track::stamp(&self.stamps, slot, now);
        self.slots[slot as usize].store(word.word(), Ordering::Relaxed);
    }

    fn flow(&self, at: usize, state: u32, epoch: u32, index: u32) {
        self.flows[at].store(FlowEntry::new(7, state, epoch, index).word(), Ordering::Relaxed);
    }
}

#[test]
fn a_changed_slot_becomes_steady_when_its_window_is_over() {
    let mut maps = Maps::new();
    maps.pass(100);
    maps.set(1, Slot::tracked_since(100, B, A), 100);
    assert_eq!(maps.passes(101..=112).tracked_slots, 1);
    assert_eq!(maps.slot(1), Slot::tracked_since(100, B, A));
    // Stamped when it was opened, so that both windows end together.
    assert_eq!(maps.pass(113).tracked_slots, 0);
    assert_eq!(maps.slot(1), Slot::steady(B));
}

#[test]
fn a_slot_that_is_tracked_for_a_peers_sake_is_nobodys_own_after_a_pause_either() {
    let mut maps = Maps::new();
    maps.pass(1000);
    maps.set(1, Slot::tracked_since(1000, B, 0), 1000);
    maps.set(2, Slot::tracked_since(1000, B, A), 1000);
    track::stamp(&maps.stamps, 1, 1000 - u64::from(IDLE + MARGIN + 1));
    maps.world.holds.extend(1, Hold::for_entries_of(1000, IDLE));
    let own = |maps: &Maps, slot: u32, now| {
        let stamp = track::stamps(&maps.stamps, slot);
        is_own(maps.slot(slot as usize), stamp, &maps.world.regions[0], now)
    };
    maps.passes(1001..=1005);
    assert_eq!([own(&maps, 1, 1005), own(&maps, 2, 1005)], [false, true]);
    maps.pass(1020);
    assert_eq!([own(&maps, 1, 1020), own(&maps, 2, 1020)], [false, true]);
    // Entries are as old as the pause's end, so it stays tracked until these are gone.
    maps.passes(1021..=1030);
    assert!(maps.slot(1).is_tracked());
    assert_eq!(maps.passes(1031..=1060).tracked_slots, 0);
}

#[test]
fn an_exception_keeps_a_slot_tracked_and_a_failure_keeps_its_previous() {
    let mut maps = Maps::new();
    maps.pass(100);
    for slot in [0, 1] {
        maps.set(slot, Slot::tracked_since(100, B, A), 100);
    }
    maps.passes(101..=105);
    maps.stamps[0].store(0x0064_0064_0064_0069, Ordering::Relaxed);
    maps.passes(106..=113);
    assert_eq!(maps.slot(0), Slot::tracked_since(100, B, 0));
    assert_eq!(maps.slot(1), Slot::steady(B));
    maps.passes(114..=118);
    assert_eq!(maps.slot(0), Slot::steady(B));

    maps.set(2, Slot::tracked_since(118, B, A), 118);
    maps.stamps[1].store(0x0000_0000_0078_0076, Ordering::Relaxed);
    maps.passes(119..=132);
    assert_eq!(maps.slot(2), Slot::tracked_since(118, B, A));
    maps.pass(133);
    assert_eq!(maps.slot(2), Slot::steady(B));
}

#[test]
fn a_previous_that_takes_nothing_is_forgotten_at_once() {
    let mut maps = Maps::new();
    maps.pass(100);
    maps.set(1, Slot::tracked_since(100, B, A), 100);
    maps.world.backends[A as usize].accepts_existing = false;
    maps.pass(101);
    assert_eq!(maps.slot(1), Slot::tracked_since(100, B, 0));
}

#[test]
fn idle_flows_go_and_live_ones_are_counted() {
    let mut maps = Maps::new();
    maps.pass(100);
    maps.flow(0, FLOW_CONFIRMED, 100, A);
    maps.flow(1, FLOW_UNCONFIRMED, 100, A);
    maps.flow(9, FLOW_CLOSING, 100, B);
    maps.flow(10, FLOW_CONFIRMED, 100, 99);
    maps.loads[3].store(5, Ordering::Relaxed);
    let census = maps.passes(101..=103);
    assert_eq!((census.entries, census.capacity), (3, 16));
    assert_eq!(census.flows, HashMap::from([(A, 2)]));
    assert_eq!(census.named, HashSet::from([A, B]));
    // Base and changes add up to what is there.
    assert_eq!(maps.loads[2].load(Ordering::Relaxed).wrapping_add(5), 2);
    assert_eq!(maps.passes(104..=111).entries, 3);
    assert_eq!(maps.pass(112).entries, 0);
}

#[test]
fn nothing_expires_after_a_gap() {
    let mut maps = Maps::new();
    maps.pass(100);
    maps.flow(0, FLOW_CONFIRMED, 100, A);
    maps.set(1, Slot::tracked_since(100, B, A), 100);
    assert_eq!(maps.pass(9000).entries, 1);
    assert_eq!(maps.slot(1), Slot::tracked_since(9000, B, A));
    assert_eq!(maps.passes(9001..=9011).entries, 1);
    assert_eq!(maps.pass(9012).entries, 0);
    assert_eq!(maps.pass(9013).tracked_slots, 0);
}

#[test]
fn nothing_expires_after_a_pause_inside_a_pass() {
    let mut maps = Maps::new();
    maps.pass(100);
    for at in [0, 8] {
        maps.flow(at, FLOW_CONFIRMED, 101, A);
    }
    let at = |second| {
        let now = Duration::from_secs(second);
        Moment { monotonic: now, boot: now }
    };
    let Maps { slots, stamps, flows, loads, world, scanner } = &mut maps;
    let words = Words { slots, stamps, flows, loads };
    assert!(scanner.step(words, world, at(101), 8).is_none());
    assert!(scanner.step(words, world, at(150), 8).is_none());
    let census = scanner.step(words, world, at(150), 8).expect("the pass that began anew has ended");
    assert_eq!((census.entries, census.began), (2, at(150)));
}

#[test]
fn a_pass_is_made_once_a_period_and_in_steps() {
    let mut maps = Maps::new();
    let at = |milliseconds| {
        let now = Duration::from_millis(milliseconds);
        Moment { monotonic: now, boot: now }
    };
    let Maps { slots, stamps, flows, loads, world, scanner } = &mut maps;
    let words = Words { slots, stamps, flows, loads };
    assert!(scanner.step(words, world, at(0), 8).is_none());
    assert!(scanner.step(words, world, at(100), 8).is_some());
    assert!(scanner.step(words, world, at(999), 8).is_none());
    assert!(scanner.step(words, world, at(1000), 16).is_some());
}

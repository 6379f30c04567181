//! Clients, backends and a controller in one thread and on a clock of its own: whether any connection breaks.
//!
//! The code that decides is production's: `lb_common::flow` follows packets, `dataplane::track` changes slots,
//! `dataplane::scan` clears away. Around it are arrays of atomics instead of maps, clients that open, idle, half-close
//! and come back on old tuples, backends that know their connections, and attackers. A packet of an open connection that
//! reaches another backend than its SYN did is a broken flow, as long as that backend takes packets of existing flows.
//!
//! A [`Mutation`] switches one rule of docs/flow-tracking.md off, in what goes into production's code or comes out of
//! it. A simulation that does not notice proves nothing about that rule.

mod clients;
mod controller;
mod mutation;
mod scenario;
mod tables;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use clients::Client;
use controller::Controller;
pub use mutation::Mutation;
pub use scenario::{Attack, Flood, SCENARIOS, Scenario};
use tables::Tables;

/// How a simulation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub packets: u64,
    pub connections: u64,
    /// Packets that reached another backend than their connection's.
    pub broken: u64,
    /// SYNs that reached a backend which takes no new flows, though there was room for an entry.
    pub misplaced: u64,
    /// SYNs that found no place although no flood had been on for a while.
    pub starved: u64,
    /// Packets that found no place.
    pub refused: u64,
    pub evicted: u64,
    pub exceptions: u64,
    pub changes: u64,
    pub reused_indices: u64,
    /// Most slots that were tracked at a time, and how many were at the end of the quiet.
    pub most_tracked: u64,
    pub still_tracked: u64,
    /// What broke first.
    pub first: Option<String>,
}

impl Outcome {
    /// Whether all was as promised.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.broken == 0 && self.misplaced == 0 && self.starved == 0 && self.still_tracked == 0
    }
}

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Client(usize),
    Change,
    /// A backend's drain is over.
    Deadline(u32),
    /// A backend that was cut off is back.
    Back(u32),
    /// The controller goes on with its pass.
    Scan,
    Flood,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    mutation: Option<Mutation>,
    rng: Rng,
    /// Milliseconds since the simulation began.
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    tables: Tables,
    controller: Controller,
    clients: Vec<Client>,
    outcome: Outcome,
}

/// Runs a scenario, with one rule off or with all in force.
#[must_use]
pub fn run(scenario: &Scenario, mutation: Option<Mutation>) -> Outcome {
    let mut rng = Rng::with_seed(scenario.seed);
    let mut tables = Tables::new(scenario);
    let controller = Controller::new(scenario, &mut tables);
    let clients = (0..scenario.clients).map(|_| Client::new(&mut rng)).collect();
    let mut simulation = Simulation {
        scenario,
        mutation,
        rng,
        now: 0,
        events: BinaryHeap::new(),
        scheduled: 0,
        tables,
        controller,
        clients,
        outcome: Outcome::default(),
    };
    simulation.run();
    simulation.outcome
}

impl Simulation<'_> {
    fn run(&mut self) {
        for client in 0..self.clients.len() {
            let start = self.rng.u64(..10_000);
            self.after(start, Event::Client(client));
        }
        self.after(0, Event::Scan);
        self.after(self.scenario.change_every * 1000, Event::Change);
        if let Some(flood) = self.scenario.flood {
            self.after(flood.from * 1000, Event::Flood);
        }
        // After the last connection has ended: entries age out, then slots do.
        let quiet = self.scenario.seconds + 3 * u64::from(self.scenario.idle) + 20;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > quiet * 1000 {
                break;
            }
            self.now = at;
            match event {
                Event::Client(client) => self.client(client),
                Event::Change => self.change(),
                Event::Deadline(index) => self.drained(index),
                Event::Back(index) => self.back(index),
                Event::Scan => self.scan(),
                Event::Flood => self.flood(),
            }
        }
        self.outcome.still_tracked = self.tables.tracked_slots();
    }

    fn after(&mut self, milliseconds: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + milliseconds, self.scheduled, event)));
    }

    /// Whether things still happen; afterwards all that is open ends.
    const fn is_busy(&self) -> bool {
        self.now < self.scenario.seconds * 1000
    }

    /// Whether the controller is stopped.
    fn is_stopped(&self) -> bool {
        self.scenario.stopped.is_some_and(|(from, to)| (from * 1000..to * 1000).contains(&self.now))
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// Coarse time at which simulations begin: soon stamps and epochs begin anew.
const START: u64 = 65_536 - 100;

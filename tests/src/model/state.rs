//! What the maps hold, as the controller thinks of it.

use std::collections::{BTreeMap, BTreeSet};

use super::effects::Effects;
use super::flow::{Bucket, EMPTY_BUCKET};
use super::fragment::{Note, NoteKey};
use super::nat::NatTables;
use super::service::{Backend, Egress, HashKey, Load, Pool, Prefix, Service, Stamps};

/// Everything a decision depends on, besides the frame.
#[derive(Clone, Debug)]
pub struct State {
    /// Halves of the fleet's secret.
    pub hash_key: HashKey,
    /// Interface the frame came in on.
    pub ingress: u32,
    /// The host's MAC addresses; `None` where frames for any are looked at.
    pub own_macs: Option<BTreeSet<[u8; 6]>>,
    /// The host's interfaces, and the largest IP packet that each takes.
    pub interfaces: BTreeMap<u32, u32>,
    pub services: Vec<Service>,
    /// Of every service there has been: seconds without a packet after which a flow is over.
    pub idle_timeouts: BTreeMap<u32, u32>,
    /// Backends by index. An index that is not here has an all-zero record, if it is below `backend_limit`.
    pub backends: BTreeMap<u32, Backend>,
    /// Ways out by number, as `backends`.
    pub egress: BTreeMap<u16, Egress>,
    pub prefixes: Vec<Prefix>,
    pub pool: Pool,
    /// Entries of the maps.
    pub backend_limit: u32,
    pub egress_limit: u32,
    pub lookup_limit: u32,
    /// Coarse time: whole seconds.
    pub now: u64,
    /// When time went on after it had stood still, and for how long it had; zeros where it never did.
    pub jump: (u32, u32),
    /// The flow table, as many buckets as a power of two.
    pub flows: Vec<Bucket>,
    /// By place in the lookup map; zeros where nothing was stamped.
    pub stamps: BTreeMap<u32, Stamps>,
    /// By backend index.
    pub loads: BTreeMap<u32, Load>,
    /// How many flows round-robin has placed, by service.
    pub placed: BTreeMap<u32, u64>,
    pub nat: NatTables,
    /// What became of first fragments.
    pub notes: BTreeMap<NoteKey, Note>,
    /// By service: a second, and flows opened in it.
    pub opened: BTreeMap<u32, (u32, u32)>,
    /// The CPU that packets are handled by.
    pub cpu: usize,
    /// By CPU: a second, and ICMP errors made in it.
    pub errors_made: BTreeMap<usize, (u64, u64)>,
}

impl State {
    /// Without services, backends and flows.
    #[must_use]
    pub fn new(hash_key: HashKey, ingress: u32, flow_buckets: usize) -> Self {
        Self {
            hash_key,
            ingress,
            own_macs: None,
            interfaces: BTreeMap::new(),
            services: Vec::new(),
            idle_timeouts: BTreeMap::new(),
            backends: BTreeMap::new(),
            egress: BTreeMap::new(),
            prefixes: Vec::new(),
            pool: Pool::default(),
            backend_limit: 0,
            egress_limit: 0,
            lookup_limit: 0,
            now: 0,
            jump: (0, 0),
            flows: vec![EMPTY_BUCKET; flow_buckets],
            stamps: BTreeMap::new(),
            loads: BTreeMap::new(),
            placed: BTreeMap::new(),
            nat: NatTables::default(),
            notes: BTreeMap::new(),
            opened: BTreeMap::new(),
            cpu: 0,
            errors_made: BTreeMap::new(),
        }
    }

    /// Whether flows of a service may be sent to a backend: new ones or existing ones.
    #[must_use]
    pub fn accepts(&self, service: u32, index: u32, new_flows: bool) -> bool {
        self.backends.get(&index).is_some_and(|backend| {
            let open = if new_flows { backend.accepts_new_flows } else { backend.accepts_existing_flows };
            backend.service == service && open
        })
    }

    /// Live flows of a backend as least-connections reckons with them.
    #[must_use]
    pub fn live_flows(&self, index: u32) -> u64 {
        let load = self.loads.get(&index).copied().unwrap_or_default();
        let sum = load.base.wrapping_add(load.changes);
        // Closed flows that no scan had counted.
        if sum < 1 << 63 { sum } else { 0 }
    }

    /// What a packet leaves behind.
    pub fn apply(&mut self, effects: &Effects) {
        if let Some(looked) = effects.looked_at {
            if let Some((place, word)) = effects.entry {
                self.flows[looked.bucket][place] = word;
            }
            if effects.exception || effects.failed {
                let stamps = effects.stamps(self);
                self.stamps.insert(looked.slot, stamps);
            }
        }
        for &(index, change) in &effects.loads {
            let load = self.loads.entry(index).or_default();
            load.changes = load.changes.wrapping_add_signed(change);
        }
        if let Some(service) = effects.rotated {
            let placed = self.placed.entry(service).or_default();
            *placed = placed.wrapping_add(1);
        }
        for change in &effects.nat {
            self.nat.apply(change);
        }
        match effects.note {
            Some((key, Some(note))) => drop(self.notes.insert(key, note)),
            Some((key, None)) => drop(self.notes.remove(&key)),
            None => {}
        }
        if let Some((service, opened)) = effects.opened {
            self.opened.insert(service, opened);
        }
        if let Some(made) = effects.errors_made {
            self.errors_made.insert(self.cpu, made);
        }
    }
}

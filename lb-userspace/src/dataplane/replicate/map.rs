//! What replication has to know of services and backends: numbers here, and names that are the same everywhere.

use std::collections::HashMap;

use lb_common::abi::{BackendValue, SELECT_HASH, ServiceRecord, TRACK_ALWAYS, TRACK_NEVER, translates};

use crate::{
    dataplane::{encode, scan::World},
    peers::wire::{ServiceId, Shape},
};

#[derive(Clone, Debug, Default)]
pub struct FleetMap {
    pub(super) services: Vec<FleetService>,
    /// By address, port and protocol.
    places: HashMap<([u8; 16], u16, u8), usize>,
    /// Services that are here and are not replicated, likewise.
    others: Vec<([u8; 16], u16, u8)>,
    /// By backend index: the service's place, and the backend's name.
    backends: HashMap<u32, (usize, u64)>,
    /// Hash over all lookup tables.
    pub tables: u64,
    /// Another with each map.
    pub generation: u64,
    /// Another with each map in which flows of a service may be idle for longer than before.
    pub(super) patience: u64,
}

#[derive(Clone, Debug)]
pub(super) struct FleetService {
    pub(super) id: ServiceId,
    pub(super) base: u32,
    pub(super) slots: u32,
    /// Where it stands among the scan's regions.
    pub(super) region: usize,
    /// Idle timeout of its flows, in units of coarse time.
    pub(super) idle: u32,
    pub(super) extent: Extent,
    /// Index by name.
    pub(super) backends: HashMap<u64, u32>,
}

/// Which of a service's flows are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those seen while any slot is tracked: of others there is no entry, or none that says anything.
    Tracked,
    /// Those that were there while any slot was tracked, to their end: their entries may say something else than the table. Whoever
    /// comes later goes where every peer's table says.
    Begun,
    /// All: no table says where they go.
    All,
}

/// Why a peer's word about a service is of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Service,
    Shape,
}

impl FleetMap {
    /// `records` by services' numbers, in the order of the scan's regions; `tables` are the services' fingerprints.
    pub fn new<'a>(
        records: impl Iterator<Item = (u32, &'a ServiceRecord)>,
        backends: impl Iterator<Item = (u32, &'a BackendValue)>,
        tables: &HashMap<encode::StableId, u64>,
    ) -> Self {
        let mut map = Self::default();
        let mut by_number = HashMap::new();
        let mut fingerprints = Vec::new();
        for (region, (number, record)) in records.enumerate() {
            let id = service_id(record);
            fingerprints.push((id, tables.get(&record.stable_id).copied().unwrap_or_default()));
            let key = (id.address, id.port, id.protocol);
            if translates(record.forwarding) || record.tracking == TRACK_NEVER {
                map.others.push(key);
                continue;
            }
            let extent = match (record.selection, record.tracking) {
                (SELECT_HASH, TRACK_ALWAYS) => Extent::Begun,
                (SELECT_HASH, _) => Extent::Tracked,
                _ => Extent::All,
            };
            by_number.insert(number, map.services.len());
            map.places.insert(key, map.services.len());
            map.services.push(FleetService {
                id,
                base: record.slots_base,
                slots: 1 << record.slots_log2,
                region,
                idle: record.flow_idle_timeout,
                extent,
                backends: HashMap::new(),
            });
        }
        for (index, value) in backends {
            let Some(&place) = by_number.get(&value.service) else { continue };
            let name = encode::peer_id(value.address, value.port);
            if let Some(service) = map.services.get_mut(place) {
                // Of two that share an address the one that takes flows counts.
                let known = service.backends.entry(name).or_insert(index);
                if value.left_table_at == 0 {
                    *known = index;
                }
            }
            map.backends.insert(index, (place, name));
        }
        fingerprints.sort_unstable();
        map.tables = encode::peer_tables(&fingerprints);
        map
    }

    /// As the one that comes after another.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        self.generation = before.generation + 1;
        let is_longer = |service: &FleetService| {
            before
                .at(&service.id)
                .is_ok_and(|before| before.is_but_for_time(&service.id) && before.idle < service.idle)
        };
        self.patience = before.patience + u64::from(self.services.iter().any(is_longer));
        self
    }

    pub(super) fn find(&self, id: &ServiceId) -> Result<&FleetService, Unknown> {
        self.at(id).and_then(|here| if here.id == *id { Ok(here) } else { Err(Unknown::Shape) })
    }

    /// Of which service a peer's flows are. A new idle timeout gets to members one after the other, and flows are told meanwhile.
    pub(super) fn find_of_flows(&self, id: &ServiceId) -> Result<&FleetService, Unknown> {
        self.at(id).and_then(|here| if here.is_but_for_time(id) { Ok(here) } else { Err(Unknown::Shape) })
    }

    /// The service of that address, whatever its shape.
    fn at(&self, id: &ServiceId) -> Result<&FleetService, Unknown> {
        let key = (id.address, id.port, id.protocol);
        match self.places.get(&key).and_then(|place| self.services.get(*place)) {
            Some(service) => Ok(service),
            None if self.others.contains(&key) => Err(Unknown::Shape),
            None => Err(Unknown::Service),
        }
    }

    /// The service and the name of a backend.
    pub(super) fn backend(&self, index: u32) -> Option<(&FleetService, usize, u64)> {
        let (place, name) = self.backends.get(&index)?;
        Some((self.services.get(*place)?, *place, *name))
    }

    /// 0 for none.
    pub(super) fn name(&self, index: u32) -> u64 {
        self.backends.get(&index).map_or(0, |(_, name)| *name)
    }
}

impl FleetService {
    /// Whether it is the same but for how long flows may be idle.
    fn is_but_for_time(&self, id: &ServiceId) -> bool {
        ServiceId { shape: Shape { idle: self.id.shape.idle, ..id.shape }, ..*id } == self.id
    }

    /// Whether any of its flows may have to be told now that were not before.
    pub(super) fn concerns(&self, world: &World) -> bool {
        self.extent == Extent::All || self.is_open(world)
    }

    /// Whether one of its slots is tracked.
    pub(super) fn is_open(&self, world: &World) -> bool {
        world.regions.get(self.region).is_some_and(|region| region.open)
    }

    /// Whether it matters which of its flows peers know.
    pub(super) fn keeps_ledger(&self, world: &World) -> bool {
        self.extent == Extent::Begun || self.concerns(world)
    }
}

fn service_id(record: &ServiceRecord) -> ServiceId {
    ServiceId {
        address: record.key.address,
        port: u16::from_be_bytes(record.key.port),
        protocol: record.key.protocol,
        shape: Shape {
            forwarding: record.forwarding,
            hash_key: record.hash_key,
            selection: record.selection,
            slots_log2: record.slots_log2,
            idle: u16::try_from(record.flow_idle_timeout).unwrap_or(u16::MAX),
        },
    }
}

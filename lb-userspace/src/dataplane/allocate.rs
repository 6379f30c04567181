//! Numbers: service ids, lookup-table regions, backend indices.
//!
//! An allocation is a value. The reconciler changes a copy and keeps it once everything is published, so a refused
//! change allocates nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use lb_common::abi::{
    BackendValue, FRAGMENT_AGE, KIND_SERVICE, SERVICE_IN_USE, STATE_IN_USE, ServiceEntry, ServiceRecord,
};

use super::{Limits, encode::StableId, nat::NatCensus, scan::Census};

/// What is in use, by whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Allocation {
    pub(super) services: HashMap<StableId, ServiceSlot>,
    pub(super) backends: HashMap<StableId, u32>,
    /// Regions that packets may be reading until the change under way is published.
    leaving: Vec<ServiceSlot>,
    /// Indices that wait to be reused, and since when.
    quarantined: BTreeMap<u32, Quarantined>,
    /// Every number below these has been given out at least once.
    backends_used: u32,
}

/// A service's number and region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceSlot {
    pub(super) id: u32,
    pub(super) base: u32,
    pub(super) log2: u8,
}

#[derive(Clone, Copy, Debug)]
struct Quarantined {
    stable_id: StableId,
    /// Number of the service it belonged to.
    service: u32,
    /// Boot-time seconds.
    since: u64,
    /// How long flows may name it, in seconds.
    idle: u64,
    /// Whether NAT's flows may name it.
    translated: bool,
    /// Passes in a row that found it nowhere: of the scan, and of NAT's sweep.
    clean: u32,
    clean_of_nat: u32,
}

/// What a backend leaves when it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retired {
    /// Number of the service it belonged to.
    pub(super) service: u32,
    /// How long flows may name it, in seconds.
    pub(super) idle: u32,
    /// Whether NAT kept its flows.
    pub(super) translated: bool,
}

/// How a backend comes to its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It has it.
    Known(u32),
    /// It had it a while ago: the record is still there, but for its state.
    Returning(u32),
    Fresh(u32),
}

impl Given {
    pub(super) const fn index(self) -> u32 {
        match self {
            Self::Known(index) | Self::Returning(index) | Self::Fresh(index) => index,
        }
    }
}

/// A limit of the maps that a change meets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error(
        "more than {0} services, those that this change removes included: remove first and add with another change, or \
         raise limits.services (it takes effect after `ballast detach` and a start)"
    )]
    Services(u32),
    #[error(
        "no lookup-table region of {wanted} slots is free among {limit}, those of services that this change removes \
         included: remove first and add with another change, use a smaller table_size, or raise limits.lookup_slots (it takes effect after `ballast detach` and a start)"
    )]
    LookupSlots { wanted: u32, limit: u32 },
    #[error(
        "more than {limit} backends, {waiting} of them removed so recently that a flow may still remember them: try again \
         when their flow_idle_timeout is over, or raise limits.backends (it takes effect after `ballast detach` and a start)"
    )]
    Backends { limit: u32, waiting: usize },
    #[error(
        "there is no room for {added} more source prefixes beside the {there} that are in use until this change is made: \
         `[limits] source_prefixes` is {limit} (another takes effect after `ballast detach` and a start)"
    )]
    SourcePrefixes { there: usize, added: usize, limit: u32 },
}

impl Exhausted {
    /// The key of `[limits]`.
    pub const fn limit(&self) -> &'static str {
        match self {
            Self::Services(_) => "limits.services",
            Self::LookupSlots { .. } => "limits.lookup_slots",
            Self::Backends { .. } => "limits.backends",
            Self::SourcePrefixes { .. } => "limits.source_prefixes",
        }
    }
}

impl Allocation {
    /// What the records of a previous controller say. Records that can't be right (a region outside the table) are
    /// left out, and their numbers are given out again.
    pub(super) fn restore(
        limits: Limits,
        services: &[(u32, ServiceRecord)],
        backends: &[(u32, BackendValue)],
    ) -> Self {
        let mut allocation = Self { backends_used: 1, ..Self::default() };
        for (id, record) in services {
            let region = u64::from(record.slots_base) + (1u64 << record.slots_log2.min(63));
            if is_whole(record) && region <= u64::from(limits.lookup_slots) {
                let slot = ServiceSlot { id: *id, base: record.slots_base, log2: record.slots_log2 };
                allocation.services.insert(record.stable_id, slot);
            }
        }
        let numbers: HashSet<u32> = allocation.services.values().map(|slot| slot.id).collect();
        for (index, value) in backends {
            if value.stable_id == StableId::default() || *index == 0 {
                continue;
            }
            allocation.backends_used = allocation.backends_used.max(index + 1);
            // A crash may have left backends of a service that was never there: another may have its number by now.
            if value.state & STATE_IN_USE != 0 && numbers.contains(&value.service) {
                allocation.backends.insert(value.stable_id, *index);
            } else {
                // Its service's number may be another's by now, so nothing says who kept its flows.
                let (service, idle) = (value.service, value.flow_idle_timeout);
                let retired = Retired { service, idle, translated: true };
                allocation.quarantine(*index, value.stable_id, retired, value.quarantined_at);
            }
        }
        allocation
    }

    /// The number and region of a service; a table of another size is another region.
    pub(super) fn service(
        &mut self,
        id: StableId,
        log2: u8,
        limits: Limits,
    ) -> Result<ServiceSlot, Exhausted> {
        if let Some(slot) = self.services.get(&id)
            && slot.log2 == log2
        {
            return Ok(*slot);
        }
        let number = match self.services.get(&id) {
            Some(slot) => slot.id,
            None => {
                let used: HashSet<u32> =
                    self.services.values().chain(&self.leaving).map(|slot| slot.id).collect();
                (0..limits.services)
                    .find(|n| !used.contains(n))
                    .ok_or(Exhausted::Services(limits.services))?
            }
        };
        let base = self.free_region(log2, limits)?;
        let slot = ServiceSlot { id: number, base, log2 };
        self.leaving.extend(self.services.insert(id, slot));
        Ok(slot)
    }

    /// Takes number and region from a service, which is to get others. Nobody else may have them before the next change.
    pub(super) fn release_service(&mut self, id: StableId) {
        self.leaving.extend(self.services.remove(&id));
    }

    /// Frees the services that are not `wanted`, and the regions that a change of size left. Only the next change may
    /// have them.
    pub(super) fn retain_services(&mut self, wanted: impl Fn(&StableId) -> bool) {
        self.services.retain(|id, _| wanted(id));
        self.leaving.clear();
    }

    /// First gap in which a region fits.
    fn free_region(&self, log2: u8, limits: Limits) -> Result<u32, Exhausted> {
        let size = 1u64 << log2;
        let mut taken: Vec<(u64, u64)> = self
            .services
            .values()
            .chain(&self.leaving)
            .map(|slot| (u64::from(slot.base), u64::from(slot.base) + (1u64 << slot.log2)))
            .collect();
        taken.sort_unstable();
        let mut base = 0u64;
        for (start, end) in taken {
            if base + size <= start {
                break;
            }
            base = base.max(end);
        }
        u32::try_from(base)
            .ok()
            .filter(|_| base + size <= u64::from(limits.lookup_slots))
            .ok_or(Exhausted::LookupSlots { wanted: 1 << log2, limit: limits.lookup_slots })
    }

    /// The index of a backend of service number `service`. A backend that comes back to it while its index waits gets it
    /// back if it `may_return`: if what still names the index would do no harm.
    pub(super) fn backend(
        &mut self,
        id: StableId,
        service: u32,
        may_return: bool,
        limits: Limits,
        now: u64,
    ) -> Result<Given, Exhausted> {
        if let Some(index) = self.backends.get(&id) {
            return Ok(Given::Known(*index));
        }
        let same =
            |waiting: &Quarantined| may_return && waiting.stable_id == id && waiting.service == service;
        let returning = self.quarantined.iter().find(|(_, waiting)| same(waiting)).map(|(index, _)| *index);
        if let Some(index) = returning {
            self.quarantined.remove(&index);
            self.backends.insert(id, index);
            return Ok(Given::Returning(index));
        }
        let waited = |waiting: &Quarantined| {
            let named_for = waiting.idle.max(FRAGMENT_SECONDS);
            now.saturating_sub(waiting.since) >= named_for
                && waiting.clean >= CLEAN_PASSES
                && (waiting.clean_of_nat >= CLEAN_PASSES || !waiting.translated)
        };
        let index = if self.backends_used < limits.backends {
            self.backends_used += 1;
            self.backends_used - 1
        } else if let Some((index, _)) = self.quarantined.iter().find(|(_, waiting)| waited(waiting)) {
            *index
        } else {
            return Err(Exhausted::Backends { limit: limits.backends - 1, waiting: self.quarantined.len() });
        };
        self.quarantined.remove(&index);
        self.backends.insert(id, index);
        Ok(Given::Fresh(index))
    }

    /// Takes a backend out of use. Its index waits.
    pub(super) fn retire_backend(&mut self, id: StableId, retired: Retired, now: u64) {
        if let Some(index) = self.backends.remove(&id) {
            self.quarantine(index, id, retired, now);
        }
    }

    fn quarantine(&mut self, index: u32, stable_id: StableId, retired: Retired, since: u64) {
        let Retired { service, idle, translated } = retired;
        let idle = idle.into();
        let waiting = Quarantined { stable_id, service, since, idle, translated, clean: 0, clean_of_nat: 0 };
        self.quarantined.insert(index, waiting);
    }

    /// Takes note of a pass of the scan.
    pub(super) fn observe(&mut self, census: &Census) {
        for (index, waiting) in &mut self.quarantined {
            let found = census.named.contains(index) || census.began.boot_seconds() <= waiting.since;
            waiting.clean = if found { 0 } else { waiting.clean.saturating_add(1) };
        }
    }

    /// Takes note of a pass of NAT's sweep.
    pub(super) fn observe_nat(&mut self, census: &NatCensus) {
        for (index, waiting) in &mut self.quarantined {
            let found = census.named.contains(index) || census.began.boot_seconds() <= waiting.since;
            waiting.clean_of_nat = if found { 0 } else { waiting.clean_of_nat.saturating_add(1) };
        }
    }
}

/// Whether a service's record is all there. A crash may have cut it short, and then nothing leads to the service yet; the
/// timeout is in its last words and never 0.
pub(super) fn is_whole(record: &ServiceRecord) -> bool {
    record.flags & SERVICE_IN_USE != 0 && record.flow_idle_timeout != 0
}

/// Records of services; and apart from them those of services that were being replaced, or had been, when a crash left two:
/// the one is the service that packets find by the `live` table.
pub(super) fn without_twins(records: Vec<Numbered>, live: &[ServiceEntry]) -> (Vec<Numbered>, Vec<Numbered>) {
    let services = live.iter().filter(|entry| entry.key.kind == KIND_SERVICE);
    let found: HashSet<u32> = services.map(|entry| entry.service).collect();
    let live = records.iter().filter(|(number, record)| is_whole(record) && found.contains(number));
    let live: HashMap<StableId, u32> = live.map(|(number, record)| (record.stable_id, *number)).collect();
    let stays = |(number, record): &Numbered| live.get(&record.stable_id).is_none_or(|live| live == number);
    records.into_iter().partition(stays)
}

/// A service's record and its number.
type Numbered = (u32, ServiceRecord);

/// Passes of the scan, a second apart, that have to find an index nowhere before another backend gets it.
const CLEAN_PASSES: u32 = 2;

/// How long the note of a fragment may name an index, in seconds: clocks differ by a moment at either end.
const FRAGMENT_SECONDS: u64 = FRAGMENT_AGE as u64 + 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dataplane::scan::Moment;

    const LIMITS: Limits = Limits {
        services: 2,
        backends: 4,
        lookup_slots: 4096,
        flow_entries: 1024,
        nat_flows: 1024,
        source_prefixes: 1024,
    };

    fn id(n: u8) -> StableId {
        [n; 16]
    }

    fn of_service(service: u32, idle: u32) -> Retired {
        Retired { service, idle, translated: false }
    }

    fn began(second: u64) -> Moment {
        Moment { boot: Duration::from_secs(second), ..Moment::default() }
    }

    #[test]
    fn regions_fill_gaps() {
        let limits = Limits { services: 8, ..LIMITS };
        let mut allocation = Allocation::restore(limits, &[], &[]);
        let bases: Vec<_> = [10, 11, 10]
            .iter()
            .zip(1..)
            .map(|(&log2, n)| allocation.service(id(n), log2, limits).unwrap().base)
            .collect();
        assert_eq!(bases, [0, 1024, 3072]);
        let full = allocation.service(id(9), 10, limits);
        assert_eq!(full, Err(Exhausted::LookupSlots { wanted: 1024, limit: 4096 }));
        allocation.services.remove(&id(1));
        assert_eq!(allocation.service(id(9), 10, limits).unwrap().base, 0);
    }

    #[test]
    fn an_index_is_not_reused_before_its_time() {
        let mut allocation = Allocation::restore(LIMITS, &[], &[]);
        for n in 1..4 {
            assert_eq!(allocation.backend(id(n), 0, true, LIMITS, 0), Ok(Given::Fresh(u32::from(n))));
        }
        allocation.retire_backend(id(2), of_service(0, 60), 100);
        let refused = Err(Exhausted::Backends { limit: 3, waiting: 1 });
        let pass = |second, named: &[u32]| Census {
            began: began(second),
            named: named.iter().copied().collect(),
            ..Census::default()
        };
        assert_eq!(allocation.backend(id(9), 0, true, LIMITS, 500), refused);
        // The first began before it was retired, the second found it.
        for census in [pass(100, &[]), pass(101, &[2]), pass(102, &[])] {
            allocation.observe(&census);
            assert_eq!(allocation.backend(id(9), 0, true, LIMITS, 500), refused);
        }
        allocation.observe(&pass(103, &[]));
        assert_eq!(allocation.backend(id(9), 0, true, LIMITS, 159), refused);
        assert_eq!(allocation.backend(id(9), 0, true, LIMITS, 160), Ok(Given::Fresh(2)));
    }

    #[test]
    fn an_index_that_nat_may_name_waits_for_its_sweep_and_no_other_does() {
        for translated in [false, true] {
            let limits = Limits { backends: 2, ..LIMITS };
            let mut allocation = Allocation::restore(limits, &[], &[]);
            allocation.backend(id(1), 0, true, limits, 0).unwrap();
            allocation.retire_backend(id(1), Retired { service: 0, idle: 1, translated }, 100);
            for second in 101..=102 {
                allocation.observe(&Census { began: began(second), ..Census::default() });
            }
            assert_eq!(allocation.clone().backend(id(2), 0, true, limits, 200).is_ok(), !translated);
            if !translated {
                continue;
            }
            // One pass is not two, however often the scan asks what it found.
            for (second, named, free) in [(100, 0, false), (101, 1, false), (102, 0, false), (103, 0, true)] {
                let named = [named].into();
                allocation.observe_nat(&NatCensus { began: began(second), named, ..NatCensus::default() });
                for _ in 0..3 {
                    allocation.observe(&Census { began: began(103), ..Census::default() });
                }
                let given = allocation.clone().backend(id(2), 0, true, limits, 200);
                assert_eq!(given.is_ok(), free, "second {second}");
            }
        }
    }

    #[test]
    fn a_backend_that_comes_back_gets_its_index_back() {
        let mut allocation = Allocation::restore(LIMITS, &[], &[]);
        let index = allocation.backend(id(1), 7, true, LIMITS, 0).unwrap().index();
        allocation.retire_backend(id(1), of_service(7, 60), 1);
        assert_eq!(allocation.backend(id(1), 7, true, LIMITS, 1), Ok(Given::Returning(index)));
        allocation.retire_backend(id(1), of_service(7, 60), 1);
        assert_eq!(allocation.backend(id(1), 8, true, LIMITS, 1), Ok(Given::Fresh(index + 1)));
        allocation.retire_backend(id(1), of_service(8, 60), 1);
        assert_eq!(allocation.backend(id(1), 8, false, LIMITS, 1), Ok(Given::Fresh(index + 2)));
    }

    #[test]
    fn an_index_waits_for_notes_of_fragments_however_short_the_idle_timeout() {
        let limits = Limits { backends: 2, ..LIMITS };
        let mut allocation = Allocation::restore(limits, &[], &[]);
        allocation.backend(id(1), 0, true, limits, 0).unwrap();
        allocation.retire_backend(id(1), of_service(0, 1), 100);
        for second in 101..=103 {
            allocation.observe(&Census { began: began(second), ..Census::default() });
        }
        assert!(allocation.backend(id(2), 0, true, limits, 106).is_err());
        assert_eq!(allocation.backend(id(2), 0, true, limits, 107), Ok(Given::Fresh(1)));
    }

    #[test]
    fn too_many_services_are_refused() {
        let mut allocation = Allocation::restore(LIMITS, &[], &[]);
        allocation.service(id(1), 10, LIMITS).unwrap();
        allocation.service(id(2), 10, LIMITS).unwrap();
        assert_eq!(allocation.service(id(3), 10, LIMITS), Err(Exhausted::Services(2)));
    }
}

//! Which objects a list shows, and in which order.

use std::cmp::{Ordering, Reverse};

use crate::{
    api::v1,
    console::{
        Rating,
        rates::{Rate, StatusRates},
    },
};

/// What is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    Services,
    /// The backends of all services.
    Backends,
    /// The backends of one.
    Service(String),
    Drops,
}

/// A row: the place of an object in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Service(usize),
    Backend(usize, usize),
    Drop(usize),
}

/// What tells an object from all others, also after its place is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// A service or a reason.
    pub(super) name: String,
    pub(super) backend: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Packets,
    Bits,
    NewFlows,
    /// The worst first.
    State,
    Name,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Packets => Self::Bits,
            Self::Bits => Self::NewFlows,
            Self::NewFlows => Self::State,
            Self::State => Self::Name,
            Self::Name => Self::Packets,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bits => "bits",
            Self::NewFlows => "new flows",
            Self::State => "state",
            Self::Name => "name",
        }
    }
}

/// The rows of a view that match all `words`, in order.
pub(super) fn rows(
    status: &v1::Status,
    rates: &StatusRates,
    view: &View,
    words: &[&str],
    (sort, reversed): (Sort, bool),
) -> Vec<Row> {
    let services = || status.services.iter().enumerate();
    let backends = |(at, service): (usize, &v1::Service)| {
        (0..service.backends.len()).map(move |of| Row::Backend(at, of))
    };
    let mut rows: Vec<_> = match view {
        View::Services => services().map(|(at, _)| Row::Service(at)).collect(),
        View::Backends => services().flat_map(backends).collect(),
        View::Service(name) => {
            services().filter(|(_, service)| service.name == *name).flat_map(backends).collect()
        }
        View::Drops => (0..status.drops.len()).map(Row::Drop).collect(),
    };
    rows.retain(|row| matches(status, *row, words));
    let key = |row: &Row| Key::of(status, rates, *row, sort);
    // Keys are made once for each row: there may be ten thousand of them.
    rows.sort_by_cached_key(key);
    if reversed {
        rows.reverse();
    }
    rows
}

pub(super) fn identity(status: &v1::Status, row: Row) -> Option<Identity> {
    Some(match row {
        Row::Service(at) => Identity { name: status.services.get(at)?.name.clone(), backend: None },
        Row::Backend(at, of) => {
            let service = status.services.get(at)?;
            Identity { name: service.name.clone(), backend: Some(service.backends.get(of)?.name.clone()) }
        }
        Row::Drop(at) => Identity { name: status.drops.keys().nth(at)?.clone(), backend: None },
    })
}

/// Rate of a row's object.
pub(super) fn rate(rates: &StatusRates, row: Row) -> Option<Rate> {
    match row {
        Row::Service(at) => rates.services.get(at)?.rate,
        Row::Backend(at, of) => rates.services.get(at)?.backends.get(of).copied().flatten(),
        Row::Drop(at) => {
            let packets = rates.drops.values().nth(at).copied().flatten()?;
            Some(Rate { packets, bits: packets, new_flows: None })
        }
    }
}

/// Whether a backend can take traffic, in one word, and how good that is.
pub(super) fn state(backend: &v1::Backend) -> (String, Rating) {
    let left = backend.drain_seconds_left;
    match backend.admin.as_str() {
        "active" if !backend.reachable => ("no next hop".to_owned(), Rating::Bad),
        "active" => (backend.health.clone(), Rating::of(&backend.health)),
        "draining" if backend.drained => ("drained".to_owned(), Rating::Doubtful),
        "draining" => (format!("draining {}s", left.unwrap_or_default()), Rating::Doubtful),
        other => (other.to_owned(), Rating::Doubtful),
    }
}

fn matches(status: &v1::Status, row: Row, words: &[&str]) -> bool {
    let service = |at: usize| status.services.get(at);
    let has = |texts: &[&str]| words.iter().all(|word| texts.iter().any(|text| text.contains(word)));
    words.is_empty()
        || match row {
            Row::Service(at) => service(at).is_some_and(|of| {
                has(&[&of.name, &of.address, &of.protocol, &of.state, &of.forwarding, &of.algorithm])
            }),
            Row::Backend(at, of) => service(at).is_some_and(|service| {
                let backend = service.backends.get(of);
                backend.is_some_and(|of| {
                    let reachable = if of.reachable { "" } else { "no next hop" };
                    has(&[&service.name, &of.name, &of.address, &of.admin, &of.health, reachable])
                })
            }),
            Row::Drop(at) => status.drops.keys().nth(at).is_some_and(|reason| has(&[reason])),
        }
}

/// What rows are ordered by: the largest first, then by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    by: Reverse<Amount>,
    /// Drops that never were come last.
    total: Reverse<u64>,
    name: (&'a str, &'a str),
}

/// A rate that can be ordered; what is not known is least.
#[derive(Clone, Copy)]
struct Amount(f64);

impl<'a> Key<'a> {
    fn of(status: &'a v1::Status, rates: &StatusRates, row: Row, sort: Sort) -> Self {
        let amount = match sort {
            Sort::Name => 0.0,
            Sort::State => badness(status, row),
            Sort::Packets => rate(rates, row).map_or(-1.0, |rate| rate.packets),
            Sort::Bits => rate(rates, row).map_or(-1.0, |rate| rate.bits),
            Sort::NewFlows => rate(rates, row).and_then(|rate| rate.new_flows).unwrap_or(-1.0),
        };
        let (name, total) = match row {
            Row::Service(at) => (status.services.get(at).map(|of| (of.name.as_str(), "")), 0),
            Row::Backend(at, of) => {
                let service = status.services.get(at);
                let names =
                    service.and_then(|service| Some((&*service.name, &*service.backends.get(of)?.name)));
                (names, 0)
            }
            Row::Drop(at) => {
                let drop = status.drops.iter().nth(at);
                let total = if sort == Sort::Name { 0 } else { drop.map_or(0, |(_, count)| *count) };
                (drop.map(|(reason, _)| (reason.as_str(), "")), total)
            }
        };
        Self { by: Reverse(Amount(amount)), total: Reverse(total), name: name.unwrap_or_default() }
    }
}

fn badness(status: &v1::Status, row: Row) -> f64 {
    let of = |rating| match rating {
        Rating::Bad => 2.0,
        Rating::Doubtful => 1.0,
        Rating::Good => 0.0,
    };
    match row {
        Row::Service(at) => status.services.get(at).map_or(0.0, |service| of(Rating::of(&service.state))),
        Row::Backend(at, backend) => {
            let backend = status.services.get(at).and_then(|service| service.backends.get(backend));
            backend.map_or(0.0, |backend| of(state(backend).1))
        }
        Row::Drop(_) => 0.0,
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Amount {}

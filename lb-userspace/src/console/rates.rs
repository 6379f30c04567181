//! What passes in a second, from two looks at counters.

use std::{collections::BTreeMap, time::Duration};

use crate::api::v1;

/// In one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub packets: f64,
    pub bits: f64,
    /// `None` where nobody knows which packet begins a flow.
    pub new_flows: Option<f64>,
}

/// Of a service, and of each of its backends in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceRates {
    /// `None` where it can't be told: the object is new, or its counters began anew.
    pub rate: Option<Rate>,
    pub backends: Vec<Option<Rate>>,
}

/// Of everything in a status. A part is `None` where it can't be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusRates {
    pub received: Option<f64>,
    pub verdicts: Option<Verdicts>,
    /// By reason.
    pub drops: BTreeMap<String, Option<f64>>,
    /// In the order of the services.
    pub services: Vec<ServiceRates>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdicts {
    pub tx: f64,
    pub redirect: f64,
    pub pass: f64,
    pub drop: f64,
}

/// `after` was asked for `elapsed` later than `before`.
pub fn of_status(before: &v1::Status, after: &v1::Status, elapsed: Duration) -> StatusRates {
    let rate = |before, after| per_second(before, after, elapsed);
    let verdicts = |before: &v1::Verdicts, after: &v1::Verdicts| {
        Some(Verdicts {
            tx: rate(before.tx, after.tx)?,
            redirect: rate(before.redirect, after.redirect)?,
            pass: rate(before.pass, after.pass)?,
            drop: rate(before.drop, after.drop)?,
        })
    };
    let dropped = |(reason, after): (&String, &u64)| {
        let before = before.drops.get(reason);
        (reason.clone(), before.and_then(|before| rate(*before, *after)))
    };
    StatusRates {
        received: rate(before.packets, after.packets),
        verdicts: verdicts(&before.verdicts, &after.verdicts),
        drops: after.drops.iter().map(dropped).collect(),
        services: of_services(&before.services, &after.services, elapsed),
    }
}

pub fn of_services(before: &[v1::Service], after: &[v1::Service], elapsed: Duration) -> Vec<ServiceRates> {
    let of = |(at, after): (usize, &v1::Service)| match counterpart(before, at, |one| one.name == after.name)
    {
        Some(before) => of_service(before, after, elapsed),
        None => ServiceRates { rate: None, backends: vec![None; after.backends.len()] },
    };
    after.iter().enumerate().map(of).collect()
}

/// Of two looks at one service.
pub fn of_service(before: &v1::Service, after: &v1::Service, elapsed: Duration) -> ServiceRates {
    // Under another address it is another service with counters of its own.
    let same = before.address == after.address && before.protocol == after.protocol;
    let counts = |of: &v1::Service| (of.packets, of.bytes, of.new_flows);
    ServiceRates {
        rate: same.then(|| rate(counts(before), counts(after), elapsed)).flatten(),
        backends: of_backends(&before.backends, &after.backends, elapsed),
    }
}

pub fn of_backends(before: &[v1::Backend], after: &[v1::Backend], elapsed: Duration) -> Vec<Option<Rate>> {
    let counts = |of: &v1::Backend| (of.packets, of.bytes, of.new_flows);
    let of = |(at, after): (usize, &v1::Backend)| {
        let before = counterpart(before, at, |one| one.name == after.name)?;
        let same = before.address == after.address;
        same.then(|| rate(counts(before), counts(after), elapsed)).flatten()
    };
    after.iter().enumerate().map(of).collect()
}

/// The one that was meant before: most often it is at the same place, with ten thousand of them as well.
pub(super) fn counterpart<T>(before: &[T], at: usize, same: impl Fn(&T) -> bool) -> Option<&T> {
    before.get(at).filter(|one| same(one)).or_else(|| before.iter().find(|one| same(one)))
}

type Counts = (u64, u64, Option<u64>);

fn rate(before: Counts, after: Counts, elapsed: Duration) -> Option<Rate> {
    let new_flows = before.2.zip(after.2);
    Some(Rate {
        packets: per_second(before.0, after.0, elapsed)?,
        bits: per_second(before.1, after.1, elapsed)? * 8.0,
        new_flows: match new_flows {
            Some((before, after)) => Some(per_second(before, after, elapsed)?),
            None => None,
        },
    })
}

/// `None` where a counter went backwards: it began anew, and what passed before that is not known.
fn per_second(before: u64, after: u64, elapsed: Duration) -> Option<f64> {
    let grown = after.checked_sub(before)?;
    // A rate need not be exact in its sixteenth digit.
    (!elapsed.is_zero()).then(|| grown as f64 / elapsed.as_secs_f64())
}

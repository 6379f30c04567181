//! Somebody else who makes routes with this daemon's protocol number: each removes the other's for what an earlier daemon left.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::plan::OwnRoute;

/// Remembers the routes that were removed and come back.
#[derive(Debug, Default)]
pub(super) struct Rival {
    /// How often in a row, and when last.
    removed: BTreeMap<OwnRoute, (u32, Instant)>,
}

impl Rival {
    /// `route`, which this daemon has no use for, was removed.
    pub(super) fn note(&mut self, route: OwnRoute, now: Instant) {
        self.removed.retain(|_, (_, last)| now.saturating_duration_since(*last) < MEMORY);
        let (times, last) = self.removed.entry(route).or_insert((0, now));
        (*times, *last) = (times.saturating_add(1), now);
    }

    /// What there is to say, if a route has come back often enough that nobody can have left it.
    pub(super) fn told(&self, now: Instant) -> Option<String> {
        let is_lately = |last: Instant| now.saturating_duration_since(last) < MEMORY;
        let comes_back = |(route, (times, last)): (&OwnRoute, &(u32, Instant))| {
            (*times >= OFTEN && is_lately(*last)).then_some(*route)
        };
        let OwnRoute { prefix, protocol, table, .. } = self.removed.iter().find_map(comes_back)?;
        Some(format!(
            "somebody else makes routes with protocol {protocol}: the one for {prefix} in table {table} comes back whenever it is \
             removed. Two daemons in one network namespace need two numbers ([announce] protocol)"
        ))
    }
}

/// A restart, a reload and an administrator's mistake are three.
const OFTEN: u32 = 4;
/// Longer than routes are left unread.
const MEMORY: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announce::plan, config::RouteSettings};

    #[test]
    fn a_route_that_comes_back_is_a_rivals_and_one_that_goes_is_nobodys() {
        let route = |last| plan::route([203, 0, 113, last].into(), &RouteSettings::default(), None);
        let (mut rival, start) = (Rival::default(), Instant::now());
        let second = Duration::from_secs(1);
        for last in 0..20 {
            rival.note(route(last), start);
        }
        assert_eq!(rival.told(start), None);
        for at in [10, 20, 30] {
            assert_eq!(rival.told(start + at * second), None);
            rival.note(route(7), start + at * second);
        }
        let told = rival.told(start + 30 * second).expect("four times");
        assert!(told.contains("203.0.113.7") && told.contains("protocol 117"), "{told}");
        assert!(rival.told(start + 209 * second).is_some() && rival.told(start + 210 * second).is_none());
        // It begins from the beginning.
        rival.note(route(7), start + 300 * second);
        assert_eq!(rival.told(start + 300 * second), None);
    }
}

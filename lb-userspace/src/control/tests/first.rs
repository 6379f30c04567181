//! The first table of a service: whole at once, and not waited for longer than a first check takes.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    control::State,
    dataplane::{encode, reconcile::Recorded, scan::Moment},
    domain::OnAllDown,
};

/// A state, and the time since its services were declared.
struct Started {
    state: State,
    now: Duration,
}

const TIMEOUT: Duration = Duration::from_millis(300);
/// Of three backends.
const PATIENCE: Duration = Duration::from_millis(330);
const MOMENT: Duration = Duration::from_millis(1);

impl Started {
    fn new(web: Service, recorded: &HashMap<[u8; 16], Recorded>) -> Self {
        let state = State::default().apply(&declare(vec![web]), recorded, at(Duration::ZERO)).unwrap().0;
        Self { state, now: Duration::ZERO }
    }

    fn apply(&mut self, command: &Command) {
        self.state = self.state.apply(command, &HashMap::new(), at(self.now)).unwrap().0;
    }

    fn health(&mut self, backend: &str, health: Health) {
        let address = self.state.service(&name("web")).unwrap().backends[backend].address.to_string();
        self.apply(&Command::Health(vec![report(backend, &address, health)]));
    }

    fn all(&mut self, backends: &[&str], health: Health) {
        backends.iter().for_each(|backend| self.health(backend, health));
    }

    /// What time brings, as the task asks for it.
    fn wait_until(&mut self, then: Duration) {
        if let Some(due) = self.state.next_change(at(self.now)).filter(|due| *due <= at(then).boot) {
            self.now = due - at(Duration::ZERO).boot;
            self.state = self.state.at(at(self.now));
        }
        self.now = then;
    }

    /// Who gets new flows.
    fn table(&self) -> Vec<String> {
        let desired = self.state.desired(at(self.now).boot_seconds());
        let all = desired.services.into_iter().flat_map(|service| service.backends);
        all.filter(|backend| backend.weight > 0).map(|backend| backend.name.to_string()).collect()
    }
}

fn at(since_start: Duration) -> Moment {
    let boot = Duration::from_millis(1_000_700) + since_start;
    Moment { monotonic: boot, boot }
}

fn web() -> Service {
    let mut web = service("web", &[("a", 1), ("b", 1), ("c", 1)]);
    web.health.timeout = TIMEOUT;
    web
}

#[test]
fn backends_that_pass_one_after_the_other_come_into_the_first_table_together() {
    let mut started = Started::new(web(), &HashMap::new());
    for backend in ["b", "a"] {
        started.health(backend, Health::Healthy);
        assert_eq!(started.table(), [""; 0]);
        assert!(started.state.gathers(&name("web")));
        let then = started.now + TIMEOUT / 3;
        started.wait_until(then);
    }
    started.health("c", Health::Healthy);
    assert_eq!(started.table(), ["a", "b", "c"]);
    assert!(!started.state.gathers(&name("web")) && started.state.next_change(at(started.now)).is_none());
}

#[test]
fn one_that_gives_no_answer_is_not_waited_for_and_comes_later() {
    let mut started = Started::new(web(), &HashMap::new());
    started.wait_until(Duration::from_secs(10));
    started.health("a", Health::Healthy);
    let first = started.now;
    started.wait_until(first + TIMEOUT / 2);
    started.health("b", Health::Healthy);
    started.wait_until(first + PATIENCE - MOMENT);
    assert_eq!(started.table(), [""; 0]);
    started.wait_until(first + PATIENCE);
    assert_eq!(started.table(), ["a", "b"]);
    assert_eq!(started.state.next_change(at(started.now)), None);
    // From then on everyone comes and goes alone.
    started.health("c", Health::Healthy);
    assert_eq!(started.table(), ["a", "b", "c"]);
    started.all(&["a", "b"], Health::Unhealthy);
    assert_eq!(started.table(), ["c"]);
}

#[test]
fn a_verdict_that_speaks_against_one_is_a_verdict() {
    let mut started = Started::new(web(), &HashMap::new());
    started.health("a", Health::Healthy);
    started.health("b", Health::Unhealthy);
    assert_eq!(started.table(), [""; 0]);
    started.health("c", Health::Ineligible);
    assert_eq!(started.table(), ["a"]);
}

#[test]
fn the_dead_get_traffic_by_failing_open_no_sooner_than_anybody() {
    let mut started = Started::new(web(), &HashMap::new());
    started.health("a", Health::Unhealthy);
    assert_eq!(started.table(), [""; 0]);
    started.health("b", Health::Healthy);
    started.wait_until(PATIENCE);
    assert_eq!(started.table(), ["b"]);

    let mut all_dead = Started::new(web(), &HashMap::new());
    all_dead.all(&["a", "b", "c"], Health::Unhealthy);
    assert_eq!(all_dead.table(), ["a", "b", "c"]);
    // Whoever comes back then is needed at once.
    all_dead.health("b", Health::Healthy);
    assert_eq!(all_dead.table(), ["b"]);
}

#[test]
fn a_service_that_is_down_goes_up_with_its_first_backend() {
    let mut started = Started::new(Service { on_all_down: OnAllDown::Drop, ..web() }, &HashMap::new());
    started.all(&["a", "b", "c"], Health::Healthy);
    started.all(&["a", "b", "c"], Health::Unhealthy);
    assert_eq!(started.table(), [""; 0]);
    // Also if one has come meanwhile that nobody has looked at.
    let mut more = service("web", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    (more.on_all_down, more.health.timeout) = (OnAllDown::Drop, TIMEOUT);
    started.apply(&declare(vec![more]));
    started.health("b", Health::Healthy);
    assert_eq!(started.table(), ["b"]);
}

#[test]
fn a_daemon_that_finds_its_maps_waits_for_nobody() {
    let id = |backend: &str| {
        let address = web().backends[backend].address;
        encode::backend_id(&name("web"), &name(backend), address)
    };
    let down = Recorded { health: Health::Unhealthy, left_table_at: 900, ..Recorded::default() };
    let up = Recorded { health: Health::Healthy, in_table: true, ..Recorded::default() };
    let web = || Service { on_all_down: OnAllDown::Drop, ..web() };
    let mut started = Started::new(web(), &HashMap::from([(id("a"), down), (id("b"), down)]));
    started.health("b", Health::Healthy);
    assert_eq!(started.table(), ["b"]);
    let started = Started::new(web(), &HashMap::from([(id("a"), up)]));
    assert_eq!(started.table(), ["a"]);
    // One that was killed before there was a table has left none.
    let new = Recorded { health: Health::Healthy, ..Recorded::default() };
    let started = Started::new(web(), &HashMap::from([(id("a"), new)]));
    assert_eq!(started.table(), [""; 0]);
}

#[test]
fn backends_that_start_slowly_start_together_and_have_equal_parts() {
    let slowly = Service { slow_start: Duration::from_secs(40), ..web() };
    let mut started = Started::new(slowly, &HashMap::new());
    for backend in ["a", "b", "c"] {
        started.health(backend, Health::Healthy);
        let then = started.now + TIMEOUT / 3;
        started.wait_until(then);
    }
    for seconds in [0, 10, 20, 30, 40] {
        let desired = started.state.desired(at(Duration::from_secs(seconds)).boot_seconds());
        let weights: Vec<_> = desired.services[0].backends.iter().map(|backend| backend.weight).collect();
        assert!(weights.iter().all(|weight| *weight == weights[0]), "{weights:?} after {seconds} s");
    }
}

proptest! {
    /// Whoever passes within a check's time of the first makes no second table, in whatever order and however many are dead.
    #[test]
    fn a_start_makes_one_table_of_all_who_are_well(
        passes in prop::collection::vec(prop::option::weighted(0.8, 0..PATIENCE.as_millis() as u64), 3),
    ) {
        let mut started = Started::new(web(), &HashMap::new());
        let mut events: Vec<_> =
            passes.iter().zip(["a", "b", "c"]).filter_map(|(after, name)| Some((after.as_ref()?, name))).collect();
        events.sort_unstable();
        let (first, last) = (events.first().map(|(after, _)| **after), events.last().map(|(after, _)| **after));
        let mut tables = Vec::new();
        for (after, backend) in &events {
            started.wait_until(Duration::from_millis(**after));
            tables.push(started.table());
            started.health(backend, Health::Healthy);
            tables.push(started.table());
        }
        started.wait_until(Duration::from_secs(2));
        tables.push(started.table());
        tables.retain(|table| !table.is_empty());
        tables.dedup();
        let mut expected: Vec<_> = events.iter().map(|(_, name)| name.to_string()).collect();
        expected.sort_unstable();
        prop_assert!(last.unwrap_or_default() - first.unwrap_or_default() < PATIENCE.as_millis() as u64);
        prop_assert_eq!(tables, if expected.is_empty() { vec![] } else { vec![expected] });
    }
}

/// What the task makes of it, by the clock: no slot is tracked, and it is said why a backend that passed has no traffic.
#[tokio::test]
async fn nothing_is_tracked_after_a_start_and_what_is_waited_for_is_told() {
    let fake = Fake::new(LIMITS);
    let control = control_over(fake.clone());
    let mut web = web();
    web.health.timeout = Duration::from_secs(1);
    control.submit(declare(vec![web])).await.unwrap();
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    let snapshot = control.snapshot();
    let view = &snapshot.services[0];
    assert!(view.gathers && view.state == ServiceState::Failing);
    let details: Vec<_> = view.backends.iter().map(|backend| backend.health_detail.as_str()).collect();
    let waits = "test; in the table with the others that pass their first check";
    assert_eq!(details, [waits, "not checked yet", "not checked yet"]);
    healthy(&control, &[("b", "10.0.0.2:80")]).await;
    let mut snapshots = control.watch();
    let full = snapshots.wait_for(|snapshot| !snapshot.services[0].gathers);
    tokio::time::timeout(Duration::from_secs(20), full).await.expect("it waits for c no longer").unwrap();
    let view = &control.snapshot().services[0];
    assert_eq!((view.state, view.backends[0].health_detail.as_str()), (ServiceState::Degraded, "test"));
    let shares: Vec<_> = view.backends.iter().map(|backend| backend.share).collect();
    assert!(shares[0] > 0.4 && shares[1] > 0.4 && shares[2] == 0.0, "{shares:?}");
    assert!((0..LIMITS.lookup_slots).all(|slot| !fake.slot(slot).is_tracked()));
}

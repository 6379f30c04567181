//! Drains and graces: the state as a value, with time passed in.

use std::{collections::HashMap, time::Duration};

use super::*;
use crate::{
    control::{Edit, State},
    dataplane::{
        desired::{DesiredBackend, DesiredService},
        encode,
        reconcile::Recorded,
        scan::Moment,
    },
    domain::{Admin, Backend, Fraction, Kept, OnAllDown, Origin, Protocol},
};

/// A state and the time in boot seconds.
struct Timed {
    state: State,
    now: u64,
}

impl Timed {
    /// "web" with these backends, all healthy since second 1000.
    fn new(web: Service) -> Self {
        let names: Vec<_> = web.backends.keys().cloned().collect();
        let mut timed = Self { state: State::default(), now: 1000 };
        timed.apply(&declare(vec![web]));
        for name in names {
            timed.health(name.as_str(), Health::Healthy);
        }
        timed
    }

    fn apply(&mut self, command: &Command) {
        self.state = self.state.apply(command, &HashMap::new(), at(self.now)).unwrap().0;
    }

    fn edit(&mut self, edit: Edit) {
        self.apply(&Command::Edit { edit, ways: Vec::new() });
    }

    fn admin(&mut self, backend: &str, admin: Admin) {
        self.edit(Edit::SetAdmin { service: name("web"), backend: name(backend), admin });
    }

    fn health(&mut self, backend: &str, health: Health) {
        let address = self.backend(backend).address.to_string();
        self.apply(&Command::Health(vec![report(backend, &address, health)]));
    }

    fn backend(&self, name: &str) -> DesiredBackend {
        let desired = self.state.desired(self.now);
        let mut all = desired.services.into_iter().flat_map(|service| service.backends);
        all.find(|backend| backend.name.as_str() == name).unwrap()
    }

    /// In boot-time seconds.
    fn next_change(&self) -> Option<u64> {
        self.state.next_change(at(self.now)).map(|next| next.as_secs())
    }

    /// Weight, and whether existing flows stay.
    fn seen(&self, name: &str) -> (u16, bool) {
        let backend = self.backend(name);
        (backend.weight, backend.accepts_existing)
    }

    /// A daemon that starts later with what this one kept and recorded.
    fn restarted(&self, web: Service, after: u64) -> Self {
        let desired = self.state.desired(self.now).services.into_iter();
        let recorded = desired.flat_map(|DesiredService { backends, panics, .. }| {
            backends.into_iter().map(move |backend| {
                let DesiredBackend { id, health, left_table_at, drain_deadline, started_at, weight, .. } =
                    backend;
                let in_table = weight > 0;
                (id, Recorded { health, left_table_at, drain_deadline, started_at, in_table, panics })
            })
        });
        let recorded: HashMap<_, _> = recorded.collect();
        let now = self.now + after;
        let state = State::new(self.state.kept().clone());
        let state = state.apply(&declare(vec![web]), &recorded, at(now)).unwrap().0;
        Self { state, now }
    }
}

fn at(seconds: u64) -> Moment {
    let since_boot = Duration::from_secs(seconds);
    Moment { monotonic: since_boot, boot: since_boot }
}

fn web() -> Service {
    service("web", &[("a", 1), ("b", 1)])
}

#[test]
fn a_drain_ends_at_its_time_and_a_second_one_does_not_extend_it() {
    let mut timed = Timed::new(web());
    timed.admin("a", Admin::Draining);
    assert_eq!((timed.seen("a"), timed.backend("a").drain_deadline), ((0, true), 1300));
    assert_eq!(timed.next_change(), Some(1300));
    timed.now = 1200;
    timed.admin("a", Admin::Draining);
    timed.apply(&declare(vec![web()]));
    assert_eq!(timed.backend("a").drain_deadline, 1300);
    timed.now = 1299;
    assert_eq!(timed.seen("a"), (0, true));
    timed.now = 1300;
    assert_eq!((timed.seen("a"), timed.next_change()), ((0, false), None));
    timed.admin("a", Admin::Active);
    assert_eq!((timed.seen("a"), timed.backend("a").drain_deadline), ((1, true), 0));
    // A drain after that is a new one.
    timed.admin("a", Admin::Draining);
    assert_eq!(timed.backend("a").drain_deadline, 1600);
}

#[test]
fn a_drain_timeout_of_nothing_ends_flows_at_once_and_so_does_disabling() {
    let mut timed = Timed::new(Service { drain_timeout: Duration::ZERO, ..web() });
    timed.admin("a", Admin::Draining);
    timed.admin("b", Admin::Disabled);
    timed.now -= 1;
    assert_eq!((timed.seen("a"), timed.seen("b")), ((0, false), (0, false)));
    assert_eq!(timed.backend("b").drain_deadline, 0);
}

#[test]
fn a_restart_extends_no_drain_and_no_grace_and_changes_nothing() {
    let mut timed = Timed::new(service("web", &[("a", 1), ("b", 1), ("c", 1)]));
    let file = service("web", &[("a", 1), ("b", 1), ("c", 1)]);
    timed.admin("a", Admin::Draining);
    timed.health("b", Health::Unhealthy);
    let told = |timed: &Timed| {
        ["a", "b", "c"].map(|name| {
            let backend = timed.backend(name);
            let times = (backend.left_table_at, backend.drain_deadline);
            (backend.weight, backend.accepts_existing, backend.health, backend.admin, times)
        })
    };
    assert_eq!((timed.backend("a").left_table_at, timed.backend("b").left_table_at), (1000, 1000));
    let restarted = timed.restarted(file.clone(), 10);
    assert_eq!(told(&restarted), told(&timed));
    assert_eq!(restarted.next_change(), Some(1030));
    // A restart after the deadlines finds them passed.
    let late = timed.restarted(file, 400);
    assert_eq!((late.seen("a"), late.seen("b"), late.seen("c")), ((0, false), (0, false), (1, true)));
}

#[test]
fn grace_is_counted_from_leaving_the_table() {
    let mut timed = Timed::new(web());
    timed.now = 2000;
    timed.health("a", Health::Unhealthy);
    assert_eq!((timed.seen("a"), timed.backend("a").left_table_at), ((0, true), 2000));
    assert_eq!(timed.next_change(), Some(2030));
    // Another failed check in other words, and a reload, change nothing.
    timed.now = 2020;
    timed.health("a", Health::Unhealthy);
    timed.apply(&declare(vec![web()]));
    assert_eq!(timed.backend("a").left_table_at, 2000);
    timed.now = 2030;
    assert_eq!(timed.seen("a"), (0, false));
    timed.health("a", Health::Healthy);
    assert_eq!((timed.seen("a"), timed.backend("a").left_table_at), ((1, true), 0));
}

#[test]
fn a_backend_that_fails_outside_the_table_has_its_grace_from_then_on() {
    let mut timed = Timed::new(web());
    timed.edit(Edit::SetWeight { service: name("web"), backend: name("a"), weight: 0 });
    timed.now = 3000;
    timed.health("a", Health::Unhealthy);
    assert_eq!((timed.seen("a"), timed.backend("a").left_table_at), ((0, true), 3000));
    timed.now = 3029;
    timed.health("a", Health::Unhealthy);
    assert_eq!(timed.seen("a"), (0, true));
    timed.now = 3030;
    assert_eq!(timed.seen("a"), (0, false));
}

#[test]
fn no_grace_is_none_at_all() {
    let mut timed = Timed::new(Service { unhealthy_grace: Duration::ZERO, ..web() });
    timed.health("a", Health::Unhealthy);
    // The state's seconds are rounded up, those of what the maps should say are not.
    timed.now -= 1;
    assert_eq!(timed.seen("a"), (0, false));
}

#[test]
fn udp_leaves_an_unhealthy_backend_at_once() {
    let mut timed = Timed::new(Service { protocol: Protocol::Udp, ..web() });
    timed.health("a", Health::Unhealthy);
    assert_eq!((timed.seen("a"), timed.next_change()), ((0, false), None));
}

#[test]
fn grace_begins_when_failing_open_ends() {
    let mut timed = Timed::new(web());
    timed.health("a", Health::Unhealthy);
    timed.health("b", Health::Unhealthy);
    assert_eq!((timed.seen("a"), timed.seen("b")), ((1, true), (1, true)));
    assert_eq!(timed.backend("a").left_table_at, 0);
    timed.now = 5000;
    // Even if another daemon sees it.
    let mut timed = timed.restarted(web(), 0);
    timed.health("b", Health::Healthy);
    assert_eq!((timed.seen("a"), timed.backend("a").left_table_at), ((0, true), 5000));
}

#[test]
fn an_unhealthy_backend_that_never_was_in_the_table_has_no_flows_to_keep() {
    let mut timed = Timed::new(web());
    let backend = Backend {
        name: name("c"),
        address: "10.0.0.3:80".parse().unwrap(),
        weight: 1,
        backup: false,
        admin: Admin::Active,
        origin: Origin::Cli,
    };
    timed.edit(Edit::AddBackend { service: name("web"), backend });
    timed.health("c", Health::Unhealthy);
    assert_eq!((timed.seen("c"), timed.backend("c").left_table_at), ((0, false), 0));
    let restarted = timed.restarted(web(), 5);
    assert_eq!(restarted.backend("c").left_table_at, 0);
}

#[test]
fn nothing_is_in_the_table_when_all_are_unhealthy_and_packets_shall_be_dropped() {
    let mut timed = Timed::new(Service { on_all_down: OnAllDown::Drop, ..web() });
    timed.health("a", Health::Unhealthy);
    timed.health("b", Health::Unhealthy);
    assert_eq!((timed.seen("a"), timed.seen("b")), ((0, true), (0, true)));
}

#[test]
fn only_a_removed_backend_is_cut_and_only_once() {
    let mut timed = Timed::new(web());
    let backend = Backend {
        name: name("c"),
        address: "10.0.0.3:80".parse().unwrap(),
        weight: 1,
        backup: false,
        admin: Admin::Active,
        origin: Origin::Cli,
    };
    let id = encode::backend_id(&name("web"), &name("c"), backend.address);
    timed.edit(Edit::AddBackend { service: name("web"), backend });
    timed.edit(Edit::RemoveBackend { service: name("web"), backend: name("c") });
    let cut = |timed: &Timed| timed.state.desired(timed.now).services[0].cut.clone();
    assert_eq!(cut(&timed), [id]);
    // A backend that is gone from the file drains.
    timed.apply(&declare(vec![service("web", &[("a", 1)])]));
    assert!(cut(&timed).is_empty());
    assert_eq!(timed.state.kept(), &Kept::default());
}

/// Of ten backends the healthy ones may be five to begin with, and have to be six to end it.
#[test]
fn a_restart_goes_on_panicking_and_changes_nothing() {
    let names: Vec<String> = (0..10).map(|n| format!("b{n}")).collect();
    let backends: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut web = service("web", &backends);
    web.panic.threshold = Fraction::new(0.5).unwrap();
    let mut timed = Timed::new(web.clone());
    let weights = |timed: &Timed| names.iter().map(|name| timed.backend(name).weight).collect::<Vec<_>>();
    for name in &names[..5] {
        timed.health(name, Health::Unhealthy);
    }
    assert_eq!(weights(&timed), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    timed.health("b5", Health::Unhealthy);
    timed.health("b5", Health::Healthy);
    assert_eq!(weights(&timed), [1; 10]);
    assert_eq!(weights(&timed.restarted(web.clone(), 10)), [1; 10]);
    timed.health("b4", Health::Healthy);
    assert_eq!(weights(&timed), [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    timed.health("b4", Health::Unhealthy);
    assert_eq!(weights(&timed.restarted(web, 10)), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
}

#[test]
fn connections_of_a_backup_stay_when_the_others_are_back() {
    let mut web = web();
    web.backends.get_mut("b").unwrap().backup = true;
    let mut timed = Timed::new(web);
    timed.health("a", Health::Unhealthy);
    assert_eq!((timed.seen("a"), timed.seen("b")), ((0, true), (1, true)));
    timed.now += 3600;
    timed.health("a", Health::Healthy);
    timed.now += 3600;
    assert_eq!((timed.seen("a"), timed.seen("b")), ((1, true), (0, true)));
}

#[test]
fn a_backend_that_comes_back_starts_slowly_and_a_restart_goes_on_where_it_was() {
    let web = Service { slow_start: Duration::from_secs(40), ..web() };
    let mut timed = Timed::new(web.clone());
    // Both started with the service.
    timed.now = 2000;
    timed.health("a", Health::Unhealthy);
    timed.now = 3000;
    assert_eq!((timed.seen("b"), timed.next_change()), ((1, true), None));
    timed.health("a", Health::Healthy);
    let weights = |timed: &Timed| (timed.backend("a").weight, timed.backend("b").weight);
    assert_eq!((weights(&timed), timed.next_change()), ((4, 40), Some(3010)));
    let restarted = timed.restarted(web.clone(), 10);
    assert_eq!(weights(&restarted), (13, 40));
    timed.now = 3039;
    assert_eq!((weights(&timed), timed.backend("a").started_at), ((31, 40), 3000));
    timed.now = 3040;
    assert_eq!((weights(&timed), timed.next_change()), ((1, 1), None));
    assert_eq!(timed.backend("a").started_at, 0, "it is over");
    assert_eq!(weights(&timed.restarted(web.clone(), 10)), (1, 1));
    // A longer one is for those who come.
    timed.now = 3100;
    timed.apply(&declare(vec![Service { slow_start: Duration::from_secs(400), ..web }]));
    assert_eq!(weights(&timed), (1, 1));
}

#[test]
fn nobody_starts_slowly_who_is_needed_because_others_fail() {
    let web = service("web", &[("a", 1), ("b", 1), ("c", 1)]);
    let mut web = Service { slow_start: Duration::from_secs(40), ..web };
    web.backends.get_mut("c").unwrap().backup = true;
    web.panic.threshold = Fraction::new(0.8).unwrap();
    let mut timed = Timed::new(web);
    let weights = |timed: &Timed| ["a", "b", "c"].map(|name| timed.backend(name).weight);
    timed.now = 2000;
    timed.health("a", Health::Unhealthy);
    assert_eq!(weights(&timed), [0, 1, 1]);
    timed.health("c", Health::Unhealthy);
    assert_eq!(weights(&timed), [1, 1, 1]);
    timed.health("a", Health::Healthy);
    assert_eq!(weights(&timed), [1, 1, 0]);
}

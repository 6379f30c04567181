#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod screens;

use std::time::{Duration, Instant, SystemTime};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    app::{App, Ask},
    rows::{Row, Sort, View},
};
use crate::{
    api::v1,
    console::{
        Rating,
        fixture::{pass, service, status},
    },
    domain::Admin,
};

/// An app, and the daemon that it looks at once a second.
struct World {
    app: App,
    status: v1::Status,
    begun: Instant,
    seconds: u64,
}

impl World {
    fn new() -> Self {
        let services = vec![
            service("web", "203.0.113.10:80", 3),
            service("dns", "203.0.113.53:53", 2),
            service("mail", "[2001:db8::25]:25", 1),
        ];
        Self::of(status(services))
    }

    fn of(status: v1::Status) -> Self {
        let begun = Instant::now();
        let app = App::new(status.clone(), Duration::from_secs(1), begun, wall(0));
        Self { app, status, begun, seconds: 0 }
    }

    /// Packets for backends of the services in a second, and a look at what became of them.
    fn second(&mut self, packets: &[&[u64]]) {
        for (service, packets) in self.status.services.iter_mut().zip(packets) {
            pass(service, packets);
        }
        let all: u64 = packets.iter().copied().flatten().sum();
        (self.status.packets, self.status.verdicts.tx) =
            (self.status.packets + all, self.status.verdicts.tx + all);
        self.look();
    }

    fn look(&mut self) {
        self.seconds += 1;
        let status = self.status.clone();
        self.app.look(Ok(status), self.now(), wall(self.seconds));
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.seconds)
    }

    /// One after the other, without a pause.
    fn press(&mut self, keys: &[KeyCode]) -> Option<Ask> {
        let mut asked = None;
        for key in keys {
            asked = self.app.key(KeyEvent::new(*key, KeyModifiers::NONE), self.now());
        }
        asked
    }

    fn type_in(&mut self, keys: &str) -> Option<Ask> {
        self.press(&keys.chars().map(KeyCode::Char).collect::<Vec<_>>())
    }

    /// The names in the list.
    fn names(&self) -> Vec<String> {
        let name = |row: &Row| {
            let names = super::rows::identity(&self.app.status, *row).unwrap();
            names.backend.unwrap_or(names.name)
        };
        self.app.list.rows.iter().map(name).collect()
    }

    fn selected(&self) -> Option<String> {
        self.names().get(self.app.list.at()).cloned()
    }
}

fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(61_392 + seconds)
}

#[test]
fn the_busiest_come_first_until_another_order_is_asked_for() {
    let mut world = World::new();
    world.second(&[&[10, 10, 10], &[500, 0], &[7]]);
    assert_eq!(world.names(), ["dns", "web", "mail"]);
    world.status.services[2].state = "failing".into();
    world.second(&[&[10, 10, 10], &[500, 0], &[7]]);
    world.app.list.sort = Sort::NewFlows;
    world.type_in("s");
    assert_eq!(world.names(), ["mail", "dns", "web"], "{:?}", world.app.list.sort);
    world.type_in("s");
    assert_eq!(
        (world.names(), world.app.list.sort),
        (["dns", "mail", "web"].map(String::from).to_vec(), Sort::Name)
    );
    world.type_in("r");
    assert_eq!(world.names(), ["web", "mail", "dns"]);
}

#[test]
fn the_cursor_stays_on_its_object_while_rows_change_places() {
    let mut world = World::new();
    world.second(&[&[30, 0, 0], &[20, 0], &[10]]);
    world.press(&[KeyCode::Down]);
    assert_eq!(world.selected().as_deref(), Some("dns"));
    world.second(&[&[1, 0, 0], &[2, 0], &[90]]);
    assert_eq!(
        (world.names(), world.selected().as_deref()),
        (["mail", "dns", "web"].map(String::from).to_vec(), Some("dns"))
    );
    // When it is gone the cursor stays where it was.
    world.status.services.remove(1);
    world.second(&[&[1, 0, 0], &[90]]);
    assert_eq!(world.selected().as_deref(), Some("web"));
    world.press(&[KeyCode::Home]);
    assert_eq!(world.selected().as_deref(), Some("mail"));
    world.press(&[KeyCode::End, KeyCode::Down, KeyCode::PageDown]);
    assert_eq!(world.selected().as_deref(), Some("web"));
    world.status.services.clear();
    world.look();
    assert_eq!(world.selected(), None);
    assert_eq!(world.press(&[KeyCode::Down, KeyCode::Enter, KeyCode::Char('d')]), None);
}

#[test]
fn a_filter_takes_words_of_names_addresses_and_states() {
    let mut world = World::new();
    world.status.services[0].backends[1].health = "unhealthy".into();
    world.look();
    world.type_in("2/unHEALTHY");
    assert_eq!(world.names(), ["web-2"]);
    world.press(&[KeyCode::Backspace; 9]);
    world.type_in("web 10.0.0.12");
    assert_eq!(world.names(), ["web-2"]);
    world.press(&[KeyCode::Enter]);
    // Keys are keys again, and the filter stays over looks.
    world.type_in("r");
    world.look();
    assert_eq!((world.names().len(), world.app.list.filter.as_str()), (1, "web 10.0.0.12"));
    world.press(&[KeyCode::Esc]);
    assert_eq!(world.names().len(), 6);
    world.type_in("/nothing like it");
    assert_eq!(world.names().len(), 0);
}

#[test]
fn a_service_is_opened_and_left_again() {
    let mut world = World::new();
    world.second(&[&[3, 2, 1], &[90, 0], &[7]]);
    world.press(&[KeyCode::Down, KeyCode::Down, KeyCode::Enter]);
    assert_eq!(
        (&world.app.view, world.names()),
        (&View::Service("web".into()), ["web-1", "web-2", "web-3"].map(String::from).to_vec())
    );
    world.press(&[KeyCode::Esc]);
    assert_eq!((&world.app.view, world.selected().as_deref()), (&View::Services, Some("web")));
    // One that is removed while it is open is left, too.
    world.press(&[KeyCode::Enter]);
    world.status.services.remove(0);
    world.look();
    assert_eq!(world.app.view, View::Services);
    assert_eq!(world.app.outcome.as_ref().map(|one| one.text.as_str()), Some("service web is gone"));
    world.press(&[KeyCode::Tab]);
    assert_eq!((&world.app.view, world.names().len()), (&View::Backends, 3));
    world.press(&[KeyCode::Tab]);
    assert_eq!(world.names(), ["new_flow_limit", "next_hop_unresolved", "no_backend"]);
}

#[test]
fn only_a_yes_drains_a_backend() {
    let mut world = World::new();
    world.second(&[&[3, 2, 1], &[0, 0], &[0]]);
    world.press(&[KeyCode::Enter, KeyCode::Down]);
    assert_eq!(world.type_in("d"), None);
    let dialog = world.app.dialog.clone().unwrap();
    assert_eq!((dialog.question().as_str(), dialog.grave), ("Drain backend web/web-2?", false));
    for key in [KeyCode::Enter, KeyCode::Char('d'), KeyCode::Char(' '), KeyCode::Down] {
        assert_eq!((world.press(&[key]), world.app.dialog.is_some()), (None, true), "{key:?}");
    }
    assert_eq!((world.type_in("n"), world.app.dialog.is_some()), (None, false));
    world.type_in("d");
    world.seconds += 1;
    let asked = world.type_in("y");
    let (service, backend) = ("web".parse().unwrap(), "web-2".parse().unwrap());
    assert_eq!(asked, Some(Ask::Set { service, backend, admin: Admin::Draining }));
    let changes = vec![v1::Change {
        action: "change".into(),
        object: "backend web/web-2".into(),
        detail: "active -> draining".into(),
    }];
    world.app.changed(Ok(v1::Changed { revision: 13, changes, warnings: Vec::new() }));
    let told = world.app.outcome.clone().unwrap();
    assert_eq!(told.text, "backend web/web-2: active -> draining; revision 13 is live");
    world.app.changed(Err("the daemon is stopping".into()));
    assert_eq!(world.app.outcome.as_ref().map(|one| one.rating), Some(Rating::Bad));
}

#[test]
fn what_is_pasted_drains_nobody() {
    let mut world = World::new();
    world.type_in("2");
    // However long it is: a pause alone makes a `y` a yes.
    for pasted in ["dy", "dyyyyyyyy", "days of yore, my dear"] {
        assert_eq!(world.type_in(pasted), None, "{pasted}");
        assert!(world.app.dialog.is_some(), "{pasted}");
        world.press(&[KeyCode::Esc]);
    }
    assert_eq!(world.type_in("dy"), None);
    let told = world.app.outcome.clone().unwrap().text;
    assert!(told.contains("y again"), "{told}");
    world.seconds += 1;
    assert!(matches!(world.type_in("y"), Some(Ask::Set { .. })));
}

#[test]
fn enabling_is_for_those_that_are_not_active_and_the_last_one_is_not_drained_lightly() {
    let mut world = World::new();
    world.type_in("2");
    let refused = |world: &World| world.app.outcome.clone().unwrap().text;
    world.type_in("e");
    assert_eq!(refused(&world), "backend dns/dns-1 is active already");
    // All rates are unknown: by name, the third is the only backend of `mail`.
    world.press(&[KeyCode::Down, KeyCode::Down, KeyCode::Char('d')]);
    let dialog = world.app.dialog.clone().unwrap();
    assert_eq!((dialog.backend.as_str(), dialog.grave), ("mail-1", true));
    // It is gone before anybody said yes.
    world.status.services.remove(2);
    world.look();
    assert_eq!((world.app.dialog.is_some(), world.type_in("y")), (false, None));
    world.type_in("1d");
    assert!(refused(&world).starts_with("choose a backend"), "{}", refused(&world));
}

#[test]
fn a_daemon_that_is_away_is_told_of_and_its_last_word_stays() {
    let mut world = World::new();
    world.second(&[&[30, 0, 0], &[20, 0], &[10]]);
    let before = world.app.rates.clone();
    for _ in 0..3 {
        world.seconds += 1;
        world.app.look(Err("connection refused".into()), world.now(), wall(world.seconds));
    }
    let (error, since) = world.app.silence.clone().unwrap();
    assert_eq!((error.as_str(), world.now() - since), ("connection refused", Duration::from_secs(2)));
    assert_eq!((world.names().len(), &world.app.rates), (3, &before));
    // Back again, four seconds after the look before: rates are of all that time.
    world.second(&[&[40, 0, 0], &[0, 0], &[0]]);
    assert_eq!(
        (world.app.silence.is_none(), world.app.rates.services[0].rate.unwrap().packets),
        (true, 10.0)
    );
}

#[test]
fn looking_is_paused_and_made_more_and_less_often() {
    let mut world = World::new();
    assert_eq!((world.type_in("p"), world.app.paused), (None, true));
    assert_eq!((world.type_in("p"), world.app.paused), (Some(Ask::Look), false));
    world.type_in("+");
    assert_eq!(world.app.interval, Duration::from_secs(2));
    world.type_in("+++++++");
    assert_eq!(world.app.interval, Duration::from_secs(60));
    world.type_in("----------");
    assert_eq!(world.app.interval, Duration::from_millis(200));
    assert_eq!(world.type_in("q"), Some(Ask::Quit));
    let control = |code| KeyEvent::new(code, KeyModifiers::CONTROL);
    world.type_in("/");
    assert_eq!(world.app.key(control(KeyCode::Char('c')), world.now()), Some(Ask::Quit));
    assert_eq!(world.app.key(control(KeyCode::Char('l')), world.now()), Some(Ask::Redraw));
}

#[test]
fn rows_in_sight_follow_the_cursor() {
    let services = (0..100).map(|number| service(&format!("s{number:02}"), "203.0.113.10:80", 1)).collect();
    let mut world = World::of(status(services));
    world.press(&[KeyCode::Char('s'); 4]);
    let seen = |world: &mut World| {
        let rows = world.app.list.in_sight(10).to_vec();
        (world.app.list.at(), world.app.list.first, rows.len())
    };
    assert_eq!(seen(&mut world), (0, 0, 10));
    world.press(&[KeyCode::PageDown, KeyCode::Down]);
    assert_eq!(seen(&mut world), (11, 2, 10));
    world.press(&[KeyCode::Up; 5]);
    assert_eq!(seen(&mut world), (6, 2, 10));
    world.press(&[KeyCode::End]);
    assert_eq!(seen(&mut world), (99, 90, 10));
    world.press(&[KeyCode::PageUp]);
    assert_eq!(seen(&mut world), (89, 89, 10));
    world.status.services.truncate(5);
    world.look();
    assert_eq!(seen(&mut world), (4, 0, 5));
}

//! What is drawn, as text.

use crossterm::event::KeyCode;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Modifier};

use super::World;
use crate::{
    console::{
        fixture::{service, status},
        top::draw::{Palette, draw},
    },
    snapshot,
};

/// A screen of this size, with colours or without.
fn screen(world: &mut World, width: u16, height: u16, colour: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = world.now();
    terminal.draw(|frame| draw(frame, &mut world.app, Palette { colour }, now)).unwrap();
    terminal.backend().buffer().clone()
}

/// Its lines, without spaces at their ends.
fn text(buffer: &Buffer) -> String {
    let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| format!("{}\n", line(y).trim_end())).collect()
}

fn check(world: &mut World, name: &str) {
    for (width, height) in [(80, 24), (200, 50)] {
        let found = text(&screen(world, width, height, true));
        snapshot::check(&format!("lb-userspace/src/console/top/tests/{name}-{width}x{height}.txt"), &found);
    }
}

/// Half a minute of traffic that grows and shrinks, in which a backend fails and another one drains.
fn busy() -> World {
    let mut services = vec![
        service("web", "203.0.113.10:80", 3),
        service("dns", "203.0.113.53:53", 2),
        service("mail", "[2001:db8::25]:25", 1),
        service("payments-frontend", "203.0.113.77:443", 12),
    ];
    services[1].protocol = "udp".into();
    let mut world = World::of(status(services));
    for second in 0..30_u64 {
        let wave = 40_000 + 30_000 * (second % 10) / 9;
        let web = &mut world.status.services[0];
        if second == 20 {
            web.state = "degraded".into();
            (web.backends[1].health, web.backends[1].share) = ("unhealthy".into(), 0.0);
            web.backends[1].health_detail = "connection refused".into();
            (web.backends[0].share, web.backends[2].share) = (0.5, 0.5);
        }
        if second == 25 {
            let backend = &mut world.status.services[3].backends[4];
            (backend.admin, backend.drain_seconds_left) = ("draining".into(), Some(295));
            (backend.flows, backend.share) = (Some(412), 0.0);
        }
        let failed = if second < 20 { wave / 2 } else { 0 };
        world.status.drops.insert("no_backend".into(), second * 3);
        world.status.drops.insert("next_hop_unresolved".into(), 17);
        world.status.verdicts.drop = second * 3 + 17;
        world.status.packets += 3;
        let payments: Vec<_> = (0..12).map(|number| 100 * number).collect();
        world.second(&[&[wave, failed, wave], &[1_200 + second, 0], &[3], &payments]);
    }
    world
}

#[test]
fn services() {
    check(&mut busy(), "services");
}

#[test]
fn a_service() {
    let mut world = busy();
    world.press(&[KeyCode::Enter, KeyCode::Down, KeyCode::Down]);
    check(&mut world, "service");
}

#[test]
fn all_backends_that_match() {
    let mut world = busy();
    world.type_in("2/payments");
    check(&mut world, "backends");
}

#[test]
fn drops() {
    let mut world = busy();
    world.type_in("3");
    check(&mut world, "drops");
}

#[test]
fn a_question() {
    let mut world = busy();
    world.press(&[KeyCode::Enter]);
    world.type_in("d");
    check(&mut world, "question");
}

#[test]
fn help() {
    let mut world = busy();
    world.type_in("?");
    check(&mut world, "help");
}

#[test]
fn alarms() {
    let mut world = busy();
    world.status.config_error = Some("error: unknown key `x`\n --> config.toml:1:1".into());
    world.status.interfaces[0].attached = false;
    world.status.ready = false;
    world.look();
    world.seconds += 5;
    world.app.look(
        Err("can't reach the daemon at /run/ballast/control.sock".into()),
        world.now(),
        super::wall(0),
    );
    world.seconds += 65;
    check(&mut world, "alarms");
}

/// What `status` says first, in the same words.
#[test]
fn clashes_of_nat_are_alarms() {
    let mut world = busy();
    world.status.nat_clashes = vec!["service web on 203.0.113.10:80 can't share the address".into()];
    world.look();
    let drawn = text(&screen(&mut world, 120, 24, false));
    assert!(drawn.contains("REPLIES THROUGH NAT MAY GET LOST: service web on 203.0.113.10:80"), "{drawn}");
}

#[test]
fn the_page_about_top_shows_what_it_looks_like() {
    let mut world = busy();
    snapshot::check_part("docs/top.md", "services", &text(&screen(&mut world, 80, 24, true)));
    world.press(&[KeyCode::Enter, KeyCode::Down, KeyCode::Down]);
    snapshot::check_part("docs/top.md", "service", &text(&screen(&mut world, 80, 24, true)));
}

#[test]
fn without_colours_the_same_is_told() {
    let mut world = busy();
    world.status.services[0].state = "failing".into();
    world.look();
    let (coloured, plain) = (screen(&mut world, 80, 24, true), screen(&mut world, 80, 24, false));
    assert_eq!(text(&coloured), text(&plain));
    let default = ratatui::style::Color::Reset;
    assert!(plain.content.iter().all(|cell| cell.fg == default && cell.bg == default));
    assert!(coloured.content.iter().any(|cell| cell.fg != default));
    // What is bad stands out by its weight.
    let bold = plain.content.iter().filter(|cell| cell.modifier.contains(Modifier::BOLD));
    let bold: String = bold.map(|cell| cell.symbol()).collect();
    assert!(bold.contains("failing"), "{bold}");
}

#[test]
fn every_size_of_terminal_is_drawn_on() {
    let mut world = busy();
    for (width, height) in [(1, 1), (10, 3), (39, 24), (40, 12), (41, 13), (60, 20), (79, 24), (500, 200)] {
        for keys in ["1", "2", "3", "?", "q"] {
            world.type_in(keys);
            screen(&mut world, width, height, false);
        }
        world.press(&[KeyCode::Char('1'), KeyCode::Enter, KeyCode::Char('d')]);
        screen(&mut world, width, height, false);
        world.press(&[KeyCode::Esc, KeyCode::Esc]);
    }
}

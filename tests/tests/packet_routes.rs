//! New errors about tunnels go by the host's route to the client (docs/packet-path.md, section 4): with real routes and
//! neighbours, in a network namespace of the test's own.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::model::Protocol;
use lb_tests::packet::fixture::{Family, Host, Way, packet, world};
use lb_tests::packet::message::Message;
use lb_tests::packet::modes::Mode;
use lb_tests::packet::tunnel::error_about;
use lb_tests::packet::{BALANCER_MAC, CLIENT_MAC, World};
use lb_tests::require_root;

const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// The world's interface besides `lo`, on which frames seem to come in.
const OUT: &str = "blx-out";
const NEIGHBOUR: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the host forwards what comes in on `lo`.
fn forwards(is_on: bool) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/lo/forwarding");
        fs::write(&path, if is_on { "1" } else { "0" }).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

fn mac_of(interface: &str) -> Result<[u8; 6]> {
    let shown = ip(&format!("-o link show {interface}"))?;
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).context("a MAC")?;
    let bytes: Result<Vec<_>, _> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes?.try_into().ok().context("six bytes")
}

/// Errors about packets of clients of both families, in tunnels of both.
fn errors(world: &mut World) -> Result<Vec<Message>> {
    let mut errors = Vec::new();
    for family in Family::BOTH {
        for (port, outer) in [
            (Way::Ipip.port(), family),
            (Mode::Gue.port(), family),
            (Mode::IpipMixed.port(), family.other()),
            (Mode::GueMixed.port(), family.other()),
        ] {
            let lost = packet(family, Protocol::Udp, Host::Vip, port);
            let kind = if outer == Family::V4 { (3, 4) } else { (2, 0) };
            errors.push(error_about(world, &lost, kind, 1400)?.0);
        }
    }
    Ok(errors)
}

#[test]
fn errors_about_tunnels_go_by_the_hosts_route() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let messages = errors(&mut world)?;
    // The world's namespace, which this thread and what it starts are in, has no addresses and no routes.
    for arguments in [
        "link set lo up",
        "link set blx-peer up",
        "link set blx-out up",
        "address add 10.99.0.1/24 dev blx-out",
        "address add fd99::1/64 dev blx-out nodad",
        "route add 198.18.0.0/16 via 10.99.0.2",
        "route add 2001:db8:c::/48 via fd99::2",
    ] {
        ip(arguments)?;
    }
    let back = |world: &World, why: &str| -> Result<Vec<Vec<u8>>> {
        let sent = messages.iter().map(|message| {
            let told = world.run(&message.build())?;
            ensure!(told.code == XDP_TX, "{why}: verdict {} for {message:?}", told.code);
            ensure!(told.frame[..6] == CLIENT_MAC && told.frame[6..12] == BALANCER_MAC, "{why}: other MACs");
            Ok(told.frame)
        });
        sent.collect()
    };
    forwards(false)?;
    let made = back(&world, "a host that does not forward")?;
    forwards(true)?;
    back(&world, "a neighbour that nobody knows")?;

    for gateway in ["10.99.0.2", "fd99::2"] {
        ip(&format!("neighbour replace {gateway} lladdr 02:00:00:00:00:99 dev {OUT} nud permanent"))?;
    }
    let own = mac_of(OUT)?;
    for (message, made) in messages.iter().zip(&made) {
        let told = world.run(&message.build())?;
        ensure!(told.code == XDP_REDIRECT, "verdict {} for {message:?}", told.code);
        ensure!(told.frame[..6] == NEIGHBOUR, "sent to {:x?}", &told.frame[..6]);
        ensure!(told.frame[6..12] == own, "sent from {:x?}", &told.frame[6..12]);
        ensure!(told.frame[12..] == made[12..], "another error than the one that goes back");
    }

    ip("route replace blackhole 198.18.0.0/16")?;
    ip("route replace blackhole 2001:db8:c::/48 metric 1")?;
    back(&world, "a route to nowhere").map(drop)
}

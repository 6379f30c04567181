//! Live NAT flows through restarts of the daemon and changes of the backends.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lb_tests::lab::{Lab, LiveClients, Mode, Report, VIP_V4, VIP_V6, require_root, wait_for};

use crate::scene::{PORT, SECOND, SOON, Scene, nothing_lost};

const CONNECTIONS: usize = 1_000;
const PER_SECOND: u32 = 2_000;
const ALL_PORTS: &str = "61000-65535";

#[test]
fn connections_survive_restarts_and_changes_with_nat() -> Result<()> {
    require_root!(Ok(()));
    survive(Mode::Nat, Mode::Nat.lab().clients(2).backends(8).build()?)
}

#[test]
fn connections_survive_restarts_and_changes_with_nat_between_two_interfaces() -> Result<()> {
    require_root!(Ok(()));
    survive(Mode::Nat, Mode::Nat.lab().clients(2).backends(8).two_armed().build()?)
}

#[test]
fn connections_survive_restarts_and_changes_with_dnat() -> Result<()> {
    require_root!(Ok(()));
    survive(Mode::Dnat, Mode::Dnat.lab().clients(2).backends(8).build()?)
}

#[test]
fn connections_survive_restarts_and_changes_with_dnat_between_two_interfaces() -> Result<()> {
    require_root!(Ok(()));
    survive(Mode::Dnat, Mode::Dnat.lab().clients(2).backends(8).two_armed().build()?)
}

/// Of each family a thousand connections that never rest.
fn survive(mode: Mode, lab: Lab) -> Result<()> {
    let mut scene = Scene::new(mode, lab, ALL_PORTS, &[], 0..4)?;
    let mut crowds = Vec::new();
    for (number, vip) in [VIP_V4, VIP_V6].into_iter().enumerate() {
        let to = SocketAddr::new(vip, PORT);
        let mut clients = LiveClients::start(scene.lab.client(number), to, 0..1_000, CONNECTIONS)?;
        let before = clients.open(CONNECTIONS)?;
        assert_eq!(before.losses(), "", "{to}");
        clients.pace(PER_SECOND)?;
        crowds.push((clients, before));
    }

    scene.change(2..6).context("a change")?;
    all_answer(&mut crowds).context("after two backends came and two began to drain")?;
    scene.daemon.kill9()?;
    all_answer(&mut crowds).context("without a daemon")?;
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    all_answer(&mut crowds).context("after a kill and a start")?;
    scene.change(4..8).context("a change after a kill")?;
    all_answer(&mut crowds).context("with all of the first backends draining")?;
    assert!(scene.daemon.sigterm()?.success());
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    for service in ["web-0", "web-1"] {
        scene.daemon.cli_checked(["backend", "set", service, "backend5", "--weight", "0"])?;
        scene.daemon.cli_checked(["backend", "drain", service, "backend6"])?;
    }
    scene.change(0..8).context("a change after a restart")?;
    all_answer(&mut crowds).context("after everything")?;

    for (clients, before) in &mut crowds {
        clients.pace(0)?;
        let after = clients.exchange()?;
        assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
        // New ones come to those who want them.
        let more = clients.open(200)?;
        assert_eq!(more.losses(), "");
        for backend in ["backend5", "backend6"] {
            assert_eq!(more.open.get(backend), None, "it takes no new flows");
        }
    }
    Ok(())
}

/// Waits until every connection had its turn since now, and more.
fn all_answer(crowds: &mut [(LiveClients, Report)]) -> Result<()> {
    for (clients, _) in crowds {
        let enough = clients.report()?.exchanged + 5 * CONNECTIONS as u64 / 4;
        wait_for("every connection is answered", 10 * SECOND, || {
            match clients.report().and_then(|report| nothing_lost(&report).map(|()| report.exchanged)) {
                Ok(exchanged) if exchanged < enough => None,
                other => Some(other),
            }
        })??;
    }
    Ok(())
}

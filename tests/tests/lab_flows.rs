//! Live connections through every change of the backends: none of them breaks.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Deliveries, Lab, LiveClients, LiveServers, Report, Service, VIP_V4, VIP_V6, require_root,
    wait_for, wait_until,
};
use lb_tests::packet::{ACK, SYN};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
/// How soon after a drain was acknowledged the last new flow may go to the drained backend.
const DRAINED: Duration = Duration::from_millis(100);
const PORT: u16 = 80;

#[test]
fn twenty_backends_are_replaced_one_by_one_under_20k_connections_and_none_breaks() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(40, 0..20, &[], 20_000)?;
    let before = scene.clients.open(20_000)?;
    assert_eq!((before.alive(), before.open.len()), (20_000, 20), "{}", before.losses());
    scene.clients.pace(4_000)?;
    scene.clients.visit(300)?;
    for replaced in 0..20 {
        let deliveries = Deliveries::watch([scene.lab.backend(replaced)], scene.to)?;
        scene.change(replaced + 1..replaced + 21, &[])?;
        let drained = SystemTime::now() + DRAINED;
        let visits = scene.visits()?;
        wait_until("clients come after the change", SOON, || {
            SystemTime::now() > drained && scene.visits().is_ok_and(|now| now >= visits + 100)
        })?;
        let opened =
            deliveries.stop()?.into_iter().filter(|delivery| delivery.tcp_flags & (SYN | ACK) == SYN);
        let late: Vec<_> = opened.filter(|delivery| delivery.time > drained).collect();
        assert!(late.is_empty(), "backend{replaced} got {} new flows late: {:?}", late.len(), late.first());
        let report = scene.clients.report()?;
        assert_eq!(report.losses(), "", "after {} replacements", replaced + 1);
    }
    scene.clients.visit(0)?;
    scene.clients.pace(0)?;
    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    let served = scene.servers.served()?;
    assert!((20..40).all(|new| served[&format!("backend{new}")].accepted > 0), "{served:?}");
    assert!((0..20).all(|old| {
        let name = format!("backend{old}");
        served[&name].open == before.open[&name]
    }));
    scene.daemon.accounts().map(drop)
}

#[test]
fn ten_backends_become_fifty_and_ten_again_and_no_connection_breaks() -> Result<()> {
    require_root!(Ok(()));
    for vip in [VIP_V4, VIP_V6] {
        let mut scene = Scene::at(vip, 50, 0..10, &[], 8_000)?;
        let at_ten = scene.clients.open(4_000)?;
        scene.clients.pace(4_000)?;
        scene.change(0..50, &[])?;
        let at_fifty = scene.clients.open(4_000)?;
        assert_eq!(
            (at_fifty.losses().as_str(), at_fifty.open.len()),
            ("", 50),
            "new connections go to all of them"
        );
        scene.change(0..10, &[])?;
        let after = scene.clients.exchange()?;
        assert_eq!((after.losses().as_str(), &after.open), ("", &at_fifty.open));
        assert!(at_ten.open.iter().all(|(name, count)| after.open[name] >= *count));
        let again = scene.clients.open(1_000)?;
        let grown =
            again.open.iter().filter(|(name, count)| **count > after.open[*name]).map(|(name, _)| name);
        let grown: Vec<_> = grown.collect();
        assert!(grown.len() == 10 && grown.iter().all(|name| name.len() == "backend0".len()), "{grown:?}");
    }
    Ok(())
}

/// The counterpart: it is tracking that keeps them, and it can be turned off.
#[test]
fn without_tracking_a_change_breaks_connections() -> Result<()> {
    require_root!(Ok(()));
    let never = ["tracking = \"never\""];
    let mut scene = Scene::new(8, 0..4, &never, 2_000)?;
    assert_eq!(scene.clients.open(2_000)?.losses(), "");
    scene.change(4..8, &never)?;
    let report = scene.clients.exchange()?;
    assert_eq!(report.broken(), 2_000, "all backends were replaced");
    assert_eq!(report.failed(), 0);
    Ok(())
}

#[test]
fn a_backend_with_a_new_address_gets_new_connections_there_and_keeps_the_old_ones() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(3, 0..2, &[], 3_000)?;
    let before = scene.clients.open(2_000)?;
    scene.clients.pace(2_000)?;
    scene.clients.visit(300)?;
    let deliveries = Deliveries::watch([scene.lab.backend(0)], scene.to)?;
    // backend0 is where backend2 was.
    let service = Service::new("web", scene.to, "tcp", "l2-dsr").nodes([scene.lab.backend(1)], scene.to);
    let elsewhere = SocketAddr::new(scene.lab.backend(2).address(scene.to.ip()), PORT);
    scene.daemon.write_config(&service.backend("backend0", elsewhere, 1).toml())?;
    scene.daemon.reload()?;
    let drained = SystemTime::now() + DRAINED;
    let visits = scene.visits()?;
    wait_until("clients come after the change", SOON, || {
        SystemTime::now() > drained && scene.visits().is_ok_and(|now| now >= visits + 300)
    })?;
    let late = deliveries.stop()?;
    let late = late.iter().find(|one| one.tcp_flags & (SYN | ACK) == SYN && one.time > drained);
    assert_eq!(late, None, "a new flow at the old address");
    scene.clients.visit(0)?;
    let after = scene.clients.open(1_000)?;
    assert_eq!(after.losses(), "");
    assert_eq!(after.open["backend0"], before.open["backend0"]);
    assert!(after.open["backend2"] > 400, "{:?}", after.open);
    Ok(())
}

#[test]
fn connections_survive_a_daemon_that_is_killed_restarted_or_stopped_inside_a_change() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new(20, 0..4, &[], 4_000)?;
    let before = scene.clients.open(4_000)?;
    scene.clients.pace(4_000)?;

    scene.change(4..8, &[])?;
    scene.daemon.kill9()?;
    scene.messages(8_000).context("without a daemon")?;
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    scene.change(8..12, &[]).context("after a kill")?;
    assert_eq!(scene.messages(8_000)?.losses(), "");

    assert!(scene.daemon.sigterm()?.success());
    scene.daemon.launch()?;
    scene.daemon.wait_ready(SOON)?;
    scene.change(12..16, &[]).context("after a restart")?;
    assert_eq!(scene.messages(8_000)?.losses(), "");

    // Longer than the scan may be away before it begins everything anew.
    scene.daemon.signal(Signal::SIGSTOP)?;
    let stopped = SystemTime::now();
    wait_until("six seconds of traffic without a daemon", 10 * SECOND, || {
        stopped.elapsed().is_ok_and(|elapsed| elapsed > 6 * SECOND)
    })?;
    scene.daemon.signal(Signal::SIGCONT)?;
    scene.change(16..20, &[]).context("after a stop")?;
    assert_eq!(scene.messages(8_000)?.losses(), "");

    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    Ok(())
}

/// While the daemon is stopped only traffic moves the coarse clock, and this much hardly does: what was seen just now
/// looks old when the clock jumps.
#[test]
fn a_daemon_that_slept_longer_than_the_idle_timeout_forgets_no_connection() -> Result<()> {
    require_root!(Ok(()));
    let short = ["flow_idle_timeout = \"2s\""];
    let mut scene = Scene::new(8, 0..4, &short, 20)?;
    let before = scene.clients.open(20)?;
    scene.clients.pace(20)?;
    scene.change(4..8, &short)?;
    // Every connection was seen after the change.
    assert_eq!(scene.messages(40)?.losses(), "");
    for _ in 0..2 {
        scene.daemon.signal(Signal::SIGSTOP)?;
        assert_eq!(scene.messages(140)?.losses(), "", "while it sleeps");
        scene.daemon.signal(Signal::SIGCONT)?;
        assert_eq!(scene.messages(60)?.losses(), "", "after it slept");
    }
    let after = scene.clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open));
    Ok(())
}

#[test]
fn after_the_last_change_has_aged_out_nothing_is_tracked() -> Result<()> {
    require_root!(Ok(()));
    let short = ["flow_idle_timeout = \"2s\""];
    let mut scene = Scene::new(8, 0..4, &short, 2_000)?;
    let before = scene.clients.open(2_000)?;
    // Every connection has a message a second.
    scene.clients.pace(2_000)?;
    let tracked = || scene.daemon.metric("ballast_tracked_slots");
    assert_eq!(tracked()?, 0.0);
    scene.change(1..8, &short)?;
    scene.change(0..8, &short)?;
    assert!(tracked()? > 0.0, "a change tracks");
    wait_until("nothing is tracked", 20 * SECOND, || tracked().is_ok_and(|slots| slots == 0.0))?;
    let report = scene.clients.report()?;
    assert_eq!((report.losses().as_str(), &report.open), ("", &before.open));
    Ok(())
}

struct Scene {
    clients: LiveClients,
    servers: LiveServers,
    daemon: Daemon,
    to: SocketAddr,
    lab: Lab,
}

impl Scene {
    /// A lab with so many backends, of which these serve the VIP. `lines` are the service's.
    fn new(backends: u16, serving: Range<usize>, lines: &[&str], connections: u16) -> Result<Self> {
        Self::at(VIP_V4, backends, serving, lines, connections)
    }

    fn at(
        vip: IpAddr,
        backends: u16,
        serving: Range<usize>,
        lines: &[&str],
        connections: u16,
    ) -> Result<Self> {
        let lab = Lab::builder().backends(backends).build()?;
        let to = SocketAddr::new(vip, PORT);
        let servers = LiveServers::start(lab.backends(), PORT)?;
        let daemon = Daemon::start(&lab, 0, &config(&lab, to, serving, lines))?;
        let clients = LiveClients::start(lab.client(0), to, 0..connections, connections.into())?;
        Ok(Self { clients, servers, daemon, to, lab })
    }

    /// Lets these backends serve, and no other: the others drain.
    fn change(&self, serving: Range<usize>, lines: &[&str]) -> Result<()> {
        self.daemon.write_config(&config(&self.lab, self.to, serving, lines))?;
        self.daemon.reload()
    }

    /// Waits until so many more messages were answered.
    fn messages(&mut self, count: u64) -> Result<Report> {
        let before = self.clients.report()?.exchanged;
        wait_for(&format!("{count} messages are answered"), 10 * SECOND, || match self.clients.report() {
            Ok(report) if report.lost.is_empty() && report.exchanged < before + count => None,
            other => Some(other),
        })?
    }

    fn visits(&mut self) -> Result<u64> {
        let report = self.clients.report()?;
        ensure!(report.lost.is_empty(), "{}", report.losses());
        Ok(report.visits.values().sum())
    }
}

fn config(lab: &Lab, to: SocketAddr, serving: Range<usize>, lines: &[&str]) -> String {
    let service = Service::new("web", to, "tcp", "l2-dsr");
    let service = lines.iter().fold(service, |service, line| service.line(line));
    service.nodes(serving.map(|number| lab.backend(number)), to).toml()
}

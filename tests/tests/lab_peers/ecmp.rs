//! A router spreads flows over both members, and one is cut off while backends are being replaced.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use lb_tests::lab::{Bird, Report, Segment, VIP_V4, VIP_V6, next_hops, require_root, try_wait_until};

use crate::scene::{SOON, Scene, Wanted};

impl Scene {
    /// Waits until the router sends packets for the VIP to these members.
    fn wait_ways(&self, members: &[usize]) -> Result<()> {
        let vip = self.to.ip();
        let mut expected: Vec<_> =
            members.iter().map(|member| self.lab.balancer(*member).address(vip).to_string()).collect();
        expected.sort();
        try_wait_until(&format!("the router's ways are {members:?}"), 2 * SOON, || {
            next_hops(self.lab.gateway(), vip).map(|hops| hops == expected)
        })
    }

    fn set_link(&self, member: usize, state: &str) -> Result<()> {
        let port = &self.lab.balancer(member).leg(Segment::Front).port;
        self.lab.switch().ip("a link", [format!("link set {port} {state}")])
    }

    /// Waits until so many more messages were answered, or lost.
    fn messages(&mut self, count: u64) -> Result<Report> {
        let ended = |report: &Report| report.exchanged + report.lost.len() as u64;
        let before = ended(&self.clients.report()?);
        self.clients.wait(&format!("{count} messages are answered"), 3 * SOON, |report| {
            ended(report) >= before + count
        })
    }
}

/// Backends are replaced twice, and a third time while one member is cut off; then it is back. Returns how many of the
/// connections broke in the first part, with the cut, and with the return.
fn cut_off_in_changes(vip: IpAddr, connections: u16, replicates: bool) -> Result<(usize, usize)> {
    let mut wanted = Wanted { vip, connections, replicates, routed: true, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    scene.wait_ways(&[0, 1])?;
    let third = usize::from(connections) / 3;
    scene.open(third)?;
    scene.clients.pace(u32::from(connections))?;
    for serving in [4..8, 2..6] {
        wanted.serving = serving;
        scene.change(&wanted)?;
        scene.open(third)?;
    }
    let alive = scene.clients.report()?.alive();
    let count = u64::from(connections);
    ensure!(scene.messages(2 * count)?.losses().is_empty(), "before anything is cut");
    if replicates {
        scene.wait_told(0, alive)?;
        scene.wait_told(1, alive)?;
    }
    let cut = Instant::now();
    scene.set_link(0, "down")?;
    wanted.serving = 0..4;
    scene.change(&wanted)?;
    scene.wait_ways(&[1])?;
    let after = cut.elapsed();
    let gone = scene.messages(4 * count)?.broken();
    scene.set_link(0, "up")?;
    scene.wait_ways(&[0, 1])?;
    let back = scene.messages(4 * count)?;
    println!(
        "{alive} connections to {vip}, replicated: {replicates}; cut off, and gone from the router's routes after {after:?}: \
         {gone} broke, {} when it was back: {}",
        back.broken() - gone,
        back.losses()
    );
    ensure!(back.failed() == 0, "{}", back.losses());
    Ok((gone, back.broken() - gone))
}

/// Of how many connections over one member, opened before and in a window, how many break when a second one starts from nothing
/// beside it, and the router sends half of the flows to it as soon as it announces the VIP.
fn comes_in_a_window(replicates: bool) -> Result<(u64, usize)> {
    let mut wanted = Wanted { connections: 400, replicates, started: 1, routed: true, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    scene.wait_ways(&[0])?;
    scene.open(200)?;
    wanted.serving = 0..8;
    scene.change(&wanted)?;
    let alive = scene.open(200)?;
    scene.birds.push(Bird::on_balancer(&scene.lab, 1)?);
    scene.join(1, &wanted)?;
    scene.wait_ways(&[0, 1])?;
    let report = scene.clients.exchange()?;
    ensure!(report.failed() == 0, "{}", report.losses());
    Ok((alive, report.broken()))
}

#[test]
fn a_host_that_comes_in_a_window_is_announced_when_it_has_heard_and_breaks_none() -> Result<()> {
    require_root!(Ok(()));
    assert_eq!(comes_in_a_window(true)?, (400, 0));
    Ok(())
}

#[test]
#[ignore = "long: it measures"]
fn without_replication_a_host_that_comes_in_a_window_breaks_some() -> Result<()> {
    require_root!(Ok(()));
    let (alive, broken) = comes_in_a_window(false)?;
    println!("without replication {broken} of {alive} connections broke, of which about half moved");
    assert!(broken > 0);
    Ok(())
}

#[test]
#[ignore = "long: thousands of connections, both families"]
fn five_thousand_connections_survive_a_member_that_is_cut_off_while_backends_are_replaced() -> Result<()> {
    require_root!(Ok(()));
    for vip in [VIP_V4, VIP_V6] {
        assert_eq!(cut_off_in_changes(vip, 5_000, true)?, (0, 0));
        // The counterpart, and the number that the documentation tells.
        let (broken, _) = cut_off_in_changes(vip, 5_000, false)?;
        assert!(broken > 500, "{broken} of 5,000 broke without replication");
    }
    Ok(())
}

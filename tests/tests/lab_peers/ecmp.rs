//! A router spreads flows over both members, and one is cut off while backends are being replaced.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use lb_tests::lab::{Report, Segment, VIP_V4, VIP_V6, next_hops, require_root, wait_for, wait_until};

use crate::scene::{SOON, Scene, Wanted, number, peer};

impl Scene {
    /// Waits until the router sends packets for the VIP to these members.
    fn wait_ways(&self, members: &[usize]) -> Result<()> {
        let vip = self.to.ip();
        let mut expected: Vec<_> =
            members.iter().map(|member| self.lab.balancer(*member).address(vip).to_string()).collect();
        expected.sort();
        wait_until(&format!("the router's ways are {members:?}"), 2 * SOON, || {
            next_hops(self.lab.gateway(), vip).is_ok_and(|hops| hops == expected)
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
        wait_for(&format!("{count} messages are answered"), 3 * SOON, || match self.clients.report() {
            Ok(report) if ended(&report) < before + count => None,
            other => Some(other),
        })?
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
        wait_until("both know all", SOON, || {
            let told: Vec<_> = scene.members.iter().filter_map(|member| peer(member).ok()).collect();
            told.iter().map(|peer| number(&peer["flows_received"])).sum::<u64>() >= alive
                && told.iter().all(|peer| peer["pending"] == 0)
        })?;
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

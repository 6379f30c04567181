//! One member dies while backends are being replaced.

use anyhow::Result;
use lb_tests::lab::{UdpServer, UdpTraffic, VIP_V6, require_root, try_wait_until, wait_until};

use crate::scene::{CONNECTIONS, SOON, Scene, Wanted};

/// Connections from before a change, from after it and from after another, all of them living, and then the member that has seen
/// them is gone. Returns how many there were, and how many broke.
fn fail_over(wanted: &Wanted) -> Result<(u64, usize)> {
    let mut wanted = wanted.clone();
    let mut scene = Scene::new(&wanted)?;
    let third = usize::from(wanted.connections) / 3;
    scene.open(third)?;
    for serving in [4..8, 2..6] {
        wanted.serving = serving;
        scene.change(&wanted)?;
        scene.open(third)?;
    }
    let alive = scene.exchange()?.alive();
    if wanted.replicates {
        scene.wait_told(1, alive)?;
    }
    scene.cut_off(0)?;
    scene.lead_to(1)?;
    let report = scene.clients.exchange()?;
    assert_eq!(report.failed(), 0, "{}", report.losses());
    Ok((alive, report.broken()))
}

#[test]
fn a_member_that_dies_while_backends_are_replaced_takes_no_connection_with_it() -> Result<()> {
    require_root!(Ok(()));
    assert_eq!(fail_over(&Wanted::default())?, (CONNECTIONS.into(), 0));
    Ok(())
}

/// Peers speak IPv6 here.
#[test]
fn nor_does_one_of_a_service_by_ports_over_ipv6() -> Result<()> {
    require_root!(Ok(()));
    let lines = vec!["algorithm = \"flow-hash\""];
    assert_eq!(fail_over(&Wanted { vip: VIP_V6, lines, ..Wanted::default() })?, (CONNECTIONS.into(), 0));
    Ok(())
}

/// Nothing in a table says where these go.
#[test]
fn connections_that_least_connections_has_placed_survive_as_well() -> Result<()> {
    require_root!(Ok(()));
    let lines = vec!["algorithm = \"least-connections\""];
    assert_eq!(fail_over(&Wanted { lines, ..Wanted::default() })?, (CONNECTIONS.into(), 0));
    Ok(())
}

/// The counterpart, and the number that the documentation tells.
#[test]
fn without_replication_a_member_that_dies_in_a_change_breaks_connections() -> Result<()> {
    require_root!(Ok(()));
    let (alive, broken) = fail_over(&Wanted { replicates: false, ..Wanted::default() })?;
    println!("without replication {broken} of {alive} connections broke");
    assert!(broken > usize::from(CONNECTIONS) / 4, "{broken} of {alive}");
    Ok(())
}

/// Those that begin before the changes and go on through all of them.
#[test]
fn udp_flows_stay_where_they_are_as_well() -> Result<()> {
    require_root!(Ok(()));
    const FLOWS: u16 = 120;
    let mut wanted = Wanted { protocol: "udp", connections: 2, ..Wanted::default() };
    let scene = Scene::new(&wanted)?;
    let servers: Vec<_> =
        scene.lab.backends().map(|node| UdpServer::start(node, &[scene.to.port()])).collect::<Result<_>>()?;
    let client = scene.lab.client(0);
    let sources = (0..FLOWS).map(|number| client.source_port(number, 7000, scene.to.ip()));
    let traffic = UdpTraffic::new(sources, scene.to).rate(2000).start(client)?;
    let more = |rounds: u64| {
        let before: u64 = servers.iter().map(UdpServer::received).sum();
        wait_until("datagrams arrive", SOON, || {
            servers.iter().map(UdpServer::received).sum::<u64>() >= before + rounds * u64::from(FLOWS)
        })
    };
    more(3)?;
    for serving in [4..8, 2..6] {
        wanted.serving = serving;
        scene.change(&wanted)?;
        more(3)?;
    }
    scene.wait_told(1, FLOWS.into())?;
    scene.lead_to(1)?;
    scene.cut_off(0)?;
    more(5)?;
    let report = traffic.finish()?;
    let moved = report.by_flow.iter().filter(|backends| backends.len() != 1).count();
    assert_eq!((report.by_flow.len(), moved), (FLOWS.into(), 0), "{:?}", report.by_flow);
    Ok(())
}

/// Their state is the member's own; it says so, and what peers are told is nothing.
#[test]
fn services_whose_flows_are_not_replicated_are_named() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted { forwarding: "dnat", connections: 40, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    scene.open(20)?;
    wanted.serving = 2..6;
    scene.change(&wanted)?;
    scene.open(20)?;
    scene.exchange()?;
    let status = scene.members[0].status_json()?;
    assert_eq!(status["peers"]["not_replicated"], serde_json::json!(["web"]));
    try_wait_until("the flows are counted", SOON, || {
        scene.members[0].status_json().map(|status| status["nat_table"]["entries"] == 40)
    })?;
    assert_eq!(status["peers"]["peers"][0]["flows_sent"], 0);
    let shown = scene.members[0].cli_checked(["status"])?;
    assert!(shown.contains("not replicated (dnat, nat, or not tracked): web"), "{shown}");
    Ok(())
}

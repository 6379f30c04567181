//! Ping and traceroute through a VIP.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Icmp, IcmpListener, Lab, Mode, Node, UdpServer, require_root};

use crate::scene::{CLOSED_UDP, FAMILIES, SOON, Scene, UDP};
use crate::sockets::Datagrams;

in_every_mode! {
    traceroute_shows_each_hop_once_and_then_the_vip
}

#[test]
fn a_vip_answers_ping_and_the_load_balancers_own_addresses_still_do() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new(Mode::Ipip, Mode::Ipip.lab().clients_behind_gateway())?;
    let (client, balancer) = (scene.lab.client(0), scene.lab.balancer(0));
    let mut pinged = 0;
    for vip in FAMILIES {
        let icmp = IcmpListener::start(client, vip)?;
        for to in [vip, balancer.address(vip)] {
            for (sequence, size) in (1..).zip([0, 1, 56, 1_400]) {
                let payload: Vec<u8> = (0..size).map(|at| at as u8).collect();
                let reply = icmp.ping(to, (0xba11, sequence), &payload, SOON)?;
                assert_eq!((reply.from, reply.payload()), (to, &payload[..]), "{size} bytes");
                pinged += u64::from(to == vip);
            }
        }
    }
    assert_eq!(scene.counted(|counters| counters.echo_replies)?, pinged);
    scene.daemon.accounts().map(drop)
}

/// As `traceroute` does it: a datagram for each TTL, to the service's port and to one where nobody serves.
fn traceroute_shows_each_hop_once_and_then_the_vip(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().clients_behind_gateway())?;
    let lab = &scene.lab;
    let ports = scene.server_ports(UDP);
    let _servers: Vec<_> =
        lab.backends().map(|backend| UdpServer::start(backend, &ports)).collect::<Result<_>>()?;
    for vip in FAMILIES {
        let gateway = lab.gateway().address(vip);
        // With direct return on one link the load balancer is no hop.
        let hops = if mode == Mode::L2Dsr { vec![gateway] } else { vec![gateway, vip] };
        for port in [UDP, CLOSED_UDP] {
            let to = SocketAddr::new(vip, port);
            let seen = trace(lab, to, hops.len()).with_context(|| to.to_string())?;
            assert_eq!(seen, hops, "{to}");
        }
    }
    let expired = scene.counted(|counters| counters.time_exceeded_sent)?;
    assert_eq!(expired, if mode == Mode::L2Dsr { 0 } else { 4 });
    scene.daemon.accounts()?;
    Ok(())
}

/// Who says "time exceeded" for the TTLs 1 to `hops`. With one more the datagram has to arrive.
fn trace(lab: &Lab, to: SocketAddr, hops: usize) -> Result<Vec<IpAddr>> {
    let client: &Node = lab.client(0);
    let icmp = IcmpListener::start(client, to.ip())?;
    let socket = Datagrams::bind(client, client.source_port(7, 0, to.ip()))?;
    socket.connect(to)?;
    let own = socket.local_addr()?;
    let send = |ttl: usize| {
        socket.set_ttl(u32::try_from(ttl)?)?;
        socket.send(&format!("hop {ttl}"))
    };
    let mut seen = Vec::new();
    for ttl in 1..=hops {
        send(ttl)?;
        let ours = |icmp: &Icmp| {
            icmp.is_time_exceeded()
                && icmp.quoted().is_some_and(|quoted| quoted.source == own && quoted.destination == to)
        };
        seen.push(icmp.wait_for(&format!("time exceeded for TTL {ttl}"), SOON, ours)?.from);
    }
    send(hops + 1)?;
    if to.port() == CLOSED_UDP {
        let end = icmp.wait_for("port unreachable", SOON, Icmp::is_port_unreachable)?;
        let quoted = end.quoted().context("it quotes nothing")?;
        ensure!((end.from, quoted.source, quoted.destination) == (to.ip(), own, to), "{end:?}");
    } else {
        let (answer, _) = socket.receive()?;
        ensure!(answer.ends_with(&format!("|hop {}", hops + 1)), "answered {answer}");
    }
    Ok(seen)
}

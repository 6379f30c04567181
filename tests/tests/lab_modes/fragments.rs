//! Datagrams of 4,000 bytes in fragments.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lb_tests::lab::{Mode, UdpServer, UdpTraffic, fragments, wait_until};
use lb_tests::model::Protocol;
use lb_tests::packet::Packet;

use crate::scene::{FAMILIES, SOON, Scene, UDP};

in_every_mode! {
    datagrams_in_fragments_arrive_and_are_answered
    fragments_in_another_order_arrive_whole_or_are_counted
}

const SIZE: usize = 4_000;
const DATAGRAMS: u16 = 50;

fn datagrams_in_fragments_arrive_and_are_answered(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab())?;
    let lab = &scene.lab;
    let ports = scene.server_ports(UDP);
    let _servers: Vec<_> =
        lab.backends().map(|backend| UdpServer::start(backend, &ports)).collect::<Result<_>>()?;
    for vip in FAMILIES {
        let sources = (0..8).map(|number| lab.client(0).source_port(number, 4_000, vip));
        let traffic = UdpTraffic::new(sources, SocketAddr::new(vip, UDP)).size(SIZE).rate(500);
        let report = traffic.run(lab.client(0), 200)?;
        assert_eq!((report.answered, report.duplicates), (200, 0), "{vip}: {report:?}");
    }
    let accounts = scene.daemon.accounts()?;
    assert_eq!(accounts.drop("fragment"), 0);
    // Three fragments each.
    assert!(accounts.verdict("tx") >= 2 * 200 * 3, "{accounts:?}");
    Ok(())
}

fn fragments_in_another_order_arrive_whole_or_are_counted(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1))?;
    let (client, balancer) = (scene.lab.client(0), scene.lab.balancer(0));
    let server = UdpServer::start(scene.lab.backend(0), &scene.server_ports(UDP))?;
    let l2 = |packet: &Packet| packet.l2(balancer.first_leg().mac, client.first_leg().mac);
    for vip in FAMILIES {
        let received = server.received();
        // The first one leads: the others find their way in any order.
        for number in 0..DATAGRAMS {
            let packet = datagram(client.source(number, vip), vip, number);
            let [first, middle, last] = three(&packet)?;
            let l2 = l2(&packet);
            client.inject_all("eth0", [first, last, middle].map(|ip| [&l2[..], &ip].concat()))?;
        }
        let all = || server.received() == received + u64::from(DATAGRAMS);
        wait_until("every datagram is put together", SOON, all).with_context(|| vip.to_string())?;
        // Reversed: nobody knows the way before the first one comes.
        let dropped = || Ok::<_, anyhow::Error>(scene.daemon.accounts()?.drop("fragment"));
        let before = dropped()?;
        for number in 0..DATAGRAMS {
            let packet = datagram(client.source(number, vip), vip, 1_000 + number);
            let [first, middle, last] = three(&packet)?;
            let l2 = l2(&packet);
            client.inject_all("eth0", [last, middle, first].map(|ip| [&l2[..], &ip].concat()))?;
        }
        assert_eq!(dropped()? - before, 2 * u64::from(DATAGRAMS), "{vip}");
        assert!(all(), "{vip}: a datagram arrived without its end");
    }
    Ok(())
}

fn datagram(from: IpAddr, vip: IpAddr, identification: u16) -> Packet {
    Packet {
        identification,
        dont_fragment: false,
        payload: (0..SIZE).map(|at| at as u8).collect(),
        ..Packet::new(Protocol::Udp, (from, 4_000), (vip, UDP))
    }
}

fn three(packet: &Packet) -> Result<[Vec<u8>; 3]> {
    let all = fragments(&packet.ip(), packet.identification.into(), 1_480);
    let count = all.len();
    all.try_into().ok().with_context(|| format!("{count} fragments"))
}

//! Datagrams of 4,000 bytes in fragments.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Mode, UdpServer, UdpTraffic, fragments, wait_until};
use lb_tests::model::Protocol;
use lb_tests::packet::Packet;

use crate::scene::{FAMILIES, SOON, Scene, UDP};

in_every_mode! {
    datagrams_in_fragments_arrive_whole_or_are_counted
}

const SIZE: usize = 4_000;
const DATAGRAMS: u16 = 50;

fn datagrams_in_fragments_arrive_whole_or_are_counted(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1))?;
    let server = UdpServer::start(scene.lab.backend(0), &scene.server_ports(UDP))?;
    for vip in FAMILIES {
        in_order(&scene, vip).with_context(|| format!("{vip}: in order"))?;
        in_another_order(&scene, vip, &server).with_context(|| format!("{vip}: the first one first"))?;
        reversed(&scene, vip, &server).with_context(|| format!("{vip}: reversed"))?;
    }
    Ok(())
}

/// As kernels send them, both ways.
fn in_order(scene: &Scene, vip: IpAddr) -> Result<()> {
    let before = scene.daemon.accounts()?;
    let sources = (0..8).map(|number| scene.lab.client(0).source_port(number, 5_000, vip));
    let traffic = UdpTraffic::new(sources, SocketAddr::new(vip, UDP)).size(SIZE).rate(500);
    let report = traffic.run(scene.lab.client(0), 200)?;
    ensure!((report.answered, report.duplicates) == (200, 0), "{report:?}");
    let after = scene.daemon.accounts()?;
    // Three fragments each, and as many of each reply where it passes.
    let packets = 200 * if scene.mode.translates() { 6 } else { 3 };
    let sent = after.verdict("tx") - before.verdict("tx");
    ensure!(sent == packets, "{sent} packets sent, not {packets}");
    Ok(())
}

/// Once the first one has shown the way, the others find it in any order.
fn in_another_order(scene: &Scene, vip: IpAddr, server: &UdpServer) -> Result<()> {
    let received = server.received();
    inject(scene, vip, 0, |[first, middle, last]| [first, last, middle])?;
    let all = || server.received() == received + u64::from(DATAGRAMS);
    wait_until("every datagram is put together", SOON, all)
}

/// Nobody knows the way before the first one comes.
fn reversed(scene: &Scene, vip: IpAddr, server: &UdpServer) -> Result<()> {
    let dropped = || Ok::<_, anyhow::Error>(scene.daemon.accounts()?.drop("fragment"));
    let (before, received) = (dropped()?, server.received());
    inject(scene, vip, 1_000, |[first, middle, last]| [last, middle, first])?;
    let dropped = dropped()? - before;
    ensure!(dropped == 2 * u64::from(DATAGRAMS), "{dropped} fragments dropped");
    ensure!(server.received() == received, "a datagram arrived without its end");
    Ok(())
}

/// Sends the fragments of [`DATAGRAMS`], numbered from `begin`, each datagram's in this order. One socket for a portion of them: to
/// close one takes longer than all else.
fn inject(
    scene: &Scene,
    vip: IpAddr,
    begin: u16,
    order: impl Fn([Vec<u8>; 3]) -> [Vec<u8>; 3],
) -> Result<()> {
    let frames: Vec<_> = (begin..begin + DATAGRAMS)
        .map(|number| three(scene, vip, number).map(&order))
        .collect::<Result<_>>()?;
    // No queue on the way is too short for a portion.
    frames.chunks(10).try_for_each(|portion| scene.lab.client(0).inject_all("eth0", portion.iter().flatten()))
}

/// The fragments of a datagram, as frames from the client to the load balancer.
fn three(scene: &Scene, vip: IpAddr, number: u16) -> Result<[Vec<u8>; 3]> {
    let (client, balancer) = (scene.lab.client(0), scene.lab.balancer(0));
    let packet = Packet {
        identification: number,
        dont_fragment: false,
        payload: (0..SIZE).map(|at| at as u8).collect(),
        ..Packet::new(Protocol::Udp, (client.source(number, vip), 4_000), (vip, UDP))
    };
    let l2 = packet.l2(balancer.first_leg().mac, client.first_leg().mac);
    let frames = fragments(&packet.ip(), number.into(), 1_440).into_iter().map(|ip| [&l2[..], &ip].concat());
    let frames: Vec<_> = frames.collect();
    let count = frames.len();
    frames.try_into().ok().with_context(|| format!("{count} fragments"))
}

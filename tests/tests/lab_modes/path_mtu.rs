//! Paths that take less than their ends do.
//!
//! Here senders are faster than veth's queues of 256 frames are long: some packets are lost behind the load balancer.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lb_tests::lab::{Icmp, IcmpListener, Mode, Node, TcpServer, connect, exchange};

use crate::scene::{FAMILIES, SOON, Scene, TCP};

in_every_mode! {
    ten_megabytes_come_over_a_hop_of_1280_bytes
}

in_every_mode_beyond_the_link! {
    ten_megabytes_go_over_a_narrow_hop_behind_the_load_balancer
}

in_every_tunnel! {
    ten_megabytes_go_over_links_that_only_take_the_packet_itself
}

const TEN_MEGABYTES: usize = 10_000_000;

/// What the gateway can't forward to the client it tells the VIP, and that has to reach the backend.
fn ten_megabytes_come_over_a_hop_of_1280_bytes(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1).clients_behind_gateway().gateway_mtu(1_280))?;
    for vip in FAMILIES {
        let backend = scene.lab.backend(0);
        let told = transfer(&scene, vip, backend)?;
        let gateway = scene.lab.gateway().addresses();
        assert!(gateway.contains(&told.from), "{vip}: {} told it", told.from);
        assert_eq!(told.mtu(), 1_280, "{vip}");
        let quoted = told.quoted().with_context(|| format!("{vip}: nothing quoted"))?;
        let served_at = mode.served_at(backend, SocketAddr::new(vip, TCP));
        assert_eq!(quoted.source, served_at, "{vip}: whose packet that was");
    }
    assert!(scene.counted(|counters| counters.errors_relayed)? >= 2);
    Ok(())
}

/// What no longer fits after the outer header was added the load balancer tells the client.
fn ten_megabytes_go_over_links_that_only_take_the_packet_itself(mode: Mode) -> Result<()> {
    let scene = Scene::new(mode, mode.lab().backends(1).mtu(1_500, 1_500))?;
    for vip in FAMILIES {
        let told = transfer(&scene, vip, scene.lab.client(0))?;
        assert_eq!((told.from, told.mtu()), (vip, 1_500 - mode.overhead(vip)), "{vip}");
    }
    assert!(scene.counted(|counters| counters.too_big_sent)? >= 2);
    Ok(())
}

/// What a router behind the load balancer can't forward it tells whom it takes for the sender.
fn ten_megabytes_go_over_a_narrow_hop_behind_the_load_balancer(mode: Mode) -> Result<()> {
    let builder = mode.lab().two_armed().backends(0).remote_backends(1).router_mtu(1_400);
    let scene = Scene::new(mode, builder)?;
    for vip in FAMILIES {
        let told = transfer(&scene, vip, scene.lab.client(0))?;
        assert_eq!(told.mtu(), 1_400 - mode.overhead(vip), "{vip}");
        let router = scene.lab.router().addresses();
        assert!(told.from == vip || mode.translates() && router.contains(&told.from), "{}", told.from);
    }
    Ok(())
}

/// Ten megabytes to the backend and back; what `listening` is told of its packets meanwhile.
fn transfer(scene: &Scene, vip: IpAddr, listening: &Node) -> Result<Icmp> {
    let what = || vip.to_string();
    let client = scene.lab.client(0);
    let icmp = IcmpListener::start(listening, vip)?;
    let server = TcpServer::start(scene.lab.backend(0), &scene.server_ports(TCP))?;
    let from = client.source_port(1, 0, vip);
    let stream = connect(client, Some(from), SocketAddr::new(vip, TCP), SOON).with_context(what)?;
    exchange(&stream, TEN_MEGABYTES).with_context(what)?;
    drop(server);
    icmp.wait_for("too big", SOON, Icmp::is_too_big).with_context(what)
}

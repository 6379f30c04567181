//! Bytes both ways.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lb_tests::lab::{Builder, Mode, TcpServer, UdpServer, UdpTraffic, connect, exchange};

use crate::scene::{FAMILIES, MIB, SOON, Scene, TCP, UDP};

in_every_mode! {
    a_mebibyte_goes_both_ways
    a_mebibyte_goes_both_ways_between_two_interfaces
    a_mebibyte_goes_both_ways_in_jumbo_frames
}

fn a_mebibyte_goes_both_ways(mode: Mode) -> Result<()> {
    bytes_go_both_ways(mode, mode.lab())
}

fn a_mebibyte_goes_both_ways_between_two_interfaces(mode: Mode) -> Result<()> {
    bytes_go_both_ways(mode, mode.lab().two_armed())
}

/// Frames of several buffers for XDP.
fn a_mebibyte_goes_both_ways_in_jumbo_frames(mode: Mode) -> Result<()> {
    bytes_go_both_ways(mode, mode.lab().mtu(9_000, 9_100))
}

fn bytes_go_both_ways(mode: Mode, builder: Builder) -> Result<()> {
    let scene = Scene::new(mode, builder)?;
    FAMILIES.into_iter().try_for_each(|vip| datagrams_are_answered(&scene, vip))?;
    let lab = &scene.lab;
    let ports = scene.server_ports(TCP);
    let servers: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &ports)).collect::<Result<_>>()?;
    for vip in FAMILIES {
        for number in 0..4 {
            let from = lab.client(0).source_port(number, 0, vip);
            let what = || format!("{from}");
            let stream =
                connect(lab.client(0), Some(from), SocketAddr::new(vip, TCP), SOON).with_context(what)?;
            exchange(&stream, MIB).with_context(what)?;
            // Whom the backend sees as its client: everywhere but with `nat` it is the client.
            let seen =
                servers.iter().any(|server| server.clients().iter().any(|client| client.ip() == from.ip()));
            assert_eq!(seen, mode != Mode::Nat, "{from}: {:?}", servers[0].clients());
        }
    }
    drop(servers);
    scene.daemon.accounts().map(drop)
}

fn datagrams_are_answered(scene: &Scene, vip: IpAddr) -> Result<()> {
    let (lab, ports) = (&scene.lab, scene.server_ports(UDP));
    let servers = lab.backends().map(|backend| UdpServer::start(backend, &ports));
    let _servers: Vec<_> = servers.collect::<Result<_>>()?;
    let sources = (0..16).map(|number| lab.client(0).source_port(number, 4_000, vip));
    let report = UdpTraffic::new(sources, SocketAddr::new(vip, UDP)).run(lab.client(0), 1_000)?;
    assert_eq!((report.lost.len(), report.duplicates), (0, 0), "{vip}: {report:?}");
    assert!(report.by_flow.iter().all(|backends| backends.len() == 1), "{vip}: a flow has two backends");
    assert_eq!(report.by_backend.len(), 2, "{vip}: an idle backend");
    Ok(())
}

//! Services that have a backend, and clients that have a port, in common.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use lb_tests::lab::{Daemon, Mode, Node, TcpServer, UdpServer, VIP_V4, VIP_V6, connect, exchange};

use crate::scene::{MIB, SOON};

in_every_mode! {
    services_of_one_backend_do_not_mix_up_flows_from_one_client_port
}

const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11));
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11));
/// Two ports of one VIP, and a port of two VIPs.
const PORTS: [u16; 2] = [80, 81];
/// Where they all are on a backend, if the mode translates ports.
const SERVED: u16 = 8_000;
const CLIENT_PORT: u16 = 4_000;
/// Of what each connection carries: with all of them at once well below what a veth's queue holds.
const LENGTH: usize = MIB / 16;

fn services_of_one_backend_do_not_mix_up_flows_from_one_client_port(mode: Mode) -> Result<()> {
    let vips = [VIP_V4, OTHER_V4, VIP_V6, OTHER_V6];
    let lab = mode.lab().backends(1).vips(vips).build()?;
    let served = if mode.translates() { vec![SERVED] } else { PORTS.to_vec() };
    let _servers = (TcpServer::start(lab.backend(0), &served)?, UdpServer::start(lab.backend(0), &served)?);
    let mut config = String::new();
    for (number, to) in targets().into_iter().flatten().enumerate() {
        for protocol in ["tcp", "udp"] {
            let name = format!("{protocol}-{number}");
            config += &mode.service_at(&name, to, protocol, SERVED, lab.backends()).toml();
        }
    }
    let daemon = Daemon::start(&lab, 0, &config)?;
    for targets in targets() {
        connections(lab.client(0), &targets)?;
        datagrams(lab.client(0), &targets)?;
    }
    daemon.accounts()?;
    Ok(())
}

/// All of them at once.
fn connections(client: &Node, targets: &[SocketAddr]) -> Result<()> {
    let from = client.source_port(1, CLIENT_PORT, targets[0].ip());
    let open = |to: &SocketAddr| connect(client, Some(from), *to, SOON);
    let streams: Vec<_> = targets.iter().map(open).collect::<Result<_>>()?;
    std::thread::scope(|scope| {
        let all: Vec<_> = streams.iter().map(|stream| scope.spawn(|| exchange(stream, LENGTH))).collect();
        all.into_iter().zip(targets).try_for_each(|(exchanged, to)| {
            let exchanged = exchanged.join().expect("exchanging does not panic");
            exchanged.with_context(|| format!("{from} to {to}"))
        })
    })
}

/// Each is answered by whom it was sent to.
fn datagrams(client: &Node, targets: &[SocketAddr]) -> Result<()> {
    let from = client.source_port(1, CLIENT_PORT, targets[0].ip());
    let socket = client.enter(|| UdpSocket::bind(from).with_context(|| format!("bind to {from}")))?;
    socket.set_read_timeout(Some(SOON))?;
    for round in 0..10 {
        for to in targets {
            let question = format!("{to} {round}");
            socket.send_to(question.as_bytes(), to)?;
            let mut buffer = [0; 200];
            let (length, answered) =
                socket.recv_from(&mut buffer).with_context(|| format!("the answer of {to}"))?;
            let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            assert_eq!((answered, answer.as_ref()), (*to, &*format!("backend0|{question}")));
        }
    }
    Ok(())
}

fn targets() -> [Vec<SocketAddr>; 2] {
    [[VIP_V4, OTHER_V4], [VIP_V6, OTHER_V6]].map(|[vip, other]| {
        let of_one = PORTS.iter().map(|port| SocketAddr::new(vip, *port));
        of_one.chain([SocketAddr::new(other, PORTS[0])]).collect()
    })
}

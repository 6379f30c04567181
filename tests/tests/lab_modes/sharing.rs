//! Services that have a backend, and clients that have a port, in common.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use lb_tests::lab::{Daemon, Mode, TcpServer, UdpServer, VIP_V4, VIP_V6, connect, exchange};

use crate::scene::{MIB, SOON};

in_every_mode! {
    services_of_one_backend_do_not_mix_up_connections_from_one_client_port
    services_of_one_backend_do_not_mix_up_datagrams_from_one_client_port
}

const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11));
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11));
/// Two ports of one VIP, and a port of two VIPs.
const PORTS: [u16; 2] = [80, 81];
/// Where they all are on a backend, if the mode translates ports.
const SERVED: u16 = 8_000;
const CLIENT_PORT: u16 = 4_000;

fn services_of_one_backend_do_not_mix_up_connections_from_one_client_port(mode: Mode) -> Result<()> {
    let (lab, config) = shared(mode, "tcp")?;
    let _server = TcpServer::start(lab.backend(0), &served(mode))?;
    let daemon = Daemon::start(&lab, 0, &config)?;
    for targets in targets() {
        let from = lab.client(0).source_port(1, CLIENT_PORT, targets[0].ip());
        let open = |to: SocketAddr| {
            let what = || format!("{from} to {to}");
            Ok((to, connect(lab.client(0), Some(from), to, SOON).with_context(what)?))
        };
        let streams: Vec<_> = targets.iter().copied().map(open).collect::<Result<_>>()?;
        // All of them at once.
        std::thread::scope(|scope| {
            let all: Vec<_> =
                streams.iter().map(|(to, stream)| (to, scope.spawn(|| exchange(stream, MIB)))).collect();
            all.into_iter().try_for_each(|(to, exchanged)| {
                let exchanged = exchanged.join().expect("exchanging does not panic");
                exchanged.with_context(|| format!("{from} to {to}"))
            })
        })?;
    }
    daemon.accounts()?;
    Ok(())
}

fn services_of_one_backend_do_not_mix_up_datagrams_from_one_client_port(mode: Mode) -> Result<()> {
    let (lab, config) = shared(mode, "udp")?;
    let _server = UdpServer::start(lab.backend(0), &served(mode))?;
    let daemon = Daemon::start(&lab, 0, &config)?;
    for targets in targets() {
        let from = lab.client(0).source_port(1, CLIENT_PORT, targets[0].ip());
        let socket = lab.client(0).enter(|| Ok(UdpSocket::bind(from)?))?;
        socket.set_read_timeout(Some(SOON))?;
        for round in 0..10 {
            for to in &targets {
                let question = format!("{to} {round}");
                socket.send_to(question.as_bytes(), to)?;
                let mut buffer = [0; 200];
                let (length, answered) = socket.recv_from(&mut buffer).with_context(|| to.to_string())?;
                let answer = String::from_utf8_lossy(&buffer[..length]);
                assert_eq!((answered, answer.as_ref()), (*to, &*format!("backend0|{question}")));
            }
        }
    }
    daemon.accounts()?;
    Ok(())
}

fn targets() -> [Vec<SocketAddr>; 2] {
    [[VIP_V4, OTHER_V4], [VIP_V6, OTHER_V6]].map(|[vip, other]| {
        let of_one = PORTS.iter().map(|port| SocketAddr::new(vip, *port));
        of_one.chain([SocketAddr::new(other, PORTS[0])]).collect()
    })
}

/// A lab with one backend, and the configuration in which it serves all [`targets`].
fn shared(mode: Mode, protocol: &str) -> Result<(lb_tests::lab::Lab, String)> {
    let vips = [VIP_V4, OTHER_V4, VIP_V6, OTHER_V6];
    let lab = mode.lab().backends(1).vips(vips).build()?;
    let mut config = String::new();
    for (number, to) in targets().into_iter().flatten().enumerate() {
        let service = mode.service_at(&format!("{protocol}-{number}"), to, protocol, SERVED, lab.backends());
        config += &service.toml();
    }
    Ok((lab, config))
}

fn served(mode: Mode) -> Vec<u16> {
    if mode.translates() { vec![SERVED] } else { PORTS.to_vec() }
}

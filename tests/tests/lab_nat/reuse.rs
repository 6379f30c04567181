//! Many more flows than ports.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, LiveClients, Mode, Node, UdpServer, VIP_V4, VIP_V6, require_root, wait_for};

use crate::scene::{PORT, SECOND, SOON, Scene, nothing_lost};

const FLOWS: u64 = 50_000;
const THOUSAND_PORTS: &str = "61000-61999";
/// What a port is kept for after its flow has ended, at most.
const BRIEFLY: &str = "flow_idle_timeout = \"1s\"";

/// Each connection sends a line that nobody else sends, and must get it back.
#[test]
fn fifty_thousand_connections_of_each_family_reuse_a_thousand_ports_per_backend_safely() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Nat.lab().clients(2).backends(8).build()?;
    let scene = Scene::new(Mode::Nat, lab, THOUSAND_PORTS, &[BRIEFLY], 0..8)?;
    let mut crowds = Vec::new();
    for (number, vip) in [VIP_V4, VIP_V6].into_iter().enumerate() {
        let to = SocketAddr::new(vip, PORT);
        let mut clients = LiveClients::start(scene.lab.client(number), to, 0..20_000, 1)?;
        clients.visit(2_000)?;
        crowds.push(clients);
    }
    for clients in &mut crowds {
        let served = wait_for("fifty thousand connections came and went", 120 * SECOND, || {
            let report = clients.report().and_then(|report| nothing_lost(&report).map(|()| report));
            match report {
                Ok(report) if report.visits.values().sum::<u64>() < FLOWS => None,
                other => Some(other),
            }
        })??;
        assert_eq!(served.visits.len(), 8, "{:?}", served.visits);
        clients.visit(0)?;
    }
    ensure!(scene.counted(|counters| counters.nat_created)? >= 2 * FLOWS);
    let dropped = scene.daemon.metric("ballast_drops_total{reason=\"nat_exhausted\"}")?;
    assert_eq!(dropped, 0.0, "there was room for all");
    scene.daemon.accounts().map(drop)
}

/// Each datagram is answered with its own bytes, to the socket that sent it.
#[test]
fn five_thousand_datagram_flows_of_each_family_reuse_the_ports_of_two_backends_safely() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Nat.lab().build()?;
    let ports = [Mode::Nat.server_port(PORT)];
    let servers = lab.backends().map(|backend| UdpServer::start(backend, &ports));
    let _servers: Vec<_> = servers.collect::<Result<_>>()?;
    let mut config = "[nat]\nports = \"61000-61999\"\n\n".to_owned();
    for (name, vip) in [("v4", VIP_V4), ("v6", VIP_V6)] {
        let service = Mode::Nat.service(name, SocketAddr::new(vip, PORT), "udp", lab.backends());
        config += &service.line(BRIEFLY).toml();
    }
    let daemon = Daemon::start(&lab, 0, &config)?;
    for batch in 0..10 {
        for vip in [VIP_V4, VIP_V6] {
            // All of a batch are alive at once.
            let ask = |number: u16| ask(lab.client(0), batch * BATCH + number, SocketAddr::new(vip, PORT));
            let asked: Vec<_> = (0..BATCH).map(ask).collect::<Result<_>>()?;
            for (socket, question) in &asked {
                answered(socket, question).with_context(|| format!("{question} in batch {batch}"))?;
            }
        }
    }
    assert!(daemon.counters_by_cpu()?.iter().map(|counters| counters.nat_taken_over).sum::<u64>() > 0);
    daemon.accounts().map(drop)
}

/// Flows at once. Those of the last moments still have their ports, so that some have to ask again.
const BATCH: u16 = 500;
const AGAIN: Duration = Duration::from_millis(200);

fn ask(client: &Node, number: u16, to: SocketAddr) -> Result<(UdpSocket, String)> {
    let from = client.source_port(number, 0, to.ip());
    let socket = client.enter(|| UdpSocket::bind(from).with_context(|| format!("bind to {from}")))?;
    socket.set_read_timeout(Some(AGAIN))?;
    socket.connect(to)?;
    let question = socket.local_addr()?.to_string();
    socket.send(question.as_bytes())?;
    Ok((socket, question))
}

fn answered(socket: &UdpSocket, question: &str) -> Result<()> {
    let mut buffer = [0; 200];
    let length = wait_for("an answer", 2 * SOON, || {
        let received = socket.recv(&mut buffer);
        if received.is_err() {
            // An error of this is one of the next try too.
            let _ = socket.send(question.as_bytes());
        }
        received.ok()
    })?;
    let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    ensure!(answer.split_once('|').is_some_and(|(_, asked)| asked == question), "answered {answer}");
    Ok(())
}

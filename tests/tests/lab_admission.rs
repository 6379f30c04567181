//! Who may send, and how fast flows may be opened: real clients, and a flood.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Deliveries, Flood, HttpServer, LiveClients, LiveServers, Mode, TcpServer, VIP_V4, VIP_V6,
    connect, exchange, http_get, require_root, wait_until,
};
use lb_tests::model::Protocol;
use lb_tests::packet::{Packet, SYN};

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(5);
/// A refused client hears nothing.
const REFUSED_AFTER: Duration = Duration::from_millis(200);
const PORT: u16 = 80;

/// Lists of a service of this family. The longest prefix decides.
fn lists(vip: IpAddr) -> [&'static str; 2] {
    if vip.is_ipv4() {
        [
            "allow = [\"10.100.0.0/16\", \"10.100.1.128/25\"]",
            "deny = [\"10.100.1.0/24\", \"10.100.1.200/32\"]",
        ]
    } else {
        [
            "allow = [\"fd00:0:0:100::/112\", \"fd00:0:0:100::180/121\"]",
            "deny = [\"fd00:0:0:100::100/120\", \"fd00:0:0:100::1c8/128\"]",
        ]
    }
}

/// Addresses by their last 16 bits, and whether the lists let them in.
const CLIENTS: [(u16, bool); 7] = [
    (0x0001, true),
    (0x00ff, true),
    (0x0100, false),
    (0x017f, false),
    (0x0180, true),
    (0x01c8, false),
    (0x0200, true),
];

#[test]
fn the_longest_prefix_decides_who_gets_in_and_the_rest_is_denied_and_counted() -> Result<()> {
    require_root!(Ok(()));
    for mode in [Mode::L2Dsr, Mode::GueMixed, Mode::Nat] {
        // The second client's addresses are on no list.
        let lab = mode.lab().clients(2).build()?;
        let servers = lab.backends().map(|backend| HttpServer::start(backend, &[mode.server_port(PORT)]));
        let _servers: Vec<_> = servers.collect::<Result<_>>()?;
        let mut config = String::new();
        for (name, vip) in [("v4", VIP_V4), ("v6", VIP_V6)] {
            let service = mode.service(name, SocketAddr::new(vip, PORT), "tcp", lab.backends());
            config += &lists(vip).into_iter().fold(service, |service, line| service.line(line)).toml();
        }
        let daemon = Daemon::start(&lab, 0, &config)?;
        for vip in [VIP_V4, VIP_V6] {
            let denied = || daemon.metric("ballast_drops_total{reason=\"source_denied\"}");
            let ask = |client: usize, number| {
                let (client, to) = (lab.client(client), SocketAddr::new(vip, PORT));
                http_get(client, Some(client.source_port(number, 0, vip)), to, "/", REFUSED_AFTER)
            };
            for (number, allowed) in CLIENTS {
                let before = denied()?;
                let answer = ask(0, number);
                assert_eq!(answer.is_ok(), allowed, "{mode}: {number:#x} of {vip}: {answer:?}");
                assert_eq!(denied()? > before, !allowed, "{mode}: {number:#x} of {vip}");
            }
            assert!(ask(1, 1).is_err(), "{mode}: somebody on no list of {vip} got in");
        }
        daemon.accounts()?;
    }
    Ok(())
}

#[test]
fn who_is_denied_later_is_out_at_once_and_the_others_stay() -> Result<()> {
    require_root!(Ok(()));
    for (mode, vip) in [(Mode::L2Dsr, VIP_V4), (Mode::Nat, VIP_V6)] {
        let lab = mode.lab().backends(1).build()?;
        let _server = TcpServer::start(lab.backend(0), &[mode.server_port(PORT)])?;
        let to = SocketAddr::new(vip, PORT);
        let service = mode.service("web", to, "tcp", lab.backends());
        let daemon = Daemon::start(&lab, 0, &service.toml())?;
        let open = |number| {
            let client = lab.client(0);
            connect(client, Some(client.source_port(number, 0, vip)), to, SECOND)
        };
        let (stays, denied) = (open(0x0001)?, open(0x0101)?);
        daemon.write_config(&service.line(lists(vip)[1]).toml())?;
        daemon.reload()?;
        assert!(exchange(&denied, 1_000).is_err(), "{mode}: a denied client's connection goes on");
        exchange(&stays, 1_000).with_context(|| format!("{mode}: a client that nobody denied"))?;
        assert!(open(0x0102).is_err(), "{mode}: a denied client got in");
        open(0x0002)?;
    }
    Ok(())
}

/// Of a burst no more get through than the limit of each second it takes; connections that are there go on.
#[test]
fn new_flows_are_limited_by_the_second_and_counted_and_existing_ones_are_not() -> Result<()> {
    require_root!(Ok(()));
    const RATE: u64 = 100;
    const BURST: u16 = 1_000;
    for (mode, vip) in [(Mode::L2Dsr, VIP_V4), (Mode::L2Dsr, VIP_V6)] {
        let lab = mode.lab().backends(1).build()?;
        let to = SocketAddr::new(vip, PORT);
        let _server = TcpServer::start(lab.backend(0), &[PORT])?;
        let service = mode.service("web", to, "tcp", lab.backends()).line(&format!("new_flow_rate = {RATE}"));
        let daemon = Daemon::start(&lab, 0, &service.toml())?;
        let client = lab.client(0);
        let stream = connect(client, Some(client.source_port(60_000, 0, vip)), to, SOON)?;
        let began = Instant::now();
        let frame = |number: u16| {
            let source = (client.source(number, vip), 4_000);
            let packet =
                Packet { tcp_flags: SYN, payload: vec![], ..Packet::new(Protocol::Tcp, source, (vip, PORT)) };
            [packet.l2(lab.balancer(0).first_leg().mac, client.first_leg().mac), packet.ip()].concat()
        };
        let deliveries = Deliveries::watch(lab.backends(), to)?;
        client.inject_all("eth0", (0..BURST).map(frame))?;
        exchange(&stream, 1 << 20).context("a connection from before")?;
        let accounts = daemon.accounts()?;
        let seconds = began.elapsed().as_secs() + 2;
        let admitted = deliveries.stop()?.iter().filter(|delivery| delivery.tcp_flags == SYN).count() as u64;
        // The connection from before was one of them.
        ensure!((RATE - 1..=RATE * seconds).contains(&admitted), "{admitted} in at most {seconds} s");
        assert_eq!(accounts.drop("new_flow_limit"), u64::from(BURST) - admitted);
    }
    Ok(())
}

/// Services whose flows all have entries: what a flood would fill.
#[test]
fn a_syn_flood_against_a_limit_leaves_established_flows_and_memory_alone() -> Result<()> {
    require_root!(Ok(()));
    flooded(Mode::L2Dsr, "algorithm = \"round-robin\"")?;
    flooded(Mode::Nat, "algorithm = \"source-hash\"")
}

fn flooded(mode: Mode, line: &str) -> Result<()> {
    const RATE: u64 = 500;
    const CONNECTIONS: u16 = 500;
    let lab = mode.lab().backends(4).build()?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let _servers = LiveServers::start(lab.backends(), mode.server_port(PORT))?;
    let service = mode.service("web", to, "tcp", lab.backends()).line(line);
    let daemon = Daemon::start(&lab, 0, &service.toml())?;
    let mut clients = LiveClients::start(lab.client(0), to, 0..CONNECTIONS, CONNECTIONS.into())?;
    let before = clients.open(CONNECTIONS.into())?;
    assert_eq!(before.losses(), "");
    daemon.write_config(&service.line(&format!("new_flow_rate = {RATE}")).toml())?;
    daemon.reload()?;
    clients.pace(1_000)?;
    let made = || -> Result<u64> {
        let counters = daemon.counters_by_cpu()?;
        Ok(counters.iter().map(|counters| counters.flows_inserted + counters.nat_created).sum())
    };
    let (made_before, memory_before, began) = (made()?, memory(&daemon)?, Instant::now());
    let IpAddr::V4(address) = VIP_V4 else { unreachable!("it is IPv4") };
    let flood = Flood::start(lab.client(0), lab.balancer(0), SocketAddrV4::new(address, PORT), SYN, 1)?;
    wait_until("a flood", 60 * SECOND, || flood.sent() > 300_000)?;
    let sent = flood.stop()?;
    let seconds = began.elapsed().as_secs() + 2;
    let new = made()? - made_before;
    ensure!(new <= RATE * seconds, "{mode}: {new} entries of {sent} SYNs in at most {seconds} s");
    let grown = memory(&daemon)?.saturating_sub(memory_before);
    ensure!(grown < 8 << 20, "{mode}: the daemon has grown by {grown} bytes");
    clients.pace(0)?;
    let after = clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &before.open), "{mode}");
    let accounts = daemon.accounts()?;
    ensure!(accounts.drop("new_flow_limit") > sent / 2, "{mode}: {accounts:?}");
    Ok(())
}

/// Bytes of the daemon that are in memory.
fn memory(daemon: &Daemon) -> Result<u64> {
    let path = format!("/proc/{}/statm", daemon.process_id().context("it runs")?);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let pages: u64 = text.split_whitespace().nth(1).context("a second number")?.parse()?;
    Ok(pages * 4_096)
}

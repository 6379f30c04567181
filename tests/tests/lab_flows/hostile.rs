//! Flows under floods, on old tuples, to dead backends and from changing CPUs.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Deliveries, Delivery, Flood, Lab, LiveClients, LiveServers, Node, Service, TcpServer, UdpServer,
    UdpTraffic, VIP_V4, VIP_V6, connect, require_root, try_wait_until, wait_until,
};
use lb_tests::model::Protocol;
use lb_tests::packet::{ACK, Packet, SYN};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::scene::{DRAINED, PORT, SECOND, SOON};

const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
const FLOW_ENTRIES: u32 = 32_768;

#[test]
fn a_syn_on_the_tuple_of_a_drained_backend_goes_elsewhere_at_the_first_try() -> Result<()> {
    require_root!(Ok(()));
    const TUPLES: usize = 10_000;
    for vip in FAMILIES {
        let lab = Lab::builder().backends(2).build()?;
        let to = SocketAddr::new(vip, PORT);
        let daemon = Daemon::start(&lab, 0, &serving(&lab, to, 0..2))?;
        let all: Vec<_> =
            (0..2 * TUPLES as u16 + 2_000).map(|number| tuple(lab.client(0), number, vip)).collect();
        let first = send(&lab, to, &all, SYN)?;
        let of_the_first = all.iter().copied().filter(|client| first[client] == ["backend0"]);
        let tuples: Vec<_> = of_the_first.take(TUPLES).collect();
        assert_eq!(tuples.len(), TUPLES, "half of them");

        daemon.write_config(&serving(&lab, to, 1..2))?;
        daemon.reload()?;
        // The connections are alive ...
        assert_eq!(tally(&send(&lab, to, &tuples, ACK)?), [("backend0", TUPLES)].into());
        // ... and then their ports are used again.
        assert_eq!(tally(&send(&lab, to, &tuples, SYN)?), [("backend1", TUPLES)].into());
        assert_eq!(tally(&send(&lab, to, &tuples, ACK)?), [("backend1", TUPLES)].into());
        daemon.accounts()?;
    }
    Ok(())
}

#[test]
fn a_flow_table_full_twenty_times_over_by_a_syn_flood_also_during_changes_breaks_no_connection() -> Result<()>
{
    require_root!(Ok(()));
    flooded(SYN, "source-hash")
}

#[test]
fn a_flood_of_spoofed_acks_also_during_changes_breaks_no_connection() -> Result<()> {
    require_root!(Ok(()));
    flooded(ACK, "source-hash")
}

/// Connections of such a service have entries for good.
#[test]
fn a_flood_on_round_robin_breaks_no_connection() -> Result<()> {
    require_root!(Ok(()));
    flooded(SYN, "round-robin")?;
    flooded(ACK, "round-robin")
}

/// Connections from before the flood and from each quarter of it go on through a change after each quarter.
fn flooded(flags: u8, algorithm: &str) -> Result<()> {
    const CONNECTIONS: u16 = 1_500;
    let lab = Lab::builder().backends(12).build()?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let config = |serving: Range<usize>| {
        let service = Service::new("web", to, "tcp", "l2-dsr").line(&format!("algorithm = \"{algorithm}\""));
        let service = service.nodes(serving.map(|number| lab.backend(number)), to);
        format!("[limits]\nflow_entries = {FLOW_ENTRIES}\n\n{}", service.toml())
    };
    let daemon = Daemon::start(&lab, 0, &config(0..4))?;
    let mut clients = LiveClients::start(lab.client(0), to, 0..2 * CONNECTIONS, (2 * CONNECTIONS).into())?;
    assert_eq!(clients.open(CONNECTIONS.into())?.losses(), "");
    clients.pace(1_500)?;
    let IpAddr::V4(address) = VIP_V4 else { unreachable!("it is IPv4") };
    let to = SocketAddrV4::new(address, PORT);
    let flood = Flood::start(lab.client(0), lab.balancer(0), to, flags, 1)?;
    let whole = 20 * u64::from(FLOW_ENTRIES);
    let mut changes = [4..8, 2..10, 8..12].into_iter();
    for quarter in 1..=4 {
        wait_until("a quarter of the flood was sent", 60 * SECOND, || flood.sent() >= quarter * whole / 4)?;
        assert_eq!(clients.open(100)?.losses(), "", "after {quarter} quarters");
        if let Some(serving) = changes.next() {
            daemon.write_config(&config(serving))?;
            daemon.reload()?;
        }
    }
    assert!(flood.stop()? >= whole);
    let refused: u64 = daemon.counters_by_cpu()?.iter().map(|counters| counters.flows_refused).sum();
    assert!(refused > 0, "the table was never full");
    let after = clients.exchange()?;
    assert_eq!((after.losses().as_str(), after.alive()), ("", u64::from(CONNECTIONS) + 400));
    Ok(())
}

#[test]
fn datagrams_to_a_dead_backend_end_with_its_detection() -> Result<()> {
    require_root!(Ok(()));
    for vip in FAMILIES {
        let lab = Lab::builder().backends(3).build()?;
        let to = SocketAddr::new(vip, 53);
        let _servers: Vec<_> =
            lab.backends().map(|backend| UdpServer::start(backend, &[53])).collect::<Result<_>>()?;
        let mut checked: Vec<_> =
            lab.backends().map(|backend| TcpServer::start(backend, &[7])).collect::<Result<_>>()?;
        let check = "type = \"tcp\"\nport = 7\ninterval = \"100ms\"\nrise = 2\nfall = 3";
        let service = Service::new("dns", to, "udp", "l2-dsr").health(check).nodes(lab.backends(), to);
        let daemon = Daemon::start(&lab, 0, &service.toml())?;
        let healthy = |count| {
            let status = daemon.status_json()?;
            let backends = status["services"][0]["backends"].as_array().into_iter().flatten();
            Ok(backends.filter(|one| one["health"] == "healthy").count() == count)
        };
        try_wait_until("all are healthy", SOON, || healthy(3))?;
        let sources = (0..96).map(|number| lab.client(0).source_port(number, 4_000, vip));
        let traffic = UdpTraffic::new(sources, to).rate(4_000);
        let calm = traffic.run(lab.client(0), 4_000)?;
        assert_eq!(calm.lost, [0; 0]);
        assert!(calm.by_flow.iter().all(|backends| backends.len() == 1), "{:?}", calm.by_flow);

        let run = traffic.start(lab.client(0))?;
        let deliveries = Deliveries::watch(lab.backends(), to)?;
        checked[1].stop();
        try_wait_until("its death is detected", SOON, || healthy(2))?;
        let over = SystemTime::now() + DRAINED;
        let sent = run.sent();
        wait_until("traffic goes on", SOON, || SystemTime::now() > over && run.sent() > sent + 4_000)?;
        let report = run.finish()?;
        let deliveries = deliveries.stop()?;
        let mut late = deliveries.iter().filter(|one| one.time > over);
        assert!(late.clone().count() > 2_000, "traffic went on");
        assert_eq!(late.find(|one| one.backend == "backend1"), None);
        // Nobody else's flows moved, and this one's went on.
        let moved = calm.by_flow.iter().zip(&report.by_flow).filter(|(before, during)| before != during);
        for (before, during) in moved {
            assert!(before.contains("backend1"), "a flow of {before:?} was answered by {during:?}");
            assert!(during.iter().any(|backend| backend != "backend1"), "a flow of {before:?} ended");
        }
        assert_eq!(report.lost, [0; 0]);
    }
    Ok(())
}

#[test]
fn a_connection_whose_packets_alternate_between_cpus_keeps_its_backend() -> Result<()> {
    require_root!(Ok(()));
    ensure!(cpus() > 1, "this needs two CPUs");
    const CONNECTIONS: u16 = 64;
    for vip in FAMILIES {
        let lab = Lab::builder().backends(12).build()?;
        let to = SocketAddr::new(vip, PORT);
        let _servers = LiveServers::start(lab.backends(), PORT)?;
        let daemon = Daemon::start(&lab, 0, &serving(&lab, to, 0..4))?;
        let client = lab.client(0);
        let received = || -> Result<Vec<u64>> {
            Ok(daemon.counters_by_cpu()?.iter().map(|counters| counters.received).collect())
        };
        let mut streams = Vec::new();
        for number in 0..CONNECTIONS {
            streams.push(connect(client, Some(client.source_port(number, 0, vip)), to, SOON)?);
        }
        let before = received()?;
        let first =
            client.enter(|| streams.iter().map(|stream| ask_from(stream, 0)).collect::<Result<Vec<_>>>())?;
        let changes = [2..6, 4..8, 8..12, 0..12];
        for (number, serving) in changes.into_iter().enumerate() {
            daemon.write_config(&self::serving(&lab, to, serving))?;
            daemon.reload()?;
            client.enter(|| {
                for (stream, first) in streams.iter().zip(&first) {
                    for packet in 1..8 {
                        let answered = ask_from(stream, packet % 2)
                            .with_context(|| format!("{stream:?} after {} changes", number + 1))?;
                        ensure!(answered == *first, "{stream:?} of {first} was answered by {answered}");
                    }
                }
                Ok(())
            })?;
        }
        let busy = received()?.iter().zip(&before).filter(|(now, before)| **now > *before + 500).count();
        assert_eq!(busy, 2, "CPUs that ran the program: {before:?}, {:?}", received()?);
    }
    Ok(())
}

/// Asks who is there, from this CPU. The thread stays there.
fn ask_from(mut stream: &TcpStream, cpu: usize) -> Result<String> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    stream.write_all(b"who\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let mut buffer = [0; 64];
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "closed by the backend");
        answer.extend_from_slice(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn serving(lab: &Lab, to: SocketAddr, serving: Range<usize>) -> String {
    let nodes = serving.map(|number| lab.backend(number));
    Service::new("web", to, "tcp", "l2-dsr").nodes(nodes, to).toml()
}

/// Each from another address: that is what chooses the slot.
fn tuple(client: &Node, number: u16, like: IpAddr) -> SocketAddr {
    client.source_port(number, 1_024 + number, like)
}

/// Sends a segment of each of these flows, and says to which backends each was delivered.
fn send(
    lab: &Lab,
    to: SocketAddr,
    clients: &[SocketAddr],
    flags: u8,
) -> Result<BTreeMap<SocketAddr, Vec<String>>> {
    let node = lab.client(0);
    let frame = |client: &SocketAddr| {
        let (source, destination) = ((client.ip(), client.port()), (to.ip(), to.port()));
        let packet =
            Packet { tcp_flags: flags, payload: vec![], ..Packet::new(Protocol::Tcp, source, destination) };
        [packet.l2(lab.balancer(0).first_leg().mac, node.first_leg().mac), packet.ip()].concat()
    };
    let ours = |delivery: &Delivery| delivery.tcp_flags == flags;
    let deliveries = Deliveries::watch(lab.backends(), to)?;
    // Those before a portion have arrived when it begins, so that no queue on the way is too short. Where one is missing nothing more is
    // sent: what was delivered tells.
    let arrived = |number: usize| {
        !number.is_multiple_of(250)
            || wait_until("what was sent is delivered", 20 * SECOND, || deliveries.count() >= number).is_ok()
    };
    let portions = clients.iter().enumerate().take_while(|(number, _)| arrived(*number));
    node.inject_all("eth0", portions.map(|(_, client)| frame(client)))?;
    let mut delivered: BTreeMap<SocketAddr, Vec<String>> = BTreeMap::new();
    for delivery in deliveries.stop_after(clients.len(), SOON)?.into_iter().filter(ours) {
        delivered.entry(delivery.client).or_default().push(delivery.backend);
    }
    ensure!(delivered.len() == clients.len(), "{} of {} were delivered", delivered.len(), clients.len());
    Ok(delivered)
}

/// How many flows were delivered to each backend, each exactly once.
fn tally(delivered: &BTreeMap<SocketAddr, Vec<String>>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for backends in delivered.values() {
        let [backend] = backends.as_slice() else { panic!("a packet was delivered to {backends:?}") };
        *counts.entry(backend.as_str()).or_default() += 1;
    }
    counts
}

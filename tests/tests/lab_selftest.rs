//! The lab proves itself, without any of Ballast: what the other lab tests take for granted is shown here.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use lb_tests::lab::programs::{EXPERIMENTAL_ETHERTYPE, redirect, reflect};
use lb_tests::lab::{
    BPFFS, Behaviour, Daemon, Frame, HttpLoad, HttpLoadSettings, HttpServer, Icmp, IcmpListener, Lab, Node,
    Segment, Service, TcpServer, UdpServer, UdpTraffic, VIP_V4, VIP_V6, connect, exchange, http_get,
    require_root,
};

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(5);

/// One IPv4 and one IPv6 address, to name a family by.
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];

#[test]
fn a_client_exchanges_a_mebibyte_with_every_backend_in_every_topology() -> Result<()> {
    require_root!(Ok(()));
    let topologies = [
        ("one-armed", Lab::builder()),
        ("two-armed", Lab::builder().two_armed()),
        ("one-armed, far apart", Lab::builder().clients_behind_gateway().remote_backends(1)),
        ("two-armed, far apart", Lab::builder().two_armed().clients_behind_gateway().remote_backends(1)),
    ];
    for (name, builder) in topologies {
        let lab = builder.clients(2).backends(2).build()?;
        for backend in lab.backends() {
            let server = TcpServer::start(backend, &[7])?;
            for (client, family) in lab.clients().flat_map(|client| FAMILIES.map(|family| (client, family))) {
                let to = SocketAddr::new(backend.address(family), 7);
                // From the client's own address, and from one of its many.
                for from in [client.address(family), client.source(40_000, family)] {
                    let stream = connect(client, Some(SocketAddr::new(from, 0)), to, SOON)?;
                    exchange(&stream, MIB)?;
                    let seen = server.clients().pop().map(|seen| seen.ip());
                    assert_eq!(seen, Some(from), "{name}: the client that {} sees", backend.label());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn backends_answer_on_the_vip_but_do_not_claim_it() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    let _server = HttpServer::start(backend, &[80])?;
    for vip in FAMILIES {
        let to = SocketAddr::new(vip, 80);
        let onlink = format!("route replace {vip} dev eth0");
        client.ip("look for the VIP on the segment", [&onlink])?;
        let asked = http_get(client, None, to, "/", Duration::from_millis(300));
        assert!(asked.is_err(), "somebody answered ARP or NDP for {vip}: {asked:?}");
        // As it is delivered to the backend's MAC address, it is answered, and directly.
        let mac = backend.first_leg().mac_text();
        client.ip(
            "deliver to the backend",
            [format!("neighbour replace {vip} lladdr {mac} dev eth0 nud permanent")],
        )?;
        let reply = http_get(client, None, to, "/", SOON)?;
        assert_eq!(reply.backend, "backend0");
        assert_eq!(reply.client.map(|client| client.ip()), Some(client.address(vip)));
    }
    Ok(())
}

#[test]
fn the_vip_leads_to_the_load_balancer() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers(2).build()?;
    for vip in FAMILIES {
        for balancer in lab.balancers() {
            lab.client(0).route_vip_to(vip, balancer)?;
            let capture = balancer.capture_leg(Segment::Front)?;
            let client = lab.client(0);
            let socket = client.enter(|| Ok(UdpSocket::bind((client.address(vip), 0))?))?;
            socket.send_to(b"hello", (vip, 9))?;
            capture.wait_for("a datagram for the VIP", SOON, |frame| frame.bytes.ends_with(b"hello"))?;
        }
    }
    Ok(())
}

#[test]
fn captures_see_what_passes_both_ways_with_its_vlan_tags() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    let (at_client, at_leg) = (client.capture("eth0")?, backend.capture_leg(Segment::Front)?);
    let began = SystemTime::now();
    let plain = experimental_frame(client, backend, &[]);
    let tagged = experimental_frame(client, backend, &[0x81, 0x00, 0x20, 0x2a]);
    let double = experimental_frame(client, backend, &[0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x20, 0x2a]);
    client.inject_all("eth0", [&plain, &tagged, &double])?;
    for (what, frame) in [("plain", &plain), ("tagged", &tagged), ("QinQ", &double)] {
        let sent = at_client.wait_for(what, SOON, |seen| seen.bytes == *frame)?;
        let arrived = at_leg.wait_for(what, SOON, |seen| seen.bytes == *frame)?;
        assert!(sent.outgoing && arrived.outgoing, "{what}");
        for time in [sent.time, arrived.time] {
            assert!((began..=SystemTime::now()).contains(&time), "{what}: {time:?}, began {began:?}");
        }
    }
    backend.inject("eth0", &experimental_frame(backend, client, &[]))?;
    at_leg.wait_for("a frame from the backend", SOON, |seen| !seen.outgoing && is_experimental(seen))?;
    let all = at_leg.stop()?;
    assert_eq!(all.iter().filter(|frame| is_experimental(frame)).count(), 2, "{all:?}");
    let wrong =
        at_client.wait_for("what nobody sent", Duration::from_millis(10), |seen| seen.bytes.is_empty());
    assert!(wrong.is_err_and(|error| error.to_string().contains("eth0")));
    Ok(())
}

#[test]
fn frames_sent_by_xdp_tx_arrive() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let (client, balancer) = (lab.client(0), lab.balancer(0));
    balancer.attach_xdp("eth0", &reflect())?;
    let capture = client.capture("eth0")?;
    let frame = experimental_frame(client, balancer, &[]);
    client.inject_all("eth0", vec![&frame; 1000])?;
    let back = |seen: &Frame| !seen.outgoing && is_experimental(seen);
    all_came("every frame comes back", || capture.so_far().iter().filter(|seen| back(seen)).count() == 1000)?;
    let counters = balancer.counters("eth0")?;
    assert_eq!(counters.get("rx_xdp_tx"), Some(&1000), "{counters:?}");
    assert_eq!(counters.get("rx_xdp_tx_errors"), Some(&0), "{counters:?}");
    // The rest goes on as if there was no program: ARP, NDP and TCP.
    let server = TcpServer::start(balancer, &[7])?;
    for family in FAMILIES {
        exchange(&connect(client, None, SocketAddr::new(balancer.address(family), 7), SOON)?, MIB)?;
    }
    assert_eq!(server.clients().len(), 2);
    balancer.detach_xdp("eth0")
}

#[test]
fn frames_redirected_to_the_second_arm_arrive() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().two_armed().build()?;
    let (client, balancer, backend) = (lab.client(0), lab.balancer(0), lab.backend(0));
    let second = balancer.enter(|| Ok(nix::net::if_::if_nametoindex("eth1")?))?;
    balancer.attach_xdp("eth0", &redirect(second))?;
    let capture = backend.capture("eth0")?;
    let mut frame = experimental_frame(client, balancer, &[]);
    // Addressed to the backend, but it has to reach the load balancer: the client's segment must flood it.
    frame.splice(..6, backend.first_leg().mac);
    client.inject_all("eth0", vec![&frame; 1000])?;
    all_came("every frame is redirected", || {
        capture.so_far().iter().filter(|seen| is_experimental(seen)).count() == 1000
    })
}

#[test]
fn the_decapsulator_delivers_tunnel_packets_of_every_kind_and_size_to_the_vip() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().decapsulating().build()?;
    let (client, balancer, backend) = (lab.client(0), lab.balancer(0), lab.backend(0));
    let server = UdpServer::start(backend, &[53])?;
    let kinds = FAMILIES.into_iter().flat_map(|outer| [(outer, false), (outer, true)]);
    let kinds: Vec<_> = kinds.flat_map(|(outer, gue)| FAMILIES.map(|vip| (outer, gue, vip))).collect();
    let mut sent = 0;
    for (port, (outer, gue, vip)) in (4_000..).zip(kinds) {
        let from = client.source_port(1, port, vip);
        // Up to what a client's link takes: 1500 bytes with the inner header.
        let longest = if vip.is_ipv4() { 1500 - 20 - 8 } else { 1500 - 40 - 8 };
        let sizes = [0, 1, 18, 500, longest];
        for size in sizes {
            let to = SocketAddr::new(vip, 53);
            let frame = tunnel_frame(balancer, backend, (outer, gue), from, to, &vec![b'x'; size]);
            // Not the client but the load balancer sends it; the source of the inner packet is the client.
            balancer.inject("eth0", &frame)?;
            sent += 1;
            let what = format!("{size} bytes to {vip} in the family of {outer}, gue: {gue}");
            all_came(&what, || server.received() == sent)?;
        }
        assert_eq!(server.clients().get(&from), Some(&(sizes.len() as u64)));
    }
    // Packets without an outer header go on too, UDP among them.
    for family in FAMILIES {
        let to = SocketAddr::new(backend.address(family), 53);
        let report = UdpTraffic::new([client.source_port(2, 0, family)], to).run(client, 10)?;
        assert_eq!(report.answered, 10);
    }
    Ok(())
}

#[test]
fn replies_of_backends_go_through_the_load_balancer_where_that_was_asked_for() -> Result<()> {
    require_root!(Ok(()));
    for builder in [Lab::builder(), Lab::builder().two_armed()] {
        let lab = builder.replies_through_balancer().plain_backends().build()?;
        let (client, balancer, backend) = (lab.client(0), lab.balancer(0), lab.backend(0));
        let inner = backend.first_leg().segment;
        let _server = UdpServer::start(backend, &[53])?;
        assert_eq!(backend.addresses().len(), 2, "no VIPs: {:?}", backend.addresses());
        for family in FAMILIES {
            let capture = balancer.capture_leg(inner)?;
            let to = SocketAddr::new(backend.address(family), 53);
            let report = UdpTraffic::new([client.source_port(1, 0, family)], to).run(client, 10)?;
            assert_eq!(report.answered, 10, "{family}");
            let mac = backend.first_leg().mac;
            // At the far end of the load balancer's leg a frame to it is outgoing.
            let from_backend = |frame: &Frame| frame.outgoing && frame.bytes.get(6..12) == Some(&mac[..]);
            let replies = capture.stop()?.into_iter().filter(from_backend);
            assert!(replies.count() >= 10, "{family}: replies went another way");
        }
    }
    Ok(())
}

#[test]
fn a_narrow_hop_tells_the_sender_what_it_takes() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().clients_behind_gateway().gateway_mtu(1_280).backends(1).build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    let _server = TcpServer::start(backend, &[7])?;
    for family in FAMILIES {
        let icmp = IcmpListener::start(backend, family)?;
        let to = SocketAddr::new(backend.address(family), 7);
        exchange(&connect(client, Some(client.source_port(1, 0, family)), to, SOON)?, MIB)?;
        let told = icmp.wait_for("too big", SOON, Icmp::is_too_big)?;
        let gateway = lab.gateway().leg(Segment::Front).address(family);
        assert_eq!((told.from, told.mtu()), (gateway, 1_280));
    }
    Ok(())
}

#[test]
fn udp_traffic_shows_what_was_lost_and_who_answered() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    for family in FAMILIES {
        let server = UdpServer::start(backend, &[53])?;
        let to = SocketAddr::new(backend.address(family), 53);
        let sources = (0..8).map(|number| client.source_port(number, 0, family));
        let traffic = UdpTraffic::new(sources, to).rate(20_000);
        let report = traffic.run(client, 10_000)?;
        assert_eq!((report.sent, report.answered, report.lost.len()), (10_000, 10_000, 0));
        assert_eq!(report.by_backend, [("backend0".to_owned(), 10_000)].into());
        assert_eq!(report.by_flow.len(), 8);
        assert_eq!(server.received(), 10_000);
        // With nobody there, nothing is answered, and the report says so.
        let run = traffic.start(client)?;
        all_came("some are sent", || run.sent() > 100)?;
        drop(server);
        let sent_at_least = run.sent() + 100;
        all_came("some more are sent", || run.sent() > sent_at_least)?;
        let report = run.finish()?;
        ensure!(!report.lost.is_empty() && report.answered > 0, "lost {}", report.lost.len());
        assert_eq!(report.lost.len() as u64 + report.answered, report.sent);
    }
    Ok(())
}

#[test]
fn an_http_server_fails_as_told() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    let mut server = HttpServer::start(backend, &[80])?;
    let to = SocketAddr::new(backend.ipv4().into(), 80);
    // Whoever is to answer has time, on a machine that is busy with other tests, too.
    let status = |path, answers: bool| {
        let patience = if answers { SOON } else { Duration::from_millis(300) };
        http_get(client, None, to, path, patience).map(|reply| reply.status)
    };
    for (behaviour, healthz, rest) in [
        (Behaviour::Serve, Some(200), Some(200)),
        (Behaviour::FailHealth(503), Some(503), Some(200)),
        (Behaviour::Fail(500), Some(500), Some(500)),
        (Behaviour::Hang, None, None),
        (Behaviour::Refuse, None, None),
        (Behaviour::Serve, Some(200), Some(200)),
    ] {
        server.set(behaviour)?;
        assert_eq!(status("/healthz", healthz.is_some()).ok(), healthz, "{behaviour:?}");
        assert_eq!(status("/", rest.is_some()).ok(), rest, "{behaviour:?}");
    }
    Ok(())
}

#[test]
fn a_load_records_when_its_server_was_gone() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let mut server = HttpServer::start(lab.backend(0), &[80])?;
    for family in FAMILIES {
        let to = SocketAddr::new(lab.backend(0).address(family), 80);
        let load = HttpLoad::start(lab.client(0), to, HttpLoadSettings::default())?;
        all_came("some succeed", || {
            load.so_far().iter().filter(|sample| sample.outcome.is_ok()).count() > 20
        })?;
        let gone = Instant::now();
        server.set(Behaviour::Refuse)?;
        all_came("some fail", || load.so_far().iter().filter(|sample| sample.outcome.is_err()).count() > 20)?;
        server.set(Behaviour::Serve)?;
        let back = Instant::now();
        all_came("some succeed again", || {
            load.so_far().iter().any(|sample| sample.started > back && sample.outcome.is_ok())
        })?;
        for sample in load.stop() {
            let ended = sample.started + sample.took;
            let certain = ended < gone || sample.started > back;
            assert!(!certain || sample.outcome == Ok("backend0".to_owned()), "{sample:?}");
        }
    }
    Ok(())
}

/// Stands for `ballast`: `run` is ready at once and ends on SIGTERM, or says no; the rest answers if it runs.
const STUB: &str = r#"#!/bin/sh
files=$(dirname "$BALLAST_SOCKET")
case "$1" in
    run)
        echo "pid $$ in $(readlink /proc/self/ns/net) with $3"
        grep -q refuse "$3" && { echo "refused"; exit 1; }
        trap 'rm -f "$files/ready"; exit 0' TERM
        touch "$files/ready"
        while :; do sleep 1 & wait $!; done ;;
    status)
        [ -e "$files/ready" ] || exit 4
        [ "$2" = -o ] && echo '{"revision": 7}' ;;
    *) echo "no such command" >&2; exit 2 ;;
esac
exit 0
"#;

#[test]
fn a_daemon_is_started_awaited_and_ended() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(0).two_armed().build()?;
    let stub = lab.directory().join("stub");
    fs::write(&stub, STUB)?;
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755))?;
    let service = Service::new("web", SocketAddr::new(VIP_V4, 80), "tcp", "ipip").toml();
    let mut daemon = Daemon::with_binary(&lab, 0, &service, stub)?;
    let config = fs::read_to_string(&daemon.files().config)?;
    assert!(config.starts_with("[daemon]\ninterfaces = [\"eth0\", \"eth1\"]\n"), "{config}");
    assert!(config.ends_with(&service) && !config.contains('{'), "{config}");
    for _ in 0..2 {
        daemon.launch()?;
        daemon.wait_ready(SOON)?;
        assert_eq!(daemon.status_json()?.get("revision"), Some(&7.into()));
        assert!(daemon.launch().is_err(), "one daemon is not started twice");
        assert!(daemon.sigterm()?.success());
    }
    let inside = fs::metadata(lab.balancer(0).path())?.ino();
    assert_eq!(daemon.log().matches(&format!("in net:[{inside}] with")).count(), 2, "{}", daemon.log());
    let error = daemon.cli_checked(["no-such-thing"]).expect_err("exit 2").to_string();
    assert!(error.contains("ballast no-such-thing") && error.contains("no such command"), "{error}");
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    daemon.kill9()?;
    assert!(!daemon.is_running()?);
    // One that refuses is not waited for until the deadline, and its log is in the error.
    fs::remove_file(daemon.files().socket.with_file_name("ready"))?;
    daemon.write_config("# refuse")?;
    let mut rival = daemon.rival();
    rival.launch()?;
    let error = format!("{:#}", rival.wait_ready(Duration::from_secs(3600)).expect_err("refused"));
    assert!(error.contains("ended before") && error.contains("refused"), "{error}");
    assert_eq!(rival.wait_exit(SOON)?.code(), Some(1));
    Ok(())
}

#[test]
fn a_failing_command_says_what_and_where() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(0).build()?;
    let client = lab.client(0);
    let error =
        client.ip("test errors", ["link set lo up", "link set nothing up"]).expect_err("no such link");
    let text = format!("{error:#}");
    for part in ["test errors", "ip link set nothing up", client.name(), "Cannot find device"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let error = client.run("sh", ["-c", "echo oh dear >&2; exit 3"]).expect_err("exit 3");
    let text = format!("{error:#}");
    assert!(text.contains("oh dear") && text.contains(client.name()), "{text}");
    Ok(())
}

#[test]
fn a_panic_leaves_nothing_behind() -> Result<()> {
    require_root!(Ok(()));
    let (send_name, name) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let lab = Lab::builder().build().expect("build a lab");
        // A process that nobody waits for, a pinned program and a server with a connection: all of it must go.
        let child = lab.balancer(0).spawn(Command::new("sleep").arg("1000")).expect("start sleep");
        send_name.send((lab.name().to_owned(), child.id())).expect("report");
        std::mem::forget(child);
        let program =
            lb_tests::lab::Program::load(lb_tests::lab::Kind::Xdp, "left", &reflect()).expect("load");
        program.pin(&lab.pins().join("left")).expect("pin");
        let server = TcpServer::start(lab.backend(0), &[7]).expect("serve");
        let to = SocketAddr::new(lab.backend(0).ipv4().into(), 7);
        let stream = connect(lab.client(0), None, to, SOON).expect("connect");
        std::mem::forget((server, stream));
        std::panic::resume_unwind(Box::new("as it should"));
    })
    .join();
    assert!(panicked.is_err());
    let (name, child) = name.recv()?;
    assert_eq!(traces_of(&name)?, Vec::<String>::new());
    // Killed, though not reaped: that is for its parent, this process.
    let state = fs::read_to_string(format!("/proc/{child}/stat"))?;
    assert!(state.contains(") Z "), "{state}");
    Ok(())
}

#[test]
fn what_a_killed_process_left_is_swept_and_nothing_else() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(0).build()?;
    // A number that no process has, beyond the kernel's highest (2^22), and no other run of this test.
    let stale = format!("bl-{}-0", (1 << 22) + std::process::id());
    for made in [format!("/run/{stale}"), format!("{BPFFS}/{stale}")] {
        fs::create_dir_all(made)?;
    }
    lab.client(0).run("ip", ["netns", "add", &format!("{stale}-client0")])?;
    Lab::sweep_stale()?;
    assert_eq!(traces_of(&stale)?, Vec::<String>::new());
    assert!(lab.client(0).run("true", [] as [&str; 0]).is_ok(), "the lab of a living process was swept");
    Ok(())
}

#[test]
fn a_kept_lab_stays_until_it_is_removed() -> Result<()> {
    require_root!(Ok(()));
    let name = Lab::builder().backends(0).build()?.keep()?;
    assert!(!traces_of(&name)?.is_empty());
    Lab::remove_kept(&name)?;
    assert_eq!(traces_of(&name)?, Vec::<String>::new());
    assert!(Lab::remove_kept("../etc").is_err());
    Ok(())
}

/// Files, pins and namespaces of a lab.
fn traces_of(lab: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in ["/run", "/run/netns", BPFFS] {
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name == lab || name.starts_with(&format!("{lab}-")) {
                found.push(format!("{directory}/{name}"));
            }
        }
    }
    Ok(found)
}

fn all_came(what: &str, condition: impl FnMut() -> bool) -> Result<()> {
    lb_tests::lab::wait_until(what, SOON, condition)
}

/// A frame that only the lab's own programs and captures know. `tags` go between the addresses and the type.
fn experimental_frame(from: &Node, to: &Node, tags: &[u8]) -> Vec<u8> {
    let addresses = [to.first_leg().mac, from.first_leg().mac].concat();
    [&addresses, tags, &EXPERIMENTAL_ETHERTYPE.to_be_bytes(), &[0x5a; 100]].concat()
}

fn is_experimental(frame: &Frame) -> bool {
    frame.bytes.get(12..14) == Some(&EXPERIMENTAL_ETHERTYPE.to_be_bytes())
}

/// UDP in IP in IP of the family of `outer`, with or without UDP between them, from a load balancer to a backend.
fn tunnel_frame(
    balancer: &Node,
    backend: &Node,
    (outer, gue): (IpAddr, bool),
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Vec<u8> {
    let inner = udp_datagram(from.port(), to.port(), payload);
    let inner = ip_packet(from.ip(), to.ip(), 17, &with_udp_checksum(from.ip(), to.ip(), inner));
    let (protocol, inner) = match (gue, to) {
        // Without a checksum, in IPv6 too (RFC 6935).
        (true, _) => (17, udp_datagram(0xc123, 6080, &inner)),
        (false, SocketAddr::V4(_)) => (4, inner),
        (false, SocketAddr::V6(_)) => (41, inner),
    };
    let packet = ip_packet(balancer.address(outer), backend.address(outer), protocol, &inner);
    let ether_type = if outer.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&backend.first_leg().mac[..], &balancer.first_leg().mac, &ether_type, &packet].concat()
}

fn udp_datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("short");
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = (length + 20).to_be_bytes();
            let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0].to_vec();
            header.extend([from.octets(), to.octets()].concat());
            let checksum = checksum(&header).to_be_bytes();
            header.splice(10..12, checksum);
            [&header, payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = length.to_be_bytes();
            let header = [0x60, 0, 0, 0, high, low, protocol, 64];
            [&header[..], &from.octets(), &to.octets(), payload].concat()
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// RFC 768 and RFC 8200, section 8.1.
fn with_udp_checksum(from: IpAddr, to: IpAddr, mut udp: Vec<u8>) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u16::try_from(udp.len()).expect("short").to_be_bytes();
    let pseudo = [&octets(from)[..], &octets(to), &length, &[0, 17], &udp].concat();
    let sum = checksum(&pseudo);
    udp.splice(6..8, if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    udp
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

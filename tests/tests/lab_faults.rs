//! What is wrong on the network or in a file: forwarding goes on, and it is named.
//!
//! Every loss that is asserted to be 0 was 0 before, in a control run without the fault.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use lb_tests::lab::{
    Capture, Daemon, Frame, Lab, Node, Segment, Service, TcpServer, UdpReport, UdpServer, UdpTraffic, VIP_V4,
    VIP_V6, connect, exchange, require_root, try_wait_until, wait_until,
};
use lb_tests::model::{Protocol, checksum};
use lb_tests::packet::{Packet, SYN, hex};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
const PORT: u16 = 53;
/// Bytes of an IP packet that is large, yet in one buffer.
const LARGE: u32 = 3_400;
/// Clients, each a flow.
const FLOWS: u16 = 64;

#[test]
fn a_backends_new_mac_is_followed_within_a_second_of_the_neighbour_table() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    let _server = UdpServer::start(backend, &[PORT])?;
    let config: String = FAMILIES.map(|vip| service(&lab, vip).toml()).concat();
    let daemon = Daemon::start(&lab, 0, &config)?;
    // It announces what changes, as a host does that took over an address.
    backend.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    backend.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1")?;
    for (number, vip) in FAMILIES.into_iter().enumerate() {
        let traffic = traffic(client, vip);
        assert_nothing_lost(&traffic.run(client, 1_000)?, 1_000);
        let capture = lab.balancer(0).capture_leg(Segment::Front)?;
        let run = traffic.clone().rate(1_000).start(client)?;
        let mac = [0x02, 0xee, 0, 0, 0, number as u8 + 1];
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        backend.ip("change the MAC address", [format!("link set eth0 address {text}")])?;
        let address = backend.address(vip).to_string();
        try_wait_until("the kernel of the load balancer knows the new MAC address", SOON, || {
            let shown = lab.balancer(0).run("ip", ["neigh", "show", &address, "dev", "eth0"]);
            shown.map(|shown| shown.stdout.contains(&text))
        })?;
        let forwarded =
            |frame: &Frame| !frame.outgoing && is_to_port(frame, vip) && frame.bytes.starts_with(&mac);
        capture.wait_for("a packet for the new MAC address", SECOND, forwarded)?;
        let answered = run.answered();
        wait_until("it is answered", SECOND, || run.answered() > answered)?;
        run.finish()?;
        assert_nothing_lost(&traffic.run(client, 1_000)?, 1_000);
    }
    daemon.accounts().map(drop)
}

#[test]
fn an_unresolved_next_hop_is_a_named_drop_and_nothing_leaves_without_a_mac() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (client, backend) = (lab.client(0), lab.backend(0));
    let (v4, v6) = (Ipv4Addr::new(10, 0, 9, 9), "fd00::909".parse::<Ipv6Addr>()?);
    let _server = UdpServer::start(backend, &[PORT, PORT + 1])?;
    let mut config = String::new();
    for (vip, nobody) in FAMILIES.into_iter().zip([IpAddr::from(v4), v6.into()]) {
        let name = if vip.is_ipv4() { "lost4" } else { "lost6" };
        let lost = Service::new(name, SocketAddr::new(vip, PORT + 1), "udp", "l2-dsr");
        config += &service(&lab, vip).toml();
        config += &lost.backend("nobody", SocketAddr::new(nobody, PORT + 1), 1).toml();
    }
    let daemon = Daemon::start(&lab, 0, &config)?;
    let capture = lab.balancer(0).capture_leg(Segment::Front)?;
    let sources = |vip| (0..FLOWS).map(move |number| client.source_port(number, 4000, vip));
    for (number, vip) in FAMILIES.into_iter().enumerate() {
        assert_nothing_lost(&traffic(client, vip).run(client, 1_000)?, 1_000);
        let before = daemon.accounts()?;
        let lost = UdpTraffic::new(sources(vip), SocketAddr::new(vip, PORT + 1)).run(client, 1_000)?;
        assert_eq!(lost.answered, 0);
        let after = daemon.accounts()?;
        assert_eq!(after.drop("next_hop_unresolved") - before.drop("next_hop_unresolved"), 1_000);
        assert_eq!(after.verdict("drop") - before.verdict("drop"), 1_000, "and for no other reason");
        assert_eq!(after.verdict("tx"), before.verdict("tx"));
        let status = daemon.status_json()?;
        let reachable = status.pointer(&format!("/services/{number}/backends/0/reachable"));
        assert_eq!(reachable, Some(&Value::Bool(false)), "{status:#}");
    }
    let sent: Vec<_> = capture.stop()?.into_iter().filter(|frame| !frame.outgoing).collect();
    assert!(
        sent.iter().filter(|frame| is_to_port(frame, VIP_V4)).count() >= 1_000,
        "the capture sees what is sent"
    );
    let wrong =
        sent.iter().find(|frame| frame.bytes.starts_with(&[0; 6]) || frame.bytes.get(6..12) == Some(&[0; 6]));
    assert!(wrong.is_none(), "{wrong:?}");
    // As soon as somebody answers for the address, it is served.
    backend.ip(
        "take the addresses",
        [format!("address add {v4}/32 dev eth0"), format!("address add {v6}/128 dev eth0 nodad")],
    )?;
    for vip in FAMILIES {
        let traffic = UdpTraffic::new(sources(vip), SocketAddr::new(vip, PORT + 1));
        try_wait_until("the next hop is resolved", SOON, || {
            traffic.run(client, 10).map(|report| report.lost.is_empty())
        })?;
        assert_nothing_lost(&traffic.run(client, 1_000)?, 1_000);
    }
    daemon.accounts().map(drop)
}

#[test]
fn what_is_not_for_a_service_passes_byte_for_byte() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers_own_vips().build()?;
    let (client, balancer) = (lab.client(0), lab.balancer(0));
    let _ssh = TcpServer::start(balancer, &[22])?;
    let _servers = serve_udp(&lab)?;
    let config: String = FAMILIES.map(|vip| service(&lab, vip).toml()).concat();
    let daemon = Daemon::start(&lab, 0, &config)?;
    let before = daemon.accounts()?;
    let mut frames = Vec::new();
    for tags in 0..3 {
        frames.extend(passing_frames(&lab, tags));
    }
    let capture = balancer.capture("eth0")?;
    client.inject_all("eth0", &frames)?;
    for (number, frame) in frames.iter().enumerate() {
        let same = |seen: &Frame| !seen.outgoing && seen.bytes == *frame;
        capture
            .wait_for("the frame as it was sent", SOON, same)
            .with_context(|| format!("frame {number}:\n{}", hex(frame)))?;
    }
    let seen = capture.stop()?;
    for frame in &frames {
        assert_eq!(
            seen.iter().filter(|seen| !seen.outgoing && seen.bytes == *frame).count(),
            1,
            "{}",
            hex(frame)
        );
    }
    // Connections to the host itself, on its own addresses and on the VIPs.
    for address in FAMILIES.into_iter().flat_map(|vip| [vip, balancer.address(vip)]) {
        exchange(&connect(client, None, SocketAddr::new(address, 22), SOON)?, 100_000)?;
    }
    let after = daemon.accounts()?;
    assert!(after.verdict("pass") - before.verdict("pass") >= frames.len() as u64 + 100);
    let others = |accounts: &lb_tests::lab::Accounts| {
        ["tx", "redirect", "drop"].map(|verdict| accounts.verdict(verdict))
    };
    assert_eq!(others(&after), others(&before), "{after:?}");
    // And the service itself works: it is the rest that passes.
    for vip in FAMILIES {
        assert_nothing_lost(&traffic(client, vip).run(client, 1_000)?, 1_000);
    }
    Ok(())
}

#[test]
fn malformed_truncated_and_oversized_frames_are_counted_and_harmless() -> Result<()> {
    require_root!(Ok(()));
    // The fabric takes more than clients send, and not more than veth takes for native XDP.
    let lab = Lab::builder().mtu(1500, LARGE).decapsulating().build()?;
    let (client, balancer) = (lab.client(0), lab.balancer(0));
    let _tcp: Vec<_> =
        lab.backends().map(|backend| TcpServer::start(backend, &[80, 81])).collect::<Result<_>>()?;
    let mut config = String::new();
    for vip in FAMILIES {
        for (port, mode) in [(80, "l2-dsr"), (81, "ipip")] {
            for protocol in ["tcp", "udp"] {
                let name = format!("{protocol}-{mode}-{}", if vip.is_ipv4() { 4 } else { 6 });
                let to = SocketAddr::new(vip, port);
                config += &backends(Service::new(&name, to, protocol, mode), &lab, vip, port).toml();
            }
        }
    }
    let daemon = Daemon::start(&lab, 0, &config)?;
    let exchange_all = || -> Result<()> {
        for (vip, port) in FAMILIES.into_iter().flat_map(|vip| [(vip, 80), (vip, 81)]) {
            exchange(&connect(client, None, SocketAddr::new(vip, port), SOON)?, 50_000)
                .with_context(|| format!("to {vip} port {port}"))?;
        }
        Ok(())
    };
    exchange_all().context("without any fault")?;
    let before = daemon.accounts()?;

    let injector = lab.backend(1);
    // Of its own, so that captures can tell its frames; the bridge learns it, and nobody asks for it.
    let source = [0x02, 0xbd, 0xbd, 0xbd, 0xbd, 0xbd];
    let mut rng = Rng::with_seed(0xba11);
    let frames: Vec<_> = (0..4_000)
        .map(|number| malformed(&mut rng, client, balancer.first_leg().mac, source, number))
        .collect();
    let capture = Capture::start_filtered(lab.switch(), &balancer.first_leg().port, move |frame| {
        frame.outgoing && frame.bytes.get(6..12) == Some(&source)
    })?;
    thread::scope(|scope| {
        let injecting =
            scope.spawn(|| frames.chunks(100).try_for_each(|some| injector.inject_all("eth0", some)));
        let mut exchanges = 0;
        while !injecting.is_finished() || exchanges == 0 {
            exchange_all().context("while malformed frames arrive")?;
            exchanges += 1;
        }
        injecting.join().ok().context("injecting panicked")?
    })?;
    exchange_all().context("after the malformed frames")?;
    let after = daemon.accounts()?;
    let arrived = capture.stop()?.len() as u64;
    // The bridge does not take a frame that ends inside its VLAN tag.
    assert!(arrived > 3_900, "only {arrived} frames got as far as the load balancer");
    assert!(after.packets - before.packets > arrived, "{arrived} frames and the connections: {after:?}");
    for reason in ["truncated_header", "bad_ip_header", "fragment", "extension_header"] {
        let count = after.drop(reason) - before.drop(reason);
        assert!(count >= 10, "{reason}: {count} in {after:?}");
    }
    for told in ["time_exceeded", "too_big"] {
        let count = daemon.metric(&format!("ballast_icmp_total{{kind=\"{told}\"}}"))?;
        assert!(count >= 10.0, "{told}: {count}");
    }
    // Nothing that only a bug or a broken environment would cause.
    for reason in
        ["no_backend", "backend_disabled", "next_hop_unresolved", "no_headroom", "no_egress", "bad_map_entry"]
    {
        assert_eq!(after.drop(reason), 0, "{reason}");
    }
    Ok(())
}

/// A change to the file, what the refusal has to say, and whether `check` finds it (it does not know routes).
struct Mistake {
    name: &'static str,
    replace: (&'static str, &'static str),
    said: &'static [&'static str],
    found_by_check: bool,
}

const MISTAKES: [Mistake; 10] = [
    Mistake {
        name: "an unknown key",
        replace: ("protocol = ", "protocool = "),
        said: &["unknown key `protocool`", "did you mean `protocol`?"],
        found_by_check: true,
    },
    Mistake {
        name: "a bad address",
        replace: ("10.0.4.1:53", "10.0.4.300:53"),
        said: &["not an IPv4 address", "an address and a port, such as"],
        found_by_check: true,
    },
    Mistake {
        name: "a name used twice",
        replace: ("name = \"backend1\"", "name = \"backend0\""),
        said: &[
            "there already is a backend \"backend0\"",
            "the first stands at",
            "another one is needed here",
        ],
        found_by_check: true,
    },
    Mistake {
        name: "a VIP as a backend",
        replace: ("10.0.4.1:53", "203.0.113.10:53"),
        said: &["203.0.113.10 is a VIP of service", "the address of the backend itself is needed here"],
        found_by_check: true,
    },
    Mistake {
        name: "too much weight",
        replace: ("weight = 1", "weight = 65536"),
        said: &["`weight` can't be 65536", "an integer from 0 to 65535"],
        found_by_check: true,
    },
    Mistake {
        name: "too many services",
        replace: (
            "# more",
            "[[service]]\nname = \"more\"\naddress = \"203.0.113.11:53\"\nhealth.type = \"none\"\n",
        ),
        said: &["too many services: `limits.services` is 1", "there is room for 1", "raise it in `[limits]`"],
        found_by_check: true,
    },
    Mistake {
        name: "too many backends",
        replace: ("# more", "[[service.backend]]\nname = \"more\"\naddress = \"10.0.4.9:53\"\n"),
        said: &["too many backends: `limits.backends` is 3", "there is room for 2"],
        found_by_check: true,
    },
    Mistake {
        name: "a table size that is no power of two",
        replace: ("table_size = 1024", "table_size = 1000"),
        said: &["`table_size` can't be 1000", "a power of two from 1024 to 1048576"],
        found_by_check: true,
    },
    Mistake {
        name: "no TOML at all",
        replace: ("[service.health]", "[service.health"),
        said: &["here the TOML syntax is broken"],
        found_by_check: true,
    },
    Mistake {
        name: "l2-dsr behind a gateway",
        replace: ("10.0.4.2:53", "10.3.4.3:53"),
        said: &["behind the gateway 10.0.1.1", "l2-dsr needs its backends on a network of the load balancer"],
        found_by_check: false,
    },
];

#[test]
fn a_mistake_in_the_file_is_shown_where_it_stands_and_forwarding_does_not_notice() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).remote_backends(1).build()?;
    let (client, _servers) = (lab.client(0), serve_udp(&lab)?);
    let near = lab.backends().take(2);
    let web = Service::new("web", SocketAddr::new(VIP_V4, PORT), "udp", "l2-dsr").line("table_size = 1024");
    let web = near.fold(web, |web, backend| {
        web.backend(&backend.label(), SocketAddr::new(backend.ipv4().into(), PORT), 1)
    });
    let good = format!("{}\n# more\n\n[limits]\nservices = 1\nbackends = 3\n", web.toml());
    let daemon = Daemon::start(&lab, 0, &good)?;
    let config = daemon.files().config.display().to_string();
    let traffic = traffic(client, VIP_V4);
    let control = traffic.run(client, 5_000)?;
    assert_nothing_lost(&control, 5_000);
    let live = |status: &Value| {
        ["/revision", "/ready", "/services/0/fingerprint"].map(|key| status.pointer(key).cloned())
    };
    let before = live(&daemon.status_json()?);
    let run = traffic.start(client)?;
    for Mistake { name, replace: (from, to), said, found_by_check } in MISTAKES {
        let text = good.replacen(from, to, 1);
        ensure!(text != good, "{name}: nothing to replace");
        daemon.write_config(&text)?;
        let commands: [&[&str]; 3] = [&["reload"], &["reload", "--dry-run"], &["check", "--config", &config]];
        for command in commands.into_iter().filter(|command| command[0] == "reload" || found_by_check) {
            let output = daemon.cli(command.iter().copied())?;
            let what = format!("{name}: `ballast {}` says {}", command.join(" "), output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}");
            assert!(output.stdout.is_empty() && output.stderr.contains("error: "), "{what}");
            for part in said {
                assert!(output.stderr.contains(part), "{part:?} is missing. {what}");
            }
            assert!(has_position(&output.stderr, &config), "no file, line and column. {what}");
        }
        let status = daemon.status_json()?;
        assert_eq!(live(&status), before, "{name}");
        let error = status.get("config_error").and_then(Value::as_str).unwrap_or_default();
        assert!(error.contains(said[0]), "{name}: status does not tell: {error}");
    }
    daemon.write_config(&good)?;
    let reloaded = daemon.cli_checked(["reload"])?;
    assert!(reloaded.contains("nothing to change"), "{reloaded}");
    assert_eq!(daemon.status_json()?.get("config_error"), Some(&Value::Null));
    daemon.cli_checked(["check", "--config", &config])?;
    let report = run.finish()?;
    assert_nothing_lost(&report, report.sent);
    assert_eq!(report.by_flow, control.by_flow, "a client was moved");
    daemon.accounts().map(drop)
}

#[test]
fn a_refused_start_says_where_and_a_bad_command_line_how() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let bad = service(&lab, VIP_V4).toml().replace("weight = 1", "weight = -1");
    let mut daemon = Daemon::new(&lab, 0, &bad)?;
    daemon.launch()?;
    assert_eq!(daemon.wait_exit(SOON)?.code(), Some(1));
    let config = daemon.files().config.display().to_string();
    assert!(
        daemon.log().contains("`weight` can't be -1") && has_position(&daemon.log(), &config),
        "{}",
        daemon.log()
    );

    daemon.write_config(&service(&lab, VIP_V4).toml())?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let usage: [&[&str]; 7] = [
        &[],
        &["frobnicate"],
        &["status", "--readdy"],
        &["-o", "yaml", "status"],
        &["backend", "list"],
        &["service", "show", "Not A Name"],
        &["detach", "--config", "a", "--pin-dir", "b"],
    ];
    for args in usage {
        let output = daemon.cli(args.iter().copied())?;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", output.stderr);
        assert!(
            output.stdout.is_empty() && output.stderr.contains("Usage:") || output.stderr.contains("--help")
        );
    }
    let refused = daemon.cli(["service", "show", "nothing"])?;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    let elsewhere = daemon.cli(["--socket", "/nonexistent/socket", "status"])?;
    assert_eq!(elsewhere.status.code(), Some(3), "{}", elsewhere.stderr);
    daemon.kill9()?;
    for command in [&["status"][..], &["status", "--ready"], &["reload"], &["backend", "list", "udp4"]] {
        let output = daemon.cli(command.iter().copied())?;
        assert_eq!(output.status.code(), Some(3), "{command:?}: {}", output.stderr);
        assert!(
            output.stdout.is_empty() && output.stderr.contains("is `ballast run` running?"),
            "{}",
            output.stderr
        );
    }
    Ok(())
}

fn serve_udp(lab: &Lab) -> Result<Vec<UdpServer>> {
    lab.backends().map(|backend| UdpServer::start(backend, &[PORT])).collect()
}

/// `udp4` or `udp6`, with every backend of the lab.
fn service(lab: &Lab, vip: IpAddr) -> Service {
    let name = if vip.is_ipv4() { "udp4" } else { "udp6" };
    backends(Service::new(name, SocketAddr::new(vip, PORT), "udp", "l2-dsr"), lab, vip, PORT)
}

fn backends(service: Service, lab: &Lab, vip: IpAddr, port: u16) -> Service {
    lab.backends().fold(service, |service, backend| {
        service.backend(&backend.label(), SocketAddr::new(backend.address(vip), port), 1)
    })
}

fn traffic(client: &Node, vip: IpAddr) -> UdpTraffic {
    let sources = (0..FLOWS).map(|number| client.source_port(number, 4000, vip));
    UdpTraffic::new(sources, SocketAddr::new(vip, PORT)).rate(3_000)
}

fn assert_nothing_lost(report: &UdpReport, sent: u64) {
    let counts = (report.sent, report.lost.len(), report.refused, report.duplicates);
    assert_eq!(
        counts,
        (sent, 0, 0, 0),
        "sent, lost, refused, duplicates; first lost: {:?}",
        report.lost.first()
    );
}

/// Whether a text names the file with a line and a column.
fn has_position(text: &str, file: &str) -> bool {
    let number =
        |text: Option<&str>| text.is_some_and(|text| text.parse::<u32>().is_ok_and(|number| number > 0));
    text.split_whitespace().filter_map(|word| word.strip_prefix(file)?.strip_prefix(':')).any(|rest| {
        let mut numbers = rest.split(':');
        number(numbers.next()) && number(numbers.next())
    })
}

/// Whether a frame is UDP to a VIP's service.
fn is_to_port(frame: &Frame, vip: IpAddr) -> bool {
    let (ethertype, ip) = if vip.is_ipv4() { ([0x08, 0x00], 20) } else { ([0x86, 0xdd], 40) };
    let (l4, destination) = (14 + ip, octets(vip));
    frame.bytes.get(12..14) == Some(&ethertype)
        && frame.bytes.get(l4 - destination.len()..l4) == Some(&destination)
        && frame.bytes.get(l4 + 2..l4 + 4) == Some(&PORT.to_be_bytes())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Frames from the client to the load balancer that are none of Ballast's business, all of them different.
fn passing_frames(lab: &Lab, tags: usize) -> Vec<Vec<u8>> {
    let (client, balancer) = (lab.client(0), lab.balancer(0));
    let (from, to) = (client.first_leg(), balancer.first_leg());
    let mut frames = Vec::new();
    for vip in FAMILIES {
        let source = client.source(7, vip);
        let to_host =
            |protocol, address, port| Packet::new(protocol, (source, 4711), (address, port)).with_tags(tags);
        let mut add = |packet: &Packet, change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = [packet.l2(to.mac, from.mac), packet.ip()].concat();
            change(&mut frame);
            frames.push(frame);
        };
        let vip_other_port = to_host(Protocol::Udp, vip, PORT + 1);
        add(&vip_other_port, &|_| {});
        add(&to_host(Protocol::Tcp, vip, PORT), &|_| {});
        add(&Packet { tcp_flags: SYN, ..to_host(Protocol::Tcp, balancer.address(vip), 22) }, &|_| {});
        add(&to_host(Protocol::Udp, balancer.address(vip), PORT), &|_| {});
        add(&to_host(Protocol::Udp, lab.backend(0).address(vip), PORT), &|_| {});
        // Other protocols to the VIP itself: ICMP, GRE, ESP, SCTP.
        let protocol_at = vip_other_port.l3() + if vip.is_ipv4() { 9 } else { 6 };
        for protocol in [if vip.is_ipv4() { 1 } else { 58 }, 47, 50, 132] {
            add(&vip_other_port, &|frame: &mut Vec<u8>| frame[protocol_at] = protocol);
        }
        // Broken, but for an address that is no VIP: for the host to judge.
        let other = to_host(Protocol::Udp, balancer.address(vip), PORT + 2);
        add(&other, &|frame: &mut Vec<u8>| frame.truncate(other.l4() + 3));
        add(&other, &|frame: &mut Vec<u8>| frame[other.l3()] = if vip.is_ipv4() { 0x44 } else { 0x50 });
        // Too short to say whom it is for.
        add(&vip_other_port, &|frame: &mut Vec<u8>| frame.truncate(vip_other_port.l3() + 12));
    }
    let broadcast = [0xff; 6];
    let link_layer = |destination: [u8; 6], ethertype: u16, payload: &[u8]| {
        let tagged = Packet::new(Protocol::Udp, (VIP_V4, 0), (VIP_V4, 0)).with_tags(tags);
        let mut frame = tagged.l2(destination, from.mac);
        let at = frame.len() - 2;
        frame.splice(at.., ethertype.to_be_bytes());
        [&frame[..], payload].concat()
    };
    // ARP requests for the load balancer and for a VIP, and an answer (RFC 826).
    for (destination, operation, wanted) in [
        (broadcast, 1u8, balancer.address(VIP_V4)),
        (broadcast, 1, VIP_V4),
        (to.mac, 2, balancer.address(VIP_V4)),
    ] {
        let sender = [&from.mac[..], &octets(client.address(VIP_V4))].concat();
        let payload = [&[0, 1, 8, 0, 6, 4, 0, operation], &sender[..], &[0; 6], &octets(wanted)].concat();
        frames.push(link_layer(destination, 0x0806, &payload));
    }
    // Neighbour solicitations (RFC 4861, section 4.3) for the same two.
    for wanted in [balancer.address(VIP_V6), VIP_V6] {
        frames.push(link_layer([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &neighbour_solicitation(client, wanted)));
    }
    // Behind a tag, the kernel takes no less than two bytes.
    for (ethertype, length) in [(0x88b5, 2), (0x8863, 46), (0x05dc, 1480), (0x9000, 2)] {
        frames.push(link_layer(to.mac, ethertype, &vec![0xa5; length]));
    }
    frames
}

fn neighbour_solicitation(client: &Node, wanted: IpAddr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let (source, group) = (octets(client.address(VIP_V6)), octets("ff02::1".parse().expect("an address")));
    let mut message =
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &octets(wanted), &[1, 1], &client.first_leg().mac].concat();
    let length = u8::try_from(message.len()).expect("short");
    let pseudo = [&source[..], &group, &[0, 0, 0, length, 0, 0, 0, ICMPV6], &message].concat();
    message.splice(2..4, checksum(&pseudo).to_be_bytes());
    [&[0x60, 0, 0, 0, 0, length, ICMPV6, 255], &source[..], &group, &message].concat()
}

/// A frame for one of the services, with something wrong about it. Its Ethernet addresses are right: it has to arrive.
fn malformed(rng: &mut Rng, client: &Node, destination: [u8; 6], source: [u8; 6], number: u16) -> Vec<u8> {
    let vip = FAMILIES[rng.usize(..2)];
    let protocol = if rng.bool() { Protocol::Tcp } else { Protocol::Udp };
    let to = (vip, 80 + rng.u16(..2));
    let mut packet =
        Packet::new(protocol, (client.source(number, vip), rng.u16(1..)), to).with_tags(rng.usize(..3));
    packet.payload = vec![0x5a; rng.usize(..200)];
    packet.tcp_flags = rng.u8(..);
    let what = rng.u8(..10);
    if what == 0 {
        // As large as the link takes: no room for an outer header.
        packet.tags.clear();
        let headers = packet.l4() - packet.l3() + if protocol == Protocol::Tcp { 20 } else { 8 };
        packet.payload = vec![0x5a; rng.usize(LARGE as usize - 100..=LARGE as usize) - headers];
    }
    let (l3, l4, v4) = (packet.l3(), packet.l4(), vip.is_ipv4());
    let mut frame = [packet.l2(destination, source), packet.ip()].concat();
    match what {
        0 => {}
        1 | 2 => frame.truncate(rng.usize(14..frame.len())),
        3 => frame[l3 + if v4 { 2 } else { 4 }..][..2].copy_from_slice(&rng.u16(..).to_be_bytes()),
        4 => frame[l3] = if v4 { 0x40 | rng.u8(..16) } else { rng.u8(..) },
        5 if v4 => frame[l3 + 6..][..2].copy_from_slice(&rng.u16(..0x4000).to_be_bytes()),
        5 | 6 if !v4 => frame[l3 + 6] = [0, 43, 44, 51, 60, 135][rng.usize(..6)],
        7 => frame[l3 + if v4 { 8 } else { 7 }] = rng.u8(..2),
        8 => (0..rng.usize(1..8)).for_each(|_| {
            let at = rng.usize(12..l4 + 8);
            frame[at] = rng.u8(..);
        }),
        _ => {
            let from = rng.usize(l3..frame.len());
            frame.iter_mut().skip(from).for_each(|byte| *byte = rng.u8(..));
        }
    }
    frame
}

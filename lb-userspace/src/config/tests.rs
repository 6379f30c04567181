#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::{Config, Diagnostics, parse};
use crate::{
    dataplane::Limits,
    domain::{
        Admission, Algorithm, Forwarding, Http, NatPool, OnAllDown, Origin, Prefix, Probe, Protocol,
        TableSize, Tracking, XdpMode,
    },
};

const FULL: &str = r#"[daemon]
interfaces  = ["eth0", "eth1"]
xdp_mode    = "native"
state_dir   = "/srv/ballast"
pin_dir     = "/sys/fs/bpf/b2"
socket      = "/run/b2.sock"
metrics     = "off"

[limits]
services = 4
backends = 100
lookup_slots = 65536
flow_entries = 65536
nat_flows = 1024
source_prefixes = 2048

[nat]
addresses = ["192.0.2.1", "2001:db8::1"]
ports = "1024-2047"

[[service]]
name       = "web"
address    = "203.0.113.10:80"
protocol   = "tcp"
forwarding = "ipip"
algorithm  = "flow-hash"
table_size = 4096
on_all_down = "drop"
tracking = "always"
flow_idle_timeout = "2m"
unhealthy_grace = "0s"
drain_timeout = "1day"
allow = ["198.51.100.0/24", "192.0.2.7"]
deny = ["198.51.100.128/25"]
new_flow_rate = 4294967295

[service.health]
type = "http"
path = "/healthz?full=1"
host = "www.example.org"
port = 8080
interval = "500ms"
timeout = "200ms"
rise = 4
fall = 5

[[service.backend]]
name = "web-1"
address = "10.0.0.11:80"
weight = 7

[[service]]
name = "dns"
address = "[2001:db8::10]:*"
protocol = "udp"

[[service.backend]]
name = "dns-1"
address = "[2001:db8::11]:0"
weight = 0
[[service.backend]]
name = "dns-2"
address = "[2001:db8::12]:53"
"#;

fn parse_one(text: &str) -> Result<Config, Diagnostics> {
    parse(vec![(PathBuf::from("config.toml"), text.to_owned())])
}

/// A minimal file, with the rest of its service in place of `rest`.
fn with_service(rest: &str) -> String {
    format!(
        "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n{rest}"
    )
}

fn rendered(text: &str) -> String {
    parse_one(text).expect_err("the file is wrong").to_string()
}

#[test]
fn what_is_secret_in_a_line_is_not_shown_with_what_is_wrong_in_it() {
    let line = |line: &str| with_service(&format!("[service.health]\ntype = \"http\"\n{line}\n"));
    for (wrong, shown, marked) in [
        (
            r#"headers = ["Authorization: Basic c2VjcmV0", "a b: c"]"#,
            r#"headers = ["Authorization: (hidden)", "a b: c"]"#,
            r#""a b: c""#,
        ),
        (
            "headers = [\"Authorization: Basic\u{e4} c2VjcmV0\", \"X: y\"]",
            r#"headers = ["Authorization: (hidden)", "X: y"]"#,
            r#""Authorization: (hidden)""#,
        ),
        (r#"password = "c2VjcmV0""#, "password = (hidden)", "password"),
        (r#"headers = ["Cookie: c2VjcmV0]"#, r#"headers = ["Cookie: (hidden)"#, ""),
        (r#"path = "/x y?token=c2VjcmV0""#, r#"path = "/x y?token=(hidden)""#, r#""/x y?token=(hidden)""#),
    ] {
        let text = rendered(&line(wrong));
        assert!(!text.contains("c2VjcmV0"), "{text}");
        let mut lines = text.lines().skip_while(|line| !line.ends_with(shown));
        let (Some(at), Some(marks)) = (lines.next(), lines.next()) else { panic!("{text}") };
        let mark: String =
            at.chars().zip(marks.chars()).filter(|(_, mark)| *mark == '^').map(|(c, _)| c).collect();
        assert!(marked.is_empty() || mark == marked, "{mark:?} in\n{text}");
    }
}

#[test]
fn a_secret_is_not_shown_with_what_is_wrong_in_a_line_below_its_name() {
    for wrong in [
        "headers = [\"\"\"Authorization: Basic \\\n  c2VjcmV0 \\q\"\"\"]",
        "headers = [\"\"\"Authorization: Digest \\\n  a = b, c2VjcmV0 \\q\"\"\"]",
        "headers = ['''\nCookie: a\nc2VjcmV0 \u{1}''']",
        "password = \"\"\"\n\nc2VjcmV0 \\q\"\"\"",
        "token = [\n  \"c2VjcmV0\" \"\",\n]",
        // What looks like a string begins where one ends.
        "host = \"\"\"x\npassword = \"\"\"\nc2VjcmV0\n\"\"\"",
    ] {
        let text = rendered(&with_service(&format!("[service.health]\ntype = \"http\"\n{wrong}\n")));
        assert!(text.contains("(hidden)") && !text.contains("c2VjcmV0"), "{text}");
    }
}

#[test]
fn everything_a_file_says_arrives() {
    let config = parse_one(FULL).unwrap();
    assert_eq!(config.daemon.interfaces, ["eth0", "eth1"]);
    assert_eq!(config.daemon.xdp_mode, XdpMode::Native);
    assert_eq!(config.daemon.socket, PathBuf::from("/run/b2.sock"));
    assert_eq!(config.daemon.metrics, None);
    assert_eq!(config.flow_hash_key_file, PathBuf::from("/srv/ballast/flow-hash.key"));
    assert_eq!(
        config.limits,
        Limits {
            services: 4,
            backends: 100,
            lookup_slots: 65_536,
            flow_entries: 65_536,
            nat_flows: 1024,
            source_prefixes: 2048
        }
    );
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert_eq!(config.nat.to_string(), "192.0.2.1, 2001:db8::1, ports 1024-2047");

    let [web, dns] = config.services.as_slice() else { panic!("two services") };
    assert_eq!((web.vip.to_string().as_str(), web.protocol), ("203.0.113.10:80", Protocol::Tcp));
    assert_eq!((web.forwarding, web.algorithm), (Forwarding::Ipip, Algorithm::FlowHash));
    assert_eq!((web.table_size.slots(), web.on_all_down), (4096, OnAllDown::Drop));
    assert_eq!((web.tracking, web.flow_idle_timeout), (Tracking::Always, Duration::from_secs(120)));
    assert_eq!((web.unhealthy_grace, web.drain_timeout), (Duration::ZERO, Duration::from_secs(86_400)));
    let texts = |prefixes: &BTreeSet<Prefix>| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&web.admission.allow), ["192.0.2.7/32", "198.51.100.0/24"]);
    assert_eq!(texts(&web.admission.deny), ["198.51.100.128/25"]);
    assert_eq!(web.admission.new_flow_rate, u32::MAX);
    let host = Some("www.example.org".to_owned());
    assert_eq!(
        web.health.probe,
        Probe::Http(Http { path: "/healthz?full=1".to_owned(), host, ..Http::default() })
    );
    assert_eq!(
        (web.health.interval, web.health.timeout),
        (Duration::from_millis(500), Duration::from_millis(200))
    );
    assert_eq!((web.health.rise, web.health.fall, web.health.port), (4, 5, Some(8080)));
    let Origin::File { path, line } = &web.origin else { panic!("{:?}", web.origin) };
    assert_eq!((path.to_str(), *line), (Some("config.toml"), 21));
    let backend = &web.backends["web-1"];
    assert_eq!((backend.address, backend.weight), (SocketAddr::from(([10, 0, 0, 11], 80)), 7));
    assert_eq!(backend.origin.to_string(), "config.toml:47");

    assert_eq!(dns.admission, Admission::default());
    assert_eq!(dns.vip.port, None);
    assert_eq!(dns.health.probe, Probe::None);
    assert_eq!(dns.table_size, TableSize::DEFAULT);
    assert_eq!(dns.backends["dns-2"].weight, 1);
    assert_eq!((dns.tracking, dns.flow_idle_timeout), (Tracking::Auto, Duration::from_secs(60)));
    assert_eq!((dns.unhealthy_grace, dns.drain_timeout), (Duration::from_secs(30), Duration::from_secs(300)));
}

#[test]
fn a_short_file_gets_the_defaults() {
    let config = parse_one("[daemon]\ninterfaces = [\"eth0\"]").unwrap();
    assert_eq!(config.daemon.xdp_mode, XdpMode::Auto);
    assert_eq!(config.daemon.socket, PathBuf::from("/run/ballast/control.sock"));
    assert_eq!(config.daemon.metrics, Some(SocketAddr::from(([127, 0, 0, 1], 9640))));
    assert_eq!(config.flow_hash_key_file, PathBuf::from("/var/lib/ballast/flow-hash.key"));
    assert_eq!(config.limits, Limits::default());
    assert!(config.services.is_empty());
}

#[test]
fn an_interval_shorter_than_the_default_timeout_shortens_it() {
    let text =
        with_service("health.interval = \"300ms\"\nbackend = [{name = \"a\", address = \"10.0.0.1:80\"}]");
    assert_eq!(parse_one(&text).unwrap().services[0].health.timeout, Duration::from_millis(300));
}

#[test]
fn the_idle_timeout_follows_what_is_tracked() {
    let timeout = |lines: &str| {
        let text = with_service(&format!("{lines}backend = [{{name = \"a\", address = \"10.0.0.1:80\"}}]"));
        parse_one(&text).unwrap().services[0].flow_idle_timeout.as_secs()
    };
    assert_eq!(timeout(""), 900);
    assert_eq!(timeout("algorithm = \"round-robin\"\n"), 3600);
    assert_eq!(timeout("algorithm = \"least-connections\"\n"), 3600);
    assert_eq!(timeout("protocol = \"udp\"\n"), 60);
    assert_eq!(timeout("protocol = \"udp\"\nflow_idle_timeout = \"5s\"\n"), 5);
}

/// What each mode allows beyond the same family and port.
#[test]
fn tunnels_take_either_family_and_nat_any_port() {
    let backend = |name: &str, address: &str| {
        format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    let read = |mode: &str, backends: &str| {
        let config = parse_one(&with_service(&format!("forwarding = \"{mode}\"\n{backends}"))).unwrap();
        config.services[0].clone()
    };
    for mode in ["ipip", "gue"] {
        let mixed = backend("a", "10.0.0.1:80") + &backend("b", "[2001:db8::1]:80");
        let service = read(mode, &mixed);
        assert_eq!((service.forwarding.as_str(), service.backends.len()), (mode, 2));
        assert_eq!(service.flow_idle_timeout, Duration::from_secs(900));
    }
    for mode in ["dnat", "nat"] {
        let service = read(mode, &(backend("a", "10.0.0.1:8080") + &backend("b", "10.0.0.1:8081")));
        assert_eq!((service.forwarding.as_str(), service.backends.len()), (mode, 2));
        assert_eq!(service.flow_idle_timeout, Duration::from_secs(3600));
        assert!(service.counts_new_flows());
        let udp = read(mode, "protocol = \"udp\"\n");
        assert_eq!(udp.flow_idle_timeout, Duration::from_secs(60));
        assert!(udp.counts_new_flows());
    }
    // Every port keeps its own, so that a backend's is for checks alone.
    let every = format!("forwarding = \"nat\"\n{}", backend("a", "10.0.0.1:22"));
    let every = with_service(&every).replace("203.0.113.10:80", "203.0.113.10:*");
    assert!(parse_one(&every).is_ok());
    let same = format!("{every}{}", backend("b", "10.0.0.1:23"));
    assert!(rendered(&same).contains("there already is a backend at 10.0.0.1 in"), "{}", rendered(&same));
}

#[test]
fn nat_has_an_address_of_its_own_or_shares_one_outside_its_ports() {
    assert_eq!(parse_one(&with_service("")).unwrap().nat, NatPool::default());
    let shared = "[nat]\naddresses = [\"203.0.113.10\"]\nports = \"1024-65535\"\n";
    assert_eq!(parse_one(&with_service(shared)).unwrap().nat.first_port, 1024);
}

#[test]
fn an_exact_port_may_stand_beside_every_port_and_udp_beside_tcp() {
    let backend = "backend = [{name = \"a\", address = \"10.0.0.1:80\"}]\n";
    let text = with_service(backend)
        + "[[service]]\nname = \"rest\"\naddress = \"203.0.113.10:*\"\n"
        + backend
        + "[[service]]\nname = \"quic\"\nprotocol = \"udp\"\naddress = \"203.0.113.10:80\"\n"
        + backend;
    assert_eq!(parse_one(&text).unwrap().services.len(), 3);
}

#[test]
fn each_mistake_is_shown_where_it_stands_with_what_is_allowed() {
    let cases = [
        (
            with_service("tabel_size = 4096\n"),
            r#"error: unknown key `tabel_size` in [[service]]
 --> config.toml:6:1
  |
6 | tabel_size = 4096
  | ^^^^^^^^^^ did you mean `table_size`?
  = [[service]] takes `name`, `address`, `protocol`, `forwarding`, `algorithm`, `table_size`, `panic_threshold`, `on_panic`, `on_all_down`, `slow_start`, `withdraw_below`, `tracking`, `flow_idle_timeout`, `unhealthy_grace`, `drain_timeout`, `allow`, `deny`, `new_flow_rate`, `backends_file`, `dns`, `health`, `backend`"#,
        ),
        (
            with_service("[[service.backend]]\nname = \"a\"\naddress = \"10.0.0.300:80\"\n"),
            r#"error: `address` can't be "10.0.0.300:80": that is not an IPv4 address
 --> config.toml:8:11
  |
8 | address = "10.0.0.300:80"
  |           ^^^^^^^^^^^^^^^ an address and a port, such as "203.0.113.10:80" or "[2001:db8::10]:443""#,
        ),
        (
            with_service("[[service]]\nname = \"web\"\naddress = \"203.0.113.11:80\"\n"),
            r#"error: there already is a service "web"
 --> config.toml:7:8
  |
7 | name = "web"
  |        ^^^^^ another one is needed here
  = the first stands at config.toml:4:8"#,
        ),
        (
            with_service("[[service.backend]]\nname = \"a\"\naddress = \"203.0.113.10:80\"\n"),
            r#"error: 203.0.113.10 is a VIP of service "web" and can't be a backend's address as well
 --> config.toml:8:11
  |
8 | address = "203.0.113.10:80"
  |           ^^^^^^^^^^^^^^^^^ the address of the backend itself is needed here
  = the VIP stands at config.toml:5:11"#,
        ),
        (
            with_service("[[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\nweight = 65536\n"),
            r#"error: `weight` can't be 65536
 --> config.toml:9:10
  |
9 | weight = 65536
  |          ^^^^^ an integer from 0 to 65535"#,
        ),
        (
            with_service(
                "[[service]]\nname = \"two\"\naddress = \"203.0.113.11:80\"\n[limits]\nservices = 1\n",
            ),
            r#"error: too many services: `limits.services` is 1
 --> config.toml:6:1
  |
6 | [[service]]
  | ^^^^^^^^^^^ there is room for 1
  = raise it in `[limits]`; that takes effect after `ballast detach` and a start"#,
        ),
        (
            with_service("table_size = 1000\n"),
            r#"error: `table_size` can't be 1000
 --> config.toml:6:14
  |
6 | table_size = 1000
  |              ^^^^ a power of two from 1024 to 1048576"#,
        ),
        (
            with_service("forwarding = \"dsr\"\n"),
            r#"error: `forwarding` can't be "dsr"
 --> config.toml:6:14
  |
6 | forwarding = "dsr"
  |              ^^^^^ one of "l2-dsr", "ipip", "gue", "dnat", "nat""#,
        ),
        (
            "[daemon]\nxdp_mode = \"auto\"\n".to_owned(),
            r#"error: [daemon] has no `interfaces`
 --> config.toml:1:1
  |
1 | [daemon]
  | ^^^^^^^^ `interfaces` is required"#,
        ),
        (
            with_service("protocol = 6\n"),
            r#"error: `protocol` can't be an integer
 --> config.toml:6:12
  |
6 | protocol = 6
  |            ^ a string is needed here"#,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rendered(&text), expected, "for the file\n{text}");
    }
}

#[test]
fn a_pass_finds_every_mistake_in_the_order_of_the_lines() {
    let text =
        with_service("colour = \"red\"\ntable_size = 5\n[[service.backend]]\nname = \"A\"\nweight = -1\n");
    let errors = parse_one(&text).unwrap_err();
    let found: Vec<_> =
        errors.iter().map(|error| (error.position.as_ref().unwrap().line, error.message.as_str())).collect();
    let expected = [
        (6, "unknown key `colour` in [[service]]"),
        (7, "`table_size` can't be 5"),
        (8, "[[service.backend]] has no `address`"),
        (
            9,
            "`name` can't be \"A\": a name starts with a lower-case letter or a digit and goes on with those, '.' and '-'; 'A' is neither",
        ),
        (10, "`weight` can't be -1"),
    ];
    assert_eq!(found, expected);
}

/// What is put into a service (or a whole file), and the message and label it must meet.
#[test]
fn what_can_not_work_is_refused() {
    let backend = |address: &str| format!("[[service.backend]]\nname = \"a\"\naddress = \"{address}\"\n");
    let second = |address: &str| format!("[[service]]\nname = \"two\"\naddress = \"{address}\"\n");
    let cases = [
        (second("203.0.113.10:80"), "there already is a tcp service on 203.0.113.10:80", "another one"),
        (
            backend("10.0.0.1:80") + &backend("10.0.0.2:80"),
            "there already is a backend \"a\" in",
            "another one",
        ),
        (
            backend("10.0.0.1:80") + &backend("10.0.0.1:80").replace("\"a\"", "\"b\""),
            "there already is a backend at 10.0.0.1",
            "another one",
        ),
        (backend("10.0.0.1:81"), "the backend's port is 81, the service's is 80", "port 80"),
        (backend("10.0.0.1:0"), "the backend's port is 0, the service's is 80", "port 80"),
        (backend("[2001:db8::1]:80"), "the backend's address is IPv6, the service's is IPv4", "same family"),
        (backend("10.0.0.1"), "there is no port", "an address and a port"),
        (backend("2001:db8::1:80"), "stands in brackets", "an address and a port"),
        (backend("[10.0.0.1]:80"), "not an IPv6 address", "an address and a port"),
        (backend("web-1.example:80"), "not an IPv4 address", "an address and a port"),
        (backend("10.0.0.1:65536"), "a port is at most 65535", "an address and a port"),
        (backend("10.0.0.1:+80"), "the port is not a number", "an address and a port"),
        (backend("127.0.0.1:80"), "loopback", "an address that one host has"),
        (backend("0.0.0.0:80"), "no host's address", "an address that one host has"),
        (backend("224.0.0.1:80"), "multicast", "an address that one host has"),
        (backend("255.255.255.255:80"), "broadcast", "an address that one host has"),
        (backend("169.254.0.1:80"), "link-local", "an address that one host has"),
        (backend("[fe80::1]:80"), "link-local", "an address that one host has"),
        (backend("[::ffff:10.0.0.1]:80"), "an IPv4 address inside", "an address that one host has"),
        (second("[ff02::1]:80"), "multicast", "an address that one host has"),
        (second("203.0.113.11:*") + &backend("10.0.0.1:*"), "no port to check this backend", "`port`"),
        ("health.type = \"ftp\"\n".into(), "`type` can't be \"ftp\"", "one of \"none\", \"tcp\""),
        (
            "health.path = \"/\"\n".into(),
            "`path` means nothing to a check of type \"tcp\"",
            "type = \"http\"",
        ),
        (
            "health = {type = \"http\", path = \"/a b\"}\n".into(),
            "`path` can't be \"/a b\"",
            "without spaces",
        ),
        ("health = {type = \"http\", host = \"a\\r\\nb\"}\n".into(), "`host` can't be", "a host name"),
        ("health.interval = \"50ms\"\n".into(), "`interval` can't be \"50ms\"", "from 100ms to 1h"),
        ("health.interval = \"soon\"\n".into(), "`interval` can't be \"soon\"", "such as \"2s\""),
        ("health = {interval = \"1s\", timeout = \"2s\"}\n".into(), "`timeout` can't be \"2s\"", "to 1s"),
        (
            "tracking = \"sometimes\"\n".into(),
            "`tracking` can't be \"sometimes\"",
            "\"auto\", \"always\", \"never\"",
        ),
        (
            "algorithm = \"round-robin\"\ntracking = \"never\"\n".into(),
            "`tracking` can't be \"never\" with algorithm = \"round-robin\"",
            "has to be tracked",
        ),
        (
            "tracking = \"never\"\nalgorithm = \"least-connections\"\n".into(),
            "`tracking` can't be \"never\" with algorithm = \"least-connections\"",
            "has to be tracked",
        ),
        (
            "flow_idle_timeout = \"0s\"\n".into(),
            "`flow_idle_timeout` can't be \"0s\"",
            "whole seconds from 1s to 1h",
        ),
        (
            "flow_idle_timeout = \"1500ms\"\n".into(),
            "`flow_idle_timeout` can't be",
            "whole seconds from 1s to 1h",
        ),
        (
            "flow_idle_timeout = \"3601s\"\n".into(),
            "`flow_idle_timeout` can't be",
            "whole seconds from 1s to 1h",
        ),
        (
            "unhealthy_grace = \"2h\"\n".into(),
            "`unhealthy_grace` can't be \"2h\"",
            "whole seconds from 0s to 1h",
        ),
        (
            "drain_timeout = \"25h\"\n".into(),
            "`drain_timeout` can't be \"25h\"",
            "whole seconds from 0s to 1day",
        ),
        ("drain_timeout = 300\n".into(), "`drain_timeout` can't be an integer", "a string is needed here"),
        ("[limits]\nflow_entries = 65537\n".into(), "`flow_entries` can't be 65537", "a power of two from"),
        ("[limits]\nflow_entries = 1\n".into(), "`flow_entries` can't be 1", "a power of two from"),
        (
            "tracking = \"never\"\nforwarding = \"nat\"\n".into(),
            "`tracking` can't be \"never\" with forwarding = \"nat\"",
            "NAT keeps every flow",
        ),
        (
            format!("forwarding = \"dnat\"\n{}", backend("[2001:db8::1]:80")),
            "the backend's address is IPv6, the service's is IPv4",
            "dnat needs both of the same family",
        ),
        (
            format!("forwarding = \"gue\"\n{}", backend("[2001:db8::1]:81")),
            "the backend's port is 81, the service's is 80",
            "port 80",
        ),
        (
            format!("forwarding = \"nat\"\n{}", backend("10.0.0.1:*")),
            "the backend has no port",
            "the port that nat is to send to",
        ),
        (
            format!(
                "forwarding = \"nat\"\n{}",
                backend("10.0.0.1:8080") + &backend("10.0.0.1:8080").replace("\"a\"", "\"b\"")
            ),
            "there already is a backend at 10.0.0.1:8080",
            "another one",
        ),
        ("allow = \"10.0.0.0/8\"\n".into(), "`allow` can't be a string", "an array (such as"),
        ("allow = [\"10.0.0.0/33\"]\n".into(), "at most 32", "a network, such as"),
        ("deny = [\"10.0.0.1/8\"]\n".into(), "the network is 10.0.0.0/8", "a network, such as"),
        ("deny = [\"all\"]\n".into(), "`deny` can't hold \"all\"", "a network, such as"),
        (
            "allow = [\"2001:db8::/32\"]\n".into(),
            "`allow` can't hold 2001:db8::/32",
            "clients of this service are IPv4",
        ),
        (
            "allow = [\"10.0.0.0/8\"]\ndeny = [\"11.0.0.0/8\", \"10.0.0.0/8\"]\n".into(),
            "10.0.0.0/8 is in `allow` and in `deny`",
            "one of them is needed",
        ),
        (
            "new_flow_rate = 4294967296\n".into(),
            "`new_flow_rate` can't be 4294967296",
            "from 0 to 4294967295",
        ),
        (
            "protocol = \"udp\"\ntracking = \"never\"\nnew_flow_rate = 1\n".into(),
            "`new_flow_rate` means nothing to a udp service",
            "which of its packets are new flows",
        ),
        (
            "deny = [\"10.0.0.0/8\", \"11.0.0.0/8\"]\n[limits]\nsource_prefixes = 1\n".into(),
            "too many source prefixes: `limits.source_prefixes` is 1",
            "room for 1 in all services",
        ),
        (
            "[nat]\naddresses = [\"203.0.113.10\"]\nports = \"1024-1024\"\n".replace("ports", "port"),
            "unknown key `port` in [nat]",
            "did you mean `ports`",
        ),
        (
            second("192.0.2.1:*") + "[nat]\naddresses = [\"192.0.2.1\"]\n",
            "`addresses` can't hold 192.0.2.1: a service is on 192.0.2.1:*",
            "ports 61000-65535 of it have to be free",
        ),
        (
            second("192.0.2.1:2000") + "[nat]\naddresses = [\"192.0.2.1\"]\nports = \"1999-2000\"\n",
            "a service is on 192.0.2.1:2000",
            "ports 1999-2000",
        ),
        (
            "[nat]\naddresses = [\"192.0.2.1\", \"192.0.2.1\"]\n".into(),
            "192.0.2.1 twice",
            "each address once",
        ),
        (
            "[nat]\naddresses = [\"224.0.0.1\"]\n".into(),
            "that is a multicast address",
            "addresses of this host",
        ),
        (
            format!("[nat]\naddresses = {:?}\n", (1..=9).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>()),
            "more than 8 IPv4 addresses",
            "no more",
        ),
        ("[nat]\nports = \"1023-2000\"\n".into(), "`ports` can't be \"1023-2000\"", "1024 to 65535"),
        ("[nat]\nports = \"3000-2000\"\n".into(), "`ports` can't be \"3000-2000\"", "the first and the last"),
        ("[nat]\nports = \"2000\"\n".into(), "`ports` can't be \"2000\"", "the first and the last"),
        ("[limits]\nnat_flows = 1023\n".into(), "`nat_flows` can't be 1023", "from 1024 to 16777216"),
        ("[limits]\nsource_prefixes = 0\n".into(), "`source_prefixes` can't be 0", "from 1 to 16777216"),
        ("health.rise = 0\n".into(), "`rise` can't be 0", "from 1 to 100"),
        ("protocol = \"udp\"\nhealth.type = \"tcp\"\n".into(), "can't be checked by \"tcp\"", "needs `port`"),
        ("backend = 3\n".into(), "`backend` can't be an integer", "an array (write [[service.backend]])"),
        ("backend = [3]\n".into(), "`backend` can't be an integer", "a table ([[service.backend]])"),
        ("health = []\n".into(), "`health` can't be an array", "a table ([service.health])"),
        (
            "[limits]\nlookup_slots = 2048\n".into(),
            "too many lookup-table slots: `limits.lookup_slots` is 2048",
            "",
        ),
        (
            format!(
                "{}[limits]\nbackends = 2\n",
                backend("10.0.0.1:80") + &backend("10.0.0.2:80").replace("\"a\"", "\"b\"")
            ),
            "too many backends: `limits.backends` is 2",
            "room for 1: entry 0",
        ),
        (
            "[limits]\nbackends = 99999999999999999999999999999999999999999999\n".into(),
            "`backends` can't be 9999",
            "1048575",
        ),
        ("[flow_hash]\nkey_file = \"key\"\n".into(), "`key_file` can't be \"key\"", "an absolute path"),
        (
            "[peers]\nlisten = []\naddresses = [\"192.0.2.2:9650\"]\n".into(),
            "`listen` is empty",
            "at least one",
        ),
        (
            "[peers]\nlisten = [\"192.0.2.1:9650\"]\naddresses = [\"192.0.2.1:9650\"]\n".into(),
            "which this load balancer listens on",
            "the others' addresses",
        ),
        (
            "[peers]\nlisten = [\"192.0.2.1:9650\"]\naddresses = [\"[2001:db8::2]:9650\"]\n".into(),
            "`listen` has no IPv6 address",
            "an IPv6 address is needed",
        ),
        (
            "[peers]\nlisten = [\"192.0.2.1:9650\", \"192.0.2.1:9651\"]\naddresses = [\"192.0.2.2:9650\"]\n"
                .into(),
            "two addresses of a family",
            "one of each",
        ),
        (
            "[peers]\nlisten = [\"0.0.0.0:9650\"]\naddresses = [\"192.0.2.2:9650\"]\n".into(),
            "`listen` can't hold \"0.0.0.0:9650\"",
            "a host's address and a port",
        ),
        ("name = \"again\"\n".into(), "duplicate key", "TOML syntax"),
        ("[demon]\n".into(), "unknown key `demon` in the file", "did you mean `daemon`?"),
        ("table_size = \u{1}\n".into(), "", "TOML syntax"),
    ];
    for (rest, message, label) in cases {
        let text = with_service(&rest);
        let errors = parse_one(&text).expect_err(&text);
        let found = errors.iter().any(|error| error.message.contains(message) && error.label.contains(label));
        assert!(found, "wanted {message:?} and {label:?}, got\n{errors}\nfor\n{text}");
        assert_eq!(errors.count(), 1, "one mistake, one error:\n{errors}\nfor\n{text}");
    }
}

#[test]
fn daemon_settings_are_held_to_what_the_system_takes() {
    let cases = [
        ("interfaces = []", "`interfaces` has 0 names"),
        ("interfaces = \"eth0\"", "`interfaces` can't be a string"),
        ("interfaces = [\"eth0\", \"eth0\"]", "`interfaces` names \"eth0\" twice"),
        ("interfaces = [\"a-name-of-16-byte\"]", "`interfaces` can't hold"),
        ("interfaces = [\"eth0/..\"]", "`interfaces` can't hold"),
        ("interfaces = [\"eth0\"]\nmetrics = \"9640\"", "`metrics` can't be \"9640\""),
        ("interfaces = [\"eth0\"]\nstate_dir = \"../x\"", "`state_dir` can't be \"../x\""),
        ("interfaces = [\"eth0\"]\nxdp_mode = \"offload\"", "`xdp_mode` can't be \"offload\""),
    ];
    for (lines, message) in cases {
        let errors = parse_one(&format!("[daemon]\n{lines}\n")).expect_err(lines);
        assert!(errors.iter().any(|error| error.message.starts_with(message)), "{errors}");
        assert_eq!(errors.count(), 1, "{errors}");
    }
    let long = format!("[daemon]\ninterfaces = [\"eth0\"]\nsocket = \"/{}\"\n", "a".repeat(100));
    assert!(rendered(&long).contains("at most 100 bytes"));
}

#[test]
fn the_state_directory_can_be_told_from_a_file_that_is_wrong_everywhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    for (text, expected) in [
        ("[daemon]\nstate_dir = \"/srv/b\"\nxdp_mode = 7\nnonsense = 1\n", "/srv/b"),
        ("[daemon]\nstate_dir = \"/srv/b\"\n[[service\nname = \"web\n", "/srv/b"),
        ("[[service]\n[daemon]\ninterfaces = [\nstate_dir = \"/srv/b\"\n", "/var/lib/ballast"),
        ("[daemon]\nstate_dir = \"relative\"\n", "/var/lib/ballast"),
        ("", "/var/lib/ballast"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(super::state_dir_of(&path), PathBuf::from(expected), "{text}");
    }
    assert_eq!(super::state_dir_of(&directory.path().join("none")), PathBuf::from("/var/lib/ballast"));
}

#[test]
fn a_file_of_conf_d_holds_services_alone() {
    let main = with_service("backend = [{name = \"a\", address = \"10.0.0.1:80\"}]\n");
    let fragment = |text: &str| {
        parse(vec![("config.toml".into(), main.clone()), ("conf.d/10.toml".into(), text.to_owned())])
    };
    let more = "\n[[service]]\nname = \"two\"\naddress = \"203.0.113.12:80\"\n";
    let config = fragment(more).unwrap();
    assert_eq!(config.services[1].origin.to_string(), "conf.d/10.toml:2");
    let errors = fragment("[limits]\n").unwrap_err().to_string();
    assert!(
        errors.starts_with("error: unknown key `limits` in the file\n --> conf.d/10.toml:1:2\n"),
        "{errors}"
    );
    let errors = fragment(&more.replace("two", "web")).unwrap_err().to_string();
    assert!(errors.ends_with("= the first stands at config.toml:4:8"), "{errors}");
}

#[test]
fn files_are_read_in_lexical_order_and_a_missing_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let missing = super::load(&path).unwrap_err().to_string();
    assert!(missing.contains(path.to_str().unwrap()) && missing.contains("can't read"), "{missing}");

    std::fs::write(&path, "[daemon]\ninterfaces = [\"eth0\"]\n").unwrap();
    std::fs::create_dir(directory.path().join("conf.d")).unwrap();
    for name in ["20.toml", "10.toml", ".hidden.toml", "notes.txt"] {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        let text = match digits.is_empty() {
            true => "this is not TOML".to_owned(),
            false => format!("[[service]]\nname = \"s{digits}\"\naddress = \"203.0.113.{digits}:80\"\n"),
        };
        std::fs::write(directory.path().join("conf.d").join(name), text).unwrap();
    }
    let names: Vec<_> = super::load(&path).unwrap().services.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["s10", "s20"]);

    std::fs::write(&path, b"[daemon]\ninterfaces = [\"eth\xff\"]\n").unwrap();
    let not_text = super::load(&path).unwrap_err().to_string();
    assert!(not_text.contains("config.toml:2:19"), "{not_text}");
}

#[test]
fn doubtful_things_are_warnings() {
    let mut text = with_service("table_size = 1024\n");
    for number in 0..11 {
        write!(text, "[[service.backend]]\nname = \"b{number}\"\naddress = \"10.0.0.{number}:80\"\n")
            .unwrap();
    }
    let warnings = parse_one(&text).unwrap().warnings.to_string();
    assert!(
        warnings.starts_with("warning: 11 backends share a table of 1024 slots\n --> config.toml:6:14"),
        "{warnings}"
    );
    let warnings = parse_one(&with_service("")).unwrap().warnings.to_string();
    assert!(warnings.starts_with("warning: this service has no backend"), "{warnings}");
}

#[test]
fn what_is_shown_of_a_file_is_fit_for_a_terminal() {
    let long = format!("{}name = \"\u{1b}[31m\"", " ".repeat(5000));
    let shown = rendered(&long);
    assert!(!shown.contains('\u{1b}') && shown.len() < 1000, "{shown}");
    let many = format!("[daemon]\ninterfaces = [\"eth0\"]\n{}", "[[service]]\nx = 1\n".repeat(100_000));
    let errors = parse_one(&many).unwrap_err();
    assert_eq!(errors.iter().count(), 100);
    assert!(errors.count() > 100_000 && errors.to_string().len() < 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutation_of_a_file_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        doubled in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((from, to)) = doubled {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend_from_slice(&part);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(errors) = parse_one(&String::from_utf8_lossy(&bytes)) {
            prop_assert!(!errors.is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }
}

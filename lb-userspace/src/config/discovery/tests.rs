use std::path::PathBuf;

use super::*;
use crate::config::{Config, parse};

/// A file with these lines in `[discovery]`, in the service, and after it.
fn file(discovery: &str, service: &str, rest: &str) -> Vec<(PathBuf, String)> {
    let text = format!(
        "[daemon]\ninterfaces = [\"eth0\"]\n[discovery]\n{discovery}\n[[service]]\nname = \"web\"\n\
         address = \"203.0.113.10:80\"\n{service}\n{rest}\n"
    );
    vec![(PathBuf::from("config.toml"), text)]
}

fn good(discovery: &str, service: &str, rest: &str) -> Config {
    parse(file(discovery, service, rest)).unwrap_or_else(|errors| panic!("{errors}"))
}

fn name(host: &str, port: u16) -> DnsName {
    DnsName { host: host.into(), port }
}

#[test]
fn everything_has_a_default_and_can_be_said() {
    let config = good("", "backends_file = \"/run/web.toml\"", "");
    assert_eq!(config.discovery, DiscoveryConfig::default());
    assert_eq!(config.services[0].discovery.file.as_deref(), Some(&PathBuf::from("/run/web.toml")));
    // Where else its backends come from is said, so that there is nothing to warn of.
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let settings = "resolvers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\ntimeout = \"500ms\"\nmin_ttl = \"10s\"\n\
                    max_ttl = \"1h\"\nforget_after = 5\nmax_backends = 4096";
    let names = "[[service.dns]]\nname = \"Web.Example.org.\"\n[[service.dns]]\nname = \"_x.example.org:80\"\nweight = 7\n\
                 backup = true\n";
    let config = good(settings, "", names);
    let expected = DiscoveryConfig {
        resolvers: vec!["192.0.2.53:53".parse().expect("one"), "[2001:db8::53]:5353".parse().expect("two")],
        timeout: Duration::from_millis(500),
        min_ttl: Duration::from_secs(10),
        max_ttl: Duration::from_secs(3600),
        forget_after: 5,
        max_backends: 4096,
    };
    assert_eq!(config.discovery, expected);
    let of = |name, weight, backup| DnsBackends { name, weight, backup };
    let names = [of(name("web.example.org", 80), 1, false), of(name("_x.example.org", 80), 7, true)];
    assert_eq!(config.services[0].discovery.names, names);
    // A port of its own, of a service that rewrites it; and none, of a service on every port.
    let nat = good("", "forwarding = \"nat\"", "[[service.dns]]\nname = \"web.example.org:8080\"");
    assert_eq!(nat.services[0].discovery.names[0].name, name("web.example.org", 8080));
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let dns = |text: &str| format!("[[service.dns]]\nname = \"{text}\"");
    let cases = [
        (
            "resolvers = [\"example.org\"]",
            "",
            String::new(),
            "config.toml:4:14",
            "can't hold \"example.org\"",
        ),
        (
            "resolvers = [\"192.0.2.53:0\"]",
            "",
            String::new(),
            "config.toml:4:14",
            "the address of a DNS server",
        ),
        ("resolvers = [\"192.0.2.1\", \"192.0.2.1:53\"]", "", String::new(), "config.toml:4:27", "twice"),
        ("min_ttl = \"0s\"", "", String::new(), "config.toml:4:11", "a time from 1s"),
        ("min_ttl = \"1h\"", "", String::new(), "config.toml:4:11", "longer than `max_ttl`"),
        ("forget_after = 0", "", String::new(), "config.toml:4:16", "from 1 to 100"),
        ("max_backends = 4097", "", String::new(), "config.toml:4:16", "from 1 to 4096"),
        ("retries = 3", "", String::new(), "config.toml:4:1", "unknown key `retries`"),
        ("", "backends_file = \"web.toml\"", String::new(), "config.toml:8:17", "an absolute path"),
        ("", "backends_file = 7", String::new(), "config.toml:8:17", "a string is needed"),
        ("", "", "[[service.dns]]".to_owned(), "config.toml:9:1", "has no `name`"),
        ("", "", dns("10.0.0.1"), "config.toml:10:8", "that is an address"),
        ("", "", dns("web..org"), "config.toml:10:8", "labels have"),
        ("", "", dns("web.example.org:http"), "config.toml:10:8", "a number from 1 to 65535"),
        ("", "", dns("web.example.org:8080"), "config.toml:10:8", "port 80 is needed here, or none"),
        ("", "", dns("a.org") + "\n" + &dns("A.org:80"), "config.toml:12:8", "has backends by the name"),
        ("", "", dns("a.org") + "\nweight = 65536", "config.toml:11:10", "from 0 to 65535"),
        ("", "", dns("a.org") + "\nport = 80", "config.toml:11:1", "unknown key `port`"),
    ];
    for (discovery, service, rest, place, said) in cases {
        let errors = parse(file(discovery, service, &rest)).expect_err(said).to_string();
        assert!(errors.contains(place) && errors.contains(said), "{place} {said}: {errors}");
    }
    // On every port there is none to check, unless the check has one.
    let every = |health: &str| {
        let text = file("", health, &dns("a.org"))[0].1.replace(":80\"", ":*\"");
        parse(vec![(PathBuf::from("config.toml"), text)])
    };
    let errors = every("").expect_err("no port").to_string();
    assert!(errors.contains("no port to check"), "{errors}");
    assert_eq!(every("health = { port = 80 }").expect("a port").services[0].discovery.names[0].name.port, 0);
}

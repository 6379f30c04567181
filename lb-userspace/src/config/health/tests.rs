#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    config::{ServiceShape, parse},
    domain::{Database, Dns, Engine, Grpc, HealthCheck, Http, Probe, Rcode, RecordType, Role, Tls, Via},
};

/// A file whose service is checked so, and its backend `10.0.0.1:80`.
fn file(health: &str) -> Vec<(PathBuf, String)> {
    let head =
        "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n";
    let backend = "[[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\n";
    vec![(PathBuf::from("config.toml"), format!("{head}[service.health]\n{health}\n{backend}"))]
}

fn check(health: &str) -> HealthCheck {
    match parse(file(health)) {
        Ok(config) => config.services[0].health.clone(),
        Err(error) => panic!("{health}: {error}"),
    }
}

const TLS: Tls = Tls { server_name: None, verify: true, ca_file: None };

#[test]
fn every_type_of_check_is_read_and_written_down_as_it_is() {
    let http = Http {
        method: "OPTIONS".into(),
        headers: vec![("X-Probe".into(), "a: b".into())],
        expect_status: vec![200..=299, 304..=304],
        expect_body: Some("ok".into()),
        ..Http::default()
    };
    let database = Database {
        engine: Engine::Mysql,
        role: Role::Replica,
        user: Some("ballast".into()),
        password_file: Some("/etc/secret".into()),
        database: None,
        max_lag: Some(std::time::Duration::from_secs(10)),
        tls: None,
    };
    let dns = Dns {
        name: "www.example.org".into(),
        record: RecordType::Aaaa,
        rcode: Rcode::NoError,
        answers: ["2001:db8::1".parse().unwrap()].into(),
    };
    let own =
        Tls { server_name: Some("db.example".into()), verify: true, ca_file: Some("/etc/ca.pem".into()) };
    for (text, expected) in [
        ("type = \"none\"", Probe::None),
        ("type = \"tcp\"", Probe::Tcp),
        ("type = \"icmp\"", Probe::Icmp),
        ("type = \"tls\"", Probe::Tls(TLS)),
        ("type = \"tls\"\nverify = false", Probe::Tls(Tls { verify: false, ..TLS })),
        ("type = \"http\"", Probe::Http(Http::default())),
        ("type = \"https\"", Probe::Http(Http { tls: Some(TLS), ..Http::default() })),
        (
            "type = \"http\"\nmethod = \"OPTIONS\"\nheaders = [\"X-Probe: a: b\"]\nexpect_status = \"200-299, 304\"\n\
             expect_body = \"ok\"",
            Probe::Http(http),
        ),
        ("type = \"grpc\"", Probe::Grpc(Grpc { service: String::new(), tls: None })),
        (
            "type = \"grpc\"\nservice = \"shop\"\ntls = true",
            Probe::Grpc(Grpc { service: "shop".into(), tls: Some(TLS) }),
        ),
        (
            "type = \"dns\"\nname = \"www.example.org\"\nrecord = \"AAAA\"\nexpect_addresses = [\"2001:db8::1\"]",
            Probe::Dns(dns),
        ),
        (
            "type = \"mysql\"\nrole = \"replica\"\nuser = \"ballast\"\npassword_file = \"/etc/secret\"\nmax_lag = \"10s\"",
            Probe::Database(database.clone()),
        ),
        (
            "type = \"postgres\"\nuser = \"b\"\ndatabase = \"d\"\ntls = true\nserver_name = \"db.example\"\n\
             ca_file = \"/etc/ca.pem\"",
            Probe::Database(Database {
                engine: Engine::Postgres,
                role: Role::Any,
                user: Some("b".into()),
                password_file: None,
                database: Some("d".into()),
                max_lag: None,
                tls: Some(own),
            }),
        ),
        (
            "type = \"redis\"\nrole = \"primary\"",
            Probe::Database(Database {
                engine: Engine::Redis,
                role: Role::Primary,
                user: None,
                password_file: None,
                max_lag: None,
                ..database
            }),
        ),
        ("type = \"agent\"", Probe::Agent { send: None }),
        ("type = \"agent\"\nsend = \"state\\n\"", Probe::Agent { send: Some("state\n".into()) }),
        (
            "type = \"exec\"\ncommand = [\"/bin/check\", \"--fast\", \"\"]",
            Probe::Exec(vec!["/bin/check".into(), "--fast".into(), String::new()]),
        ),
    ] {
        assert_eq!(check(text).probe, expected, "{text}");
        // As the state file and the API have it.
        let service = parse(file(text)).unwrap().services.remove(0);
        let written = ServiceShape::from(&service).validate().unwrap();
        assert_eq!(written.health, service.health, "{text}");
    }
}

#[test]
fn times_and_places_of_a_check_are_read() {
    let read = check(
        "interval = \"4s\"\nfast_interval = \"500ms\"\ndown_interval = \"30s\"\naddress = \"10.9.0.1\"\n\
         source = \"10.9.0.2\"\nport = 81",
    );
    assert_eq!(read.fast_interval, Some(std::time::Duration::from_millis(500)));
    assert_eq!(read.down_interval, Some(std::time::Duration::from_secs(30)));
    let vip = "203.0.113.10".parse().unwrap();
    assert_eq!(read.target(vip, "10.0.0.1:80".parse().unwrap()), "10.9.0.1:81".parse().unwrap());
    assert_eq!(read.source, Some("10.9.0.2".parse().unwrap()));
}

#[test]
fn a_check_goes_via_the_vip_however_that_is_written() {
    let vip: std::net::IpAddr = "203.0.113.10".parse().unwrap();
    for (text, path) in [
        ("via = \"vip\"", None),
        ("path = \"vip\"", None),
        ("via = \"vip\"\npath = \"vip\"", None),
        ("type = \"http\"\nvia = \"vip\"\npath = \"/healthz\"", Some("/healthz")),
        ("type = \"http\"\npath = \"vip\"", Some("/")),
    ] {
        let read = check(text);
        assert_eq!(read.via, Via::Vip, "{text}");
        assert_eq!(read.target(vip, "10.0.0.1:80".parse().unwrap()), SocketAddr::new(vip, 80), "{text}");
        let asked = match &read.probe {
            Probe::Http(http) => Some(http.path.as_str()),
            _ => None,
        };
        assert_eq!(asked, path, "{text}");
        let service = parse(file(text)).unwrap().services.remove(0);
        assert_eq!(ServiceShape::from(&service).validate().unwrap().health, read, "{text}");
    }
    assert_eq!(check("via = \"address\"").via, Via::Address);
}

#[test]
fn where_backends_do_not_have_the_vip_no_check_goes_there() {
    for mode in ["dnat", "nat"] {
        let forwarding = format!("forwarding = \"{mode}\"\n[service.health]");
        let (path, text) = file("via = \"vip\"").remove(0);
        let text = text.replacen("[service.health]", &forwarding, 1);
        let error = parse(vec![(path, text)]).expect_err(mode).to_string();
        assert!(error.contains(&format!("can't go via the VIP with forwarding = \"{mode}\"")), "{error}");
        assert!(error.contains("their own addresses are where their traffic goes"), "{error}");
    }
}

/// Text of `[service.health]`, what is wrong, and what is allowed.
const MISTAKES: [(&str, &str, &str); 46] = [
    ("via = \"tunnel\"", "`via` can't be \"tunnel\"", "\"address\""),
    (
        "type = \"exec\"\ncommand = [\"/bin/true\"]\nvia = \"vip\"",
        "a check of type \"exec\" can't go via the VIP",
        "sends nothing of its own",
    ),
    ("type = \"none\"\nvia = \"vip\"", "a check of type \"none\" can't go via the VIP", "sends nothing"),
    (
        "via = \"vip\"\naddress = \"10.9.0.1\"",
        "a check via the VIP has no other `address`",
        "it goes to the service's own",
    ),
    ("via = \"address\"\npath = \"vip\"", "`path` can't be \"vip\" with via = \"address\"", "one of the two"),
    ("via = \"vip\"\nsource = \"2001:db8::1\"", "203.0.113.10 can't be checked from 2001:db8::1", "checked"),
    ("type = \"ftp\"", "`type` can't be \"ftp\"", "\"https\", \"grpc\""),
    (
        "path = \"/\"",
        "`path` means nothing to a check of type \"tcp\"",
        "only for type = \"http\", \"https\"",
    ),
    (
        "type = \"dns\"\nname = \"a\"\nrole = \"any\"",
        "`role` means nothing to a check of type \"dns\"",
        "\"mysql\"",
    ),
    (
        "type = \"redis\"\nmax_lag = \"1s\"",
        "`max_lag` means nothing to a check of type \"redis\"",
        "\"mysql\"",
    ),
    ("fast_interval = \"3s\"", "`fast_interval` can't be \"3s\"", "from 100ms to 2s"),
    ("down_interval = \"2h\"", "`down_interval` can't be \"2h\"", "from 100ms to 1h"),
    ("address = \"10.0.0.1:80\"", "`address` can't be \"10.0.0.1:80\"", "an address without a port"),
    ("source = \"127.0.0.1\"", "`source` can't be \"127.0.0.1\"", "an address without a port"),
    ("source = \"2001:db8::1\"", "10.0.0.1 can't be checked from 2001:db8::1", "of one family"),
    (
        "source = \"2001:db8::1\"\naddress = \"10.0.0.9\"",
        "10.0.0.9 can't be checked from 2001:db8::1",
        "of one family",
    ),
    ("type = \"http\"\nmethod = \"get\"", "`method` can't be \"get\"", "in upper case"),
    ("type = \"http\"\nheaders = \"X: y\"", "`headers` can't be a string", "an array"),
    ("type = \"http\"\nheaders = [\"X\"]", "`headers` can't hold \"X\"", "such as \"X-Probe: ballast\""),
    ("type = \"http\"\nheaders = [\"a b: c\"]", "`headers` can't hold \"a b: c\"", "the name"),
    ("type = \"http\"\nheaders = [\"Host: c\"]", "`headers` can't hold \"Host: c\"", "the check's own"),
    ("type = \"http\"\nheaders = [\"X: a\\nb\"]", "`headers` can't hold", "visible"),
    (
        "type = \"http\"\nheaders = [\"Cookie: (hidden)\"]",
        "`headers` can't hold \"Cookie: (hidden)\"",
        "name the secret itself",
    ),
    (
        "type = \"http\"\nexpect_status = \"20\"",
        "`expect_status` can't be \"20\"",
        "statuses from 100 to 599",
    ),
    ("type = \"http\"\nexpect_status = \"300-200\"", "`expect_status` can't be", "statuses from 100 to 599"),
    ("type = \"http\"\nexpect_body = \"\"", "`expect_body` can't be \"\"", "1 to 1024 bytes"),
    ("type = \"http\"\nmethod = \"HEAD\"\nexpect_body = \"x\"", "`expect_body` means nothing", "no body"),
    ("type = \"http\"\nverify = false", "`verify` means nothing to a check of type \"http\"", "\"https\""),
    ("type = \"tls\"\nverify = \"no\"", "`verify` can't be a string", "true or false"),
    ("type = \"tls\"\nca_file = \"ca.pem\"", "`ca_file` can't be \"ca.pem\"", "an absolute path"),
    (
        "type = \"tls\"\nca_file = \"/ca.pem\"\nverify = false",
        "`ca_file` means nothing with verify = false",
        "any",
    ),
    ("type = \"tls\"\nserver_name = \"a b\"", "`server_name` can't be \"a b\"", "a host name"),
    ("type = \"mysql\"", "[service.health] has no `user`", "`user` is required"),
    (
        "type = \"mysql\"\nuser = \"u\"\nrole = \"master\"",
        "`role` can't be \"master\"",
        "\"primary\", \"replica\"",
    ),
    ("type = \"mysql\"\nuser = \"u\"\nmax_lag = \"9s\"", "`max_lag` means nothing without", "only replicas"),
    (
        "type = \"mysql\"\nuser = \"u\"\ndatabase = \"d\"",
        "`database` means nothing",
        "only for type = \"postgres\"",
    ),
    ("type = \"mysql\"\nuser = \"u\"\nverify = false", "`verify` means nothing without tls = true", "no TLS"),
    ("type = \"redis\"\nuser = \"u\"", "`user` means nothing without `password_file`", "Redis takes both"),
    ("type = \"dns\"", "[service.health] has no `name`", "`name` is required"),
    ("type = \"dns\"\nname = \"a..b\"", "`name` can't be \"a..b\"", "labels have 1 to 63"),
    ("type = \"dns\"\nname = \"a\"\nrecord = \"a\"", "`record` can't be \"a\"", "\"AAAA\""),
    (
        "type = \"dns\"\nname = \"a\"\nexpect_addresses = [\"::1\"]",
        "`expect_addresses` can't hold",
        "an IPv4",
    ),
    (
        "type = \"dns\"\nname = \"a\"\nrecord = \"TXT\"\nexpect_addresses = []",
        "`expect_addresses` means nothing",
        "only for record",
    ),
    ("type = \"exec\"", "[service.health] has no `command`", "`command` is required"),
    ("type = \"exec\"\ncommand = []", "`command` is empty", "a program and its arguments"),
    ("type = \"exec\"\ncommand = [\"check\"]", "`command` can't be \"check\"", "an absolute path"),
];

#[test]
fn mistakes_name_their_place_and_what_is_allowed() {
    for (health, message, label) in MISTAKES {
        let error = parse(file(health)).expect_err(health).to_string();
        assert!(error.contains(message), "{health}: {error}");
        assert!(error.contains(label), "{health}: {error}");
        assert!(error.contains("config.toml:"), "{health}: {error}");
    }
}

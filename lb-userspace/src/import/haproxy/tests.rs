use proptest::prelude::*;

use super::*;
use crate::{
    config::{self, Config},
    domain::{Algorithm, Forwarding, Name, Probe},
};

fn choices() -> Choices {
    Choices {
        vips: vec!["203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        interfaces: vec!["eth0".into()],
        forwarding: Forwarding::Nat,
    }
}

fn imported(text: &str) -> (Config, Vec<(usize, String)>) {
    let Imported { config, notes } = import(text, &choices()).expect("something to balance");
    let parsed = config::parse(vec![("ballast.toml".into(), config.clone())]);
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}\n{config}"));
    (parsed, notes.into_iter().map(|note| (note.line, note.why)).collect())
}

/// The one in HAProxy's own documentation, more or less.
const EXAMPLE: &str = "\
global
    daemon

defaults
    mode tcp
    timeout connect 5000ms
    timeout client 50000ms
    timeout server 50000ms

frontend http
    bind *:80
    default_backend servers

backend servers
    balance roundrobin
    server s1 10.0.0.11:8000 check
    server s2 10.0.0.12:8000 check weight 3
    server s3 10.0.0.13:8000 check backup
";

#[test]
fn haproxys_example_is_a_service() {
    let (config, notes) = imported(EXAMPLE);
    let [service] = &config.services[..] else { panic!("{:?}", config.services) };
    assert_eq!((service.name.as_str(), service.vip.to_string().as_str()), ("http", "203.0.113.10:80"));
    assert_eq!((service.algorithm, service.forwarding), (Algorithm::RoundRobin, Forwarding::Nat));
    assert_eq!(service.health.probe, Probe::Tcp);
    let backends: Vec<_> = service
        .backends
        .values()
        .map(|backend| (backend.name.as_str(), backend.address.to_string(), backend.weight, backend.backup))
        .collect();
    assert_eq!(
        backends,
        [
            ("s1", "10.0.0.11:8000".to_owned(), 1, false),
            ("s2", "10.0.0.12:8000".to_owned(), 3, false),
            ("s3", "10.0.0.13:8000".to_owned(), 1, true)
        ]
    );
    let lines: Vec<_> = notes.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 6, 7, 8]);
}

#[test]
fn what_a_listen_section_says_of_its_servers_is_kept() {
    let (config, notes) = imported(
        "listen db_main
            bind 198.51.100.7:3306
            balance leastconn
            option mysql-check user haproxy post-41
            timeout check 500ms
            default-server inter 3s fastinter 1s downinter 5s rise 4 fall 2 on-marked-down shutdown-sessions
            server DB_1 10.1.0.1:3307 check slowstart 30s
            server db-2 10.1.0.2:3307 check disabled maxconn 50
        ",
    );
    let service = &config.services[0];
    assert_eq!((service.name.as_str(), service.algorithm), ("db-main", Algorithm::LeastConnections));
    let pace = &service.health;
    assert_eq!((pace.interval.as_secs(), pace.timeout.as_millis(), pace.rise, pace.fall), (3, 500, 4, 2));
    assert!(matches!(service.health.probe, Probe::Database(_)), "{:?}", service.health.probe);
    assert_eq!((service.unhealthy_grace.as_secs(), service.slow_start.as_secs()), (0, 30));
    let weights: Vec<_> =
        service.backends.iter().map(|(name, backend)| (name.as_str(), backend.weight)).collect();
    assert_eq!(weights, [("db-1", 1), ("db-2", 0)]);
    let about = |line, words: &str| notes.iter().any(|(at, why)| *at == line && why.contains(words));
    assert!(about(1, "called \"db-main\""), "{notes:?}");
    assert!(about(7, "called \"db-1\"") && about(8, "weight 0") && about(8, "maxconn 50"), "{notes:?}");
}

#[test]
fn http_checks_ask_the_same() {
    for check in [
        "option httpchk GET /healthz HTTP/1.1\\r\\nHost:\\ www.example\\r\\nX-Probe:\\ lb\n http-check expect status 200-204",
        "option httpchk\n http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host www.example hdr X-Probe lb\n http-check expect status 200-204",
    ] {
        let (config, notes) = imported(&format!(
            "backend b\n {check}\n server s 10.0.0.1:443 check ssl verify none check-sni www.example\n\
             frontend f\n bind 192.0.2.1:443\n default_backend b\n"
        ));
        let Probe::Http(http) = &config.services[0].health.probe else { panic!("{config:?}") };
        assert_eq!((http.method.as_str(), http.path.as_str()), ("GET", "/healthz"));
        assert_eq!(http.host.as_deref(), Some("www.example"));
        assert!(http.tls.as_ref().is_some_and(|tls| !tls.verify), "{http:?}");
        assert!(notes.iter().all(|(_, why)| why.contains("TLS is not ended here")), "{notes:?}");
    }
}

#[test]
fn every_bind_is_a_service_of_its_own() {
    let (config, _) = imported(
        "frontend web
            bind *:80,192.0.2.1:8080
            bind :::443 v4v6
            use_backend b
         backend b
            server s 10.0.0.1
            server t [2001:db8::1]
        ",
    );
    let services: Vec<_> = config
        .services
        .iter()
        .map(|service| (service.name.to_string(), service.vip.to_string(), service.backends.len()))
        .collect();
    assert_eq!(
        services,
        [
            ("web", "203.0.113.10:80"),
            ("web-8080", "192.0.2.1:8080"),
            ("web-443", "203.0.113.10:443"),
            ("web-443-2", "[2001:db8::10]:443"),
        ]
        .map(|(name, vip)| (name.to_owned(), vip.to_owned(), 1))
    );
}

#[test]
fn what_is_missing_is_an_error_that_says_what_to_do() {
    let error = |text: &str, vips: Vec<std::net::IpAddr>| {
        import(text, &Choices { vips, ..choices() }).expect_err("not enough").to_string()
    };
    assert!(error(EXAMPLE, Vec::new()).starts_with("line 11: `bind *:80` is every address"));
    assert_eq!(error("backend b\n log \"x\n", Vec::new()), "line 2: a quotation does not end");
    for nothing in [
        "",
        "frontend f\n bind 192.0.2.1:80\n",
        "listen f\n disabled\n bind 192.0.2.1:80\n server s 10.0.0.1\n",
    ] {
        assert!(error(nothing, Vec::new()).contains("nothing to balance"), "{nothing}");
    }
}

#[test]
fn a_second_server_at_the_same_address_is_left_out() {
    let (config, notes) = imported(
        "listen l\n bind 192.0.2.1:80\n server a 10.0.0.1:81\n server b 10.0.0.1:81\n server c 10.0.0.1:82\n",
    );
    assert!(config.services[0].backends.keys().map(Name::as_str).eq(["a", "c"]));
    assert_eq!(notes, [(4, "another server of it is at 10.0.0.1:81, so this one is left out".to_owned())]);
}

#[test]
fn what_has_no_equal_is_told_line_by_line() {
    let (config, notes) = imported(
        "defaults
            mode http
            option forwardfor
            retries 3
         frontend f
            bind 192.0.2.1:443 ssl crt /etc/site.pem
            acl is_api path_beg /api
            use_backend api if is_api
            default_backend b
         backend api
            server a 10.0.0.9:80
         backend b
            balance uri
            cookie SRV insert
            server s 10.0.0.1:80 check cookie s send-proxy
            server t app.example:80 check
            frobnicate yes\npeers p\n peer a 10.0.0.1:1024\n",
    );
    assert_eq!(config.services.len(), 1);
    let lines: Vec<_> = notes.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 6, 7, 8, 10, 13, 14, 15, 15, 16, 17, 18]);
    assert!(config.services[0].backends.keys().map(Name::as_str).eq(["s"]));
}

proptest! {
    /// Whatever is in a file, what comes of it is a configuration or an error.
    #[test]
    fn what_is_written_is_always_valid(
        lines in proptest::collection::vec(
            prop_oneof![
                Just("frontend f".to_owned()), Just("listen l".to_owned()), Just("backend b".to_owned()),
                Just("defaults".to_owned()), Just(" default_backend b".to_owned()),
                " bind (\\*|192\\.0\\.2\\.[1-9]|::):[1-9][0-9]{0,3}( ssl)?",
                " server [a-zA-Z_]{1,4} 10\\.0\\.0\\.[1-9](:[1-9][0-9]{0,3})?( (check|backup|ssl|weight [0-9]{1,6}|inter [0-9]{1,9}(ms|s|h)?|fastinter [0-9]{1,5}|downinter [0-9]{1,5}s|rise [0-9]{1,4}|fall [0-9]{1,4}|port [0-9]{1,6}|slowstart [0-9]{1,7}|addr 10\\.0\\.1\\.1|disabled|cookie x)){0,5}",
                " balance (roundrobin|leastconn|source|uri|random\\(2\\)|nonsense)",
                " option (httpchk|httpchk [A-Z]{3} /[a-z\"]{0,5}|redis-check|mysql-check user u|pgsql-check user u|ssl-hello-chk|allbackups|tcplog)",
                " http-check (expect status [0-9]{1,3}|expect string [a-z]{1,5}|send hdr Host x meth GET)",
                " timeout check [0-9]{1,8}",
                "[ a-z\\\\'\"#:.*0-9]{0,20}",
            ],
            0..24,
        ),
    ) {
        let text = lines.join("\n");
        if let Ok(Imported { config, .. }) = import(&text, &choices()) {
            let parsed = config::parse(vec![("ballast.toml".into(), config.clone())]);
            let wrong = parsed.err().map(|error| error.to_string()).unwrap_or_default();
            prop_assert!(wrong.is_empty(), "{wrong}\n{config}\nof\n{text}");
        }
    }
}

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Node, require_root};

use super::servers::{Server, certificates, directory};
use super::{at, service, wait_verdict};

/// In the clear on port 80, with TLS on 443. What it answers depends on what it was asked with.
fn nginx(node: &Node) -> Result<Server> {
    let directory = directory()?;
    certificates(directory.path())?;
    let text = r#"
        daemon off; master_process off; pid DIR/pid; error_log stderr;
        events {}
        http {
            access_log off; client_body_temp_path DIR; proxy_temp_path DIR; fastcgi_temp_path DIR;
            uwsgi_temp_path DIR; scgi_temp_path DIR;
            ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate DIR/certificate.pem; ssl_certificate_key DIR/key.pem;
            server {
                listen 80; listen [::]:80; listen 443 ssl;
                location = /healthz { return 200 "all systems go"; }
                location = /asked {
                    if ($request_method != OPTIONS) { return 405; }
                    if ($http_x_probe != ballast) { return 403; }
                    if ($host != www.example.org) { return 421; }
                    return 299;
                }
                location / { return 503; }
            }
        }"#;
    let configuration = directory.path().join("nginx.conf");
    fs::write(&configuration, text.replace("DIR", &directory.path().display().to_string()))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&configuration);
    Server::start(node, directory, command)?.wait(|server| {
        let url = format!("http://{}/healthz", server.node.ipv4());
        server.node.run("curl", ["-sf", &url]).is_ok()
    })
}

/// Health and detail of each check against one backend.
fn expect(daemon: &Daemon, checks: &[(&str, String, &str, &str)]) -> Result<()> {
    for (name, _, health, detail) in checks {
        let said = wait_verdict(daemon, name, "backend0", health)?;
        ensure!(said.starts_with(detail), "{name} is {health}: {said}");
    }
    Ok(())
}

fn config(node: &Node, checks: &[(&str, String, &str, &str)]) -> String {
    let services = checks.iter().zip(8000..);
    services.map(|((name, check, ..), port)| at(service(name, port, check), node, port).toml()).collect()
}

#[test]
fn http_https_and_tls_ask_nginx_for_what_they_are_told_to() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let mut nginx = nginx(lab.backend(0))?;
    let ca = nginx.path("ca.pem").display().to_string();
    let http = |rest: &str| format!("type = \"http\"\nport = 80\n{rest}");
    let secure = |kind: &str, rest: &str| format!("type = \"{kind}\"\nport = 443\n{rest}");
    let trusted = format!("ca_file = \"{ca}\"\n");
    let asked = "path = \"/asked\"\nmethod = \"OPTIONS\"\nheaders = [\"X-Probe: ballast\"]\n";
    let named = "server_name = \"www.example.org\"\n";
    let checks = [
        ("plain", http("path = \"/healthz\"\nexpect_body = \"systems go\""), "healthy", "HTTP 200"),
        (
            "other-body",
            http("path = \"/healthz\"\nexpect_body = \"all is lost\""),
            "unhealthy",
            "HTTP 200 without",
        ),
        ("status", http("path = \"/\"\nexpect_status = \"500-599\""), "healthy", "HTTP 503"),
        (
            "asked",
            http(&format!("{asked}host = \"www.example.org\"\nexpect_status = \"299\"")),
            "healthy",
            "HTTP 299",
        ),
        ("other-host", http(asked), "unhealthy", "HTTP 421"),
        ("tls", secure("tls", &format!("{trusted}{named}")), "healthy", "TLS 1.3"),
        ("unknown", secure("tls", named), "unhealthy", "the certificate is from no authority"),
        ("misnamed", secure("tls", &trusted), "unhealthy", "the certificate is for another name"),
        ("anyone", secure("tls", "verify = false"), "healthy", "TLS 1.3"),
        (
            "https",
            secure("https", &format!("{trusted}host = \"www.example.org\"\npath = \"/healthz\"")),
            "healthy",
            "HTTP 200",
        ),
        ("no-tls", secure("http", "path = \"/healthz\""), "unhealthy", "HTTP 400"),
    ];
    let daemon = Daemon::start(&lab, 0, &config(lab.backend(0), &checks))?;
    expect(&daemon, &checks)?;
    nginx.kill()?;
    for name in ["plain", "tls", "https"] {
        wait_verdict(&daemon, name, "backend0", "unhealthy")?;
    }
    Ok(())
}

#[test]
fn dns_asks_bind_and_reads_its_answer() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let directory = directory()?;
    let zone = "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\nwww A 192.0.2.2\n\
                www AAAA 2001:db8::1\nlong TXT LONG\n";
    // More than a datagram without EDNS takes.
    let long = format!("\"{0}\" \"{0}\" \"{0}\"", "x".repeat(250));
    fs::write(directory.path().join("zone"), zone.replace("LONG", &long))?;
    let path = directory.path().display();
    let options = format!(
        "options {{ directory \"{path}\"; pid-file none; listen-on {{ any; }}; recursion no; dnssec-validation no; }};\n\
         controls {{ }};\nzone \"example.org\" {{ type primary; file \"{path}/zone\"; }};\n"
    );
    fs::write(directory.path().join("named.conf"), options)?;
    let mut command = Command::new("named");
    command.args(["-g", "-n", "1", "-c"]).arg(directory.path().join("named.conf"));
    let mut bind = Server::start(lab.backend(0), directory, command)?
        .wait(|server| fs::read_to_string(server.path("log")).is_ok_and(|log| log.contains("running")))?;
    let dns = |rest: &str| format!("type = \"dns\"\nport = 53\n{rest}");
    let checks = [
        (
            "a",
            dns("name = \"www.example.org\"\nexpect_addresses = [\"192.0.2.1\", \"192.0.2.2\"]"),
            "healthy",
            "noerror, 2 records",
        ),
        (
            "other",
            dns("name = \"www.example.org\"\nexpect_addresses = [\"192.0.2.9\"]"),
            "unhealthy",
            "noerror, and 192.0.2.9 is not",
        ),
        ("aaaa", dns("name = \"www.example.org\"\nrecord = \"AAAA\""), "healthy", "noerror, 1 record"),
        ("txt", dns("name = \"long.example.org\"\nrecord = \"TXT\""), "healthy", "noerror, 1 record"),
        ("none", dns("name = \"no.example.org\""), "unhealthy", "nxdomain"),
        ("refused", dns("name = \"example.com\"\nexpect_rcode = \"refused\""), "healthy", "refused"),
    ];
    let daemon = Daemon::start(&lab, 0, &config(lab.backend(0), &checks))?;
    expect(&daemon, &checks)?;
    bind.kill()?;
    wait_verdict(&daemon, "a", "backend0", "unhealthy").map(drop)
}

/// With TLS, on port 2479.
fn secure_etcd(node: &Node) -> Result<Server> {
    let directory = directory()?;
    certificates(directory.path())?;
    let mut command = Command::new("etcd");
    for (option, value) in [
        ("--listen-client-urls", "https://0.0.0.0:2479"),
        ("--advertise-client-urls", "https://127.0.0.1:2479"),
        ("--listen-peer-urls", "http://127.0.0.1:2480"),
        ("--initial-advertise-peer-urls", "http://127.0.0.1:2480"),
        ("--initial-cluster", "default=http://127.0.0.1:2480"),
    ] {
        command.args([option, value]);
    }
    for (option, file) in
        [("--cert-file", "certificate.pem"), ("--key-file", "key.pem"), ("--data-dir", "data")]
    {
        command.arg(option).arg(directory.path().join(file));
    }
    Server::start(node, directory, command)?.wait(|server| {
        let url = format!("https://{}:2479/health", server.node.ipv4());
        server.node.run("curl", ["-skf", &url]).is_ok()
    })
}

#[test]
fn grpc_asks_etcds_health_service() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let directory = directory()?;
    let mut command = Command::new("etcd");
    command.args([
        "--listen-client-urls",
        "http://0.0.0.0:2379",
        "--advertise-client-urls",
        "http://127.0.0.1:2379",
    ]);
    command.arg("--data-dir").arg(directory.path().join("data"));
    let mut etcd = Server::start(lab.backend(0), directory, command)?.wait(|server| {
        server.node.run("curl", ["-sf", &format!("http://{}:2379/health", server.node.ipv4())]).is_ok()
    })?;
    let secure = secure_etcd(lab.backend(0))?;
    let grpc = |rest: &str| format!("type = \"grpc\"\nport = 2379\n{rest}");
    let tls = |rest: &str| {
        let ca = secure.path("ca.pem").display().to_string();
        format!("type = \"grpc\"\nport = 2479\ntls = true\nca_file = \"{ca}\"\n{rest}")
    };
    let checks = [
        ("tls", tls("server_name = \"www.example.org\""), "healthy", "SERVING"),
        ("misnamed", tls(""), "unhealthy", "the certificate is for another name"),
        ("server", grpc(""), "healthy", "SERVING"),
        ("unknown", grpc("service = \"shop\""), "unhealthy", "gRPC status 5 (the service is not known)"),
    ];
    let daemon = Daemon::start(&lab, 0, &config(lab.backend(0), &checks))?;
    expect(&daemon, &checks)?;
    etcd.kill()?;
    wait_verdict(&daemon, "server", "backend0", "unhealthy").map(drop)
}

#[test]
fn icmp_exec_and_agent_tell_how_a_host_does() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (node, nginx) = (lab.backend(0), nginx(lab.backend(0))?);
    let state = nginx.path("state");
    fs::write(&state, "ready up 75%\n")?;
    let mut command = Command::new("socat");
    // As an agent of a host does: it says its line to whoever comes.
    command.arg("TCP-LISTEN:4321,reuseaddr,fork").arg(format!("OPEN:{},rdonly", state.display()));
    let _agent = node.spawn(&mut command)?;
    let curl = "command = [\"/usr/bin/curl\", \"-sf\", \"-o\", \"/dev/null\", \"http://ADDRESS/healthz\"]"
        .replace("ADDRESS", &node.ipv4().to_string());
    let checks = [
        ("ping", "type = \"icmp\"".to_owned(), "healthy", "echo reply after"),
        ("program", format!("type = \"exec\"\n{curl}"), "healthy", "exit status 0"),
        ("agent", "type = \"agent\"\nport = 4321".to_owned(), "healthy", "agent says ready up 75%"),
    ];
    let daemon = Daemon::start(&lab, 0, &config(node, &checks))?;
    expect(&daemon, &checks)?;
    let ipv6 = super::service("ping6", 8100, "type = \"icmp\"");
    let ipv6 = ipv6.toml().replace("203.0.113.10:8100", "[2001:db8::10]:8100")
        + &format!("\n[[service.backend]]\nname = \"backend0\"\naddress = \"[{}]:8100\"\n", node.ipv6());
    daemon.write_config(&(config(node, &checks) + &ipv6)).context("add a service")?;
    daemon.reload()?;
    wait_verdict(&daemon, "ping6", "backend0", "healthy")?;

    fs::write(&state, "drain\n")?;
    let drained = wait_verdict(&daemon, "agent", "backend0", "ineligible")?;
    ensure!(drained == "agent says drain", "{drained}");
    fs::write(&state, "down #disk full\n")?;
    wait_verdict(&daemon, "agent", "backend0", "unhealthy")?;
    drop(nginx);
    let failed = wait_verdict(&daemon, "program", "backend0", "unhealthy")?;
    ensure!(failed == "exit status 7", "{failed}");
    node.ip("take it off the net", ["link set eth0 down"])?;
    for name in ["ping", "ping6"] {
        wait_verdict(&daemon, name, "backend0", "unhealthy")?;
    }
    Ok(())
}

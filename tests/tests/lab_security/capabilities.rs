//! The daemon has four capabilities and gets by with them, whoever starts it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Service, TcpServer, UdpServer, UdpTraffic, VIP_V4, require_root, try_wait_until,
    wait_for, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF.
const FOUR: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
/// A user that nobody has heard of.
const USER: u32 = 64_001;
/// Passes, and says what capabilities it has (inheritable, permitted, effective, ambient) and whether it can get others.
const SAYS_CAPABILITIES: &str = "type = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"set -- $(sed -n \
     's/^Cap[IPEA].*:.//p; s/^NoNewPrivs:.//p' /proc/self/status); echo $*\"]\n";

#[test]
fn a_daemon_that_root_starts_keeps_four_capabilities_on_every_thread_and_its_checks_have_none() -> Result<()>
{
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    // Not on a BPF file system yet: mounting one takes what the daemon gives up, in a mount namespace that ends with it.
    let mounted = lab.directory().join("bpffs");
    let config = format!(
        "[daemon]\ninterfaces = {{interfaces}}\nstate_dir = \"{{state_dir}}\"\npin_dir = \"{}/ballast\"\n\
         socket = \"{{socket}}\"\n\n{}",
        mounted.display(),
        service(&lab, "web", 80, SAYS_CAPABILITIES).toml()
    );
    let mut daemon = Daemon::new(&lab, 0, &config)?;
    daemon.start_through(["unshare", "--mount", "--propagation", "private"]);
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let none = "0000000000000000";
    let said = detail_when(&daemon, "web", "healthy")?;
    assert_eq!(said, format!("exit status 0: {none} {none} {none} {none} 1"));

    let pid = daemon.process_id().context("it runs")?;
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))?.collect::<Result<_, _>>()?;
    ensure!(threads.len() > 2, "only {} threads", threads.len());
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.map(str::to_owned).with_context(|| format!("no {name} in {status}"))
        };
        let sets: Vec<u64> =
            SETS.iter().map(|name| Ok(u64::from_str_radix(&field(name)?, 16)?)).collect::<Result<_>>()?;
        assert_eq!(sets, [0, FOUR, FOUR, FOUR, 0], "{SETS:?} of {}", field("Name")?);
        assert_eq!(field("NoNewPrivs")?, "1", "{}", field("Name")?);
    }
    // It goes on with what root owns.
    daemon.cli_checked(["backend", "drain", "web", "backend0"])?;
    daemon.reload()
}

#[test]
fn a_daemon_of_another_user_does_everything_with_these_four() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _udp: Vec<_> = lab.backends().map(|node| UdpServer::start(node, &[53])).collect::<Result<_>>()?;
    let _tcp = TcpServer::start(lab.backend(0), &[80])?;
    let _http = HttpServer::start(lab.backend(0), &[8080])?;
    let checked = [
        ("tcp", 80, "type = \"tcp\"\n"),
        ("http", 8080, "type = \"http\"\npath = \"/healthz\"\n"),
        ("icmp", 81, "type = \"icmp\"\n"),
        ("exec", 82, SAYS_CAPABILITIES),
        ("via", 83, "type = \"http\"\npath = \"/healthz\"\nport = 8080\nvia = \"vip\"\n"),
    ];
    let balancer = lab.balancer(0);
    balancer.route_vip_to(VIP_V4, lab.client(0))?;
    let carries = || {
        let interface = &balancer.first_leg().interface;
        let filters = balancer.run("tc", ["filter", "show", "dev", interface, "egress"]);
        filters.is_ok_and(|filters| filters.stdout.contains("ballast:"))
    };
    let checks: String =
        checked.iter().map(|(name, port, check)| service(&lab, name, *port, check).toml()).collect();
    let udp = |weight: u32| {
        let service =
            Service::new("udp", SocketAddr::new(VIP_V4, 53), "udp", "l2-dsr").health("type = \"icmp\"\n");
        let service = lab.backends().fold(service, |service, node| {
            service.backend(&node.label(), SocketAddr::new(node.ipv4().into(), 53), weight)
        });
        format!("{}{checks}", service.toml())
    };
    let mut daemon = Daemon::with_binary(&lab, 0, &udp(1), Daemon::binary_for_everybody(&lab)?)?;
    let directories = [lab.directory(), &lab.pins(), &daemon.files().pin_dir];
    let of_daemon = daemon.files().config.parent().context("a directory")?;
    for path in directories.into_iter().chain([of_daemon, &daemon.files().config]) {
        own(path)?;
    }
    daemon.start_through(as_user("bpf,+perfmon,+net_admin,+net_raw").iter().map(String::as_str));
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    for (name, ..) in checked {
        detail_when(&daemon, name, "healthy")?;
    }
    let none = "0000000000000000";
    assert_eq!(
        detail_when(&daemon, "exec", "healthy")?,
        format!("exit status 0: {none} {none} {none} {none} 1")
    );
    wait_until("both are healthy", SOON, || healthy(&daemon, "udp") == 2)?;
    assert_nothing_lost(&lab)?;
    // What carries checks via the VIP is attached long after other capabilities are gone, and again where it is taken away.
    ensure!(carries(), "no filter carries checks via the VIP");
    let interface = &balancer.first_leg().interface;
    balancer.tc("take the filter away", [format!("filter del dev {interface} egress")])?;
    wait_until("the filter is back", SOON, carries)?;

    daemon.write_config(&udp(2))?;
    daemon.reload()?;
    daemon.cli_checked(["service", "add", "made", "203.0.113.77:80"])?;
    let revision = |daemon: &Daemon| Ok::<_, anyhow::Error>(daemon.status_json()?["revision"].as_u64());
    let before = revision(&daemon)?;
    daemon.write_config(&udp(3))?;
    daemon.signal(Signal::SIGHUP)?;
    try_wait_until("SIGHUP reloads", SOON, || Ok(revision(&daemon)? > before))?;
    ensure!(daemon.sigterm()?.success(), "it did not stop as it should");
    assert_nothing_lost(&lab).context("without a daemon")?;

    // Its socket is for itself and root.
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    ensure!(daemon.log().contains("went on with the pinned maps"), "not adopted");
    detail_when(&daemon, "via", "healthy")?;
    ensure!(
        daemon.cli_through(as_user("").iter().map(String::as_str), ["status", "--ready"])?.status.success()
    );
    let somebody = ["setpriv", "--reuid=64002", "--regid=64002", "--clear-groups"];
    assert_eq!(daemon.cli_through(somebody, ["status"])?.status.code(), Some(3));
    assert_nothing_lost(&lab).context("after a restart")?;
    ensure!(daemon.sigterm()?.success(), "it did not stop as it should");
    let config = daemon.files().config.display().to_string();
    let detach = ["detach", "--config", &config];
    let detached = daemon.cli_through(as_user("bpf,+net_admin").iter().map(String::as_str), detach)?;
    ensure!(detached.stdout.contains("detached from eth0"), "{detached:?}");
    ensure!(!daemon.files().pin_dir.exists(), "pins are left");
    ensure!(!carries(), "a filter is left");
    Ok(())
}

#[test]
fn a_daemon_without_what_it_needs_says_what_that_is() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let mut daemon = Daemon::with_binary(&lab, 0, "", Daemon::binary_for_everybody(&lab)?)?;
    own(lab.directory())?;
    for (given, missing) in
        [("", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"), ("bpf,+net_admin,+net_raw", "CAP_PERFMON")]
    {
        daemon.start_through(as_user(given).iter().map(String::as_str));
        daemon.launch()?;
        assert_eq!(daemon.wait_exit(SOON)?.code(), Some(1));
        let log = daemon.log();
        ensure!(log.contains(&format!("the daemon has no {missing}: start it as root")), "{log}");
    }
    // Where it is not let in, it does not say that there is no BPF file system.
    daemon.start_through(as_user("bpf,+perfmon,+net_admin").iter().map(String::as_str));
    fs::write(&daemon.files().log, "")?;
    let closed = daemon.files().pin_dir.join("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    daemon.write_config(&format!(
        "[daemon]\ninterfaces = {{interfaces}}\nstate_dir = \"{{state_dir}}\"\nsocket = \"{{socket}}\"\n\
         pin_dir = \"{}/ballast\"\n",
        closed.display()
    ))?;
    daemon.launch()?;
    assert_eq!(daemon.wait_exit(SOON)?.code(), Some(1));
    let log = daemon.log();
    ensure!(log.contains("closed/ballast: could not look for it: Permission denied"), "{log}");
    ensure!(log.contains("without CAP_NET_RAW"), "{log}");
    Ok(())
}

/// `setpriv` with exactly these capabilities, as `bpf,+perfmon`.
fn as_user(capabilities: &str) -> Vec<String> {
    let set = if capabilities.is_empty() { "-all".to_owned() } else { format!("-all,+{capabilities}") };
    let own = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()];
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|name| format!("--{name}={set}"));
    ["setpriv".to_owned()].into_iter().chain(own).chain(sets).collect()
}

fn own(path: &Path) -> Result<()> {
    chown(path, Some(USER), Some(USER)).with_context(|| format!("give {} away", path.display()))
}

/// A service with the first backend, checked as `check` says.
fn service(lab: &Lab, name: &str, port: u16, check: &str) -> Service {
    let quick = "interval = \"500ms\"\ntimeout = \"500ms\"\n";
    Service::new(name, SocketAddr::new(VIP_V4, port), "tcp", "l2-dsr")
        .health(&format!("{quick}{check}"))
        .backend("backend0", SocketAddr::new(lab.backend(0).ipv4().into(), port), 1)
}

fn backends(daemon: &Daemon, service: &str) -> Option<Vec<Value>> {
    let shown = daemon.cli_checked(["backend", "list", service, "-o", "json"]).ok()?;
    serde_json::from_str(&shown).ok()
}

fn healthy(daemon: &Daemon, service: &str) -> usize {
    let backends = backends(daemon, service).unwrap_or_default();
    backends.iter().filter(|backend| backend["health"] == "healthy").count()
}

/// Why the service's only backend is `wanted`, as soon as it is.
fn detail_when(daemon: &Daemon, service: &str, wanted: &str) -> Result<String> {
    let mut last = None;
    wait_for(&format!("{service} is {wanted}"), SOON, || {
        last = backends(daemon, service);
        let backend = last.as_ref()?.first()?;
        (backend["health"] == wanted)
            .then(|| backend["health_detail"].as_str().unwrap_or_default().to_owned())
    })
    .with_context(|| format!("{last:?}"))
}

fn assert_nothing_lost(lab: &Lab) -> Result<()> {
    let sources = (0..32).map(|number| lab.client(0).source_port(number, 4000, VIP_V4));
    let report = UdpTraffic::new(sources, SocketAddr::new(VIP_V4, 53)).rate(1_000).run(lab.client(0), 500)?;
    ensure!(report.lost.is_empty() && report.refused == 0, "{report:?}");
    Ok(())
}

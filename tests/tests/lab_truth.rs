//! What runs and what the files say: a start with a file that is wrong, a configuration in several files, and what a change
//! would do, told before it is made.
//!
//! Every loss that is asserted to be 0 was 0 before, in a control run without the fault.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, Lab, Service, UdpReport, UdpServer, UdpTraffic, VIP_V4, VIP_V6, require_root, try_wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
const PORT: u16 = 53;
/// Clients, each a flow.
const FLOWS: u16 = 64;
const CONFIG_CURRENT: &str = "ballast_config_current";

#[test]
fn a_start_with_a_file_that_is_wrong_or_refused_goes_on_with_what_was_applied_last() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = serve_udp(&lab)?;
    let good: String = FAMILIES.map(|vip| service(&lab, vip).toml()).concat();
    let mut daemon = Daemon::start(&lab, 0, &good)?;
    daemon.cli_checked(["service", "add", "made", "203.0.113.77:80"])?;
    let calm = flows(&lab)?;
    let before = live(&daemon)?;
    let wrong = [
        ("broken syntax", good.replacen("[[service]]", "[[service]", 1), "TOML syntax is broken"),
        ("an unknown key", good.replacen("protocol", "protocoll", 1), "unknown key `protocoll`"),
        (
            "a service that can't become this",
            good.replacen("[[service]]", "[[service]]\ntable_size = 1024", 1),
            "--disruptive",
        ),
    ];
    for (what, text, said) in &wrong {
        ensure!(*text != good, "{what}: nothing was replaced");
        let path = daemon.files().config.display().to_string();
        // Edited while it ran, and then it is killed.
        daemon.write_config(text)?;
        daemon.kill9()?;
        daemon.launch()?;
        daemon.wait_ready(SOON).with_context(|| what.to_string())?;
        let status = daemon.status_json()?;
        let error = status.get("config_error").and_then(Value::as_str).unwrap_or_default();
        assert!(error.contains(said) && has_position(error, &path), "{what}: {error}");
        assert!(error.contains("applied.toml"), "{what}: {error}");
        let shown = daemon.cli_checked(["status"])?;
        let alarm = shown.lines().find(|line| line.ends_with("NOT WHAT RUNS:"));
        assert_eq!(alarm, Some("THE CONFIGURATION IS NOT WHAT RUNS:"), "{what}: {shown}");
        assert_eq!(daemon.metric(CONFIG_CURRENT)?, 0.0, "{what}");
        assert_eq!(live(&daemon)?, before, "{what}");
        assert_same(&flows(&lab)?, &calm, what);
    }
    // Mended, it is applied; and from then on it is what was applied last.
    let mended = good.replace("weight = 1", "weight = 3");
    daemon.write_config(&mended)?;
    daemon.reload()?;
    assert_eq!(daemon.status_json()?.get("config_error"), Some(&Value::Null));
    assert_eq!(daemon.metric(CONFIG_CURRENT)?, 1.0);
    fs::write(&daemon.files().config, "nonsense")?;
    daemon.kill9()?;
    daemon.launch()?;
    assert_eq!(daemon.wait_exit(SOON)?.code(), Some(1), "the file no longer says where the state is");
    let own = "[daemon]\ninterfaces = {interfaces}\nstate_dir = \"{state_dir}\"\nnonsense\n";
    daemon.write_config(own)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let weights = daemon.status_json()?;
    assert_eq!(weights.pointer("/services/1/backends/0/weight"), Some(&3.into()), "{weights}");
    daemon.accounts().map(drop)
}

#[test]
fn services_may_stand_in_several_files_and_one_that_stands_in_two_is_refused_with_both_places() -> Result<()>
{
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = serve_udp(&lab)?;
    let mut daemon = Daemon::new(&lab, 0, "")?;
    let directory = daemon.files().config.with_file_name("conf.d");
    fs::create_dir(&directory)?;
    let [four, six] = ["4.toml", "6.toml"].map(|name| directory.join(name));
    fs::write(&four, service(&lab, VIP_V4).toml())?;
    fs::write(&six, service(&lab, VIP_V6).toml())?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let calm = flows(&lab)?;
    let status = daemon.status_json()?;
    let origin = |at: usize| status.pointer(&format!("/services/{at}/origin/file")).and_then(Value::as_str);
    assert_eq!([origin(0), origin(1)], [four.to_str(), six.to_str()]);

    let third = directory.join("7.toml");
    fs::write(&third, service(&lab, VIP_V6).toml())?;
    let refused = daemon.cli(["reload"])?;
    assert_eq!(refused.status.code(), Some(1));
    for path in [&six, &third] {
        assert!(has_position(&refused.stderr, &path.display().to_string()), "{path:?}: {}", refused.stderr);
    }
    // SIGHUP reloads as well, and it is the whole directory that counts.
    fs::remove_file(&third)?;
    fs::remove_file(&six)?;
    daemon.signal(Signal::SIGHUP)?;
    try_wait_until("the other service is gone", SOON, || {
        let status = daemon.status_json();
        status.map(|status| status.pointer("/services/1").is_none() && status["config_error"].is_null())
    })?;
    let report = traffic(&lab, VIP_V4).run(lab.client(0), 1_000)?;
    assert_same(std::slice::from_ref(&report), &calm[..1], "the service that stayed");
    daemon.accounts().map(drop)
}

#[test]
fn a_plan_is_what_then_happens_and_only_a_disruptive_reload_replaces_a_service() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(4).build()?;
    let _servers = serve_udp(&lab)?;
    let of = |count: usize, line: &str| {
        let services = FAMILIES.map(|vip| {
            let name = if vip.is_ipv4() { "udp4" } else { "udp6" };
            let service = Service::new(name, SocketAddr::new(vip, PORT), "udp", "l2-dsr").line(line);
            service.nodes(lab.backends().take(count), SocketAddr::new(vip, PORT)).toml()
        });
        services.concat()
    };
    let small = "table_size = 1024";
    let daemon = Daemon::start(&lab, 0, &of(2, small))?;
    let before = live(&daemon)?;
    let calm = flows(&lab)?;

    // A file that is somewhere else.
    let config = fs::read_to_string(&daemon.files().config)?;
    let elsewhere = lab.directory().join("new.toml");
    daemon.write_config(&of(4, small))?;
    fs::rename(&daemon.files().config, &elsewhere)?;
    fs::write(&daemon.files().config, &config)?;
    let planned = daemon.cli_checked(["plan", "-o", "json", "--config", &elsewhere.display().to_string()])?;
    let planned: Value = serde_json::from_str(&planned)?;
    assert_eq!(planned["changes"].as_array().map(Vec::len), Some(4), "{planned}");
    for (at, name) in ["udp4", "udp6"].into_iter().enumerate() {
        let service = &planned["services"][at];
        assert_eq!(service["service"], name);
        let moved = service["moved"].as_f64().context("no share")?;
        assert!((0.48..0.54).contains(&moved), "half of the slots go to the new ones: {service}");
        assert_eq!((&service["flows_ending"], &service["flows_draining"]), (&0.into(), &0.into()));
    }
    assert_eq!(live(&daemon)?, before, "a plan changed something");
    let shown = daemon.cli_checked(["plan", "--config", &elsewhere.display().to_string()])?;
    assert!(shown.contains("add backend udp4/backend2") && shown.contains("nothing changed yet"), "{shown}");

    // A backend less: its flows are known, because all UDP flows are tracked.
    try_wait_until("the flows are counted", SOON, || {
        daemon.status_json().map(|status| counted(&status) == u64::from(FLOWS) * 2)
    })?;
    daemon.write_config(&of(1, small))?;
    let planned: Value = serde_json::from_str(&daemon.cli_checked(["reload", "--dry-run", "-o", "json"])?)?;
    let status = daemon.status_json()?;
    for at in 0..2 {
        let leaving = status.pointer(&format!("/services/{at}/backends/1/flows"));
        assert_eq!(planned["services"][at].get("flows_draining"), leaving, "{planned}");
    }
    assert_same(&flows(&lab)?, &calm, "after plans");

    // What would end all flows is refused, told, and done if that is wanted.
    daemon.write_config(&of(2, "algorithm = \"flow-hash\"\ntable_size = 2048"))?;
    let refused = daemon.cli(["reload"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("--disruptive"), "{}", refused.stderr);
    let dry = daemon.cli_checked(["reload", "--dry-run", "--disruptive", "-o", "json"])?;
    let planned: Value = serde_json::from_str(&dry)?;
    assert_eq!(planned["services"][0]["moved"], 1.0, "{planned}");
    assert_eq!(planned["services"][0]["flows_ending"], u64::from(FLOWS), "{planned}");
    assert_eq!(live(&daemon)?, before, "a dry run changed something");
    let run = traffic(&lab, VIP_V4).start(lab.client(0))?;
    daemon.cli_checked(["reload", "--disruptive"])?;
    let replaced = run.finish()?;
    assert_nothing_lost(&replaced, "while it was replaced");
    let status = daemon.status_json()?;
    assert_eq!(status.pointer("/services/0/algorithm"), Some(&"flow-hash".into()));
    assert!(status["config_error"].is_null());
    for report in flows(&lab)? {
        assert_nothing_lost(&report, "afterwards");
        assert_eq!(report.by_backend.len(), 2);
    }
    daemon.accounts().map(drop)
}

fn serve_udp(lab: &Lab) -> Result<Vec<UdpServer>> {
    lab.backends().map(|backend| UdpServer::start(backend, &[PORT])).collect()
}

/// `udp4` or `udp6`, with every backend of the lab.
fn service(lab: &Lab, vip: IpAddr) -> Service {
    let name = if vip.is_ipv4() { "udp4" } else { "udp6" };
    let service = Service::new(name, SocketAddr::new(vip, PORT), "udp", "l2-dsr");
    service.nodes(lab.backends(), SocketAddr::new(vip, PORT))
}

fn traffic(lab: &Lab, vip: IpAddr) -> UdpTraffic {
    let sources = (0..FLOWS).map(|number| lab.client(0).source_port(number, 4000, vip));
    UdpTraffic::new(sources, SocketAddr::new(vip, PORT)).rate(3_000)
}

/// Where each client's flow goes, in both families.
fn flows(lab: &Lab) -> Result<Vec<UdpReport>> {
    FAMILIES.iter().map(|vip| traffic(lab, *vip).run(lab.client(0), 1_000)).collect()
}

fn assert_same(reports: &[UdpReport], before: &[UdpReport], what: &str) {
    for (report, before) in reports.iter().zip(before) {
        assert_nothing_lost(report, what);
        assert_eq!(report.by_flow, before.by_flow, "{what}: a client was moved");
    }
}

fn assert_nothing_lost(report: &UdpReport, what: &str) {
    assert_eq!((report.lost.len(), report.refused, report.duplicates), (0, 0, 0), "{what}");
}

/// Names of the services and hashes of their tables.
fn live(daemon: &Daemon) -> Result<Vec<Value>> {
    let status = daemon.status_json()?;
    let services = status["services"].as_array().context("no services")?;
    Ok(services.iter().map(|service| serde_json::json!([service["name"], service["fingerprint"]])).collect())
}

/// Live flows of all backends.
fn counted(status: &Value) -> u64 {
    let services = status["services"].as_array().into_iter().flatten();
    let backends = services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
    backends.filter_map(|backend| backend["flows"].as_u64()).sum()
}

/// Whether a text names the file with a line and a column.
fn has_position(text: &str, file: &str) -> bool {
    text.split_whitespace().filter_map(|word| word.split_once(file)?.1.strip_prefix(':')).any(|rest| {
        let mut numbers =
            rest.split(':').map(|number| number.trim_end_matches([';', ',', ')']).parse::<u32>());
        matches!((numbers.next(), numbers.next()), (Some(Ok(1..)), Some(Ok(1..))))
    })
}

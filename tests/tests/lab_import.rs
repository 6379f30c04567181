//! Another load balancer's configuration, made Ballast's and run.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, HttpServer, Lab, VIP_V4, http_get, require_root, try_wait_until};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn haproxys_example_balances_in_round_robin() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).plain_backends().build()?;
    let servers: Vec<_> =
        lab.backends().map(|backend| HttpServer::start(backend, &[8000])).collect::<Result<_>>()?;
    let lines: String = (1..)
        .zip(lab.backends())
        .map(|(number, backend)| {
            format!("    server server{number} {}:8000 check inter 200ms\n", backend.ipv4())
        })
        .collect();
    let file = lab.directory().join("haproxy.cfg");
    let text = format!(
        "frontend http\n    bind *:80\n    mode tcp\n    default_backend web\n\
         backend web\n    balance roundrobin\n    option forwardfor\n{lines}"
    );
    fs::write(&file, text)?;

    let mut daemon = Daemon::new(&lab, 0, "")?;
    let file = file.display().to_string();
    let refused = daemon.cli(["import", "haproxy", &file])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("name it with --vip ADDRESS"), "{}", refused.stderr);
    let interface = lab.balancer(0).first_leg().interface.clone();
    let imported =
        daemon.cli(["import", "haproxy", &file, "--vip", &VIP_V4.to_string(), "--interface", &interface])?;
    ensure!(imported.status.success(), "{}", imported.stderr);
    assert!(imported.stderr.contains("haproxy.cfg:7: option forwardfor\n"), "{}", imported.stderr);
    assert!(imported.stderr.ends_with("1 line has no equal, or not quite\n"), "{}", imported.stderr);

    // As printed, but for where this lab keeps its files.
    let places = "[daemon]\nstate_dir = \"{state_dir}\"\npin_dir = \"{pin_dir}\"\nsocket = \"{socket}\"\n";
    daemon.write_config(&imported.stdout.replacen("[daemon]\n", places, 1))?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    try_wait_until("every backend is healthy", SOON, || {
        daemon.status_json().map(|status| status["services"][0]["state"] == "healthy")
    })?;
    let client = lab.client(0);
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..60 {
        let from = client.source_port(number, 0, VIP_V4);
        let reply = http_get(client, Some(from), SocketAddr::new(VIP_V4, 80), "/", SOON)
            .with_context(|| format!("client {number}"))?;
        *answers.entry(reply.backend).or_default() += 1;
    }
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [20; 3], "{answers:?}");
    drop(servers);
    Ok(())
}

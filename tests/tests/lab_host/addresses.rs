//! VIPs that are the host's own addresses.

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Lab, UdpServer, VIP_V4, require_root};

use crate::scene::{FAMILIES, PORT, SOON, flows, serve, services, traffic};

#[test]
fn a_vip_that_is_local_to_the_host_is_balanced_on_its_port_and_refused_on_every_port() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().balancers_own_vips().build()?;
    let _servers = serve(&lab)?;
    // It would answer what is not taken away.
    let host = UdpServer::start(lab.balancer(0), &[PORT])?;
    let mut daemon = Daemon::start(&lab, 0, &services(&lab, 2))?;
    for report in flows(&lab)? {
        ensure!(!report.by_backend.contains_key("lb0"), "{:?}", report.by_backend);
    }
    ensure!(host.received() == 0, "the host got packets of the service");
    // What the host itself sends there never leaves it.
    let own = lab.balancer(0);
    let from_here = lb_tests::lab::UdpTraffic::new([(own.ipv4(), 4000).into()], (VIP_V4, PORT).into());
    let report = from_here.rate(100).run(own, 10)?;
    ensure!(report.by_backend.contains_key("lb0"), "{:?}", report.by_backend);

    let every_port = services(&lab, 2).replace(&format!("{VIP_V4}:{PORT}"), &format!("{VIP_V4}:*"));
    daemon.write_config(&every_port)?;
    let refused = daemon.cli(["reload"])?;
    let config = daemon.files().config.display().to_string();
    for part in ["203.0.113.10 is an address of this host", "take SSH and the replies", &config] {
        ensure!(refused.stderr.contains(part), "{part:?} in {}", refused.stderr);
    }
    for vip in FAMILIES {
        let report = traffic(&lab, vip).run(lab.client(0), 640)?;
        ensure!(report.lost.is_empty());
    }
    // A start is refused alike, and goes on with what was applied last.
    daemon.kill9()?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let status = daemon.status_json()?;
    let error = status["config_error"].as_str().unwrap_or_default();
    ensure!(error.contains("is an address of this host"), "{error}");
    flows(&lab).map(drop)
}

//! What works is not complained of: in every mode, of both families, from the file alone and of a daemon that runs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Lab, Mode, VIP_V4, http_get, require_root};

use super::examined::{Examined, FAMILIES, servers, services};

const SOON: Duration = Duration::from_secs(30);

/// Nothing to say, neither before the daemon's start nor after.
fn is_well(lab: &Lab, config: &str) -> Result<Examined> {
    let mut daemon = Daemon::new(lab, 0, config)?;
    Examined::of(&daemon)?.expect(&[])?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let examined = Examined::of(&daemon)?;
    examined.expect(&[])?;
    for skipped in examined.findings().filter(|finding| finding["severity"] == "skipped") {
        // The one thing that no namespace but the host's shows.
        ensure!(skipped["check"] == "jit", "{skipped:#}");
    }
    Ok(examined)
}

#[test]
fn direct_return_and_tunnels() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Ipip.lab().backends(2).build()?;
    let modes = [Mode::L2Dsr, Mode::Ipip, Mode::IpipMixed, Mode::Gue, Mode::GueMixed];
    let ports = [80, 81, 82, 83, 84];
    let _servers = servers(&lab, &ports)?;
    let config: String =
        modes.into_iter().zip(ports).map(|(mode, port)| services(mode, port, lab.backends())).collect();
    let examined = is_well(&lab, &config)?;
    for (mode, port) in modes.into_iter().zip(ports) {
        for (_, family) in FAMILIES {
            let subject = format!("{}-{family}-{port}/backend1", mode.forwarding());
            for check in ["reachable", "backend-vip", "path-mtu"] {
                ensure!(examined.find(check, &subject)?["severity"] == "ok", "{check} {subject}");
            }
        }
    }
    Ok(())
}

#[test]
fn both_kinds_of_nat() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Dnat.lab().backends(2).build()?;
    let _servers = servers(&lab, &[8080, 8081])?;
    let config = services(Mode::Dnat, 80, lab.backends()) + &services(Mode::Nat, 81, lab.backends());
    let examined = is_well(&lab, &config)?;
    ensure!(examined.find("replies", "dnat-6-80/backend1")?["severity"] == "ok", "asked");
    Ok(())
}

/// Clients behind a gateway, backends on another interface and behind a router; and after traffic.
#[test]
fn with_two_arms_and_routers() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder()
        .two_armed()
        .clients_behind_gateway()
        .backends(1)
        .remote_backends(1)
        .decapsulating()
        .build()?;
    let _servers = servers(&lab, &[80, 81, 82, 8083, 8084])?;
    let near = [lab.backend(0)];
    let config = services(Mode::L2Dsr, 80, near)
        + &services(Mode::Ipip, 81, lab.backends())
        + &services(Mode::Gue, 82, lab.backends())
        + &services(Mode::Dnat, 83, near)
        + &services(Mode::Nat, 84, lab.backends());
    is_well(&lab, &config)?;
    let daemon = Daemon::new(&lab, 0, &config)?;
    for port in 80..85 {
        let to = SocketAddr::new(VIP_V4, port);
        // Kept running by nobody: the program forwards the last table.
        ensure!(http_get(lab.client(0), None, to, "/", SOON)?.status == 200, "{port}");
    }
    let left = Examined::of(&daemon)?;
    left.expect(&["warning daemon host"])?;
    left.says("daemon", "host", "its program forwards the last table")
}

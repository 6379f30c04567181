//! `on_all_down = "reject"`, for the sockets of clients.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Service, VIP_V4, VIP_V6, connect, require_root, try_wait_until};

use crate::scene::SOON;

/// Nobody listens on the backends, and no check passes.
fn config(lab: &Lab, vip: IpAddr, forwarding: &str) -> String {
    let check = "type = \"tcp\"\nport = 7\ninterval = \"100ms\"\nrise = 1\nfall = 2";
    let service = |protocol: &str| {
        let name = format!("{protocol}{}", if vip.is_ipv4() { 4 } else { 6 });
        let to = SocketAddr::new(vip, 80);
        let service = Service::new(&name, to, protocol, forwarding).line("on_all_down = \"reject\"");
        service.health(check).nodes(lab.backends(), to).toml()
    };
    service("tcp") + &service("udp")
}

#[test]
fn all_unhealthy_with_reject_refuse_who_connects_at_once() -> Result<()> {
    require_root!(Ok(()));
    for forwarding in ["l2-dsr", "nat"] {
        let lab = Lab::builder().build()?;
        let config = [VIP_V4, VIP_V6].map(|vip| config(&lab, vip, forwarding)).concat();
        let daemon = Daemon::start(&lab, 0, &config)?;
        try_wait_until("every backend is unhealthy", SOON, || {
            let status = daemon.status_json()?;
            let services = status["services"].as_array().cloned().unwrap_or_default();
            Ok(services.iter().all(|service| {
                let mut backends = service["backends"].as_array().into_iter().flatten();
                service["state"] == "failing" && backends.all(|one| one["health"] == "unhealthy")
            }))
        })?;
        let client = lab.client(0);
        for vip in [VIP_V4, VIP_V6] {
            let to = SocketAddr::new(vip, 80);
            let began = Instant::now();
            let error = connect(client, None, to, SOON).expect_err("nobody is there");
            let refused = error.chain().any(|cause| {
                cause
                    .downcast_ref::<io::Error>()
                    .is_some_and(|one| one.kind() == io::ErrorKind::ConnectionRefused)
            });
            ensure!(refused && began.elapsed() < Duration::from_secs(1), "{forwarding}: {error:#}");
            let error = client.enter(|| send_and_receive(to))?.expect_err("nobody is there");
            ensure!(error.kind() == io::ErrorKind::ConnectionRefused, "{forwarding}: {error}");
        }
        let status = daemon.status_json()?;
        ensure!(status["resets"].as_u64() >= Some(2), "{}", status["resets"]);
        ensure!(status["icmp"]["port_unreachable"].as_u64() >= Some(2), "{}", status["icmp"]);
        ensure!(daemon.metric("ballast_resets_total")? >= 2.0);
    }
    Ok(())
}

fn send_and_receive(to: SocketAddr) -> Result<io::Result<usize>> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any).context("bind")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(SOON))?;
    socket.send(b"anybody?")?;
    Ok(socket.recv(&mut [0; 16]))
}

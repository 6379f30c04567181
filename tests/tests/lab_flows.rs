//! Connections survive every change of the backends.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;
use lb_tests::lab::{Daemon, Lab, LiveClients, LiveServers, Service, VIP_V4, require_root};

#[test]
fn measure() -> Result<()> {
    require_root!(Ok(()));
    let t = Instant::now();
    let lab = Lab::builder().backends(40).build()?;
    println!("lab {:?}", t.elapsed());
    let mut servers = LiveServers::start(lab.backends(), 80)?;
    let to = SocketAddr::new(VIP_V4, 80);
    let mut service = Service::new("web", to, "tcp", "l2-dsr");
    for backend in lab.backends().take(20) {
        service = service.backend(&backend.label(), SocketAddr::new(backend.address(VIP_V4), 80), 1);
    }
    let _daemon = Daemon::start(&lab, 0, &service.toml())?;
    println!("daemon {:?}", t.elapsed());
    let mut clients = LiveClients::start(lab.client(0), to, 0..20_000, 20_000)?;
    let r = clients.open(20_000)?;
    println!("open {:?} {} {:?} {:?}", t.elapsed(), r.alive(), r.open, r.lost.first());
    println!("{}", std::process::Command::new("sh").arg("-c").arg("free -m; ps aux | grep lab-peer; cat /proc/net/sockstat").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned())?);
    let r = clients.exchange()?;
    println!("exchange {:?} {} {}", t.elapsed(), r.alive(), r.exchanged);
    clients.pace(5_000)?;
    clients.visit(500)?;
    std::thread::sleep(std::time::Duration::from_secs(5));
    let r = clients.report()?;
    println!("paced {:?} {} {} {:?} {:?}", t.elapsed(), r.alive(), r.exchanged, r.visits, r.lost.first());
    println!("{:?}", servers.served()?);
    drop(clients);
    println!("closed {:?}", t.elapsed());
    Ok(())
}

//! How new connections are spread by the algorithms that do not hash.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use lb_tests::lab::{Daemon, Lab, LiveClients, LiveServers, Service, VIP_V4, VIP_V6, require_root};

use crate::scene::{PORT, SOON};

#[test]
fn round_robin_spreads_connections_exactly_by_weight_and_keeps_them() -> Result<()> {
    require_root!(Ok(()));
    for vip in [VIP_V4, VIP_V6] {
        let lab = Lab::builder().backends(4).build()?;
        let to = SocketAddr::new(vip, PORT);
        let _servers = LiveServers::start(lab.backends(), PORT)?;
        let config = |weights: &[u32]| {
            let service = Service::new("web", to, "tcp", "l2-dsr").line("algorithm = \"round-robin\"");
            let backends = lab.backends().zip(weights).filter(|(_, weight)| **weight > 0);
            let service = backends.fold(service, |service, (backend, weight)| {
                service.backend(&backend.label(), SocketAddr::new(backend.address(vip), PORT), *weight)
            });
            service.toml()
        };
        let daemon = Daemon::start(&lab, 0, &config(&[1, 2, 5]))?;
        // All from a few addresses: it is not the address that decides.
        let mut clients = LiveClients::start(lab.client(0), to, 0..4, 4_000)?;
        let first = clients.open(800)?;
        assert_eq!(first.losses(), "");
        assert_eq!(first.open, counts(&[("backend0", 100), ("backend1", 200), ("backend2", 500)]));
        // Existing ones stay, new ones are spread over what there is now.
        daemon.write_config(&config(&[0, 1, 1, 2]))?;
        daemon.reload()?;
        let second = clients.open(400)?;
        assert_eq!(second.losses(), "");
        let wanted = [("backend0", 100), ("backend1", 300), ("backend2", 600), ("backend3", 200)];
        assert_eq!(second.open, counts(&wanted));
        let after = clients.exchange()?;
        assert_eq!((after.losses().as_str(), &after.open), ("", &second.open));
    }
    Ok(())
}

#[test]
fn least_connections_prefers_the_emptier_backends() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(4).build()?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let config = |count| {
        let service = Service::new("web", to, "tcp", "l2-dsr").line("algorithm = \"least-connections\"");
        service.nodes(lab.backends().take(count), to).toml()
    };
    let daemon = Daemon::start(&lab, 0, &config(2))?;
    let mut clients = LiveClients::start(lab.client(0), to, 0..4_000, 4_000)?;
    let first = clients.open(1_000)?;
    assert_eq!(first.losses(), "");
    // Of two, the emptier: they are never far apart.
    assert!(first.open.values().all(|count| count.abs_diff(500) < 25), "{:?}", first.open);
    // Two more that have nothing yet: a client that has one of them among its two choices goes there, until they have
    // as many; by chance alone they would get half.
    daemon.write_config(&config(4))?;
    daemon.reload()?;
    let second = clients.open(800)?;
    assert_eq!(second.losses(), "");
    let grown = |name: &str| second.open[name] - first.open.get(name).copied().unwrap_or_default();
    let new = grown("backend2") + grown("backend3");
    assert!(new > 520, "of 800 connections the empty backends got {new}: {:?}", second.open);
    // Long-lived ones end on one backend: that is where the next ones go.
    clients.close(["backend0"])?;
    clients
        .wait("the load balancer has seen them end", SOON, |report| !report.open.contains_key("backend0"))?;
    let before = clients.report()?.open;
    let third = clients.open(800)?;
    assert_eq!(third.losses(), "");
    let grown = |name: &str| third.open[name] - before.get(name).copied().unwrap_or_default();
    // It is among the two choices of 7 clients in 16: 350 of 800, and 14 is the standard deviation.
    assert!(grown("backend0") > 275, "by chance it would get 200: {:?}, then {:?}", before, third.open);
    let after = clients.exchange()?;
    assert_eq!((after.losses().as_str(), &after.open), ("", &third.open));
    Ok(())
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

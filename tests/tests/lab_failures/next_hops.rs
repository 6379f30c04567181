//! The MAC addresses of next hops, which the kernel drops with a link.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Segment, Service, VIP_V4, http_get, let_pass, require_root, try_wait_until,
    wait_until,
};

use crate::scene::SOON;

const PATIENCE: Duration = Duration::from_millis(200);
/// The kernel asks three times, a second apart.
const ASKED: Duration = Duration::from_secs(5);
const UNRESOLVED: &str = "ballast_drops_total{reason=\"next_hop_unresolved\"}";

#[test]
fn a_backend_keeps_its_mac_address_over_a_lost_link_until_the_kernel_has_asked_for_it_in_vain() -> Result<()>
{
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (backend, balancer) = (lab.backend(0), lab.balancer(0));
    let to: SocketAddr = (VIP_V4, 80).into();
    let _server = HttpServer::start(backend, &[to.port()])?;
    let service = Service::new("web", to, "tcp", "l2-dsr").nodes([backend], to);
    let is_answered =
        || http_get(lab.client(0), None, to, "/", PATIENCE).is_ok_and(|reply| reply.status == 200);
    let address = backend.address(to.ip()).to_string();
    let is_known = || anyhow::Ok(balancer.run("ip", ["neigh", "show", &address])?.stdout.contains("lladdr"));
    let port = &balancer.leg(Segment::Front).port;
    let link = |state: &str| lab.switch().ip("the link", [format!("link set {port} {state}")]);
    // Who asks for a MAC address tells his own by it.
    let (leg, own) = (balancer.first_leg(), backend.first_leg());
    let mac = leg.mac_text();
    let known = format!("neighbour replace {} lladdr {mac} dev {} nud permanent", leg.ipv4, own.interface);
    backend.ip("the load balancer's address", [known])?;
    // Checks make the kernel ask while there is no link, too: it has asked in vain by the time that it is back.
    for (service, dark) in [(service.clone(), Duration::ZERO), (service.http_health(), ASKED)] {
        let daemon = Daemon::start(&lab, 0, &service.toml())?;
        wait_until("requests are answered", SOON, is_answered)?;
        let unresolved = || daemon.log().matches("next hop unresolved").count();
        let before = unresolved();
        // Whoever asks for the backend's MAC address gets no answer from now on.
        backend.sysctl("net.ipv4.conf.all.arp_ignore", "8")?;
        link("down")?;
        try_wait_until("the kernel has dropped it", SOON, || Ok(!is_known()?))?;
        wait_until("that is live", SOON, || unresolved() > before)?;
        let_pass(dark);
        link("up")?;
        wait_until("requests are answered again", SOON, is_answered)?;
        ensure!(!is_known()?, "the kernel found it out");
        let dropped = daemon.metric(UNRESOLVED)?;
        try_wait_until("packets are dropped", SOON, || {
            Ok(!is_answered() && daemon.metric(UNRESOLVED)? > dropped)
        })?;
        backend.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        wait_until("requests are answered as before", SOON, is_answered)?;
    }
    Ok(())
}

//! The MAC addresses of next hops, which the kernel drops with a link.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, HttpServer, Lab, Segment, Service, VIP_V4, http_get, require_root, wait_until};

use crate::scene::SOON;

const PATIENCE: Duration = Duration::from_millis(200);
const UNRESOLVED: &str = "ballast_drops_total{reason=\"next_hop_unresolved\"}";

#[test]
fn a_backend_keeps_its_mac_address_over_a_lost_link_until_the_kernel_has_asked_for_it_in_vain() -> Result<()>
{
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let (backend, balancer) = (lab.backend(0), lab.balancer(0));
    let to: SocketAddr = (VIP_V4, 80).into();
    let _server = HttpServer::start(backend, &[to.port()])?;
    let daemon =
        Daemon::start(&lab, 0, &Service::new("web", to, "tcp", "l2-dsr").nodes([backend], to).toml())?;
    let is_answered =
        || http_get(lab.client(0), None, to, "/", PATIENCE).is_ok_and(|reply| reply.status == 200);
    let address = backend.address(to.ip()).to_string();
    let is_known = || {
        let entry = balancer.run("ip", ["neigh", "show", &address]);
        entry.is_ok_and(|entry| entry.stdout.contains("lladdr"))
    };
    let port = &balancer.leg(Segment::Front).port;
    let link = |state: &str| lab.switch().ip("the link", [format!("link set {port} {state}")]);
    wait_until("requests are answered", SOON, is_answered)?;
    // Whoever asks for the backend's MAC address gets no answer from now on.
    backend.sysctl("net.ipv4.conf.all.arp_ignore", "8")?;
    link("down")?;
    wait_until("the kernel has dropped it", SOON, || !is_known())?;
    wait_until("that is live", SOON, || daemon.log().contains("next hop unresolved"))?;
    link("up")?;
    wait_until("requests are answered again", SOON, is_answered)?;
    ensure!(!is_known(), "the kernel found it out");
    let dropped = daemon.metric(UNRESOLVED)?;
    wait_until("packets are dropped", SOON, || {
        !is_answered() && daemon.metric(UNRESOLVED).is_ok_and(|count| count > dropped)
    })?;
    backend.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    wait_until("requests are answered as before", SOON, is_answered)
}

//! A UDP service in each family, and clients whose flows can be followed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::lab::{Daemon, Lab, Service, UdpReport, UdpServer, UdpTraffic, VIP_V4, VIP_V6};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
pub(crate) const PORT: u16 = 53;
/// Clients, each a flow.
pub(crate) const FLOWS: u16 = 64;

pub(crate) fn serve(lab: &Lab) -> Result<Vec<UdpServer>> {
    lab.backends().map(|backend| UdpServer::start(backend, &[PORT])).collect()
}

/// `udp4` and `udp6`, with the first backends of the lab.
pub(crate) fn services(lab: &Lab, backends: usize) -> String {
    let service = |vip: IpAddr| {
        let (name, to) = (if vip.is_ipv4() { "udp4" } else { "udp6" }, SocketAddr::new(vip, PORT));
        Service::new(name, to, "udp", "l2-dsr").nodes(lab.backends().take(backends), to).toml()
    };
    FAMILIES.map(service).concat()
}

/// The daemon's own section, on these interfaces.
pub(crate) fn on(interfaces: &str, mode: &str, services: &str) -> String {
    format!(
        "[daemon]\ninterfaces = {interfaces}\nstate_dir = \"{{state_dir}}\"\npin_dir = \"{{pin_dir}}\"\n\
         socket = \"{{socket}}\"\nxdp_mode = \"{mode}\"\n\n{services}"
    )
}

pub(crate) fn traffic(lab: &Lab, vip: IpAddr) -> UdpTraffic {
    let sources = (0..FLOWS).map(|number| lab.client(0).source_port(number, 4000, vip));
    UdpTraffic::new(sources, SocketAddr::new(vip, PORT)).rate(2_000)
}

/// Where each client's flow goes, in both families; fails if anything is lost.
pub(crate) fn flows(lab: &Lab) -> Result<Vec<UdpReport>> {
    let run = |vip: &IpAddr| {
        let report = traffic(lab, *vip).run(lab.client(0), 640)?;
        ensure!(report.lost.is_empty() && report.refused == 0, "{} of 640 are lost", report.lost.len());
        Ok(report)
    };
    FAMILIES.iter().map(run).collect()
}

pub(crate) fn same_flows(now: &[UdpReport], before: &[UdpReport]) -> Result<()> {
    let moved = now.iter().zip(before).any(|(now, before)| now.by_flow != before.by_flow);
    ensure!(!moved, "a flow was moved");
    Ok(())
}

/// Mode of the first interface.
pub(crate) fn mode(daemon: &Daemon) -> Result<Value> {
    Ok(daemon.status_json()?["interfaces"][0]["mode"].clone())
}

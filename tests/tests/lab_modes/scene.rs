//! A load balancer that forwards TCP and UDP of both families by one mode.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use lb_tests::lab::{Builder, Daemon, Lab, Mode, VIP_V4, VIP_V6};

pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const MIB: usize = 1 << 20;
pub(crate) const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
pub(crate) const TCP: u16 = 80;
pub(crate) const UDP: u16 = 53;
/// Ports of services with backends on which nobody serves.
pub(crate) const CLOSED_TCP: u16 = 81;
pub(crate) const CLOSED_UDP: u16 = 54;

pub(crate) struct Scene {
    pub(crate) mode: Mode,
    pub(crate) daemon: Daemon,
    pub(crate) lab: Lab,
}

impl Scene {
    /// Services with all backends of the lab on [`TCP`], [`UDP`], [`CLOSED_TCP`] and [`CLOSED_UDP`] of each VIP.
    pub(crate) fn new(mode: Mode, builder: Builder) -> Result<Self> {
        let lab = builder.build()?;
        let mut config = String::new();
        for (number, vip) in lab.vips().iter().enumerate() {
            for (protocol, port) in [("tcp", TCP), ("tcp", CLOSED_TCP), ("udp", UDP), ("udp", CLOSED_UDP)] {
                let (name, to) = (format!("{protocol}-{port}-{number}"), SocketAddr::new(*vip, port));
                config += &mode.service(&name, to, protocol, lab.backends()).toml();
            }
        }
        let daemon = Daemon::start(&lab, 0, &config).with_context(|| mode.to_string())?;
        Ok(Self { mode, daemon, lab })
    }

    /// Where servers have to serve for what is sent to `port` of a VIP.
    pub(crate) fn server_ports(&self, port: u16) -> [u16; 1] {
        [self.mode.server_port(port)]
    }

    /// One counter of the program, over all CPUs.
    pub(crate) fn counted(&self, counter: impl Fn(&lb_common::abi::Counters) -> u64) -> Result<u64> {
        Ok(self.daemon.counters_by_cpu()?.iter().map(counter).sum())
    }
}

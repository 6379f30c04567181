//! What is to work, whoever said so: the files, or the daemon, which also knows what was added and found.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::{
    api::v1,
    config::{Config, Method},
    domain::{Forwarding, NatPool, Probe, Protocol, Service, Via, XdpMode},
};

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: XdpMode,
    pub(crate) pin_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) nat: NatPool,
    pub(crate) services: Vec<Served>,
    /// Another program puts the VIPs on one of two hosts.
    pub(crate) paired: bool,
}

/// A service.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) vip: IpAddr,
    /// `None`: every port.
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) forwarding: Forwarding,
    /// Whether checks take the way of the traffic.
    pub(crate) via_vip: bool,
    /// Whether checks send ICMP.
    pub(crate) icmp: bool,
    /// Whether there are checks.
    pub(crate) checked: bool,
    pub(crate) backends: Vec<Server>,
}

/// A backend.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// `web/web-1`
    pub(crate) label: String,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Packets to it and from it, as far as the daemon counts them.
    pub(crate) traffic: Option<(u64, u64)>,
}

impl Setup {
    pub(crate) fn new(config: &Config, status: Option<&v1::Status>) -> Self {
        let declared = config.services.iter().map(Served::declared);
        let services = match status {
            Some(status) => status.services.iter().filter_map(Served::running).collect(),
            None => declared.collect(),
        };
        Self {
            interfaces: config.daemon.interfaces.clone(),
            mode: config.daemon.xdp_mode,
            pin_dir: config.daemon.pin_dir.clone(),
            state_dir: config.daemon.state_dir.clone(),
            metrics: config.daemon.metrics,
            nat: config.nat.clone(),
            services,
            paired: config.announce.as_ref().is_some_and(|announce| announce.method == Method::Address),
        }
    }

    pub(crate) fn vips(&self) -> BTreeSet<IpAddr> {
        self.services.iter().map(|service| service.vip).collect()
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = (&Served, &Server)> {
        self.services
            .iter()
            .flat_map(|service| service.backends.iter().map(move |backend| (service, backend)))
    }

    pub(crate) fn uses(&self, forwarding: Forwarding) -> bool {
        self.services.iter().any(|service| service.forwarding == forwarding)
    }
}

impl Served {
    fn declared(service: &Service) -> Self {
        let server = |backend: &crate::domain::Backend| Server {
            label: format!("{}/{}", service.name, backend.name),
            name: backend.name.to_string(),
            address: backend.address,
            traffic: None,
        };
        Self {
            name: service.name.to_string(),
            vip: service.vip.address,
            port: service.vip.port,
            protocol: service.protocol,
            forwarding: service.forwarding,
            via_vip: service.health.via == Via::Vip,
            icmp: matches!(service.health.probe, Probe::Icmp),
            checked: !matches!(service.health.probe, Probe::None),
            backends: service.backends.values().map(server).collect(),
        }
    }

    /// `None`: of a daemon that knows more than this version.
    fn running(service: &v1::Service) -> Option<Self> {
        let (address, port) = service.address.rsplit_once(':')?;
        let health = service.settings.health.as_ref();
        let kind = health.and_then(|health| health.kind.as_deref());
        let server = |backend: &v1::Backend| {
            Some(Server {
                label: format!("{}/{}", service.name, backend.name),
                name: backend.name.clone(),
                address: backend.address.parse().ok()?,
                traffic: backend.reply_packets.map(|replies| (backend.packets, replies)),
            })
        };
        // A backend that is out of service may well be unplugged.
        let wanted = service.backends.iter().filter(|backend| backend.admin != "disabled");
        Some(Self {
            name: service.name.clone(),
            vip: address.trim_matches(['[', ']']).parse().ok()?,
            port: port.parse().ok(),
            protocol: Protocol::ALL.into_iter().find(|one| one.as_str() == service.protocol)?,
            forwarding: Forwarding::ALL.into_iter().find(|one| one.as_str() == service.forwarding)?,
            via_vip: health.is_some_and(|health| health.via.as_deref() == Some(Via::Vip.as_str())),
            icmp: kind == Some("icmp"),
            checked: kind != Some("none"),
            backends: wanted.filter_map(server).collect(),
        })
    }
}

//! The place of a storm: clients, a router that spreads flows among load balancers, load balancers that announce VIPs to
//! it by BGP with BFD, and backends that answer clients themselves.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Settings;
use super::diary::Diary;
use super::fleet::Fleet;
use super::plan::Size;
use crate::lab::{Bird, Daemon, Etcd, Lab, LiveServers, Nginx, Node, Service, VIP_V4, VIP_V6, wait_until};

pub(super) const SIZE: Size = Size { balancers: 3, backends: 8 };
pub(super) const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];
pub(super) const WEB: u16 = 80;
pub(super) const LIVE: u16 = 7;
/// Where load balancers tell each other of flows.
const PEERS: u16 = 9650;
/// Members of etcd, on nodes beside the client.
const ETCD: u16 = 3;
/// What `[announce]` says.
pub(super) const HOLD: &str = "up_hold = \"10s\"";

/// As an operator has it who wants to know soon: a dead backend is out after 3 × 200 + 150 ms at most, and mostly after half
/// of that, because a check that failed is made again after 100 ms.
const CHECK: &str =
    "interval = \"200ms\"\nfast_interval = \"100ms\"\ntimeout = \"150ms\"\nrise = 2\nfall = 3";
const CHECKED: Duration = Duration::from_millis(3 * 200 + 150);
/// BFD, 3 × 100 ms.
const BFD: Duration = Duration::from_millis(300);
/// For what takes some seconds, on a machine that has other things to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The servers of one backend.
pub(super) struct Backend {
    pub(super) web: Nginx,
    pub(super) live: Option<LiveServers>,
}

/// Processes in it end before the lab does.
pub(super) struct Scene {
    /// Declared ones, and the spare one.
    pub(super) backends: Vec<Backend>,
    pub(super) birds: Vec<Bird>,
    _router: Bird,
    pub(super) daemons: Vec<Daemon>,
    pub(super) fleet: Fleet,
    pub(super) lab: Lab,
    pub(super) settings: Settings,
    /// A load balancer that a fault is done to: nobody asks it for something.
    pub(super) struck: Option<usize>,
}

impl Scene {
    /// Builds it all, and returns when clients can come.
    pub(super) fn build(settings: Settings, diary: &Diary) -> Result<Self> {
        let lab = Lab::builder()
            .clients(1 + ETCD)
            .clients_behind_gateway()
            .balancers(SIZE.balancers)
            .backends(SIZE.backends + 1)
            .build()?;
        let start = |node: &Node| {
            let live = Some(LiveServers::start([node], LIVE)?);
            Ok(Backend { web: Nginx::start(&lab, node, WEB)?, live })
        };
        let backends = lab.backends().map(start).collect::<Result<Vec<_>>>()?;
        let nodes: Vec<_> = (1..=ETCD).map(|number| lab.client(number.into())).collect();
        let etcd = Etcd::start(&lab, &nodes)?;
        let balancers = 0..usize::from(SIZE.balancers);
        let daemon = |index| Daemon::new(&lab, index, &configuration(&lab, lab.balancer(index), &etcd, HOLD));
        let mut daemons = balancers.clone().map(daemon).collect::<Result<Vec<_>>>()?;
        daemons[0].found_fleet(&declared(&lab))?;
        // The first one makes the key that all have.
        daemons.iter_mut().try_for_each(|daemon| {
            daemon.launch()?;
            daemon.wait_ready(PATIENCE)
        })?;
        let router = Bird::on_router(&lab)?;
        // Linux can't replace the ways of an IPv6 route in one step: BIRD removes it first. What comes in between is not to
        // be answered with an error.
        let nowhere = VIPS.map(|vip| format!("route add blackhole {vip} metric 50000"));
        lab.gateway().ip("a last resort", nowhere)?;
        let birds = balancers.map(|index| Bird::on_balancer(&lab, index)).collect::<Result<Vec<_>>>()?;
        let scene = Self {
            backends,
            birds,
            _router: router,
            daemons,
            fleet: Fleet::new(etcd, diary.clone()),
            lab,
            settings,
            struck: None,
        };
        scene.wait_whole()?;
        Ok(scene)
    }

    /// Where clients send to on this port.
    pub(super) fn to(port: u16) -> Vec<SocketAddr> {
        VIPS.map(|vip| SocketAddr::new(vip, port)).to_vec()
    }

    /// How long a backend's death may go unnoticed.
    pub(super) fn backend_bound(&self) -> Duration {
        CHECKED + self.settings.slack
    }

    /// How long a load balancer's absence may go unnoticed.
    pub(super) fn balancer_bound(&self) -> Duration {
        BFD + self.settings.slack
    }

    /// The configuration of a load balancer, with these lines of `[announce]`.
    pub(super) fn configuration(&self, balancer: &Node, announce: &str) -> String {
        configuration(&self.lab, balancer, &self.fleet.etcd, announce)
    }

    /// Waits until nothing is out of order anywhere.
    pub(super) fn wait_whole(&self) -> Result<()> {
        self.wait_routed()?;
        (0..SIZE.backends).try_for_each(|backend| self.wait_healthy(backend))?;
        self.wait_caught_up()?;
        self.wait_alike()?;
        self.wait_as_declared()
    }

    /// Waits until the router sends to every load balancer.
    pub(super) fn wait_routed(&self) -> Result<()> {
        let expected = |vip: IpAddr| {
            self.lab.balancers().map(|node| node.address(vip).to_string()).collect::<BTreeSet<_>>()
        };
        let routed = || VIPS.iter().all(|vip| self.next_hops(*vip).is_ok_and(|hops| hops == expected(*vip)));
        wait_until("the router sends to every load balancer", PATIENCE, routed).with_context(|| {
            let hops = VIPS.map(|vip| self.next_hops(vip));
            let announced = self.daemons.iter().map(|daemon| daemon.cli(["announce", "status"]));
            let announced = announced.map(|output| output.map(|output| output.stdout)).collect::<Vec<_>>();
            format!("it sends to {hops:?}; announced: {announced:#?}")
        })
    }

    /// Waits until a backend is healthy for every load balancer that is not struck, in all services.
    pub(super) fn wait_healthy(&self, backend: u16) -> Result<()> {
        let name = format!("backend{backend}");
        let healthy =
            |member: usize| self.daemons[member].status_json().is_ok_and(|status| is_healthy(&status, &name));
        wait_until(&format!("{name} is healthy everywhere"), PATIENCE, || self.members().all(healthy))
    }

    /// Waits until every client has the same backend everywhere.
    fn wait_alike(&self) -> Result<()> {
        let fingerprints = || self.daemons.iter().map(fingerprints).collect::<Result<Vec<_>>>();
        let alike = || fingerprints().is_ok_and(|all| all.windows(2).all(|pair| pair[0] == pair[1]));
        wait_until("every load balancer has the same tables", PATIENCE, alike)
            .with_context(|| format!("{:#?}", fingerprints()))
    }

    /// Where the router sends packets for a VIP.
    fn next_hops(&self, vip: IpAddr) -> Result<BTreeSet<String>> {
        let family = if vip.is_ipv4() { "-4" } else { "-6" };
        let shown = self.lab.gateway().run("ip", [family, "-j", "route", "show", &vip.to_string()])?.stdout;
        let routes: Value = serde_json::from_str(&shown).with_context(|| shown.clone())?;
        let routes = routes.as_array().context("routes")?.iter();
        let hops = routes.flat_map(|route| {
            let several = route["nexthops"].as_array().into_iter().flatten();
            std::iter::once(route).chain(several).filter_map(|hop| hop["gateway"].as_str())
        });
        Ok(hops.map(str::to_owned).collect())
    }
}

/// The services, as they are called.
pub(super) fn services() -> impl Iterator<Item = (String, SocketAddr)> {
    [("web", WEB), ("live", LIVE)].into_iter().flat_map(|(name, port)| {
        VIPS.map(|vip| {
            let family = if vip.is_ipv4() { 4 } else { 6 };
            (format!("{name}{family}"), SocketAddr::new(vip, port))
        })
    })
}

/// What is not about services.
fn configuration(lab: &Lab, balancer: &Node, etcd: &Etcd, announce: &str) -> String {
    let address = |node: &Node| format!("\"{}:{PEERS}\"", node.ipv4());
    let peers = lab.balancers().filter(|other| other.label() != balancer.label()).map(address);
    format!(
        "[flow_hash]\nkey_file = \"{}\"\n\n[announce]\n{announce}\n\n\
         [peers]\nlisten = [{}]\naddresses = [{}]\n\n\
         [fleet]\nmember = \"{}\"\nendpoints = [{}]\nttl = \"3s\"\n",
        lab.directory().join("flow-hash.key").display(),
        address(balancer),
        peers.collect::<Vec<_>>().join(", "),
        balancer.label(),
        etcd.endpoints()
    )
}

/// The services of the fleet.
fn declared(lab: &Lab) -> String {
    let mut text = String::new();
    for (name, to) in services() {
        let kind =
            if to.port() == WEB { "type = \"http\"\nexpect_status = \"200\"" } else { "type = \"tcp\"" };
        let service = Service::new(&name, to, "tcp", "l2-dsr")
            // Short enough for the times in which flows are tracked to end, too.
            .line("flow_idle_timeout = \"10s\"")
            .health(&format!("{kind}\n{CHECK}"));
        text += &service.nodes(lab.backends().take(SIZE.backends.into()), to).toml();
    }
    text
}

fn is_healthy(status: &Value, name: &str) -> bool {
    let services = status["services"].as_array().into_iter().flatten();
    let of_name = |service: &Value| {
        let backends = service["backends"].as_array().into_iter().flatten();
        backends.filter(|backend| backend["name"] == name).all(|backend| backend["health"] == "healthy")
    };
    services.into_iter().all(of_name)
}

fn fingerprints(daemon: &Daemon) -> Result<Vec<String>> {
    let status = daemon.status_json()?;
    let services = status["services"].as_array().context("services")?.iter();
    Ok(services.filter_map(|service| service["fingerprint"].as_str()).map(str::to_owned).collect())
}

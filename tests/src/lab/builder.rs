//! From a description to a running lab.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::bpf::{Kind, Program};
use super::cleanup::Place;
use super::namespace::Namespace;
use super::node::{Node, attach_pinned};
use super::plan::{PlannedNode, Role, Segment};
use super::wait::try_wait_until;
use super::{Lab, VIP_V4, VIP_V6, cleanup, is_root, privilege, programs};

/// What the clients' links take; what backends send stays below it too.
const CLIENT_MTU: u32 = 1500;
/// What all other links take: room for any encapsulation, and below what veth takes for native XDP (about 3500).
const FABRIC_MTU: u32 = 1600;
/// All that makes a sender leave work to its peer, or a receiver merge frames.
const OFFLOADS: [&str; 10] = ["tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"];

/// Describes a lab; made by [`Lab::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    clients: u16,
    balancers: u16,
    backends: u16,
    remote_backends: u16,
    two_armed: bool,
    gateway: bool,
    decapsulating: bool,
    pub(super) replies_through_balancer: bool,
    pub(super) plain_backends: bool,
    pub(super) balancers_own_vips: bool,
    pub(super) vips: Vec<IpAddr>,
    pub(super) client_mtu: u32,
    fabric_mtu: u32,
    pub(super) gateway_mtu: Option<u32>,
    pub(super) router_mtu: Option<u32>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clients: 1,
            balancers: 1,
            backends: 2,
            remote_backends: 0,
            two_armed: false,
            gateway: false,
            decapsulating: false,
            replies_through_balancer: false,
            plain_backends: false,
            balancers_own_vips: false,
            vips: vec![VIP_V4, VIP_V6],
            client_mtu: CLIENT_MTU,
            fabric_mtu: FABRIC_MTU,
            gateway_mtu: None,
            router_mtu: None,
        }
    }
}

impl Builder {
    /// How many clients, up to 100.
    #[must_use]
    pub fn clients(mut self, count: u16) -> Self {
        self.clients = count;
        self
    }

    /// How many load balancers, up to 250.
    #[must_use]
    pub fn balancers(mut self, count: u16) -> Self {
        self.balancers = count;
        self
    }

    /// How many backends next to the load balancers.
    #[must_use]
    pub fn backends(mut self, count: u16) -> Self {
        self.backends = count;
        self
    }

    /// How many backends behind a router, on a segment of their own. The router comes by itself.
    #[must_use]
    pub fn remote_backends(mut self, count: u16) -> Self {
        self.remote_backends = count;
        self
    }

    /// Clients before the load balancers' first interface, backends behind their second; the first load balancer's
    /// kernel forwards what is not for a VIP.
    #[must_use]
    pub fn two_armed(mut self) -> Self {
        self.two_armed = true;
        self
    }

    /// Puts the clients on a segment of their own, behind a gateway.
    #[must_use]
    pub fn clients_behind_gateway(mut self) -> Self {
        self.gateway = true;
        self
    }

    /// Lets every backend take the outer header off IPIP and GUE packets.
    #[must_use]
    pub fn decapsulating(mut self) -> Self {
        self.decapsulating = true;
        self
    }

    /// Lets the backends next to the first load balancer reach everything but it through it, and its kernel forward what
    /// it passes: what `dnat` asks for. A two-armed lab is so in any case.
    #[must_use]
    pub fn replies_through_balancer(mut self) -> Self {
        self.replies_through_balancer = true;
        self
    }

    /// Backends that know nothing of VIPs.
    #[must_use]
    pub fn plain_backends(mut self) -> Self {
        self.plain_backends = true;
        self
    }

    /// Puts the VIPs on `lo` of every load balancer too: its kernel gets what Ballast passes.
    #[must_use]
    pub fn balancers_own_vips(mut self) -> Self {
        self.balancers_own_vips = true;
        self
    }

    /// The VIPs, instead of [`VIP_V4`] and [`VIP_V6`].
    #[must_use]
    pub fn vips(mut self, vips: impl IntoIterator<Item = IpAddr>) -> Self {
        self.vips = vips.into_iter().collect();
        self
    }

    /// What the clients' links take (1500), and what all others do (1600).
    #[must_use]
    pub fn mtu(mut self, client: u32, fabric: u32) -> Self {
        (self.client_mtu, self.fabric_mtu) = (client, fabric);
        self
    }

    /// The largest packet that the gateway forwards, whatever its links take: the narrow hop of a path.
    #[must_use]
    pub fn gateway_mtu(mut self, mtu: u32) -> Self {
        self.gateway_mtu = Some(mtu);
        self
    }

    /// As [`Builder::gateway_mtu`], of the router before the remote backends.
    #[must_use]
    pub fn router_mtu(mut self, mtu: u32) -> Self {
        self.router_mtu = Some(mtu);
        self
    }

    /// Makes it all. What was made is removed again if a step fails; the error says which one.
    pub fn build(self) -> Result<Lab> {
        ensure!(is_root(), "a lab needs root");
        ensure!(self.clients <= 100 && self.balancers <= 250, "at most 100 clients and 250 load balancers");
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            if let Err(error) = cleanup::sweep_stale() {
                eprintln!("lab: remove what earlier runs left: {error:#}");
            }
        });
        privilege::ensure_bpffs()?;
        // From here on `lab` cleans up whatever exists.
        let place = Place::claim()?;
        let mut lab = Lab { place, switch: None, nodes: Vec::new(), vips: self.vips.clone(), kept: false };
        let planned = self.plan();
        self.make(&mut lab, &planned).with_context(|| format!("build the lab {}", lab.name()))?;
        Ok(lab)
    }

    fn plan(&self) -> Vec<PlannedNode> {
        use Segment::{Access, Back, Front, Remote};
        let inner = if self.two_armed { Back } else { Front };
        let clients = if self.gateway { Access } else { Front };
        let mut nodes = Vec::new();
        let mut add = |role, count, segments: &[Segment]| {
            let first = nodes.iter().filter(|node: &&PlannedNode| node.role == role).count() as u16;
            nodes.extend((first..first + count).map(|index| PlannedNode::new(role, index, segments)));
        };
        add(Role::Gateway, u16::from(self.gateway), &[Access, Front]);
        add(Role::Balancer, self.balancers, if self.two_armed { &[Front, Back] } else { &[Front] });
        add(Role::Router, u16::from(self.remote_backends > 0), &[inner, Remote]);
        add(Role::Client, self.clients, &[clients]);
        add(Role::Backend, self.backends, &[inner]);
        add(Role::Backend, self.remote_backends, &[Remote]);
        for balancer in nodes.iter_mut().filter(|node| node.role == Role::Balancer) {
            balancer.forwards = self.two_armed || self.replies_through_balancer;
        }
        nodes
    }

    fn make(&self, lab: &mut Lab, planned: &[PlannedNode]) -> Result<()> {
        let switch = Namespace::create(&format!("{}-switch", lab.name()))?;
        lab.switch = Some(switch.clone());
        // Bridges with addresses of their own would add noise to every capture.
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        look_at_no_ip_header(&switch)?;
        for plan in planned {
            let namespace = Namespace::create(&format!("{}-{}", lab.name(), plan.name()))?;
            let vips = if self.owns_vips(plan.role) { self.vips.clone() } else { Vec::new() };
            let pins = lab.pins();
            lab.nodes.push(Node { plan: plan.clone(), namespace, switch: switch.clone(), vips, pins });
        }
        switch.ip("make the bridges", bridge_lines(planned, self.fabric_mtu))?;
        switch.ip("make the links", self.link_lines(lab))?;
        for node in &lab.nodes {
            set_role(node)?;
            node.ip("configure a node", self.node_lines(planned, &node.plan))?;
            for leg in node.legs() {
                offloads_off(node, &leg.interface)?;
            }
        }
        // A port that joins when its far end is up forwards at once.
        switch.ip("connect the links", port_lines(planned))?;
        let pass = Program::load(Kind::Xdp, "lab_pass", &programs::pass())?;
        for leg in lab.balancers().flat_map(Node::legs) {
            attach_pinned(&switch, &leg.port, &pass, &lab.pins().join(format!("{}-pass", leg.port)))?;
            // Older kernels turn GRO on with the program.
            offloads_off(&switch, &leg.port)?;
        }
        if self.decapsulating {
            lab.backends().try_for_each(Node::decapsulate)?;
        }
        try_wait_until("every bridge port forwards", Duration::from_secs(5), || all_forward(&switch))
    }

    fn link_lines(&self, lab: &Lab) -> Vec<String> {
        let mut lines = Vec::new();
        for node in lab.nodes() {
            for leg in node.legs() {
                let mtu = if node.role() == Role::Client { self.client_mtu } else { self.fabric_mtu };
                let (port, fabric, interface, mac) =
                    (&leg.port, self.fabric_mtu, &leg.interface, leg.mac_text());
                let namespace = node.name();
                lines.push(format!(
                    "link add {port} mtu {fabric} type veth peer name {interface} address {mac} mtu {mtu} netns {namespace}"
                ));
            }
        }
        lines
    }
}

/// Bridge netfilter would drop frames with a bad IP header; a switch does not look there.
fn look_at_no_ip_header(switch: &Namespace) -> Result<()> {
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        return Ok(());
    }
    let keys =
        ["iptables", "ip6tables", "arptables"].map(|table| format!("net.bridge.bridge-nf-call-{table}"));
    keys.iter().try_for_each(|key| switch.sysctl(key, "0"))
}

fn bridge_lines(planned: &[PlannedNode], mtu: u32) -> Vec<String> {
    let used = Segment::ALL
        .into_iter()
        .filter(|segment| planned.iter().flat_map(|node| &node.legs).any(|leg| leg.segment == *segment));
    used.flat_map(|segment| {
        let name = segment.bridge();
        [
            // No spanning tree, no waiting; and snooping would hold back neighbour discovery for want of a querier.
            format!("link add {name} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            format!("link set {name} up"),
        ]
    })
    .collect()
}

fn port_lines(planned: &[PlannedNode]) -> Vec<String> {
    let legs = planned.iter().flat_map(|node| &node.legs);
    legs.map(|leg| format!("link set {} up master {}", leg.port, leg.segment.bridge())).collect()
}

fn set_role(node: &Node) -> Result<()> {
    if node.plan.forwards {
        node.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    }
    match node.role() {
        // Only the load balancer may be asked for the VIP. IPv6 answers for an interface's own addresses only.
        Role::Backend => {
            node.sysctls(&[("net.ipv4.conf.all.arp_ignore", "1"), ("net.ipv4.conf.all.arp_announce", "2")])
        }
        // Lets any program bind to the client's many addresses, which are only routed.
        Role::Client => {
            node.sysctls(&[("net.ipv4.ip_nonlocal_bind", "1"), ("net.ipv6.ip_nonlocal_bind", "1")])
        }
        Role::Balancer | Role::Gateway | Role::Router => Ok(()),
    }
}

fn offloads_off(namespace: &Namespace, interface: &str) -> Result<()> {
    let args = ["-K", interface].into_iter().chain(OFFLOADS);
    namespace.run("ethtool", args).map(drop).context("turn offloads off")
}

fn all_forward(switch: &Namespace) -> Result<bool> {
    let shown =
        switch.enter(|| super::process::run_checked(Command::new("ip").args(["-j", "-d", "link"])))?;
    let links: Value = serde_json::from_str(&shown.stdout)?;
    let ports =
        links.as_array().context("a list of links")?.iter().filter(|link| link.get("master").is_some());
    Ok(ports.into_iter().all(|port| {
        port.pointer("/linkinfo/info_slave_data/state").and_then(Value::as_str) == Some("forwarding")
    }))
}

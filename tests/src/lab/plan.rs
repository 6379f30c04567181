//! What a lab looks like on paper: who is on which segment, with which addresses, and which way leads where. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Client,
    Balancer,
    Backend,
    /// Forwards between the clients' segment and the load balancers' one.
    Gateway,
    /// Forwards between the load balancers' (or backends') segment and the remote backends' one.
    Router,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Balancer => "lb",
            Self::Backend => "backend",
            Self::Gateway => "gateway",
            Self::Router => "router",
        })
    }
}

/// One Ethernet segment: a bridge in the lab's switch namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// The load balancers' first interface; in a one-armed lab everything is here.
    Front = 0,
    /// Two-armed: the load balancers' second interface and the backends.
    Back = 1,
    /// Clients behind the gateway.
    Access = 2,
    /// Backends behind the router.
    Remote = 3,
}

impl Segment {
    /// Every segment that can be.
    pub const ALL: [Self; 4] = [Self::Front, Self::Back, Self::Access, Self::Remote];

    /// The bridge's name.
    #[must_use]
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
            Self::Access => "access",
            Self::Remote => "remote",
        }
    }

    pub(super) fn prefixes(self) -> [Prefix; 2] {
        let number = self as u16;
        [Prefix::new(segment_v4(number, 0), 16), Prefix::new(segment_v6(number, 0), 64)]
    }
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        Self { address: address.into(), length }
    }

    pub(super) fn host(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A node's place on one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    pub segment: Segment,
    /// Name of the interface in the node's namespace: `eth0`, `eth1`.
    pub interface: String,
    /// Name of the other end of the veth pair, in the switch namespace.
    pub port: String,
    pub mac: [u8; 6],
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

impl Leg {
    /// The address of the family of `like`.
    #[must_use]
    pub fn address(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.ipv4.into() } else { self.ipv6.into() }
    }

    /// The MAC address as one writes it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A node on paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedNode {
    pub(super) role: Role,
    pub(super) index: u16,
    pub(super) legs: Vec<Leg>,
    /// Whether its kernel forwards packets.
    pub(super) forwards: bool,
}

impl PlannedNode {
    pub(super) fn new(role: Role, index: u16, segments: &[Segment]) -> Self {
        let name = node_name(role, index);
        let legs = segments.iter().enumerate().map(|(number, &segment)| {
            // 250 nodes of each role, but as many backends as fit.
            let host = role_base(role) + index;
            let [high, low] = host.to_be_bytes();
            Leg {
                segment,
                interface: format!("eth{number}"),
                port: format!("{name}-{}", segment.bridge().get(..1).unwrap_or_default()),
                mac: [0x02, 0xba, 0x11, segment as u8, high, low],
                ipv4: segment_v4(segment as u16, host),
                ipv6: segment_v6(segment as u16, host),
            }
        });
        Self { role, index, legs: legs.collect(), forwards: matches!(role, Role::Gateway | Role::Router) }
    }

    pub(super) fn name(&self) -> String {
        node_name(self.role, self.index)
    }

    fn on(&self, segment: Segment) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.segment == segment)
    }
}

/// The networks behind client number `index`, which is there to have many addresses.
pub(super) fn source_prefixes(index: u16) -> [Prefix; 2] {
    [Prefix::new(source_v4(index, 0), 16), Prefix::new(source_v6(index, 0), 64)]
}

pub(super) fn source_v4(client: u16, number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    let [_, client] = client.to_be_bytes();
    Ipv4Addr::new(10, 100 + client, high, low)
}

pub(super) fn source_v6(client: u16, number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0x100 + client, 0, 0, 0, number)
}

/// The way from `from` to `to`, a network that `owner` stands for (or nobody: then it is a segment itself).
///
/// `None` if it is there already or there is no way. Forwarders are tried in the order of `nodes`.
pub(super) fn next_hop(
    nodes: &[PlannedNode],
    from: &PlannedNode,
    to: Target<'_>,
    like: IpAddr,
) -> Option<IpAddr> {
    if matches!(to, Target::Owned(owner) if owner == from) {
        return None;
    }
    // Breadth first over segments; each remembers the first hop on the way to it.
    let mut first_hops: BTreeMap<Segment, Option<IpAddr>> =
        from.legs.iter().map(|leg| (leg.segment, None)).collect();
    let mut queue: VecDeque<Segment> = from.legs.iter().map(|leg| leg.segment).collect();
    while let Some(segment) = queue.pop_front() {
        let first_hop = first_hops.get(&segment).copied().flatten();
        match to {
            Target::Segment(target) if target == segment => return first_hop,
            Target::Owned(owner) => {
                if let Some(leg) = owner.on(segment) {
                    return first_hop.or_else(|| Some(leg.address(like)));
                }
            }
            Target::Segment(_) => {}
        }
        for forwarder in nodes.iter().filter(|node| node.forwards && *node != from) {
            let Some(entry) = forwarder.on(segment) else { continue };
            for exit in &forwarder.legs {
                first_hops.entry(exit.segment).or_insert_with(|| {
                    queue.push_back(exit.segment);
                    first_hop.or_else(|| Some(entry.address(like)))
                });
            }
        }
    }
    None
}

/// What a route leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Segment(Segment),
    Owned(&'a PlannedNode),
}

fn node_name(role: Role, index: u16) -> String {
    format!("{role}{index}")
}

/// Host number of a role's first node. Backends come last: there may be thousands.
fn role_base(role: Role) -> u16 {
    let place = match role {
        Role::Gateway => 0,
        Role::Router => 1,
        Role::Client => 2,
        Role::Balancer => 3,
        Role::Backend => 4,
    };
    place * 256 + 1
}

fn segment_v4(segment: u16, host: u16) -> Ipv4Addr {
    let ([_, segment], [high, low]) = (segment.to_be_bytes(), host.to_be_bytes());
    Ipv4Addr::new(10, segment, high, low)
}

fn segment_v6(segment: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, segment, 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use super::{PlannedNode, Role, Segment, Target, next_hop};
    use std::net::{IpAddr, Ipv4Addr};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn two_armed_with_everything() -> Vec<PlannedNode> {
        let mut lb = PlannedNode::new(Role::Balancer, 0, &[Segment::Front, Segment::Back]);
        lb.forwards = true;
        vec![
            PlannedNode::new(Role::Client, 0, &[Segment::Access]),
            PlannedNode::new(Role::Gateway, 0, &[Segment::Access, Segment::Front]),
            lb,
            PlannedNode::new(Role::Router, 0, &[Segment::Back, Segment::Remote]),
            PlannedNode::new(Role::Backend, 0, &[Segment::Remote]),
        ]
    }

    #[test]
    fn a_route_goes_through_the_nearest_forwarder() {
        let nodes = two_armed_with_everything();
        let [client, gateway, lb, router, backend] = nodes.as_slice() else { panic!("five nodes") };
        let hop = |from, to| next_hop(&nodes, from, to, V4);
        assert_eq!(hop(client, Target::Segment(Segment::Remote)), Some(gateway.legs[0].ipv4.into()));
        assert_eq!(hop(gateway, Target::Segment(Segment::Remote)), Some(lb.legs[0].ipv4.into()));
        assert_eq!(hop(lb, Target::Segment(Segment::Remote)), Some(router.legs[0].ipv4.into()));
        assert_eq!(hop(backend, Target::Owned(client)), Some(router.legs[1].ipv4.into()));
        assert_eq!(hop(router, Target::Owned(client)), Some(lb.legs[1].ipv4.into()));
    }

    #[test]
    fn what_is_on_the_segment_needs_no_forwarder() {
        let nodes = two_armed_with_everything();
        let [client, gateway, lb, ..] = nodes.as_slice() else { panic!("five nodes") };
        assert_eq!(next_hop(&nodes, client, Target::Segment(Segment::Access), V4), None);
        assert_eq!(next_hop(&nodes, gateway, Target::Owned(client), V4), Some(client.legs[0].ipv4.into()));
        assert_eq!(next_hop(&nodes, gateway, Target::Owned(lb), V4), Some(lb.legs[0].ipv4.into()));
    }
}

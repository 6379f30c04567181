//! The addresses and routes of each node, as lines of `ip`.

use std::net::IpAddr;

use super::builder::Builder;
use super::plan::{Leg, PlannedNode, Prefix, Role, Segment, Target, next_hop, source_prefixes};

impl Builder {
    /// Addresses and routes.
    pub(super) fn node_lines(&self, planned: &[PlannedNode], node: &PlannedNode) -> Vec<String> {
        let mtu = self.route_mtu(node.role).map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        if let Some(balancer) = self.default_router(planned, node) {
            return default_lines(node, balancer, &mtu)
                .into_iter()
                .chain(self.vip_lines(node.role))
                .collect();
        }
        let mut lines = Vec::new();
        for leg in &node.legs {
            let interface = &leg.interface;
            lines.push(format!("link set {interface} up"));
            for prefix in leg.segment.prefixes() {
                let address = leg.address(prefix.address);
                let (length, v6) = (prefix.length, if address.is_ipv6() { " nodad" } else { "" });
                lines.push(format!("address add {address}/{length} dev {interface} noprefixroute{v6}"));
                lines.push(format!("route add {prefix} dev {interface} src {address}{mtu}"));
            }
        }
        lines.extend(self.vip_lines(node.role));
        if node.role == Role::Client {
            let sources = source_prefixes(node.index);
            lines.extend(sources.map(|prefix| format!("route add local {prefix} dev lo")));
        }
        let routes = self.destinations(planned, node).into_iter().filter_map(|(prefix, target)| {
            let hop = next_hop(planned, node, target, prefix.address)?;
            Some(format!("route add {prefix} via {hop}{mtu}"))
        });
        lines.extend(routes);
        lines
    }

    /// What a node's routes take, if that is less than its links do.
    fn route_mtu(&self, role: Role) -> Option<u32> {
        match role {
            // A backend must not answer a client with more than the client's link takes.
            Role::Backend => Some(self.client_mtu),
            Role::Gateway => self.gateway_mtu,
            Role::Router => self.router_mtu,
            Role::Client | Role::Balancer => None,
        }
    }

    /// The load balancer that a backend has all its routes through, if it is to.
    fn default_router<'a>(&self, planned: &'a [PlannedNode], node: &PlannedNode) -> Option<&'a Leg> {
        if !self.replies_through_balancer || node.role != Role::Backend {
            return None;
        }
        let segment = node.legs.first()?.segment;
        let balancer = planned.iter().find(|other| other.role == Role::Balancer)?;
        balancer.legs.iter().find(|leg| leg.segment == segment)
    }

    fn vip_lines(&self, role: Role) -> Vec<String> {
        if !self.owns_vips(role) {
            return Vec::new();
        }
        let line = |vip: &IpAddr| {
            let v6 = if vip.is_ipv6() { " nodad" } else { "" };
            format!("address add {} dev lo{v6}", Prefix::host(*vip))
        };
        self.vips.iter().map(line).collect()
    }

    pub(super) fn owns_vips(&self, role: Role) -> bool {
        role == Role::Backend && !self.plain_backends || role == Role::Balancer && self.balancers_own_vips
    }

    /// Every network that there is, and for those who are to send to it, the VIPs.
    fn destinations<'a>(&self, planned: &'a [PlannedNode], node: &PlannedNode) -> Vec<(Prefix, Target<'a>)> {
        let segments =
            Segment::ALL.into_iter().filter(|segment| node.legs.iter().all(|leg| leg.segment != *segment));
        let mut all: Vec<_> = segments
            .flat_map(|segment| segment.prefixes().map(|prefix| (prefix, Target::Segment(segment))))
            .collect();
        for client in planned.iter().filter(|other| other.role == Role::Client) {
            all.extend(source_prefixes(client.index).map(|prefix| (prefix, Target::Owned(client))));
        }
        if matches!(node.role, Role::Client | Role::Gateway | Role::Router) {
            let first = planned.iter().find(|other| other.role == Role::Balancer);
            let vips = self.vips.iter().map(|vip| Prefix::host(*vip));
            all.extend(vips.filter_map(|vip| Some((vip, Target::Owned(first?)))));
        }
        all
    }
}

/// Addresses and routes of a node that sends everything to this load balancer, also what is for its own segment.
fn default_lines(node: &PlannedNode, balancer: &Leg, mtu: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for Leg { interface, ipv4, ipv6, .. } in &node.legs {
        lines.push(format!("link set {interface} up"));
        for (own, router) in [
            (IpAddr::from(*ipv4), IpAddr::from(balancer.ipv4)),
            (IpAddr::from(*ipv6), IpAddr::from(balancer.ipv6)),
        ] {
            let v6 = if own.is_ipv6() { " nodad" } else { "" };
            lines.push(format!("address add {} dev {interface} noprefixroute{v6}", Prefix::host(own)));
            lines.push(format!("route add {} dev {interface} src {own}{mtu}", Prefix::host(router)));
            let everything = if own.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            lines.push(format!("route add {everything} via {router} src {own}{mtu}"));
        }
    }
    lines
}

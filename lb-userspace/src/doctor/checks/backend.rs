//! What this host's tables say of the ways to backends.

use std::{collections::BTreeMap, net::IpAddr};

use super::super::{
    check::Check,
    collect::xdp_features::{self, SENDS_REDIRECTED},
    finding::Finding,
    probe::overhead,
    questions::client_mtu,
    setup::{Served, Server, Setup},
};
use crate::{
    dataplane::inspect,
    domain::{Forwarding, XdpMode},
    neighbour::{Interface, Survey, Way},
};

pub(in super::super) fn all(setup: &Setup, survey: &Survey) -> Vec<Finding> {
    let vips: BTreeMap<IpAddr, &str> =
        setup.services.iter().map(|service| (service.vip, service.name.as_str())).collect();
    let client_mtu = client_mtu(setup, survey);
    // By interface: one command has to suffice for all backends behind it.
    let mut most: BTreeMap<u32, u32> = BTreeMap::new();
    for (service, backend) in setup.backends() {
        if let Some(Way::Away { interface, .. }) = survey.ways.get(&backend.address.ip()) {
            let needed = client_mtu + overhead(service.forwarding, backend.address.ip());
            let most = most.entry(*interface).or_default();
            *most = needed.max(*most);
        }
    }
    let mut findings = Vec::new();
    // By interface: many backends are behind one.
    let mut sending: BTreeMap<u32, Option<bool>> = BTreeMap::new();
    for (service, backend) in setup.backends() {
        let Some(way) = survey.ways.get(&backend.address.ip()) else { continue };
        findings.push(clash(backend, way, &vips));
        if *way == Way::Here || vips.contains_key(&backend.address.ip()) {
            continue;
        }
        let interface = match way {
            Way::Away { interface, .. } => survey.interfaces.get(interface),
            _ => None,
        };
        findings.push(route(service, backend, way, interface, |interface, index| {
            *sending.entry(index).or_insert_with(|| sends(setup, &interface.name, index))
        }));
        if let (Way::Away { interface: index, mtu, .. }, Some(interface)) = (way, interface) {
            let raise_to = most.get(index).copied().unwrap_or_default();
            findings.push(fits(service, backend, *mtu, &interface.name, client_mtu, raise_to));
        }
    }
    findings
}

/// Whether frames that are redirected to an interface are sent; `None` where the kernel does not say.
fn sends(setup: &Setup, name: &str, index: u32) -> Option<bool> {
    // Some drivers get ready for it when a program is attached, and generic mode asks none.
    let will_run =
        setup.interfaces.iter().any(|known| known == name) && matches!(inspect::running(index), Ok(None));
    if will_run || setup.mode == XdpMode::Generic {
        return None;
    }
    let features = xdp_features::of(index).ok().flatten()?;
    Some(features & SENDS_REDIRECTED != 0)
}

fn clash(backend: &Server, way: &Way, vips: &BTreeMap<IpAddr, &str>) -> Finding {
    let address = backend.address.ip();
    if let Some(service) = vips.get(&address) {
        return Finding::problem(
            Check::Clash,
            &backend.label,
            format!("its address {address} is the VIP of service {service}: packets would come back here"),
        )
        .advise("give the backend's own address, not one that it shares");
    }
    if *way == Way::Here {
        return Finding::problem(
            Check::Clash,
            &backend.label,
            format!("its address {address} is this host's: XDP sends to others, and not up to its own host"),
        )
        .advise("a backend has to be another machine, or another network namespace with a veth");
    }
    Finding::ok(Check::Clash, &backend.label, "an address of its own")
}

fn route(
    service: &Served,
    backend: &Server,
    way: &Way,
    interface: Option<&Interface>,
    sends: impl FnOnce(&Interface, u32) -> Option<bool>,
) -> Finding {
    let (label, address) = (&backend.label, backend.address.ip());
    let of = |message: String| Finding::problem(Check::Route, label, message);
    let Way::Away { interface: index, gateway, .. } = way else {
        return of(format!("this host has no route to {address}"))
            .run([
                format!("ip route get {address}"),
                format!("ip route add {address}/{} via GATEWAY", bits(address)),
            ])
            .advise("GATEWAY: a router on one of this host's networks");
    };
    let Some(interface) = interface else {
        return of(format!("the route to {address} leads to an interface that is gone")).run(["ip route"]);
    };
    let name = &interface.name;
    if let Some(kind @ ("vlan" | "macvlan" | "ipvlan" | "bridge")) = interface.kind.as_deref() {
        return of(format!("the route to {address} leads over {name}, which is a {kind}: XDP can't send on it, and packets are dropped (`next_hop_unresolved`)"))
            .run([format!("ip route get {address}")])
            .advise("route it over the network card itself; VLAN tags are kept");
    }
    if interface.mac.is_none() {
        return of(format!(
            "the route to {address} leads over {name}, which has no Ethernet frames: XDP can't send on it"
        ))
        .run([format!("ip route get {address}")])
        .advise("route it over an Ethernet interface");
    }
    if let (Forwarding::L2Dsr, Some(gateway)) = (service.forwarding, gateway) {
        return of(format!("{address} is behind the gateway {gateway}: `l2-dsr` needs its backends on a network of this host's, and is refused"))
            .run([format!("ip route get {address}")])
            .advise("`forwarding = \"ipip\"` or \"gue\" reaches backends behind routers; or give this host an address on the backend's network");
    }
    if sends(interface, *index) == Some(false) {
        return of(format!("{address} is behind {name}, whose driver sends no redirected frames as it is set up: packets get lost there"))
            .advise(format!("add {name} to `interfaces` of [daemon]: drivers get ready with a program of their own; the other end of a veth needs one, or GRO on"));
    }
    let by = gateway.map(|gateway| format!(", through {gateway}")).unwrap_or_default();
    Finding::ok(Check::Route, label, format!("over {name}{by}"))
}

/// `raise_to`: what all backends on that interface need.
fn fits(service: &Served, backend: &Server, mtu: u32, name: &str, client_mtu: u32, raise_to: u32) -> Finding {
    let outer = overhead(service.forwarding, backend.address.ip());
    let needed = client_mtu + outer;
    if needed <= mtu {
        return Finding::ok(Check::Mtu, &backend.label, format!("{needed} bytes fit {mtu}"));
    }
    let with = if outer > 0 { format!(" with {outer} bytes of outer header") } else { String::new() };
    Finding::warning(
        Check::Mtu,
        &backend.label,
        format!("clients send up to {client_mtu} bytes, which{with} are more than the {mtu} of the way over {name}: large packets are answered \"too big\", and clients whose firewall drops that hang"),
    )
    .run([format!("ip link set dev {name} mtu {}", raise_to.max(needed))])
    .advise(format!(
        "on the whole way to the backend, and where a route has an `mtu` of its own there, too; or lower the clients' MSS to {}",
        mtu.saturating_sub(outer + if service.vip.is_ipv4() { 40 } else { 60 })
    ))
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::finding::Severity,
            commands,
            testing::{backend, service},
        },
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn card(kind: Option<&str>) -> Interface {
        let kind = kind.map(str::to_owned);
        Interface {
            name: "eth0".into(),
            kind,
            mac: Some([2; 6]),
            mtu: 1500,
            up: true,
            carrier: true,
            ..Interface::default()
        }
    }

    fn away(gateway: Option<&str>) -> Way {
        Way::Away { interface: 2, gateway: gateway.map(ip), source: None, mtu: 1500, mac: Some([4; 6]) }
    }

    #[test]
    fn a_backend_has_an_address_of_its_own() {
        let vips = [(ip("203.0.113.10"), "web")].into();
        assert_eq!(clash(&backend(), &away(None), &vips).severity, Severity::Ok);
        assert_eq!(clash(&backend(), &Way::Here, &vips).severity, Severity::Problem);
        let vips = [(ip("10.0.0.9"), "other")].into();
        assert!(clash(&backend(), &away(None), &vips).message.contains("the VIP of service other"));
    }

    #[test]
    fn a_route_leads_where_xdp_can_send() {
        let of = |forwarding, way: &Way, interface: Option<&Interface>, sends| {
            route(&service(forwarding), &backend(), way, interface, |_, _| sends)
        };
        let dsr = Forwarding::L2Dsr;
        assert_eq!(of(dsr, &away(None), Some(&card(None)), None).severity, Severity::Ok);
        assert_eq!(of(dsr, &away(None), Some(&card(None)), Some(true)).severity, Severity::Ok);
        assert_eq!(of(dsr, &Way::Nowhere, None, None).severity, Severity::Problem);
        let behind = of(dsr, &away(Some("10.0.0.254")), Some(&card(None)), None);
        assert!(behind.message.contains("behind the gateway 10.0.0.254"), "{}", behind.message);
        assert_eq!(
            of(Forwarding::Ipip, &away(Some("10.0.0.254")), Some(&card(None)), None).severity,
            Severity::Ok
        );
        for kind in ["vlan", "bridge", "macvlan"] {
            assert!(of(dsr, &away(None), Some(&card(Some(kind))), None).message.contains(kind));
        }
        assert_eq!(of(dsr, &away(None), Some(&card(None)), Some(false)).severity, Severity::Problem);
        let tunnel = Interface { mac: None, ..card(None) };
        assert_eq!(of(dsr, &away(None), Some(&tunnel), None).severity, Severity::Problem);
    }

    #[test]
    fn the_outer_header_has_to_fit_as_well() {
        let of = |forwarding, mtu| fits(&service(forwarding), &backend(), mtu, "eth0", 1500, 1528);
        assert_eq!(of(Forwarding::L2Dsr, 1500).severity, Severity::Ok);
        assert_eq!(of(Forwarding::L2Dsr, 1400).severity, Severity::Warning);
        assert_eq!(of(Forwarding::Ipip, 1520).severity, Severity::Ok);
        assert_eq!(commands(&of(Forwarding::Ipip, 1500)), ["ip link set dev eth0 mtu 1528"]);
        assert_eq!(commands(&of(Forwarding::Gue, 1500)), ["ip link set dev eth0 mtu 1528"]);
    }
}

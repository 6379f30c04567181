//! Addresses and ports of `nat`.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    super::{check::Check, finding::Finding, setup::Setup},
    host::HOST,
};
use crate::{
    api::v1,
    daemon::host,
    domain::{Forwarding, NatPool},
    neighbour::{Survey, Way},
    sysctl,
};

pub(in super::super) fn all(setup: &Setup, survey: &Survey) -> Vec<Finding> {
    if !setup.uses(Forwarding::Nat) {
        return vec![];
    }
    let reserved = sysctl::text("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let mut findings = vec![ports(&setup.nat, host::shared_ports(&setup.nat), &reserved)];
    for &address in &setup.nat.addresses {
        let way = survey.ways.get(&address);
        let interface = match way {
            Some(Way::Away { interface, .. }) => survey.name(*interface),
            _ => String::new(),
        };
        findings.push(pool_address(address, way, &interface));
    }
    findings
}

fn ports(nat: &NatPool, shared: Option<String>, reserved: &str) -> Finding {
    let Some(shared) = shared else {
        return Finding::ok(
            Check::NatPorts,
            HOST,
            format!("{}-{} are for `nat` alone", nat.first_port, nat.last_port),
        );
    };
    let own = format!("{}-{}", nat.first_port, nat.last_port);
    let all = if reserved.is_empty() { own } else { format!("{reserved},{own}") };
    Finding::warning(Check::NatPorts, HOST, shared)
        .run([format!("sysctl -w net.ipv4.ip_local_reserved_ports={all}")])
        .advise("to keep it, a file in /etc/sysctl.d")
}

fn pool_address(address: IpAddr, way: Option<&Way>, interface: &str) -> Finding {
    match way {
        Some(Way::Here) => Finding::ok(Check::NatAddresses, &address.to_string(), "an address of this host"),
        Some(Way::Away { gateway: None, .. }) => Finding::problem(
            Check::NatAddresses,
            &address.to_string(),
            format!("{address} is on the network of {interface} and not this host's: nobody answers for it there, and replies of backends get lost"),
        )
        .run([format!("ip address add {address}/{} dev {interface}", if address.is_ipv4() { 32 } else { 128 })])
        .advise("to keep it, in the host's network configuration"),
        _ => Finding::ok(
            Check::NatAddresses,
            &address.to_string(),
            "not on this host: routers have to lead it here, which can't be seen from here",
        ),
    }
}

/// Whether the ports suffice for the new flows of each backend, by two looks at the daemon and the time between them.
pub(in super::super) fn sizes(
    setup: &Setup,
    before: &v1::Status,
    after: &v1::Status,
    time: Duration,
) -> Vec<Finding> {
    if !setup.uses(Forwarding::Nat) {
        return vec![];
    }
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for service in before.services.iter().filter(|service| service.forwarding == Forwarding::Nat.as_str()) {
        for backend in &service.backends {
            counts.insert((&service.name, &backend.name), backend.new_flows.unwrap_or_default());
        }
    }
    let mut findings = Vec::new();
    for service in &after.services {
        for backend in &service.backends {
            let Some(earlier) = counts.get(&(service.name.as_str(), backend.name.as_str())) else { continue };
            let more = backend.new_flows.unwrap_or_default().saturating_sub(*earlier);
            let v4 = backend.address.parse().is_ok_and(|address: std::net::SocketAddr| address.is_ipv4());
            let addresses =
                setup.nat.addresses.iter().filter(|address| address.is_ipv4() == v4).count().max(1);
            let label = format!("{}/{}", service.name, backend.name);
            findings.extend(size(&label, &setup.nat, addresses as u64, more as f64 / time.as_secs_f64()));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Check::NatSize, HOST, "ports suffice for the new flows of this moment"));
    }
    findings
}

/// A backend that closes first keeps each port for a minute.
fn size(label: &str, nat: &NatPool, addresses: u64, flows: f64) -> Option<Finding> {
    let ports = u64::from(nat.last_port - nat.first_port) + 1;
    let enough = (ports * addresses) as f64 / TIME_WAIT;
    (flows > enough).then(|| {
        Finding::warning(
            Check::NatSize,
            label,
            format!(
                "{flows:.0} new flows a second, and {ports} ports on {addresses} addresses are enough for {enough:.0} to a backend that closes \
                 first: it may take a SYN for an old connection's"
            ),
        )
        .advise("more `addresses` or `ports` in [nat], for instance ports = \"1024-32767\", and `ballast reload`")
    })
}

/// Seconds, on Linux.
const TIME_WAIT: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::{
        super::{super::finding::Severity, commands},
        *,
    };

    #[test]
    fn reserved_ports_are_added_to_those_that_are() {
        let nat = NatPool::default();
        assert_eq!(ports(&nat, None, "").severity, Severity::Ok);
        let shared = || Some("overlap".to_owned());
        assert_eq!(
            commands(&ports(&nat, shared(), "")),
            ["sysctl -w net.ipv4.ip_local_reserved_ports=61000-65535"]
        );
        assert_eq!(
            commands(&ports(&nat, shared(), "8080,9090")),
            ["sysctl -w net.ipv4.ip_local_reserved_ports=8080,9090,61000-65535"]
        );
    }

    #[test]
    fn an_address_that_nobody_answers_for_is_a_problem() {
        let address: IpAddr = "10.0.0.200".parse().expect("an address");
        let way = |gateway| Way::Away { interface: 2, gateway, source: None, mtu: 1500, mac: None };
        assert_eq!(pool_address(address, Some(&Way::Here), "").severity, Severity::Ok);
        let lost = pool_address(address, Some(&way(None)), "eth0");
        assert_eq!(commands(&lost), ["ip address add 10.0.0.200/32 dev eth0"]);
        assert_eq!(pool_address(address, Some(&way(Some(address))), "eth0").severity, Severity::Ok);
    }

    #[test]
    fn ports_are_counted_against_time_wait() {
        // As docs/forwarding-modes.md says it.
        let nat = NatPool::default();
        assert_eq!(size("web/a", &nat, 1, 75.0), None);
        assert!(size("web/a", &nat, 1, 76.0).is_some());
        assert_eq!(size("web/a", &nat, 2, 150.0), None);
    }
}

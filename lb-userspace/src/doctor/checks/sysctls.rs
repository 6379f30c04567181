//! Settings of the host's own stack, which gets what Ballast passes.

use std::net::IpAddr;

use super::{
    super::{
        check::Check,
        finding::Finding,
        probe::{Heard, Question},
        setup::Setup,
    },
    host::HOST,
};
use crate::{
    domain::Forwarding,
    neighbour::{Survey, Way},
    sysctl,
};

pub(in super::super) fn all(setup: &Setup, survey: &Survey, heard: Option<&Heard>) -> Vec<Finding> {
    let mut findings = rp_filters(setup, survey, heard);
    if setup.uses(Forwarding::Dnat) {
        let families = [(true, "net/ipv4/ip_forward"), (false, "net/ipv6/conf/all/forwarding")];
        for (v4, path) in families {
            let has_family = setup
                .services
                .iter()
                .any(|service| service.forwarding == Forwarding::Dnat && service.vip.is_ipv4() == v4);
            if has_family {
                findings.push(ip_forward(&path.replace('/', "."), sysctl::number(path)));
            }
        }
    }
    let count = sysctl::number("net/netfilter/nf_conntrack_count");
    findings.push(conntrack(count, sysctl::number("net/netfilter/nf_conntrack_max")));
    findings
}

/// An interface by which something comes in whose answer would leave by another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Crossing {
    /// Whose packets come in.
    whose: String,
    comes_in_by: u32,
    leaves_by: u32,
    /// Whether they were seen to.
    seen: bool,
}

fn rp_filters(setup: &Setup, survey: &Survey, heard: Option<&Heard>) -> Vec<Finding> {
    let strict = |index: u32| sysctl::filters_strictly(&survey.name(index));
    let mut findings = Vec::new();
    for crossing in
        crossings(setup, survey, heard).into_iter().filter(|crossing| strict(crossing.comes_in_by))
    {
        findings.push(crossed(
            &crossing,
            &survey.name(crossing.comes_in_by),
            &survey.name(crossing.leaves_by),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::RpFilter,
            HOST,
            "no answer comes in where a strict filter would drop it",
        ));
    }
    findings
}

fn crossings(setup: &Setup, survey: &Survey, heard: Option<&Heard>) -> Vec<Crossing> {
    let leaves = |address: IpAddr| match survey.ways.get(&address) {
        Some(Way::Away { interface, .. }) => Some(*interface),
        _ => None,
    };
    let mut crossings: Vec<Crossing> = Vec::new();
    // The filter is IPv4's alone.
    for (service, backend) in setup.backends().filter(|(_, backend)| backend.address.is_ipv4()) {
        let address = backend.address.ip();
        let Some(leaves_by) = leaves(address) else { continue };
        let arrived = heard.and_then(|heard| heard.answer(Question::Own(address)));
        if let Some(arrived) = arrived.filter(|arrived| arrived.interface != leaves_by) {
            let whose = format!("{} ({address})", backend.label);
            crossings.push(Crossing { whose, comes_in_by: arrived.interface, leaves_by, seen: true });
        }
        // Answers of checks over the VIP come from the VIP.
        if let (true, Some(vip_by)) = (service.via_vip && service.vip.is_ipv4(), leaves(service.vip))
            && vip_by != leaves_by
        {
            let whose = format!("{} from its VIP {}", backend.label, service.vip);
            crossings.push(Crossing { whose, comes_in_by: leaves_by, leaves_by: vip_by, seen: false });
        }
    }
    crossings
}

fn crossed(crossing: &Crossing, comes_in_by: &str, leaves_by: &str) -> Finding {
    let Crossing { whose, seen, .. } = crossing;
    let come = if *seen { "come" } else { "will come" };
    // With slashes, because names of interfaces have dots.
    let key = format!("net/ipv4/conf/{comes_in_by}/rp_filter");
    let message = format!(
        "answers of {whose} {come} in by {comes_in_by}, this host's route back leaves by {leaves_by}, and {key}=1 (or conf/all) \
         drops them: health checks fail, and whatever else Ballast passes"
    );
    Finding::problem(Check::RpFilter, comes_in_by, message)
        .run([format!("sysctl -w {key}=2")])
        .advise("to keep it, a file in /etc/sysctl.d; or lead both ways over one interface")
}

fn ip_forward(key: &str, value: Option<u64>) -> Finding {
    match value {
        None => Finding::skipped(Check::IpForward, HOST, format!("there is no {key}")),
        Some(0) => Finding::warning(
            Check::IpForward,
            HOST,
            format!("{key} is 0: backends of `dnat` have this host as their gateway, and what they send beside answers to clients ends here"),
        )
        .run([format!("sysctl -w {key}=1")])
        .advise("to keep it, a file in /etc/sysctl.d"),
        Some(_) => Finding::ok(Check::IpForward, HOST, format!("{key} is on")),
    }
}

fn conntrack(count: Option<u64>, most: Option<u64>) -> Finding {
    match (count, most) {
        (Some(count), Some(most)) if most > 0 && count >= most / 10 * 9 => Finding::warning(
            Check::Conntrack,
            HOST,
            format!("{count} of {most} connections are tracked: when it is full, the host drops what Ballast passes, health checks among it"),
        )
        .run([format!("sysctl -w net.netfilter.nf_conntrack_max={}", most * 2)])
        .advise("what Ballast forwards is not tracked, so it is somebody else's"),
        (Some(count), Some(most)) => Finding::ok(Check::Conntrack, HOST, format!("{count} of {most} connections are tracked")),
        _ => Finding::ok(Check::Conntrack, HOST, "this host tracks no connections"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::finding::Severity, commands},
        *,
    };

    #[test]
    fn what_comes_in_elsewhere_and_is_filtered_is_told_with_both_interfaces() {
        let crossing =
            Crossing { whose: "web/web-1 (10.0.0.9)".into(), comes_in_by: 3, leaves_by: 2, seen: true };
        let finding = crossed(&crossing, "eth1.7", "eth0");
        assert_eq!(finding.severity, Severity::Problem);
        assert!(finding.message.contains("come in by eth1.7"), "{}", finding.message);
        assert_eq!(commands(&finding), ["sysctl -w net/ipv4/conf/eth1.7/rp_filter=2"]);
    }

    #[test]
    fn a_gateway_forwards() {
        assert_eq!(ip_forward("net.ipv4.ip_forward", Some(1)).severity, Severity::Ok);
        assert_eq!(
            commands(&ip_forward("net.ipv4.ip_forward", Some(0))),
            ["sysctl -w net.ipv4.ip_forward=1"]
        );
        assert_eq!(ip_forward("net.ipv4.ip_forward", None).severity, Severity::Skipped);
    }

    #[test]
    fn a_table_of_connections_is_not_nearly_full() {
        assert_eq!(conntrack(None, None).severity, Severity::Ok);
        assert_eq!(conntrack(Some(10), Some(1000)).severity, Severity::Ok);
        assert_eq!(
            commands(&conntrack(Some(950), Some(1000))),
            ["sysctl -w net.netfilter.nf_conntrack_max=2000"]
        );
    }
}

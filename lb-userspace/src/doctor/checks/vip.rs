//! VIPs: whose they are, and who says that they are his.

use std::{collections::BTreeMap, net::IpAddr};

use super::super::{
    check::Check,
    finding::Finding,
    probe::{Heard, Question, What},
    setup::Setup,
};
use crate::{
    digits::mac,
    neighbour::{Survey, Way},
};

pub(in super::super) fn all(setup: &Setup, survey: &Survey, heard: &Result<Heard, String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in &setup.services {
        if let Some(way) = survey.ways.get(&service.vip) {
            findings.push(place(&service.name, service.vip, service.port, service.via_vip, way));
        }
    }
    let owners = owners(setup, survey);
    for vip in setup.vips() {
        match heard {
            Err(why) => findings.push(Finding::skipped(Check::VipAnswers, &vip.to_string(), why.clone())),
            Ok(heard) => {
                let told =
                    setup.interfaces.iter().filter_map(|name| survey.named(name)).filter_map(|(index, _)| {
                        let question = Question::Holder(vip, index);
                        heard.asked.contains(&question).then(|| heard.to(question))
                    });
                let told: Vec<_> = told.collect();
                if told.is_empty() {
                    let why = "no interface to ask by is up";
                    findings.push(Finding::skipped(Check::VipAnswers, &vip.to_string(), why));
                    continue;
                }
                let macs = told.into_iter().flatten().filter_map(|answer| match answer.what {
                    What::Holder(mac) => Some(mac),
                    _ => None,
                });
                // Two interfaces on one network: this host itself.
                let is_own = |mac: &[u8; 6]| survey.interfaces.values().any(|own| own.mac == Some(*mac));
                let macs = macs.filter(|mac| !is_own(mac));
                let holders: BTreeMap<_, _> =
                    macs.map(|mac| (mac, owners.get(&mac).map(String::as_str))).collect();
                let asked = |index| heard.asked.contains(&Question::Holder(vip, index));
                let name = |index| Some(survey.name(index)).filter(|_| asked(index));
                findings.extend(answers(vip, &holders, survey.ways.get(&vip), setup.paired, name));
            }
        }
    }
    findings
}

/// MAC addresses of backends on a network of this host's, and their labels.
fn owners(setup: &Setup, survey: &Survey) -> BTreeMap<[u8; 6], String> {
    let own = setup.backends().filter_map(|(_, backend)| match survey.ways.get(&backend.address.ip()) {
        Some(Way::Away { gateway: None, mac: Some(mac), .. }) => Some((*mac, backend.name.clone())),
        _ => None,
    });
    own.collect()
}

fn place(service: &str, vip: IpAddr, port: Option<u16>, via_vip: bool, way: &Way) -> Finding {
    // From whatever interface, and whatever its prefix is.
    let take_away = format!("ip address flush to {vip}");
    let length = if vip.is_ipv4() { 32 } else { 128 };
    match way {
        Way::Here if port.is_none() => Finding::problem(
            Check::Vip,
            service,
            format!("{vip} is an address of this host, and the service is on every port of it: it would take the host's own traffic, and is refused"),
        )
        .run([take_away])
        .advise("or give the service a port; to keep it away, in the host's network configuration"),
        Way::Here if via_vip => Finding::problem(
            Check::Vip,
            service,
            format!("{vip} is an address of this host, so checks with `via = \"vip\"` never leave it, and are skipped"),
        )
        .run([take_away])
        .advise("routers have to lead the VIP here instead; or check without `via`"),
        Way::Nowhere if via_vip => Finding::problem(
            Check::Vip,
            service,
            format!("this host has no route to {vip}, which checks with `via = \"vip\"` need; they are skipped"),
        )
        .run([format!("ip route add {vip}/{length} via GATEWAY")])
        .advise("any neighbour that answers ARP or neighbour discovery will do for GATEWAY"),
        Way::Away { mac: None, .. } if via_vip => Finding::problem(
            Check::Vip,
            service,
            format!("the next hop of this host's route to {vip} has no MAC address, so checks with `via = \"vip\"` don't leave"),
        )
        .run([format!("ip route get {vip}"), "ip neigh".to_owned()])
        .advise("lead the route to a neighbour that answers"),
        Way::Here => Finding::ok(Check::Vip, service, format!("{vip} is on this host; what the host itself sends there stays here")),
        Way::Nowhere | Way::Away { .. } => Finding::ok(Check::Vip, service, format!("{vip} is not on this host")),
    }
}

/// `holders`: MAC addresses that said that the VIP is theirs, and the backends that have these. `asked`: names of interfaces where
/// that was asked.
fn answers(
    vip: IpAddr,
    holders: &BTreeMap<[u8; 6], Option<&str>>,
    way: Option<&Way>,
    paired: bool,
    asked: impl Fn(u32) -> Option<String>,
) -> Vec<Finding> {
    let subject = vip.to_string();
    let mut findings = Vec::new();
    let what = if vip.is_ipv4() { "ARP" } else { "neighbour discovery" };
    for (&held, owner) in holders {
        let mac = mac(held);
        findings.push(match (owner, vip) {
            (Some(backend), IpAddr::V4(_)) => Finding::problem(
                Check::VipAnswers,
                &subject,
                format!(
                    "backend {backend} ({mac}) answers ARP for {vip}: clients and routers on its network send to it directly, past \
                     the load balancer"
                ),
            )
            .run_on(backend, ["sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"])
            .advise("to keep it, a file in /etc/sysctl.d; the VIP has to be on lo: `ip address add VIP/32 dev lo`"),
            (Some(backend), IpAddr::V6(_)) => Finding::problem(
                Check::VipAnswers,
                &subject,
                format!(
                    "backend {backend} ({mac}) answers neighbour discovery for {vip}, because the address is on an interface other than \
                     lo: clients and routers on its network send to it directly, past the load balancer"
                ),
            )
            .run_on(
                backend,
                [
                    format!("ip address replace {vip}/128 dev lo"),
                    format!("for i in $(ip -o -6 address show to {vip} | awk '$2 != \"lo\" {{print $2}}'); do ip address flush dev $i to {vip}; done"),
                ],
            ),
            (None, _) if paired && way == Some(&Way::Here) => Finding::problem(
                Check::VipAnswers,
                &subject,
                format!("{vip} is on this host, and {mac} answers {what} for it, too: the two hosts of the pair don't hear each other"),
            )
            .run(["journalctl -u keepalived -n 20".to_owned()])
            .advise("look at the network between them: VRRP is protocol 112, and nothing may drop it"),
            (None, _) if paired => {
                Finding::ok(Check::VipAnswers, &subject, format!("it is on the other host of the pair ({mac})"))
            }
            (None, _) if way == Some(&Way::Here) => Finding::warning(
                Check::VipAnswers,
                &subject,
                format!("{vip} is on this host, and {mac} answers {what} for it, too: it is there twice"),
            )
            .run(["ip neigh".to_owned()])
            .advise("only one of them should have it: look for another load balancer that is active, or a backend with a second network card"),
            (None, _) => Finding::warning(
                Check::VipAnswers,
                &subject,
                format!("{mac} answers {what} for {vip}: that one gets the packets of this network, not this host"),
            )
            .run(["ip neigh".to_owned()])
            .advise("it is all right if that is the load balancer that is active, or a router with proxy ARP"),
        });
    }
    if !findings.is_empty() {
        return findings;
    }
    if let Some(Way::Away { interface, gateway: None, .. }) = way
        && let Some(interface) = asked(*interface)
    {
        if paired {
            return vec![
                Finding::problem(
                    Check::VipAnswers,
                    &subject,
                    format!("neither host of the pair has {vip}: nobody answers {what} for it on {interface}"),
                )
                .run(["systemctl status keepalived".to_owned(), "ballast status --ready".to_owned()])
                .advise("keepalived runs on both hosts, with what `ballast keepalived` prints, and at least one is ready"),
            ];
        }
        let length = if vip.is_ipv4() { 32 } else { 128 };
        return vec![
            Finding::warning(
                Check::VipAnswers,
                &subject,
                format!("{vip} belongs to the network of {interface}, where clients and routers ask for it by {what}, and nobody answers"),
            )
            .run([format!("ip address add {vip}/{length} dev {interface}")])
            .advise("to keep it, in the host's network configuration; or have the router lead it here by a route of its own"),
        ];
    }
    vec![Finding::ok(Check::VipAnswers, &subject, format!("nobody else answers {what} for it"))]
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::finding::Severity, commands},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn away(gateway: Option<IpAddr>, mac: Option<[u8; 6]>) -> Way {
        Way::Away { interface: 2, gateway, source: None, mtu: 1500, mac }
    }

    #[test]
    fn a_vip_on_this_host_and_checks_over_it_do_not_go_together() {
        let of = |port, via, way: &Way| place("web", ip("203.0.113.10"), port, via, way).severity;
        let there = away(None, Some([2; 6]));
        assert_eq!(of(Some(80), false, &Way::Here), Severity::Ok);
        assert_eq!(of(Some(80), true, &Way::Here), Severity::Problem);
        assert_eq!(of(None, false, &Way::Here), Severity::Problem);
        assert_eq!(of(None, false, &Way::Nowhere), Severity::Ok);
        assert_eq!(of(Some(80), true, &Way::Nowhere), Severity::Problem);
        assert_eq!(of(Some(80), true, &there), Severity::Ok);
        assert_eq!(of(Some(80), true, &away(None, None)), Severity::Problem);
        assert_eq!(of(Some(80), false, &away(None, None)), Severity::Ok);
        for (port, via) in [(Some(80), true), (None, false)] {
            let found = place("web", ip("203.0.113.10"), port, via, &Way::Here);
            assert_eq!(commands(&found), ["ip address flush to 203.0.113.10"]);
        }
    }

    #[test]
    fn whoever_answers_for_a_vip_is_named() {
        let vip = ip("203.0.113.10");
        let of = |holder: Option<Option<&str>>, way: Way| {
            let holders = holder.map(|owner| ([2, 0, 0, 0, 0, 9], owner)).into_iter().collect();
            answers(vip, &holders, Some(&way), false, |_| Some("eth0".to_owned())).remove(0)
        };
        assert_eq!(of(None, Way::Nowhere).severity, Severity::Ok);
        let backend = of(Some(Some("web-1")), Way::Nowhere);
        assert_eq!(backend.severity, Severity::Problem);
        assert!(
            backend.message.contains("backend web-1 (02:00:00:00:00:09) answers ARP"),
            "{}",
            backend.message
        );
        assert_eq!(backend.fix.and_then(|fix| fix.host).as_deref(), Some("web-1"));
        assert_eq!(of(Some(None), Way::Nowhere).severity, Severity::Warning);
        assert!(of(Some(None), Way::Here).message.contains("it is there twice"));
    }

    #[test]
    fn on_a_network_of_this_hosts_somebody_has_to_answer_for_a_vip() {
        let way = away(None, None);
        let found =
            answers(ip("10.0.0.10"), &BTreeMap::new(), Some(&way), false, |_| Some("eth0".to_owned()))
                .remove(0);
        assert_eq!(commands(&found), ["ip address add 10.0.0.10/32 dev eth0"]);
        // Nobody was asked there.
        let elsewhere = answers(ip("10.0.0.10"), &BTreeMap::new(), Some(&way), false, |_| None).remove(0);
        assert_eq!(elsewhere.severity, Severity::Ok);
        let way = away(Some(ip("10.0.0.1")), None);
        let routed =
            answers(ip("10.0.0.10"), &BTreeMap::new(), Some(&way), false, |_| Some(String::new())).remove(0);
        assert_eq!(routed.severity, Severity::Ok);
    }

    #[test]
    fn one_host_of_a_pair_has_the_vip_and_the_other_one_is_all_right() {
        let vip = ip("10.0.0.10");
        let of = |holder: bool, way: Way| {
            let holders = holder.then_some(([2, 0, 0, 0, 0, 9], None)).into_iter().collect();
            answers(vip, &holders, Some(&way), true, |_| Some("eth0".to_owned())).remove(0)
        };
        assert_eq!(of(false, Way::Here).severity, Severity::Ok);
        assert_eq!(of(true, away(None, Some([2, 0, 0, 0, 0, 9]))).severity, Severity::Ok);
        let both = of(true, Way::Here);
        assert!(
            both.severity == Severity::Problem && both.message.contains("don't hear each other"),
            "{}",
            both.message
        );
        let neither = of(false, away(None, None));
        assert!(neither.message.contains("neither host"), "{}", neither.message);
    }
}

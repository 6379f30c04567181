//! What backends answered.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::super::{
    check::Check,
    finding::Finding,
    probe::{Heard, Question, Refusal, What},
    questions,
    setup::{Served, Server, Setup},
};
use crate::{
    domain::{Forwarding, Protocol},
    neighbour::{Survey, Way},
};

/// `clients`: addresses that the operator named. `heard`: why nothing was asked, or what was answered.
pub(in super::super) fn all(
    setup: &Setup,
    survey: &Survey,
    heard: &Result<Heard, String>,
    clients: &[IpAddr],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let vips = setup.vips();
    for (service, backend) in setup.backends() {
        let address = backend.address.ip();
        // What is told of a route, or an address, is not told again.
        let Some(Way::Away { interface, gateway, source, mac, .. }) = survey.ways.get(&address) else {
            continue;
        };
        if vips.contains(&address) || survey.interfaces.get(interface).is_none_or(|link| link.mac.is_none()) {
            continue;
        }
        if mac.is_none() {
            let finding = unresolved(backend, *gateway, &survey.name(*interface), survey.resolved);
            findings.push(finding);
            continue;
        }
        let heard = match heard {
            Ok(heard) => heard,
            Err(why) => {
                findings.push(Finding::skipped(Check::Reachable, &backend.label, why.clone()));
                continue;
            }
        };
        let own = Own::of(heard, service, backend.address);
        let asked = [Question::Own(address), Question::OwnPort(backend.address)];
        let asked = asked.map(|question| heard.asked.contains(&question));
        findings.push(match asked {
            [false, _] => {
                let why = heard.why_not("this host has no address to ask from");
                Finding::skipped(Check::Reachable, &backend.label, why)
            }
            [true, port] => reachable(backend, &own, port),
        });
        findings.extend(vip(service, backend, heard, &own, *gateway));
        if service.forwarding == Forwarding::Dnat && own.answers() {
            let mut asked = questions::clients(survey, clients, *interface, address);
            asked.retain(|client| heard.asked.contains(&Question::Client(*client, address)));
            let back = asked.iter().any(|client| heard.answer(Question::Client(*client, address)).is_some());
            findings.push(replies(backend, back, !clients.is_empty(), *source, &asked));
        }
    }
    findings
}

/// What a backend says at its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Own {
    echo: bool,
    /// `None`: nothing, or it was not asked.
    port: Option<What>,
}

impl Own {
    fn of(heard: &Heard, service: &Served, backend: SocketAddr) -> Self {
        let port = matches!(service.protocol, Protocol::Tcp)
            .then(|| heard.answer(Question::OwnPort(backend)))
            .flatten();
        Self {
            echo: heard.answer(Question::Own(backend.ip())).is_some(),
            port: port.map(|answer| answer.what),
        }
    }

    fn answers(&self) -> bool {
        self.echo || self.port.is_some()
    }
}

/// `asked`: whether the kernel was made to ask for it.
fn unresolved(backend: &Server, gateway: Option<IpAddr>, interface: &str, asked: bool) -> Finding {
    let address = backend.address.ip();
    let hop = gateway.unwrap_or(address);
    let who = match gateway {
        Some(gateway) => format!("the gateway {gateway} on the way to {address}"),
        None => address.to_string(),
    };
    let what = if hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    if !asked {
        let why = format!(
            "the kernel knows no MAC address of {hop}, and having it ask takes CAP_NET_ADMIN: ask as root"
        );
        return Finding::skipped(Check::Reachable, &backend.label, why);
    }
    Finding::problem(
        Check::Reachable,
        &backend.label,
        format!("{who} does not answer {what} on {interface}: its packets are dropped (`next_hop_unresolved`)"),
    )
    .run([format!("ip neigh show {hop}"), format!("ip route get {address}")])
    .advise("is it up, on this network, and that its address? A service without a health check keeps sending to it")
}

/// `port`: whether it was asked for a connection, too.
fn reachable(backend: &Server, own: &Own, port: bool) -> Finding {
    let address = backend.address.ip();
    if own.answers() {
        return Finding::ok(Check::Reachable, &backend.label, format!("{address} answers"));
    }
    if !port {
        // Many hosts have a firewall that lets no echo in.
        let why =
            format!("{address} has a MAC address and answers no echo, and there is no connection to ask for");
        return Finding::skipped(Check::Reachable, &backend.label, why);
    }
    Finding::warning(
        Check::Reachable,
        &backend.label,
        format!(
            "{address} has a MAC address, and answers neither echo nor a connection: it is down behind that, or a firewall lets neither in"
        ),
    )
    .run([format!("ping -c 3 {address}"), format!("nc -vz {address} {}", backend.address.port())])
}

/// What became of packets that went the way of clients'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Carried {
    echo: bool,
    port: Option<What>,
    /// `None`: it was not asked.
    large: Option<bool>,
    refusal: Option<Refusal>,
    /// Without the outer header; `None`: it was not asked.
    plain: Option<bool>,
}

fn vip(
    service: &Served,
    backend: &Server,
    heard: &Heard,
    own: &Own,
    gateway: Option<IpAddr>,
) -> Vec<Finding> {
    let (vip, address, forwarding) = (service.vip, backend.address.ip(), service.forwarding);
    let echo = Question::Vip(forwarding, vip, address);
    if forwarding.translates() || forwarding == Forwarding::L2Dsr && gateway.is_some() {
        return Vec::new();
    }
    let asked = |question| heard.asked.contains(&question).then(|| heard.answer(question).is_some());
    let port = service.port.filter(|_| service.protocol == Protocol::Tcp);
    let port = port.map(|port| Question::VipPort(forwarding, SocketAddr::new(vip, port), address));
    if !port.into_iter().chain([echo]).all(|question| heard.asked.contains(&question)) {
        let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
        let why = heard.why_not(&format!("this host has no {family} address that {vip} could answer"));
        return vec![Finding::skipped(Check::BackendVip, &backend.label, why)];
    }
    let carried = Carried {
        echo: heard.answer(echo).is_some(),
        port: port.and_then(|port| heard.answer(port)).map(|answer| answer.what),
        large: asked(Question::VipLarge(forwarding, vip, address)),
        refusal: heard.refusal(echo).or_else(|| heard.refusal(port?)),
        plain: forwarding.tunnels().then(|| asked(Question::Vip(Forwarding::L2Dsr, vip, address))).flatten(),
    };
    let mut findings = vec![carries(service, backend, own, &carried)];
    if carried.echo {
        findings.extend(carried.large.map(|large| path_mtu(service, backend, large)));
    }
    findings
}

fn carries(service: &Served, backend: &Server, own: &Own, carried: &Carried) -> Finding {
    let (vip, address, label, forwarding) =
        (service.vip, backend.address, &backend.label, service.forwarding.as_str());
    let problem = |message: String| Finding::problem(Check::BackendVip, label, message);
    let hold = format!("ip address add {vip}/{} dev lo", if vip.is_ipv4() { 32 } else { 128 });
    match (carried.port, own.port) {
        (Some(What::Closed), Some(What::Accepted)) => {
            return problem(format!(
                "it takes packets for {vip} by {forwarding}, but its server listens on {address} alone: connections to {} are refused",
                endpoint(service)
            ))
            .run_on(&backend.name, [format!("ss -ltn 'sport = :{}'", address.port())])
            .advise("have the server listen on every address (0.0.0.0, ::), or on the VIP as well");
        }
        (Some(What::Closed), _) => {
            return Finding::warning(
                Check::BackendVip,
                label,
                format!(
                    "it takes packets for {vip} by {forwarding}, and nobody listens on {}",
                    endpoint(service)
                ),
            )
            .run_on(&backend.name, ["ss -ltn".to_owned()])
            .advise("start the server, on every address or on the VIP");
        }
        _ => {}
    }
    if carried.echo || carried.port.is_some() {
        return Finding::ok(Check::BackendVip, label, format!("it answers from {vip} by {forwarding}"));
    }
    if !own.answers() {
        return Finding::skipped(
            Check::BackendVip,
            label,
            format!("it does not answer at its own address either, so nothing can be said of {vip}"),
        );
    }
    let decapsulate = decapsulation(service, backend);
    match (service.forwarding.tunnels(), carried.refusal, carried.plain) {
        (true, Some(Refusal::Protocol | Refusal::Port), _) | (true, _, Some(true)) => problem(format!(
            "it does not take the outer header off {forwarding} packets: it answers at {address}, and not at {vip} through the tunnel"
        ))
        .run_on(&backend.name, decapsulate)
        .advise("the VIP has to be on lo there, too; docs/forwarding-modes.md has the whole set-up"),
        (true, ..) => problem(format!(
            "it answers at {address}, and not at {vip} through the tunnel: it has no tunnel device that is up, a reverse-path filter \
             drops what comes out of it, or it does not hold the VIP"
        ))
        .run_on(&backend.name, decapsulate.into_iter().chain([hold.replace("address add", "address replace")])),
        (false, ..) => problem(format!(
            "it does not hold {vip}: it answers at {address}, and what clients send to the VIP is dropped there"
        ))
        .run_on(&backend.name, [hold])
        .advise("to keep it, in its network configuration; a firewall on it that lets in neither echo nor the service shows like this, too"),
    }
}

/// As docs/forwarding-modes.md has it.
fn decapsulation(service: &Served, backend: &Server) -> Vec<String> {
    let gue = service.forwarding == Forwarding::Gue;
    let address = backend.address.ip();
    let (device, mut commands) = match (address.is_ipv4(), service.vip.is_ipv4()) {
        (true, true) => ("tunl0", vec!["modprobe ipip && ip link set tunl0 up".to_owned()]),
        (true, false) => ("sit0", vec!["modprobe sit && ip link set sit0 up".to_owned()]),
        (false, _) => (
            "lb-in",
            vec![
                format!("ip link add name lb-in type ip6tnl mode any local {address} remote any"),
                "ip link set lb-in up".to_owned(),
            ],
        ),
    };
    commands.extend(gue.then(|| match address.is_ipv4() {
        true => "modprobe fou && ip fou add port 6080 gue".to_owned(),
        false => "modprobe fou6 && ip -6 fou add port 6080 gue".to_owned(),
    }));
    if service.vip.is_ipv4() {
        commands.push(format!("sysctl -w net.ipv4.conf.{device}.rp_filter=0 net.ipv4.conf.all.rp_filter=0"));
    }
    commands
}

fn path_mtu(service: &Served, backend: &Server, large: bool) -> Finding {
    if large {
        return Finding::ok(
            Check::PathMtu,
            &backend.label,
            "packets as large as clients send get there and back",
        );
    }
    Finding::warning(
        Check::PathMtu,
        &backend.label,
        format!(
            "small packets for {} are answered and large ones are not: something on the way takes less than this host's interface, and says \
             nothing",
            service.vip
        ),
    )
    .run([format!("tracepath -n {}", backend.address.ip())])
    .advise("raise the MTU on the whole way by the outer header, or lower the clients' MSS")
}

fn replies(backend: &Server, back: bool, named: bool, source: Option<IpAddr>, clients: &[IpAddr]) -> Finding {
    let label = &backend.label;
    match (back, backend.traffic) {
        _ if clients.is_empty() => {
            let why = "there are more questions than are asked, and this is not among those";
            return Finding::skipped(Check::Replies, label, why);
        }
        (true, _) => {
            return Finding::ok(Check::Replies, label, "its answers to clients come back through this host");
        }
        (false, Some((_, 1..))) => {
            return Finding::ok(
                Check::Replies,
                label,
                "its answers to clients have come back through this host",
            );
        }
        _ => {}
    }
    let asked: BTreeSet<_> = clients.iter().map(ToString::to_string).collect();
    let asked = asked.into_iter().collect::<Vec<_>>().join(", ");
    let message = format!(
        "what it answers to clients elsewhere (asked as {asked}) does not come back through this host: with `dnat` clients get answers from an \
         address that they never asked"
    );
    // Clients sent to it, and nothing of it came back.
    let is_certain = named || matches!(backend.traffic, Some((1.., 0)));
    let finding = match is_certain {
        true => Finding::problem(Check::Replies, label, message),
        false => Finding::warning(Check::Replies, label, message),
    };
    let router = source.map_or("THIS_HOST".to_owned(), |source| source.to_string());
    finding.run_on(&backend.name, [format!("ip route replace default via {router}")]).advise(
        "or a route of this kind for the clients' networks alone: `ballast doctor --client ADDRESS` asks as one of them. `nat` needs nothing of \
         the backend",
    )
}

fn endpoint(service: &Served) -> String {
    match service.port {
        Some(port) => SocketAddr::new(service.vip, port).to_string(),
        None => service.vip.to_string(),
    }
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

    const SILENT: Carried = Carried { echo: false, port: None, large: None, refusal: None, plain: None };
    const ALIVE: Own = Own { echo: true, port: Some(What::Accepted) };

    fn told(forwarding: Forwarding, own: Own, carried: Carried) -> Finding {
        carries(&service(forwarding), &backend(), &own, &carried)
    }

    #[test]
    fn a_backend_that_answers_from_the_vip_is_well() {
        let answered = Carried { echo: true, port: Some(What::Accepted), ..SILENT };
        assert_eq!(told(Forwarding::L2Dsr, ALIVE, answered).severity, Severity::Ok);
        // A firewall may let in the one or the other.
        assert_eq!(
            told(Forwarding::L2Dsr, ALIVE, Carried { echo: false, ..answered }).severity,
            Severity::Ok
        );
        assert_eq!(told(Forwarding::L2Dsr, ALIVE, Carried { port: None, ..answered }).severity, Severity::Ok);
    }

    #[test]
    fn silence_at_the_vip_is_told_by_what_else_is_known() {
        let lacks = told(Forwarding::L2Dsr, ALIVE, SILENT);
        assert!(lacks.message.contains("does not hold 203.0.113.10"), "{}", lacks.message);
        assert_eq!(commands(&lacks), ["ip address add 203.0.113.10/32 dev lo"]);
        assert_eq!(told(Forwarding::L2Dsr, Own::default(), SILENT).severity, Severity::Skipped);
        for carried in
            [Carried { refusal: Some(Refusal::Protocol), ..SILENT }, Carried { plain: Some(true), ..SILENT }]
        {
            let tunnel = told(Forwarding::Ipip, ALIVE, carried);
            assert!(tunnel.message.contains("does not take the outer header off ipip"), "{}", tunnel.message);
            assert!(commands(&tunnel)[0].contains("tunl0"), "{:?}", commands(&tunnel));
        }
        let either = told(Forwarding::Gue, ALIVE, Carried { plain: Some(false), ..SILENT });
        assert!(either.message.contains("or it does not hold the VIP"), "{}", either.message);
        assert!(commands(&either).iter().any(|command| command.contains("fou add port 6080 gue")));
    }

    #[test]
    fn a_server_that_does_not_listen_on_the_vip_is_found() {
        let closed = Carried { echo: true, port: Some(What::Closed), ..SILENT };
        let only_own = told(Forwarding::L2Dsr, ALIVE, closed);
        assert_eq!(only_own.severity, Severity::Problem);
        assert!(only_own.message.contains("listens on 10.0.0.9:80 alone"), "{}", only_own.message);
        let nobody = Own { port: Some(What::Closed), ..ALIVE };
        assert_eq!(told(Forwarding::L2Dsr, nobody, closed).severity, Severity::Warning);
    }

    #[test]
    fn replies_have_to_come_back_unless_they_are_seen_to() {
        let client = ["192.0.2.1".parse().expect("an address")];
        let of = |back, named, traffic| {
            replies(&Server { traffic, ..backend() }, back, named, None, &client).severity
        };
        assert_eq!(of(true, false, None), Severity::Ok);
        assert_eq!(of(false, false, Some((9, 9))), Severity::Ok);
        assert_eq!(of(false, false, None), Severity::Warning);
        assert_eq!(of(false, true, None), Severity::Problem);
        assert_eq!(of(false, false, Some((9, 0))), Severity::Problem);
        assert_eq!(of(false, false, Some((0, 0))), Severity::Warning);
    }

    #[test]
    fn a_backend_that_is_silent_is_no_certain_fault() {
        let silent = Own::default();
        assert_eq!(reachable(&backend(), &ALIVE, true).severity, Severity::Ok);
        assert_eq!(reachable(&backend(), &silent, true).severity, Severity::Warning);
        assert_eq!(reachable(&backend(), &silent, false).severity, Severity::Skipped);
        assert_eq!(unresolved(&backend(), None, "eth0", true).severity, Severity::Problem);
        assert_eq!(unresolved(&backend(), None, "eth0", false).severity, Severity::Skipped);
        assert_eq!(path_mtu(&service(Forwarding::Ipip), &backend(), false).severity, Severity::Warning);
        assert_eq!(path_mtu(&service(Forwarding::Ipip), &backend(), true).severity, Severity::Ok);
    }
}

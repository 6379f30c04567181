//! Which questions are put on the wire, and how they get to whom they are for.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    probe::{Asking, Path, Question, overhead},
    setup::{Served, Setup},
};
use crate::{
    domain::{Forwarding, Protocol},
    neighbour::{Survey, Way},
};

/// Addresses that nobody has (RFC 5737, RFC 3849), to stand for a client that is far away.
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1));

/// Addresses whose ways have to be known.
pub(super) fn addresses(setup: &Setup, clients: &[IpAddr]) -> BTreeSet<IpAddr> {
    let backends = setup.backends().map(|(_, backend)| backend.address.ip());
    let nat = setup.nat.addresses.iter().copied();
    let clients = clients.iter().copied().chain([NOBODY_V4, NOBODY_V6]);
    backends.chain(setup.vips()).chain(nat).chain(clients).collect()
}

/// Addresses of the family of `like` that stand for clients of a backend on `interface`: those that were named, or else this
/// host's on other interfaces, where a backend's answers have to come by here, too, and one that nobody has.
pub(super) fn clients(survey: &Survey, named: &[IpAddr], interface: u32, like: IpAddr) -> Vec<IpAddr> {
    let of_family = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
    let named: Vec<_> = named.iter().copied().filter(of_family).collect();
    if !named.is_empty() {
        return named;
    }
    let others = survey.addresses.iter().filter(|(index, _)| **index != interface);
    let own = others.filter(|(index, _)| survey.interfaces.get(index).is_some_and(|link| link.mac.is_some()));
    let own = own.filter_map(|(_, all)| all.iter().copied().find(of_family)).take(MOST_OWN);
    own.chain([if like.is_ipv4() { NOBODY_V4 } else { NOBODY_V6 }]).collect()
}

/// The largest packet that clients send: what their way into this host takes, and most of the Internet.
pub(super) fn client_mtu(setup: &Setup, survey: &Survey) -> u32 {
    let mtu = |name: &String| survey.named(name).map(|(_, interface)| interface.mtu);
    setup.interfaces.iter().filter_map(mtu).min().unwrap_or(USUAL_MTU).min(USUAL_MTU)
}

/// All questions, in the order of what they build on.
pub(super) fn all(setup: &Setup, survey: &Survey, named: &[IpAddr]) -> Vec<(Question, Asking)> {
    let mut questions = Vec::new();
    for name in &setup.interfaces {
        let Some((index, interface)) = survey.named(name).filter(|(_, interface)| interface.carrier) else {
            continue;
        };
        let Some(from) = interface.mac else { continue };
        for address in setup.vips() {
            let asking = Asking::Holder { interface: index, from, address };
            questions.push((Question::Holder(address, index), asking));
        }
    }
    let size = client_mtu(setup, survey) as usize;
    for (service, backend) in setup.backends() {
        let address = backend.address;
        if let Some(way) = Reached::new(survey, address.ip()) {
            questions.extend(own(service, address, way));
            questions.extend(vip(service, address.ip(), way, survey, size));
            if service.forwarding == Forwarding::Dnat {
                let clients = clients(survey, named, way.path.interface, address.ip());
                questions.extend(clients.into_iter().map(|client| {
                    let asking = Asking::Echo { path: way.path, from: client, to: address.ip(), size: SMALL };
                    (Question::Client(client, address.ip()), asking)
                }));
            }
        }
    }
    questions
}

/// A backend that frames can be sent to.
#[derive(Clone, Copy)]
struct Reached {
    path: Path,
    source: IpAddr,
    mtu: u32,
    through_gateway: bool,
}

impl Reached {
    fn new(survey: &Survey, backend: IpAddr) -> Option<Self> {
        let Some(&Way::Away { interface, gateway, source, mtu, mac }) = survey.ways.get(&backend) else {
            return None;
        };
        let from = survey.interfaces.get(&interface)?.mac?;
        let path = Path { interface, from, to: mac?, outer: None };
        Some(Self { path, source: source?, mtu, through_gateway: gateway.is_some() })
    }
}

fn own(service: &Served, backend: SocketAddr, way: Reached) -> Vec<(Question, Asking)> {
    let Reached { path, source: from, .. } = way;
    let echo = Asking::Echo { path, from, to: backend.ip(), size: SMALL };
    let mut questions = vec![(Question::Own(backend.ip()), echo)];
    if service.protocol == Protocol::Tcp && backend.port() != 0 {
        questions.push((Question::OwnPort(backend), Asking::Connect { path, from, to: backend }));
    }
    questions
}

/// The way that clients' packets take.
fn vip(
    service: &Served,
    backend: IpAddr,
    way: Reached,
    survey: &Survey,
    size: usize,
) -> Vec<(Question, Asking)> {
    let (vip, forwarding) = (service.vip, service.forwarding);
    let plain = way.path;
    let path = match forwarding {
        Forwarding::L2Dsr => plain,
        Forwarding::Ipip | Forwarding::Gue => {
            Path { outer: Some((way.source, backend, forwarding)), ..plain }
        }
        Forwarding::Dnat | Forwarding::Nat => return Vec::new(),
    };
    // Another router would carry it back to this host.
    if forwarding == Forwarding::L2Dsr && way.through_gateway {
        return Vec::new();
    }
    let Some(from) = source(survey, way, vip) else { return Vec::new() };
    let echo = |path, size| Asking::Echo { path, from, to: vip, size };
    let mut questions = vec![(Question::Vip(forwarding, vip, backend), echo(path, SMALL))];
    if let (Protocol::Tcp, Some(port)) = (service.protocol, service.port) {
        let to = SocketAddr::new(vip, port);
        questions.push((Question::VipPort(forwarding, to, backend), Asking::Connect { path, from, to }));
    }
    if size as u32 + overhead(forwarding, backend) <= way.mtu {
        questions.push((Question::VipLarge(forwarding, vip, backend), echo(path, size)));
    }
    // Tells a backend without the VIP from one without the tunnel.
    if forwarding.tunnels() && !way.through_gateway {
        questions.push((Question::Vip(Forwarding::L2Dsr, vip, backend), echo(plain, SMALL)));
    }
    questions
}

/// An address of this host that a backend can answer from the VIP.
fn source(survey: &Survey, way: Reached, vip: IpAddr) -> Option<IpAddr> {
    if way.source.is_ipv4() == vip.is_ipv4() {
        return Some(way.source);
    }
    let own = survey.address(way.path.interface, vip);
    own.or_else(|| survey.addresses.keys().find_map(|&index| survey.address(index, vip)))
}

/// Of an echo request, in bytes: as `ping` sends it.
const SMALL: usize = 84;
const USUAL_MTU: u32 = 1500;
const MOST_OWN: usize = 3;

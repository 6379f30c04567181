//! What is measured: each program with the packets that it gets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result};
use lb_common::abi::{
    FORWARDING_DNAT, FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR, FORWARDING_NAT, PROTOCOL_TCP,
    PROTOCOL_UDP, TRACK_ALWAYS, TRACK_AUTO, TRACK_NEVER, translates,
};

use crate::model::Protocol;
use crate::packet::{ACK, Packet, SYN};

/// IP version of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// Of an outer header.
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// One of a documentation prefix (RFC 5737, RFC 3849).
    pub(super) fn address(self, host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, high, low).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into(),
        }
    }
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    /// One of the benchmark's own: `tx`, or `encap_v4` and `encap_v6`.
    Floor { encapsulates: bool },
    /// The one that ships.
    Ballast,
    /// The one that runs in its place during a capture.
    Capturing,
    /// The one that runs in its place where there are peers.
    Replicating,
    /// The same, with its flows in another map: the object's name.
    Variant(&'static str),
}

/// What is captured meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// Packets of a client that sends none.
    Others,
    /// A thousand packets a second, of all that come.
    Few,
    /// All packets.
    All,
}

/// What becomes of news of flows, of the program that tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// There are none.
    None,
    /// Each packet is one, and there is room for it.
    Taken,
    /// Each packet is one, and there is no room.
    Full,
}

/// What has become of a change that gave every slot of a service another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There was none.
    None,
    /// It has aged out.
    AgedOut,
    /// It lasts: every slot is tracked.
    Open,
}

/// A service's flavour; each is a service of its own, with its own backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flavour {
    pub(super) forwarding: u8,
    pub(super) protocol: u8,
    pub(super) tracking: u8,
    pub(super) change: Change,
}

pub(super) const L2: Flavour = Flavour {
    forwarding: FORWARDING_L2_DSR,
    protocol: PROTOCOL_TCP,
    tracking: TRACK_AUTO,
    change: Change::None,
};
pub(super) const L2_TRACKED: Flavour = Flavour { tracking: TRACK_ALWAYS, ..L2 };
pub(super) const L2_UDP: Flavour = Flavour { protocol: PROTOCOL_UDP, ..L2_TRACKED };
pub(super) const IPIP: Flavour = Flavour { forwarding: FORWARDING_IPIP, ..L2 };
pub(super) const IPIP_CHANGED: Flavour = Flavour { change: Change::AgedOut, ..IPIP };
pub(super) const IPIP_CHANGING: Flavour = Flavour { change: Change::Open, ..IPIP };
pub(super) const IPIP_TRACKED: Flavour = Flavour { tracking: TRACK_ALWAYS, ..IPIP };
pub(super) const IPIP_UDP: Flavour = Flavour { protocol: PROTOCOL_UDP, ..IPIP_TRACKED };
pub(super) const GUE: Flavour = Flavour { forwarding: FORWARDING_GUE, ..L2 };
pub(super) const DNAT: Flavour = Flavour { forwarding: FORWARDING_DNAT, tracking: TRACK_NEVER, ..L2 };
pub(super) const NAT: Flavour = Flavour { forwarding: FORWARDING_NAT, ..DNAT };

/// The most flows through NAT that are measured.
pub(super) const NAT_FLOWS: u64 = super::turn::FLOWS as u64;

/// One line of the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) under: Under,
    /// `None`: for no VIP.
    pub(super) service: Option<Flavour>,
    /// TCP flags.
    pub(super) flags: u8,
    /// Every packet is of another flow, however many flows the group has.
    pub(super) all_new: bool,
    /// Packets are what backends answer.
    pub(super) replies: bool,
    /// There are services with NAT, beside which every packet for no service is looked up as a reply.
    pub(super) with_nat: bool,
    pub(super) capture: Option<Capture>,
    pub(super) news: News,
}

impl Scenario {
    const fn ballast(name: &'static str, service: Flavour) -> Self {
        Self {
            name,
            under: Under::Ballast,
            service: Some(service),
            with_nat: translates(service.forwarding),
            ..FLOOR
        }
    }

    const fn opens(self) -> Self {
        Self { flags: SYN, ..self }
    }

    const fn all_new(self) -> Self {
        Self { all_new: true, ..self }
    }

    const fn replies(self) -> Self {
        Self { replies: true, ..self }
    }

    const fn during(self, name: &'static str, capture: Capture) -> Self {
        Self { name, under: Under::Capturing, capture: Some(capture), ..self }
    }

    const fn with_peers(self, name: &'static str, news: News) -> Self {
        Self { name, under: Under::Replicating, news, ..self }
    }

    const fn in_variant(self, object: &'static str) -> Self {
        Self { under: Under::Variant(object), ..self }
    }

    /// Whether it is of another build.
    pub(super) fn is_other(&self) -> bool {
        matches!(self.under, Under::Variant(name) if Path::new(name).is_absolute())
    }

    /// Whether it needs maps of its own, because others would fill them, or have other services.
    pub(super) fn is_alone(&self) -> bool {
        let tracks = |service: Flavour| service.tracking == TRACK_ALWAYS || service.change == Change::Open;
        self.with_nat || self.service.is_some_and(tracks)
    }

    /// Whether each packet makes an entry that no other flow pushes out, so that the flow table fills.
    pub(super) fn fills(&self) -> bool {
        self.all_new && self.flags & SYN == 0 && self.is_alone()
    }

    /// Whether `other` is the same traffic under the program as it ships, and this is not.
    pub(super) fn plain_is(&self, other: &Self) -> bool {
        let traffic = |it: &Self| (it.service, it.flags, it.all_new, it.replies, it.with_nat);
        let is_plain = matches!(self.under, Under::Floor { .. } | Under::Ballast);
        !is_plain && other.under == Under::Ballast && traffic(self) == traffic(other)
    }

    /// Whether it is measured with this many flows.
    pub(super) fn takes(&self, flows: u64) -> bool {
        flows <= NAT_FLOWS || !(self.with_nat || self.replies)
    }

    /// By how much it makes a frame longer.
    pub(super) fn outer_len(&self, family: Family) -> usize {
        match (self.under, self.service.map(|service| service.forwarding)) {
            (Under::Floor { encapsulates: true }, _) | (_, Some(FORWARDING_IPIP)) => family.header_len(),
            (_, Some(FORWARDING_GUE)) => family.header_len() + 8,
            _ => 0,
        }
    }

    pub(super) fn frame(&self, family: Family) -> Vec<u8> {
        // The destination's port is the service's number (stage.rs); a floor gets a packet like any other's.
        let (host, port) = match self.service {
            Some(flavour) => (VIP, port(flavour)),
            None if matches!(self.under, Under::Floor { .. }) => (VIP, port(IPIP)),
            None => (VIP + 1, port(IPIP)),
        };
        let udp = self.service.is_some_and(|service| service.protocol == PROTOCOL_UDP);
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let mut packet = Packet::new(protocol, (family.address(9), 8080), (family.address(host), port));
        packet.tcp_flags = self.flags;
        packet.build()
    }
}

/// The VIP's host number.
pub(super) const VIP: u16 = 80;

/// Every flavour, in the order of the services' numbers.
pub(super) const FLAVOURS: [Flavour; 11] =
    [L2, L2_TRACKED, L2_UDP, IPIP, IPIP_TRACKED, IPIP_UDP, IPIP_CHANGED, IPIP_CHANGING, GUE, DNAT, NAT];

pub(super) fn port(flavour: Flavour) -> u16 {
    let number = FLAVOURS.iter().position(|other| *other == flavour).unwrap_or_default();
    8000 + number as u16
}

const FLOOR: Scenario = Scenario {
    name: "floor: XDP_TX",
    under: Under::Floor { encapsulates: false },
    service: None,
    flags: ACK,
    all_new: false,
    replies: false,
    with_nat: false,
    capture: None,
    news: News::None,
};

pub(super) const TX: &str = FLOOR.name;
pub(super) const TX_REPLIES: &str = "floor: XDP_TX of replies";
pub(super) const ENCAP: &str = "floor: encapsulation";
pub(super) const NON_VIP: &str = "not for a VIP";
pub(super) const NON_VIP_NAT: &str = "not for a VIP, beside NAT";
pub(super) const L2_ESTABLISHED: &str = "l2-dsr TCP established";
pub(super) const L2_NEW: &str = "l2-dsr TCP new";
pub(super) const L2_TRACKED_ESTABLISHED: &str = "l2-dsr TCP tracked";
pub(super) const L2_DATAGRAM: &str = "l2-dsr UDP";
pub(super) const ESTABLISHED: &str = "ipip TCP established";
pub(super) const AGED: &str = "ipip TCP established, a change aged out";
pub(super) const NEW: &str = "ipip TCP new";
pub(super) const ALL_NEW: &str = "ipip TCP every packet new";
pub(super) const TRACKED: &str = "ipip TCP tracked";
pub(super) const TRACKED_ALL_NEW: &str = "ipip TCP tracked, every packet new";
pub(super) const DATAGRAM: &str = "ipip UDP";
const CHANGING_ALL_NEW: &str = "ipip TCP during a change, every packet new";
pub(super) const ESTABLISHED_PEERS: &str = "ipip TCP established, with peers";
const TRACKED_PEERS: &str = "ipip TCP tracked, with peers";
const CHANGING_PEERS: &str = "ipip TCP during a change, every packet new, with peers";
const CHANGING_PEERS_FULL: &str = "ipip TCP during a change, every packet new, with peers, no room";
const CAPTURE_OTHERS: &str = "ipip TCP established, a capture of others";
const CAPTURE_FEW: &str = "ipip TCP established, a capture of few";
const CAPTURE_ALL: &str = "ipip TCP established, a capture of all";
pub(super) const GUE_ESTABLISHED: &str = "gue TCP established";
pub(super) const DNAT_ESTABLISHED: &str = "dnat TCP established";
pub(super) const DNAT_REPLIES: &str = "dnat TCP replies";
pub(super) const NAT_ESTABLISHED: &str = "nat TCP established";
pub(super) const NAT_REPLIES: &str = "nat TCP replies";
pub(super) const LRU: &str = "ipip TCP in a kernel LRU";
pub(super) const LRU_ALL_NEW: &str = "ipip TCP in a kernel LRU, every packet new";
pub(super) const PERCPU: &str = "ipip TCP in a per-CPU LRU";
pub(super) const PERCPU_ALL_NEW: &str = "ipip TCP in a per-CPU LRU, every packet new";

/// Another build of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Other {
    name: &'static str,
    path: &'static str,
}

impl Other {
    pub(super) fn new(object: &Path) -> Result<Self> {
        let path = object.canonicalize().with_context(|| format!("find {}", object.display()))?;
        let name = path.file_name().context("an object is a file")?.to_string_lossy().into_owned();
        let path = path.to_str().context("a path in UTF-8")?.to_owned();
        // A handful, for as long as the program runs.
        Ok(Self { name: name.leak(), path: path.leak() })
    }
}

/// All that a group measures.
pub(super) fn all(others: &[Other]) -> Vec<Scenario> {
    let of_program = |scenario: &&Scenario| scenario.under == Under::Ballast;
    let again = others.iter().flat_map(|other| {
        SCENARIOS.iter().filter(of_program).map(|scenario| Scenario {
            name: format!("{}: {}", other.name, scenario.name).leak(),
            under: Under::Variant(other.path),
            ..*scenario
        })
    });
    SCENARIOS.into_iter().chain(again).collect()
}

pub(super) const SCENARIOS: [Scenario; 33] = [
    FLOOR,
    Scenario { name: TX_REPLIES, ..FLOOR }.replies(),
    Scenario { name: ENCAP, under: Under::Floor { encapsulates: true }, ..FLOOR },
    Scenario { name: NON_VIP, under: Under::Ballast, ..FLOOR },
    Scenario { name: NON_VIP_NAT, under: Under::Ballast, with_nat: true, ..FLOOR },
    Scenario::ballast(L2_ESTABLISHED, L2),
    Scenario::ballast(L2_NEW, L2).opens(),
    Scenario::ballast(L2_TRACKED_ESTABLISHED, L2_TRACKED),
    Scenario::ballast(L2_DATAGRAM, L2_UDP),
    Scenario::ballast(ESTABLISHED, IPIP),
    Scenario::ballast(AGED, IPIP_CHANGED),
    Scenario::ballast(NEW, IPIP).opens(),
    Scenario::ballast(ALL_NEW, IPIP).opens().all_new(),
    Scenario::ballast(TRACKED, IPIP_TRACKED),
    Scenario::ballast(TRACKED_ALL_NEW, IPIP_TRACKED).opens().all_new(),
    Scenario::ballast(DATAGRAM, IPIP_UDP),
    Scenario::ballast(CHANGING_ALL_NEW, IPIP_CHANGING).all_new(),
    Scenario::ballast(ESTABLISHED, IPIP).with_peers(ESTABLISHED_PEERS, News::None),
    Scenario::ballast(TRACKED, IPIP_TRACKED).with_peers(TRACKED_PEERS, News::None),
    Scenario::ballast(CHANGING_ALL_NEW, IPIP_CHANGING).all_new().with_peers(CHANGING_PEERS, News::Taken),
    Scenario::ballast(CHANGING_ALL_NEW, IPIP_CHANGING).all_new().with_peers(CHANGING_PEERS_FULL, News::Full),
    Scenario::ballast(ESTABLISHED, IPIP).during(CAPTURE_OTHERS, Capture::Others),
    Scenario::ballast(ESTABLISHED, IPIP).during(CAPTURE_FEW, Capture::Few),
    Scenario::ballast(ESTABLISHED, IPIP).during(CAPTURE_ALL, Capture::All),
    Scenario::ballast(GUE_ESTABLISHED, GUE),
    Scenario::ballast(DNAT_ESTABLISHED, DNAT),
    Scenario::ballast(DNAT_REPLIES, DNAT).replies(),
    Scenario::ballast(NAT_ESTABLISHED, NAT),
    Scenario::ballast(NAT_REPLIES, NAT).replies(),
    Scenario::ballast(LRU, IPIP_TRACKED).in_variant("lru"),
    Scenario::ballast(LRU_ALL_NEW, IPIP_TRACKED).opens().all_new().in_variant("lru"),
    Scenario::ballast(PERCPU, IPIP_TRACKED).in_variant("percpu-lru"),
    Scenario::ballast(PERCPU_ALL_NEW, IPIP_TRACKED).opens().all_new().in_variant("percpu-lru"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_ships_is_compared_with_one_that_is() {
        let others = [Other { name: "other", path: "/other" }];
        for scenario in all(&others) {
            let plain: Vec<_> =
                SCENARIOS.iter().filter(|other| scenario.plain_is(other)).map(|other| other.name).collect();
            let is_plain = matches!(scenario.under, Under::Floor { .. } | Under::Ballast);
            assert_eq!(plain.len(), usize::from(!is_plain), "{}: {plain:?}", scenario.name);
            assert!(
                plain.iter().all(|name| scenario.name.contains(name)) || !scenario.is_other(),
                "{plain:?}"
            );
        }
    }
}

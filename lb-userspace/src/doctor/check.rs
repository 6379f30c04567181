use serde::{Serialize, Serializer};

/// Everything that is looked at. Names are stable; `docs/doctor.md` lists them, and a test compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    Config,
    Kernel,
    Bpf,
    Jit,
    Rights,
    Bpffs,
    Pins,
    StateDir,
    Files,
    Memory,
    Metrics,
    Clock,
    Interface,
    Program,
    Xdp,
    Queues,
    Offloads,
    InterfaceMtu,
    RpFilter,
    IpForward,
    Conntrack,
    NatPorts,
    NatAddresses,
    NatSize,
    Vip,
    VipAnswers,
    Route,
    Clash,
    Mtu,
    Reachable,
    BackendVip,
    PathMtu,
    Replies,
    Daemon,
    Current,
    Attached,
    Announced,
    Tables,
    Drops,
}

impl Check {
    /// In the order in which findings are listed.
    pub const ALL: [Self; 39] = [
        Self::Config,
        Self::Kernel,
        Self::Bpf,
        Self::Jit,
        Self::Rights,
        Self::Bpffs,
        Self::Pins,
        Self::StateDir,
        Self::Files,
        Self::Memory,
        Self::Metrics,
        Self::Clock,
        Self::Interface,
        Self::Program,
        Self::Xdp,
        Self::Queues,
        Self::Offloads,
        Self::InterfaceMtu,
        Self::RpFilter,
        Self::IpForward,
        Self::Conntrack,
        Self::NatPorts,
        Self::NatAddresses,
        Self::NatSize,
        Self::Vip,
        Self::VipAnswers,
        Self::Route,
        Self::Clash,
        Self::Mtu,
        Self::Reachable,
        Self::BackendVip,
        Self::PathMtu,
        Self::Replies,
        Self::Daemon,
        Self::Current,
        Self::Attached,
        Self::Announced,
        Self::Tables,
        Self::Drops,
    ];

    pub const fn as_str(self) -> &'static str {
        self.described().0
    }

    /// What is looked at, for people.
    pub const fn looks_at(self) -> &'static str {
        self.described().1
    }

    const fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Config => ("config", "the configuration is valid, and has no warnings"),
            Self::Kernel => ("kernel", "5.15 or newer, 5.18 for frames of several buffers"),
            Self::Bpf => ("bpf", "maps can be made and mapped into memory"),
            Self::Jit => ("jit", "programs are compiled, and not blinded for root"),
            Self::Rights => ("rights", "capabilities of the daemon, or of whoever asks"),
            Self::Bpffs => ("bpffs", "a BPF file system where `pin_dir` is"),
            Self::Pins => ("pins", "what is pinned there has the layout of this version"),
            Self::StateDir => ("state-dir", "`state_dir` is there, has room and takes files"),
            Self::Files => ("open-files", "the limit of open files suffices for the health checks"),
            Self::Memory => ("locked-memory", "before 5.11: the limit of locked memory"),
            Self::Metrics => {
                ("metrics", "the metrics address is this host's and free, or the daemon answers there")
            }
            Self::Clock => ("clock", "files of the daemon are not from the future"),
            Self::Interface => ("interface", "interfaces exist, are up, have carrier and Ethernet frames"),
            Self::Program => ("xdp-program", "no other XDP program is in the place of Ballast's"),
            Self::Xdp => ("xdp-native", "the driver runs XDP natively and sends frames for it"),
            Self::Queues => ("queues", "as many receive queues as CPUs, where the card has them"),
            Self::Offloads => ("offloads", "nothing merges frames or strips VLAN tags before XDP"),
            Self::InterfaceMtu => ("interface-mtu", "the MTU is one that native XDP takes"),
            Self::RpFilter => ("rp-filter", "strict reverse-path filters do not drop answers of backends"),
            Self::IpForward => ("ip-forward", "with `dnat`: the host forwards what backends send through it"),
            Self::Conntrack => {
                ("conntrack", "the connection tracking table, which sees what passes, is not full")
            }
            Self::NatPorts => ("nat-ports", "ports of `[nat]` are not those of the host's own sockets"),
            Self::NatAddresses => ("nat-addresses", "addresses of `[nat]` are this host's or routed to it"),
            Self::NatSize => ("nat-size", "ports of `[nat]` suffice for the new flows a second"),
            Self::Vip => ("vip", "VIPs on this host, and the way of checks with `via = \"vip\"`"),
            Self::VipAnswers => ("vip-answers", "nobody else answers ARP or neighbour discovery for a VIP"),
            Self::Route => {
                ("route", "a route to each backend that XDP can send by; `l2-dsr` without a gateway")
            }
            Self::Clash => ("clash", "a backend's address is no VIP and not this host's"),
            Self::Mtu => ("mtu", "clients' packets and the outer header fit the way to the backend"),
            Self::Reachable => ("reachable", "each backend, or its gateway, has a MAC address and answers"),
            Self::BackendVip => {
                ("backend-vip", "`l2-dsr`, `ipip`, `gue`: the backend takes packets for the VIP")
            }
            Self::PathMtu => ("path-mtu", "the same with a packet as large as clients send"),
            Self::Replies => ("replies", "`dnat`: answers of the backend come back through this host"),
            Self::Daemon => ("daemon", "it runs, and its control task does"),
            Self::Current => ("current", "what runs is what the files say"),
            Self::Attached => ("attached", "the program is on all interfaces, natively"),
            Self::Announced => (
                "announced",
                "with `[announce]`: the network is told of each VIP, by a route that is Ballast's",
            ),
            Self::Tables => ("tables", "there is room in the flow table and NAT's"),
            Self::Drops => ("drops", "packets are not being dropped for a fault of the set-up"),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_a_place_in_the_documentation() {
        let names: HashSet<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
        assert_eq!(names.len(), Check::ALL.len());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
        let text = std::fs::read_to_string(path).expect("docs/doctor.md");
        let (_, list) = text.split_once("## All checks").expect("the list of checks");
        let rows: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("| `")).collect();
        let expected = Check::ALL.map(|check| format!("{}` | {} |", check.as_str(), check.looks_at()));
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected);
        }
        assert_eq!(rows.len(), expected.len());
    }
}

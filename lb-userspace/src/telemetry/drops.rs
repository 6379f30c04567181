//! What drop reasons mean, in the words of `docs/operations.md`, and whom they concern.

use lb_common::abi::DropReason;

/// What a packet dropped for this reason was.
pub const fn meaning(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoBackend => "no backend may get traffic",
        DropReason::Rejected => {
            "no backend may get traffic, and the sender could not be told: the packet is an RST, a fragment of TCP, from no \
             single host's address, or one ICMP error too many this second"
        }
        DropReason::SourceDenied => "allow and deny of the service keep the client out",
        DropReason::NewFlowLimit => "the service has had its new_flow_rate of new flows this second",
        DropReason::NatExhausted => {
            "a new flow found no free port to its backend, or limits.nat_flows are there"
        }
        DropReason::NoNatFlow => {
            "a TCP segment to a dnat or nat service that opens no flow and belongs to none"
        }
        DropReason::BackendDisabled => "the backend that the packet belongs to accepts no flows",
        DropReason::NextHopUnresolved => {
            "the kernel has no MAC address for the backend's next hop, or the route leads over a VLAN device, a bridge or a \
             macvlan, on which XDP can't send"
        }
        DropReason::TtlExpired => {
            "TTL used up at the load balancer (not in l2-dsr), and no answer was due or allowed"
        }
        DropReason::PacketTooBig => {
            "larger than the egress MTU, outer header included, and no answer was due or allowed"
        }
        DropReason::Fragment => {
            "a fragment for a VIP whose first one was not forwarded, came later, or came more than 5 s ago; one of an ICMP \
             packet"
        }
        DropReason::ExtensionHeader => {
            "more than 8 IPv6 extension headers or 512 bytes of them, one that routes on, or one that NAT would break"
        }
        DropReason::TruncatedHeader | DropReason::BadIpHeader => "malformed",
        DropReason::NoHeadroom => "the driver leaves no room for an outer header",
        DropReason::NoEgress => "the egress interface is gone",
        DropReason::BadMapEntry => "an entry the daemon never writes",
    }
}

/// What there is to do about it.
pub const fn advice(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoBackend | DropReason::Rejected => "look at the health of the backends",
        DropReason::SourceDenied => "nothing, or change the lists",
        DropReason::NewFlowLimit => "nothing, or raise it",
        DropReason::NatExhausted => {
            "more [nat] addresses or ports, more backends, a shorter flow_idle_timeout, or a larger limit"
        }
        DropReason::NoNatFlow => "nothing: a flow that was over, or somebody who scans",
        DropReason::BackendDisabled => {
            "nothing while a backend is being disabled or removed, or after the grace of an unhealthy one behind dnat or nat; \
             otherwise a bug"
        }
        DropReason::NextHopUnresolved => "ip route get BACKEND, ip neigh; is the backend up?",
        DropReason::TtlExpired => "a routing loop, or somebody's traceroute",
        DropReason::PacketTooBig => "raise that MTU, or lower the clients' MSS",
        DropReason::Fragment => "nothing for some; otherwise lower the senders' packet size",
        DropReason::ExtensionHeader => "nothing: nobody sends that in good faith",
        DropReason::TruncatedHeader | DropReason::BadIpHeader => "nothing",
        DropReason::NoHeadroom => "another driver, or xdp_mode = \"generic\"",
        DropReason::NoEgress => "ip link",
        DropReason::BadMapEntry => "a bug, or maps written by somebody else",
    }
}

/// Who should look at packets that are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Nobody: what clients are refused by configuration, and what strangers send, is no fault of the service.
    Nobodys,
    /// Somebody, when it goes on for minutes.
    Lasting,
    /// Somebody.
    Trouble,
    /// Whoever has set up this host, or the way to its backends.
    SetUp,
}

/// Whom packets dropped for this reason concern. The alert rules in `packaging/prometheus` go by it, too.
pub const fn concern(reason: DropReason) -> Concern {
    match reason {
        DropReason::SourceDenied
        | DropReason::NewFlowLimit
        | DropReason::NoNatFlow
        | DropReason::ExtensionHeader
        | DropReason::TruncatedHeader
        | DropReason::BadIpHeader => Concern::Nobodys,
        DropReason::BackendDisabled | DropReason::Fragment => Concern::Lasting,
        DropReason::NoBackend | DropReason::Rejected | DropReason::TtlExpired => Concern::Trouble,
        DropReason::NatExhausted
        | DropReason::NextHopUnresolved
        | DropReason::PacketTooBig
        | DropReason::NoHeadroom
        | DropReason::NoEgress
        | DropReason::BadMapEntry => Concern::SetUp,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_alert_leaves_out_what_concerns_nobody() {
        let rules = include_str!("../../../packaging/prometheus/ballast.rules.yml");
        let (_, rest) = rules.split_once("ballast_drops_total{reason!~\"").expect("the alert");
        let (left_out, _) = rest.split_once('"').expect("its end");
        let left_out: BTreeSet<_> = left_out.split('|').collect();
        let nobodys = DropReason::ALL.into_iter().filter(|reason| concern(*reason) == Concern::Nobodys);
        assert_eq!(left_out, nobodys.map(DropReason::name).collect());
    }

    #[test]
    fn every_reason_is_told_of_as_the_documentation_does() {
        let page = include_str!("../../../docs/operations.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let rows: Vec<_> = rows.map(|row| row.split(" | ").collect::<Vec<_>>()).collect();
        for reason in DropReason::ALL {
            let name = reason.name();
            let of = |row: &&Vec<&str>| row[0].split(", ").any(|word| word.trim_matches('`') == name);
            let row = rows.iter().find(of).unwrap_or_else(|| panic!("nobody documents {name}"));
            let plain = |text: &str| text.replace('`', "");
            assert_eq!(
                (plain(row[1]), plain(row[2])),
                (meaning(reason).into(), advice(reason).into()),
                "{name}"
            );
        }
    }
}

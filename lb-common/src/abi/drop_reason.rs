//! Why a packet was dropped.

/// A packet for a VIP that was not forwarded. The name is the metric label and the JSON key; the number is the index
/// of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The frame ends inside a header, or before the length its IP header announces.
    TruncatedHeader = 0,
    /// An IP header whose lengths contradict each other.
    BadIpHeader = 1,
    /// A fragment whose first one was not seen, or was seen too long ago.
    Fragment = 2,
    /// IPv6 extension headers that say another destination, that are too many or too long, or that NAT would break.
    ExtensionHeader = 3,
    /// TTL or hop limit used up at the load balancer (RFC 1812 section 5.3.1).
    TtlExpired = 4,
    /// The slot names no backend: none is enabled, or policy says to drop.
    NoBackend = 5,
    /// The slot's backend accepts no flows.
    BackendDisabled = 6,
    /// The kernel has no MAC address for the backend's next hop.
    NextHopUnresolved = 7,
    /// Larger than the egress MTU after encapsulation.
    PacketTooBig = 8,
    /// The driver left no room in front of the frame for an outer header.
    NoHeadroom = 9,
    /// The egress interface is gone.
    NoEgress = 10,
    /// A map entry that the controller never writes: a bug, or maps written by somebody else.
    BadMapEntry = 11,
    /// No port is free for a new NAT flow to this backend, or the NAT table is full.
    NatExhausted = 12,
    /// A TCP segment of a NAT service that opens no flow and belongs to none.
    NoNatFlow = 13,
    /// The service's source prefixes deny the client.
    SourceDenied = 14,
    /// The service has opened as many flows this second as it may.
    NewFlowLimit = 15,
    /// No backend is healthy, and the service says to tell whoever comes: this packet could not be answered.
    Rejected = 16,
}

impl DropReason {
    pub const ALL: [Self; 17] = [
        Self::TruncatedHeader,
        Self::BadIpHeader,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::TtlExpired,
        Self::NoBackend,
        Self::BackendDisabled,
        Self::NextHopUnresolved,
        Self::PacketTooBig,
        Self::NoHeadroom,
        Self::NoEgress,
        Self::BadMapEntry,
        Self::NatExhausted,
        Self::NoNatFlow,
        Self::SourceDenied,
        Self::NewFlowLimit,
        Self::Rejected,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::TruncatedHeader => "truncated_header",
            Self::BadIpHeader => "bad_ip_header",
            Self::Fragment => "fragment",
            Self::ExtensionHeader => "extension_header",
            Self::TtlExpired => "ttl_expired",
            Self::NoBackend => "no_backend",
            Self::BackendDisabled => "backend_disabled",
            Self::NextHopUnresolved => "next_hop_unresolved",
            Self::PacketTooBig => "packet_too_big",
            Self::NoHeadroom => "no_headroom",
            Self::NoEgress => "no_egress",
            Self::BadMapEntry => "bad_map_entry",
            Self::NatExhausted => "nat_exhausted",
            Self::NoNatFlow => "no_nat_flow",
            Self::SourceDenied => "source_denied",
            Self::NewFlowLimit => "new_flow_limit",
            Self::Rejected => "rejected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::MAX_DROP_REASONS;

    #[test]
    fn every_reason_has_its_own_counter() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        assert!(DropReason::ALL.len() <= MAX_DROP_REASONS);
    }
}

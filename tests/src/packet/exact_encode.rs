//! NAT entries, from the model's to the map ABI.

use std::net::{IpAddr, Ipv6Addr};

use lb_common::abi::{
    NAT_CONFIRMED, NAT_FIN, NAT_RST, NatFlow as FlowValue, NatFlowKey as FlowKey, NatReply as ReplyValue,
    NatReplyKey as ReplyKey, NatSeen,
};

use super::encode::mapped;
use crate::model::{NatFlow, NatFlowKey, NatReply, NatReplyKey, Seen};

pub(super) fn flow_key(key: &NatFlowKey) -> FlowKey {
    FlowKey { client: mapped(key.client), ports: ports(key.client_port, key.vip_port), service: key.service }
}

pub(super) fn flow(flow: &NatFlow) -> FlowValue {
    let (mac, interface) = flow.came_by;
    FlowValue {
        seen: seen(flow.seen),
        backend: flow.backend,
        backend_port: flow.backend_port.to_be_bytes(),
        our_port: flow.our_port.to_be_bytes(),
        our_address: mapped(flow.our_address),
        came_by: mac_word(mac) | u64::from(interface) << 48,
    }
}

pub(super) fn reply_key(key: &NatReplyKey) -> ReplyKey {
    ReplyKey {
        backend: mapped(key.backend),
        our_address: mapped(key.our_address),
        ports: ports(key.backend_port, key.our_port),
        protocol: key.protocol.number(),
        _padding: [0; 3],
    }
}

pub(super) fn reply(reply: &NatReply) -> ReplyValue {
    ReplyValue {
        seen: seen(reply.seen),
        client: mapped(reply.client),
        vip: mapped(reply.vip),
        ports: ports(reply.vip_port, reply.client_port),
        service: reply.service,
        backend: reply.backend,
        ifindex: reply.interface,
        next_hop: mac_word(reply.next_hop),
        source_mac: mac_word(reply.source_mac),
    }
}

pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The first byte lowest.
pub(super) fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn ports(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}

fn seen(seen: Seen) -> u64 {
    let bit = |set, bit| if set { bit } else { 0 };
    let bits = bit(seen.confirmed, NAT_CONFIRMED) | bit(seen.fin, NAT_FIN) | bit(seen.rst, NAT_RST);
    NatSeen::new(seen.time.into(), bits).0
}

//! NAT's flows in memory.

use std::collections::HashMap;

use lb_common::{
    abi::{
        BackendValue, NatFlow, NatFlowKey, NatReply, NatReplyKey, NatSeen, PROTOCOL_TCP, SWEEP_LONE_REPLY,
        SweepRequest,
    },
    nat,
};

use super::{Fake, Maps};
use crate::dataplane::nat::{NatCursor, NatPage};

#[derive(Debug, Default)]
pub(super) struct NatMaps {
    flows: HashMap<NatFlowKey, NatFlow>,
    replies: HashMap<NatReplyKey, NatReply>,
    kept: Vec<NatFlowKey>,
}

impl Fake {
    /// Plays the data plane: a flow of a client, and when the backend's last packet was seen.
    pub fn set_nat_flow(&self, key: NatFlowKey, flow: NatFlow, answered: Option<NatSeen>) {
        let mut maps = self.maps();
        let reply_key = maps.reply_key(&key, &flow);
        maps.nat.flows.insert(key, flow);
        // It is there from the first packet on, which no answer has confirmed.
        let seen = answered.unwrap_or(NatSeen::new(NatSeen(flow.seen).time().into(), 0));
        let NatFlowKey { client, ports: [a, b, c, d], service } = key;
        let reply = NatReply {
            seen: seen.0,
            client,
            ports: [c, d, a, b],
            service,
            backend: flow.backend,
            ..NatReply::default()
        };
        maps.nat.replies.insert(reply_key, reply);
    }

    /// Plays somebody who took a client's side away, and left the backend's.
    pub fn remove_nat_flow(&self, key: &NatFlowKey) {
        self.maps().nat.flows.remove(key);
    }

    /// From now on these are not taken away, whoever asks for it: as if somebody else kept changing them.
    pub fn keep_nat_flows(&self, flows: impl IntoIterator<Item = NatFlowKey>) {
        self.maps().nat.kept = flows.into_iter().collect();
    }

    /// How many entries there are on the clients' side and on the backends'.
    pub fn nat_entries(&self) -> (usize, usize) {
        let maps = self.maps();
        (maps.nat.flows.len(), maps.nat.replies.len())
    }
}

impl NatMaps {
    pub(super) fn flows(&self, cursor: NatCursor, count: u32) -> NatPage<NatFlowKey, NatFlow> {
        page(&self.flows, cursor, count, |key, _| key.client[15])
    }

    pub(super) fn replies(&self, cursor: NatCursor, count: u32) -> NatPage<NatReplyKey, NatReply> {
        page(&self.replies, cursor, count, |_, reply| reply.client[15])
    }

    pub(super) fn flow(&self, key: &NatFlowKey) -> Option<NatFlow> {
        self.flows.get(key).copied()
    }

    pub(super) fn reply(&self, key: &NatReplyKey) -> Option<NatReply> {
        self.replies.get(key).copied()
    }
}

impl Maps {
    /// As `ballast_sweep` does it.
    pub(super) fn sweep(&mut self, request: &SweepRequest, now: u64) -> bool {
        if request.what == SWEEP_LONE_REPLY {
            return self.sweep_lone(&request.reply, now);
        }
        let Some(flow) = self.nat.flows.get(&request.flow).copied() else { return true };
        let record = self.services.get(&request.flow.service).copied().unwrap_or_default();
        let reply_key = self.reply_key(&request.flow, &flow);
        let client = NatSeen(flow.seen);
        let never = NatSeen::new(client.time().into(), 0);
        let reply = self.nat.reply(&reply_key).map_or(never, |reply| NatSeen(reply.seen));
        let tcp = record.key.protocol == PROTOCOL_TCP;
        let kept = self.nat.kept.contains(&request.flow);
        let gone =
            !kept && (request.force != 0 || nat::is_over(client, reply, tcp, record.flow_idle_timeout, now));
        if gone {
            self.nat.flows.remove(&request.flow);
            self.nat.replies.remove(&reply_key);
        }
        gone
    }

    fn sweep_lone(&mut self, key: &NatReplyKey, now: u64) -> bool {
        let Some(reply) = self.nat.reply(key) else { return true };
        let flow = self.nat.flow(&reply.flow_key());
        let gone =
            !flow.is_some_and(|flow| flow.is_answered_by(key)) && nat::is_abandoned(NatSeen(reply.seen), now);
        if gone {
            self.nat.replies.remove(key);
        }
        gone
    }

    fn reply_key(&self, key: &NatFlowKey, flow: &NatFlow) -> NatReplyKey {
        let BackendValue { address, .. } = self.backends.get(&flow.backend).copied().unwrap_or_default();
        let record = self.services.get(&key.service).copied().unwrap_or_default();
        let [[a, b], [c, d]] = [flow.backend_port, flow.our_port];
        NatReplyKey {
            backend: address,
            our_address: flow.our_address,
            ports: [a, b, c, d],
            protocol: record.key.protocol,
            ..NatReplyKey::default()
        }
    }
}

/// Entries that `hash` makes alike make a bucket, which comes whole.
fn page<K: Copy, V: Copy>(
    map: &HashMap<K, V>,
    cursor: NatCursor,
    count: u32,
    hash: impl Fn(&K, &V) -> u8,
) -> NatPage<K, V> {
    let mut page = NatPage { entries: Vec::new(), next: None };
    for bucket in cursor.0.unwrap_or_default()..256 {
        if page.entries.len() >= count as usize {
            page.next = Some(NatCursor(Some(bucket)));
            break;
        }
        let inside = map.iter().filter(|(key, value)| u32::from(hash(key, value)) == bucket);
        page.entries.extend(inside.map(|(key, value)| (*key, *value)));
    }
    page
}

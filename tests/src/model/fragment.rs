//! Fragments: docs/packet-path.md, section 2.

use std::net::IpAddr;

use lb_common::abi::DropReason;

use super::effects::Effects;
use super::forward::{self, Carried, Road};
use super::headers::Headers;
use super::reply::{self, WayBack};
use super::rewrite::Endpoints;
use super::service::Forwarding;
use super::work::{Refusal, Sent, Verdict, Work};

/// What tells the fragments of one packet from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoteKey {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// As on the wire: IPv4's two bytes come first and zeros follow.
    pub identification: [u8; 4],
    /// 0 in IPv6.
    pub protocol: u8,
}

/// What became of the first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub time: u32,
    pub fate: NoteFate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteFate {
    Passed,
    Forwarded {
        forwarding: Forwarding,
        service: u32,
        backend: u32,
        /// Entropy of outer headers.
        hash: u64,
        endpoints: Option<NewEndpoints>,
    },
    Replied {
        service: u32,
        backend: u32,
        endpoints: NewEndpoints,
        way: WayBack,
        /// Bytes of payload that the last part has announced, less those that have come.
        missing: i64,
    },
}

/// What takes the place of a fragment's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEndpoints {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub identification: Option<[u8; 4]>,
}

/// Seconds for which the others find it, and those of a reply.
const NOTE_AGE: u32 = 5;
const REPLY_AGE: u32 = 1;

/// A reply's parts that are missing after the first.
pub(super) fn missing_after_first(headers: &Headers) -> i64 {
    headers.fragment.map_or(0, |first| -(first.len as i64))
}

/// Notes where a first fragment went; anything else is a packet by itself.
pub(super) fn note(work: &Work<'_>, headers: &Headers, fate: NoteFate, effects: &mut Effects) {
    if let Some(key) = key(headers) {
        effects.note = Some((key, Some(Note { time: work.state.now as u32, fate })));
    }
}

/// A first fragment that went nowhere: what was noted of an earlier packet is not about the others.
pub(super) fn settle(work: &Work<'_>, headers: &Headers, verdict: &Verdict, effects: &mut Effects) {
    let is_first = headers.fragment.is_some_and(|fragment| fragment.is_first);
    let Some(key) = key(headers).filter(|_| is_first && effects.note.is_none()) else { return };
    // Of IPv6 nobody can tell the later fragments' protocol.
    let asked = headers.protocol.filter(|_| headers.v4.is_some());
    let is_passed = *verdict == Verdict::Pass && work.is_vip(headers.destination, asked);
    let passed = Note { time: work.state.now as u32, fate: NoteFate::Passed };
    effects.note = Some((key, is_passed.then_some(passed)));
}

fn key(headers: &Headers) -> Option<NoteKey> {
    let identification = headers.fragment?.identification;
    let protocol = headers.protocol.filter(|_| headers.v4.is_some());
    Some(NoteKey {
        source: headers.source,
        destination: headers.destination,
        identification,
        protocol: protocol.map_or(0, |protocol| protocol.number()),
    })
}

/// Where a fragment goes that is not the first.
pub(super) fn follow(
    work: &Work<'_>,
    headers: &Headers,
    effects: &mut Effects,
) -> Result<Option<Sent>, Refusal> {
    let note = key(headers).and_then(|key| work.state.notes.get(&key));
    let age = |note: &Note| match (work.state.now as u32).wrapping_sub(note.time) {
        age if age < 1 << 31 => age,
        _ => 0,
    };
    let allowed = |note: &Note| if let NoteFate::Replied { .. } = note.fate { REPLY_AGE } else { NOTE_AGE };
    let Some(note) = note.filter(|note| age(note) <= allowed(note)) else {
        let for_a_vip = work.is_vip(headers.destination, headers.protocol);
        return if for_a_vip { Err(DropReason::Fragment.into()) } else { Ok(None) };
    };
    match note.fate {
        NoteFate::Passed => {
            effects.met.push("later fragment passed");
            Ok(None)
        }
        NoteFate::Forwarded { forwarding, service, backend, hash, endpoints } => {
            if forwarding.translates() && headers.ttl < 2 {
                return Err(Refusal::Expired);
            }
            let road = Road::to(work.state, backend)?;
            let endpoints = endpoints.map(Endpoints::of_fragment);
            let carried = Carried { forwarding, entropy: hash, endpoints, new_flow: false, service };
            let sent = forward::carry(work, headers, &road, &carried)?;
            effects.met.push(if forwarding.translates() {
                "later fragment translated"
            } else {
                "later fragment forwarded"
            });
            Ok(Some(sent))
        }
        NoteFate::Replied { service, backend, endpoints, way, missing } => {
            if let (Some(key), Some(part)) = (key(headers), headers.fragment) {
                // The last one says how much there is in all.
                let all = if part.more { 0 } else { part.offset + part.len };
                let missing = missing + all as i64 - part.len as i64;
                let fate = NoteFate::Replied { service, backend, endpoints, way, missing };
                effects.note = Some((key, (missing != 0).then_some(Note { fate, ..*note })));
                if missing == 0 {
                    effects.met.push("last fragment of a reply");
                }
            }
            let endpoints = Endpoints::of_fragment(endpoints);
            let sent = reply::send_back(work, headers, (service, backend), &endpoints, way)?;
            effects.met.push("later fragment replied");
            Ok(Some(sent))
        }
    }
}

//! Notes about first fragments, from the model's to the map ABI.

use lb_common::abi::{FATE_FORWARD, FATE_PASS, FATE_REPLY, FragmentFate, FragmentKey};

use super::encode::{forwarding, mapped};
use super::exact_encode::mac_word;
use crate::model::{NewEndpoints, Note, NoteFate, NoteKey};

pub(super) fn key(key: &NoteKey) -> FragmentKey {
    FragmentKey {
        source: mapped(key.source),
        destination: mapped(key.destination),
        identification: key.identification,
        protocol: key.protocol,
        _padding: [0; 3],
    }
}

pub(super) fn fate(note: &Note) -> FragmentFate {
    let seen = note.time;
    match note.fate {
        NoteFate::Passed => FragmentFate { seen, kind: FATE_PASS, ..FragmentFate::default() },
        NoteFate::Forwarded { forwarding: mode, service, backend, hash, endpoints } => {
            let fate = FragmentFate {
                seen,
                kind: FATE_FORWARD,
                forwarding: forwarding(mode),
                service,
                backend,
                hash,
                ..FragmentFate::default()
            };
            endpoints.map_or(fate, |endpoints| translated(fate, endpoints))
        }
        NoteFate::Replied { service, backend, endpoints, way, missing } => {
            let fate = FragmentFate {
                seen,
                kind: FATE_REPLY,
                service,
                backend,
                ifindex: way.interface,
                next_hop: mac_word(way.next_hop),
                source_mac: mac_word(way.source_mac),
                missing: missing as u64,
                ..FragmentFate::default()
            };
            translated(fate, endpoints)
        }
    }
}

fn translated(fate: FragmentFate, endpoints: NewEndpoints) -> FragmentFate {
    FragmentFate {
        translated: 1,
        source: mapped(endpoints.source),
        destination: mapped(endpoints.destination),
        identification: endpoints.identification.unwrap_or_default(),
        ..fate
    }
}

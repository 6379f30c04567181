//! The map ABI against a committed snapshot: whoever changes a layout has to change `ABI_VERSION` too, because pinned
//! maps outlive the program that made them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use lb_common::abi::{
    ABI_VERSION, ADMIN_ACTIVE, ADMIN_DISABLED, ADMIN_DRAINING, BackendValue, ClockCell, ControlBlock,
    Counters, DropReason, ENTRY_ADMISSION, ENTRY_OCCUPIED, EgressValue, FATE_FORWARD, FATE_PASS, FATE_REPLY,
    FLOW_BUCKET_ENTRIES, FLOW_CLOSING, FLOW_CONFIRMED, FLOW_EMPTY, FLOW_TAG_BITS, FLOW_UNCONFIRMED,
    FORWARDING_DNAT, FORWARDING_GUE, FORWARDING_IPIP, FORWARDING_L2_DSR, FORWARDING_NAT, FRAGMENT_ENTRIES,
    FlowBucket, FlowEntry, FlowLoad, FragmentFate, FragmentKey, GUE_PORT, HASH_FLOW, HASH_SOURCE,
    HEALTH_HEALTHY, HEALTH_INELIGIBLE, HEALTH_UNHEALTHY, HEALTH_UNKNOWN, KIND_MARKER, KIND_SERVICE,
    MAX_BACKEND_INDEX, MAX_DROP_REASONS, NAT_CONFIRMED, NAT_DEAD, NAT_FIN, NAT_POOL_ADDRESSES, NAT_RST,
    NatFlow, NatFlowKey, NatPool, NatReply, NatReplyKey, NatSeen, NewFlows, NextHop, PROTOCOL_ANY,
    PROTOCOL_TCP, PROTOCOL_UDP, Rotation, SELECT_HASH, SELECT_LEAST_CONNECTIONS, SELECT_ROUND_ROBIN,
    SERVICE_IN_USE, SERVICE_PANICS, SOURCE_ALLOW, SOURCE_DENY, SOURCE_LIST_BITS, STATE_EXISTING_FLOWS,
    STATE_IN_USE, STATE_IPV6, STATE_NEW_FLOWS, SWEEP_FLOW, SWEEP_KEPT, SWEEP_LONE_REPLY, SWEPT, ServiceEntry,
    ServiceKey, ServiceRecord, ServiceTableWord, Slot, SlotStamp, SlotStampPair, SourceKey, SweepRequest,
    TRACK_ALWAYS, TRACK_AUTO, TRACK_NEVER, TrafficCounters, limits, names,
};

/// Set to write a new snapshot. It is refused while `ABI_VERSION` is the old one.
const UPDATE: &str = "BALLAST_UPDATE_SNAPSHOT";

#[test]
fn a_layout_never_changes_without_a_new_abi_version() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/abi_layout.snapshot");
    let (found, committed) = (snapshot(), fs::read_to_string(&path).unwrap_or_default());
    if found == committed {
        return;
    }
    let changes: Vec<_> = differences(&committed, &found).collect();
    let changes = changes.join("\n");
    let same_version = !committed.is_empty() && committed.lines().next() == found.lines().next();
    assert!(
        !same_version,
        "the map ABI changed and ABI_VERSION is still {ABI_VERSION}: bump it in lb-common/src/abi/mod.rs\n{changes}"
    );
    assert!(
        env::var_os(UPDATE).is_some(),
        "the map ABI has a new version: look the changes over and run this test with {UPDATE}=1\n{changes}"
    );
    fs::write(&path, found).expect("write the snapshot");
}

/// Lines that only one of the two has.
fn differences<'a>(old: &'a str, new: &'a str) -> impl Iterator<Item = String> {
    let gone =
        old.lines().filter(|line| !new.lines().any(|other| other == *line)).map(|line| format!("-{line}"));
    let come =
        new.lines().filter(|line| !old.lines().any(|other| other == *line)).map(|line| format!("+{line}"));
    gone.chain(come)
}

/// Writes size, alignment and every field's place. The pattern has no `..`, so a field left out does not compile.
macro_rules! layout {
    ($text:ident, $type:ident { $($field:ident),+ $(,)? }) => {
        let _ = |value: $type| { let $type { $($field: _),+ } = value; };
        writeln!($text, "{}: {} bytes, aligned to {}", stringify!($type), size_of::<$type>(), align_of::<$type>())
            .expect("write to a string");
        $(
            writeln!($text, "  {} at {}, {} bytes", stringify!($field), std::mem::offset_of!($type, $field),
                field_len(|value: &$type| size_of_val(&value.$field))).expect("write to a string");
        )+
    };
}

macro_rules! constants {
    ($text:ident, $($name:path),+ $(,)?) => {
        $(writeln!($text, "{} = {}", stringify!($name), $name).expect("write to a string");)+
    };
}

fn field_len<T: zerocopy::FromZeros>(of: impl Fn(&T) -> usize) -> usize {
    of(&T::new_zeroed())
}

fn snapshot() -> String {
    let mut text = format!("ABI_VERSION {ABI_VERSION}\n");
    layout!(text, ControlBlock { service_table, revision, hash_key, nat_pool, own_macs, _reserved });
    layout!(text, ServiceKey { address, port, protocol, kind, _padding });
    layout!(
        text,
        ServiceEntry {
            key,
            service,
            slots_base,
            slot_shift,
            forwarding,
            hash_key,
            flags,
            tracking,
            selection,
            no_backend,
            _padding,
            rotation,
            source_list,
            new_flow_limit,
            flow_idle_timeout,
            _padding2,
        }
    );
    layout!(
        text,
        ServiceRecord {
            stable_id,
            key,
            slots_base,
            slots_log2,
            forwarding,
            hash_key,
            flags,
            flow_idle_timeout,
            tracking,
            selection,
            _padding,
            source_list,
            _padding2,
        }
    );
    layout!(
        text,
        BackendValue {
            next_hop,
            address,
            state,
            service,
            port,
            weight,
            _padding,
            stable_id,
            name_id,
            left_table_at,
            drain_deadline,
            quarantined_at,
            flow_idle_timeout,
            admin,
            health,
            _reserved,
            started_at,
            name,
        }
    );
    layout!(text, EgressValue { source_mac, _padding, ifindex, mtu, source, _reserved });
    layout!(
        text,
        Counters {
            received,
            transmitted,
            redirected,
            passed,
            flows_inserted,
            flows_evicted,
            flows_refused,
            echo_replies,
            too_big_sent,
            time_exceeded_sent,
            errors_limited,
            errors_relayed,
            nat_created,
            nat_taken_over,
            resets_sent,
            port_unreachable_sent,
            drops,
        }
    );
    layout!(text, FlowBucket { entries });
    layout!(text, ClockCell { now, jump, _padding });
    layout!(text, SlotStamp { exception, failed });
    layout!(text, SlotStampPair { stamps });
    layout!(text, FlowLoad { base, changes });
    layout!(text, Rotation { placed, _padding });
    layout!(text, NatFlowKey { client, ports, service });
    layout!(text, NatFlow { seen, backend, backend_port, our_port, our_address, came_by });
    layout!(text, NatReplyKey { backend, our_address, ports, protocol, _padding });
    layout!(text, NatReply { seen, client, vip, ports, service, backend, ifindex, next_hop, source_mac });
    layout!(text, NatPool { first_port, last_port, v4_count, v6_count, _padding, v4, v6, _padding2 });
    layout!(text, SweepRequest { flow, force, what, reply });
    layout!(text, FragmentKey { source, destination, identification, protocol, _padding });
    layout!(
        text,
        FragmentFate {
            seen,
            kind,
            forwarding,
            translated,
            _padding,
            service,
            backend,
            hash,
            source,
            destination,
            identification,
            ifindex,
            next_hop,
            source_mac,
            missing,
        }
    );
    layout!(text, SourceKey { list, address });
    layout!(text, NewFlows { word, _padding });
    layout!(text, TrafficCounters { packets, bytes, new_flows, reply_packets, reply_bytes, _reserved });
    words(&mut text);
    constants!(
        text,
        KIND_SERVICE,
        KIND_MARKER,
        PROTOCOL_ANY,
        PROTOCOL_TCP,
        PROTOCOL_UDP,
        FORWARDING_L2_DSR,
        FORWARDING_IPIP,
        FORWARDING_GUE,
        FORWARDING_DNAT,
        FORWARDING_NAT,
        GUE_PORT,
        HASH_SOURCE,
        HASH_FLOW,
        ENTRY_OCCUPIED,
        ENTRY_ADMISSION,
        SERVICE_IN_USE,
        SERVICE_PANICS,
        TRACK_NEVER,
        TRACK_AUTO,
        TRACK_ALWAYS,
        SELECT_HASH,
        SELECT_ROUND_ROBIN,
        SELECT_LEAST_CONNECTIONS,
        FLOW_BUCKET_ENTRIES,
        FLOW_EMPTY,
        FLOW_UNCONFIRMED,
        FLOW_CONFIRMED,
        FLOW_CLOSING,
        STATE_IN_USE,
        STATE_NEW_FLOWS,
        STATE_EXISTING_FLOWS,
        STATE_IPV6,
        NAT_DEAD,
        NAT_CONFIRMED,
        NAT_FIN,
        NAT_RST,
        NAT_POOL_ADDRESSES,
        SWEEP_FLOW,
        SWEEP_KEPT,
        SWEEP_LONE_REPLY,
        SWEPT,
        FATE_PASS,
        FATE_FORWARD,
        FATE_REPLY,
        FRAGMENT_ENTRIES,
        SOURCE_LIST_BITS,
        SOURCE_ALLOW,
        SOURCE_DENY,
        ADMIN_ACTIVE,
        ADMIN_DRAINING,
        ADMIN_DISABLED,
        HEALTH_UNKNOWN,
        HEALTH_HEALTHY,
        HEALTH_UNHEALTHY,
        HEALTH_INELIGIBLE,
        MAX_DROP_REASONS,
        MAX_BACKEND_INDEX,
        limits::MAX_PROBE,
        limits::TABLE_ENTRIES_PER_SERVICE,
        limits::EGRESS_ENTRIES,
    );
    for reason in DropReason::ALL {
        writeln!(text, "drop reason {} = {}", reason as u8, reason.name()).expect("write to a string");
    }
    for map in names::PINNED_MAPS {
        writeln!(text, "pinned map {map}").expect("write to a string");
    }
    text
}

/// Words packed from fields: what each field's greatest value looks like in them.
fn words(text: &mut String) {
    let mac = NextHop::new([1, 2, 3, 4, 5, 6], 0).0;
    let egress = NextHop::new([0; 6], u16::MAX).0;
    writeln!(text, "NextHop: mac 01:02:03:04:05:06 = {mac:#018x}, egress = {egress:#018x}")
        .expect("write to a string");
    let [copy, every_port, translates, seed] = [
        ServiceTableWord::new(1, false, false, 0),
        ServiceTableWord::new(0, true, false, 0),
        ServiceTableWord::new(0, false, true, 0),
        ServiceTableWord::new(0, false, false, u32::MAX),
    ];
    writeln!(
        text,
        "ServiceTableWord: copy = {:#018x}, every_port = {:#018x}, translates = {:#018x}, seed = {:#018x}",
        copy.0, every_port.0, translates.0, seed.0
    )
    .expect("write to a string");
    let [time, bits] = [NatSeen::new(u64::MAX, 0), NatSeen::new(0, u32::MAX)].map(|seen| seen.0);
    writeln!(text, "NatSeen: time = {time:#018x}, bits = {bits:#018x}").expect("write to a string");
    let entries = [
        FlowEntry::new(u32::MAX >> (32 - FLOW_TAG_BITS), 0, 0, 0),
        FlowEntry::new(0, u32::MAX, 0, 0),
        FlowEntry::new(0, 0, u32::MAX, 0),
        FlowEntry::new(0, 0, 0, u32::MAX),
    ];
    let [tag, state, epoch, index] = entries.map(FlowEntry::word);
    writeln!(
        text,
        "FlowEntry: tag = {tag:#018x}, state = {state:#018x}, epoch = {epoch:#018x}, index = {index:#018x}"
    )
    .expect("write to a string");
    // Which bits of a slot word each accessor reads.
    let bits = |reads: fn(Slot) -> bool| -> u64 {
        (0..64).map(|bit| 1 << bit).filter(|&word| reads(Slot::from_word(word))).sum()
    };
    writeln!(
        text,
        "Slot: current = {:#018x}, previous = {:#018x}, opened = {:#018x}, tracked = {:#018x}",
        bits(|slot| slot.current() != 0),
        bits(|slot| slot.previous() != 0),
        bits(|slot| slot.opened() != 0),
        bits(|slot| slot.is_tracked()),
    )
    .expect("write to a string");
}

//! Packets as JSON, one a line.

use std::time::{Duration, SystemTime};

use lb_common::abi::TRACE_SLOT;

use super::{Packet, Summary, words};
use crate::{api::v1, digits::hex};

/// The line, with its end.
pub(super) fn line(packet: &Packet) -> Vec<u8> {
    // Its keys are strings and its numbers finite, so that this does not fail.
    let mut line = serde_json::to_vec(&view(packet)).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A line that tells of packets that were missed, and of none that was captured.
pub(super) fn missed(missed: u64) -> Vec<u8> {
    let mut line = serde_json::to_vec(&v1::MissedPackets { missed }).unwrap_or_default();
    line.push(b'\n');
    line
}

fn view(packet: &Packet) -> v1::CapturedPacket {
    let Summary { from, to, protocol, tcp_flags } = Summary::of(&packet.frame.bytes);
    let after = packet.frame_after.as_ref();
    let took = packet.decided.saturating_sub(packet.received);
    v1::CapturedPacket {
        time: time(packet.received),
        interface: packet.frame.interface.clone(),
        queue: packet.queue,
        verdict: packet.verdict.as_str().to_owned(),
        reason: packet.reason.map(str::to_owned),
        service: packet.service.clone(),
        backend: packet.backend.as_ref().map(|backend| backend.name.clone()),
        slot: packet.trace.knows(TRACE_SLOT).then_some(packet.trace.slot),
        why: words::why(&packet.trace).map(str::to_owned),
        text: packet.to_string(),
        from,
        to,
        protocol,
        tcp_flags,
        length: packet.frame.length,
        frame: hex(&packet.frame.bytes),
        interface_out: after.map(|after| after.interface.clone()),
        length_out: after.map(|after| after.length),
        frame_out: after.map(|after| hex(&after.bytes)),
        nanoseconds: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        missed: packet.missed,
    }
}

/// `2026-11-27T17:30:00.123456789Z`
fn time(since_1970: Duration) -> String {
    humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + since_1970).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::testing::packet;

    #[test]
    fn a_line_holds_all_that_is_known_of_a_packet() {
        let line = line(&packet());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["time"], "1970-01-01T00:00:01.000000002Z");
        assert_eq!(value["text"], "web → web-2 (10.0.0.12): tx, slot 123, table");
        assert_eq!((&value["verdict"], &value["reason"]), (&"tx".into(), &serde_json::Value::Null));
        assert_eq!((&value["slot"], &value["why"]), (&123.into(), &"table".into()));
        assert_eq!((&value["frame"], &value["frame_out"]), (&"010203".into(), &"0405".into()));
        assert_eq!((&value["length"], &value["length_out"]), (&100.into(), &120.into()));
        assert_eq!((&value["nanoseconds"], &value["missed"]), (&1_000.into(), &7.into()));
    }
}

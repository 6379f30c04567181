//! Captured packets for people: what a capture may be asked for, and what becomes of a packet in words, as pcapng and as lines.

mod board;
mod encoder;
mod filter;
mod lines;
mod names;
mod pcapng;
mod request;
mod session;
mod summary;
mod words;

use std::{net::SocketAddr, time::Duration};

use lb_common::abi::Trace;

use crate::trace::Verdict;

pub use board::{Board, Client, Counts, Running};
pub use request::{DEFAULT_RATE, Format, MAX_RATE, MIN_SNAPLEN, Request};
pub use session::{Captures, StartError, Started};
pub use summary::Summary;

/// A packet, with everything's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Since 1970 when it came, and when it was decided about.
    pub(crate) received: Duration,
    pub(crate) decided: Duration,
    pub(crate) verdict: Verdict,
    /// Why it was dropped, if it was.
    pub(crate) reason: Option<&'static str>,
    /// Name of the service that it is for, if it is for one.
    pub(crate) service: Option<String>,
    pub(crate) backend: Option<Backend>,
    pub(crate) trace: Trace,
    pub(crate) queue: u32,
    /// As it came.
    pub(crate) frame: Frame,
    /// As it leaves, if it does.
    pub(crate) frame_after: Option<Frame>,
    /// Wanted packets that were not captured, since the one before.
    pub(crate) missed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) interface: String,
    /// In bytes, without FCS.
    pub(crate) length: u32,
    /// As much of it as was kept.
    pub(crate) bytes: Vec<u8>,
}

#[cfg(test)]
mod testing {
    use lb_common::abi::{CHOSEN_TABLE, TRACE_SERVICE, TRACE_SLOT};

    use super::*;

    /// One that left by another interface.
    pub(super) fn packet() -> Packet {
        let frame = |interface: &str, length, bytes: &[u8]| Frame {
            interface: interface.to_owned(),
            length,
            bytes: bytes.to_vec(),
        };
        Packet {
            received: Duration::new(1, 2),
            decided: Duration::new(1, 1_002),
            verdict: Verdict::Tx,
            reason: None,
            service: Some("web".to_owned()),
            backend: Some(Backend {
                name: "web-2".to_owned(),
                address: Some(SocketAddr::from(([10, 0, 0, 12], 80))),
            }),
            trace: Trace {
                known: TRACE_SERVICE | TRACE_SLOT,
                slot: 123,
                backend: 2,
                chosen: CHOSEN_TABLE,
                ..Trace::default()
            },
            queue: 0,
            frame: frame("eth0", 100, &[1, 2, 3]),
            frame_after: Some(frame("eth1", 120, &[4, 5])),
            missed: 7,
        }
    }
}

//! Which packet was delivered to which backend, and when: what really passed, whatever became of it there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::capture::{Capture, Frame};
use super::node::Node;
use super::wait::wait_until;

const ETHERNET: usize = 14;
/// Where the flags are in a TCP header.
const TCP_FLAGS: usize = 13;

/// A packet for the VIP that was delivered to a backend by `l2-dsr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub time: SystemTime,
    pub backend: String,
    pub client: SocketAddr,
    /// 0 for a datagram.
    pub tcp_flags: u8,
}

/// Watches several backends.
#[derive(Debug)]
pub struct Deliveries {
    to: SocketAddr,
    captures: Vec<(String, Capture)>,
}

impl Deliveries {
    /// Watches what is delivered to these backends for `to`, TCP and UDP.
    pub fn watch<'a>(backends: impl IntoIterator<Item = &'a Node>, to: SocketAddr) -> Result<Self> {
        let capture = |backend: &Node| {
            let leg = backend.first_leg();
            let mac = leg.mac;
            let ours =
                move |frame: &Frame| frame.bytes.starts_with(&mac) && flow_of(&frame.bytes, to).is_some();
            let capture = Capture::start_filtered(&backend.switch, &leg.port, ours)?;
            Ok((backend.label(), capture))
        };
        Ok(Self { to, captures: backends.into_iter().map(capture).collect::<Result<_>>()? })
    }

    /// How many packets were delivered so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.captures.iter().map(|(_, capture)| capture.count()).sum()
    }

    /// Whether such a packet was delivered already.
    pub fn has(&self, wanted: impl Fn(&Delivery) -> bool) -> bool {
        self.captures.iter().any(|(backend, capture)| {
            capture.has(|frame| delivery(backend, frame, self.to).is_some_and(|delivery| wanted(&delivery)))
        })
    }

    /// Ends when `count` packets were delivered, or when no more come: the caller will see what is missing.
    pub fn stop_after(self, count: usize, patience: Duration) -> Result<Vec<Delivery>> {
        let _ = wait_until("every packet is delivered", patience, || self.count() >= count);
        self.stop()
    }

    /// Everything, by time.
    pub fn stop(self) -> Result<Vec<Delivery>> {
        let mut all = Vec::new();
        for (backend, capture) in self.captures {
            for frame in capture.stop()? {
                all.push(delivery(&backend, &frame, self.to).context("a frame of a flow")?);
            }
        }
        all.sort_by_key(|delivery| delivery.time);
        Ok(all)
    }
}

fn delivery(backend: &str, frame: &Frame, to: SocketAddr) -> Option<Delivery> {
    let (client, tcp_flags) = flow_of(&frame.bytes, to)?;
    Some(Delivery { time: frame.time, backend: backend.to_owned(), client, tcp_flags })
}

/// The client's address, and TCP flags, of an untagged frame to `to`.
fn flow_of(frame: &[u8], to: SocketAddr) -> Option<(SocketAddr, u8)> {
    let ip = frame.get(ETHERNET..)?;
    let (protocol, source, destination, transport): (u8, IpAddr, IpAddr, &[u8]) = if to.is_ipv4() {
        let address = |at: usize| ip.get(at..)?.first_chunk::<4>().copied();
        (*ip.get(9)?, address(12)?.into(), address(16)?.into(), ip.get(20..)?)
    } else {
        let address = |at: usize| ip.get(at..)?.first_chunk::<16>().copied();
        (*ip.get(6)?, address(8)?.into(), address(24)?.into(), ip.get(40..)?)
    };
    let port = |at: usize| transport.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let tcp = i32::from(protocol) == libc::IPPROTO_TCP;
    let ours =
        (tcp || i32::from(protocol) == libc::IPPROTO_UDP) && destination == to.ip() && port(2)? == to.port();
    let flags = if tcp { *transport.get(TCP_FLAGS)? } else { 0 };
    ours.then(|| Some((SocketAddr::new(source, port(0)?), flags))).flatten()
}

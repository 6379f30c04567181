//! Segments of connections that never were, as fast as one CPU sends them.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use fastrand::Rng;
use lb_common::checksum::replace_word;

use super::node::Node;
use super::packet_socket::PacketSocket;
use super::stop::Stop;
use crate::model::Protocol;
use crate::packet::Packet;

/// 198.18.0.0/15, for benchmarks (RFC 2544 appendix C.2.2): nobody in a lab has a route to it, so that backends answer
/// nothing.
const SOURCES: (Ipv4Addr, u32) = (Ipv4Addr::new(198, 18, 0, 0), 1 << 17);
/// Where things are in an untagged frame with an IPv4 header without options and a TCP header.
const IP_SUM: usize = 24;
const SOURCE: usize = 26;
const SOURCE_PORT: usize = 34;
const TCP_SUM: usize = 50;

/// A flood under way. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Stop,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Sends TCP segments with these flags to `to` through `balancer`: each from another address and port, and
    /// `repeat` of each one right after another.
    pub fn start(client: &Node, balancer: &Node, to: SocketAddrV4, flags: u8, repeat: u32) -> Result<Self> {
        let template = template(client, balancer, to, flags);
        let (stop, sent) = (Stop::new()?, Arc::new(AtomicU64::new(0)));
        let interface = client.first_leg().interface.clone();
        let socket = client.enter(|| PacketSocket::send_only(&interface))?;
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                let mut rng = Rng::with_seed(0xf100d);
                while !stop.is_set() {
                    for _ in 0..64 {
                        let frame = spoofed(&template, &mut rng);
                        (0..repeat).try_for_each(|_| socket.send(&frame)).context("send a flood")?;
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            }
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// How many tuples were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it, and says how many tuples were sent.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a flood does not panic")?;
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn template(client: &Node, balancer: &Node, to: SocketAddrV4, flags: u8) -> Vec<u8> {
    let packet = Packet {
        tcp_flags: flags,
        payload: Vec::new(),
        ..Packet::new(Protocol::Tcp, (SOURCES.0.into(), 1), (IpAddr::V4(*to.ip()), to.port()))
    };
    [packet.l2(balancer.first_leg().mac, client.first_leg().mac), packet.ip()].concat()
}

fn spoofed(template: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut frame = template.to_vec();
    let [a, b, c, d] = (SOURCES.0.to_bits() + rng.u32(0..SOURCES.1)).to_be_bytes();
    set(&mut frame, SOURCE, [a, b], &[IP_SUM, TCP_SUM]);
    set(&mut frame, SOURCE + 2, [c, d], &[IP_SUM, TCP_SUM]);
    set(&mut frame, SOURCE_PORT, rng.u16(1..).to_be_bytes(), &[TCP_SUM]);
    frame
}

/// Changes a word and the checksums over it.
fn set(frame: &mut [u8], at: usize, new: [u8; 2], sums: &[usize]) {
    let old = word(frame, at);
    put(frame, at, new);
    for &sum in sums {
        let sealed = replace_word(word(frame, sum), old, new);
        put(frame, sum, sealed);
    }
}

fn word(frame: &[u8], at: usize) -> [u8; 2] {
    frame.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
}

fn put(frame: &mut [u8], at: usize, word: [u8; 2]) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&word);
    }
}

#[cfg(test)]
mod tests {
    use super::{Packet, Protocol, SOURCES, spoofed};
    use fastrand::Rng;
    use std::net::Ipv4Addr;

    #[test]
    fn a_spoofed_segment_is_as_one_built_for_its_source() {
        let to = (Ipv4Addr::new(203, 0, 113, 10).into(), 80);
        let build = |source| {
            let packet = Packet { payload: vec![], ..Packet::new(Protocol::Tcp, source, to) };
            [packet.l2([2; 6], [4; 6]), packet.ip()].concat()
        };
        let mut rng = Rng::with_seed(1);
        for _ in 0..1_000 {
            let frame = spoofed(&build((SOURCES.0.into(), 1)), &mut rng);
            let address: [u8; 4] = frame[26..30].try_into().unwrap();
            let port = u16::from_be_bytes([frame[34], frame[35]]);
            assert_eq!(frame, build((address.into(), port)));
        }
    }
}

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Duration,
};

use lb_common::checksum;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

use super::{Target, Trouble, fields::Fields};

/// An echo request is answered.
pub(super) async fn ask(target: &Target) -> Result<String, Trouble> {
    let echo = Echo::next(target.address.is_ipv4());
    let socket = open(target)?;
    let asked = async {
        let socket = connected(socket, target)?;
        socket.send(&echo.request()).await?;
        let started = Instant::now();
        let mut buffer = [0; 256];
        loop {
            let count = socket.recv(&mut buffer).await?;
            if echo.is_answered_by(buffer.get(..count).unwrap_or_default()) {
                return Ok(started.elapsed());
            }
        }
    };
    let took: Duration = asked.await.map_err(|error| trouble(&error))?;
    Ok(format!("echo reply after {:.1} ms", took.as_micros() as f64 / 1000.0))
}

fn open(target: &Target) -> Result<Socket, Trouble> {
    let (domain, protocol) = match target.address {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol));
    let socket = socket.map_err(|error| trouble(&error))?;
    target.prepare(&SockRef::from(&socket))?;
    Ok(socket)
}

/// From then on it gets what comes from the target alone, and so not the replies to other checks.
///
/// `UdpSocket` is tokio's word for a datagram socket: it only ever sends and receives.
fn connected(socket: Socket, target: &Target) -> io::Result<UdpSocket> {
    // A reply is small, and whoever floods is dropped.
    socket.set_recv_buffer_size(16 * 1024)?;
    if let Some(source) = target.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&SocketAddr::new(target.address.ip(), 0).into())?;
    UdpSocket::from_std(socket.into())
}

fn trouble(error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Trouble::Ours("checks of type \"icmp\" take CAP_NET_RAW".to_owned())
        }
        _ => Trouble::of(error),
    }
}

/// One echo request (RFC 792, RFC 4443).
struct Echo {
    v4: bool,
    identifier: u16,
    sequence: u16,
    /// Tells the reply to this request from one to an earlier one.
    token: [u8; 8],
}

impl Echo {
    fn next(v4: bool) -> Self {
        static SEQUENCE: AtomicU16 = AtomicU16::new(0);
        let identifier = (std::process::id() & 0xffff) as u16;
        let sequence = SEQUENCE.fetch_add(1, Relaxed);
        Self { v4, identifier, sequence, token: fastrand::u64(..).to_be_bytes() }
    }

    fn request(&self) -> Vec<u8> {
        let kind = if self.v4 { 8 } else { 128 };
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend_from_slice(&self.tail());
        // The kernel does it for ICMPv6.
        if self.v4 {
            let sum = checksum::of(checksum::sum(&packet));
            packet[2..4].copy_from_slice(&sum.to_ne_bytes());
        }
        packet
    }

    /// What a reply repeats.
    fn tail(&self) -> Vec<u8> {
        let [id, sequence] = [self.identifier, self.sequence].map(u16::to_be_bytes);
        [&id[..], &sequence, &self.token].concat()
    }

    /// `packet` as a raw socket gives it: with an IPv4 header, without an IPv6 one.
    fn is_answered_by(&self, packet: &[u8]) -> bool {
        let mut fields = Fields::of(packet);
        if self.v4 {
            let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
            if fields.take(header).is_none() {
                return false;
            }
        }
        let kind = if self.v4 { 0 } else { 129 };
        fields.array() == Some([kind, 0]) && fields.take(2).is_some() && fields.rest() == self.tail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reply_to_this_request_answers_it() {
        for v4 in [true, false] {
            let echo = Echo::next(v4);
            let header = if v4 { [&[0x46][..], &[0; 23]].concat() } else { Vec::new() };
            let reply = |kind: u8, tail: &[u8]| [&header[..], &[kind, 0, 1, 2], tail].concat();
            let kind = if v4 { 0 } else { 129 };
            assert!(echo.is_answered_by(&reply(kind, &echo.tail())));
            // The request itself comes back on the loopback interface.
            assert!(!echo.is_answered_by(&reply(if v4 { 8 } else { 128 }, &echo.tail())));
            assert!(!echo.is_answered_by(&reply(kind, &Echo::next(v4).tail())));
            assert!(!echo.is_answered_by(&reply(kind, &echo.tail())[..header.len() + 8]));
            assert!(!echo.is_answered_by(&[]));
        }
    }

    #[test]
    fn a_request_sums_to_nothing() {
        let request = Echo::next(true).request();
        assert_eq!(checksum::of(checksum::sum(&request)), 0);
        assert_eq!((request[0], request.len()), (8, 16));
    }
}

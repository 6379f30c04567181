//! ICMP and ICMPv6 as a host's own kernel gets and sends it: errors that came, echo requests to send.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;
use crate::model::checksum;

const LONGEST_MESSAGE: usize = 70_000;
/// How long one read may block; the deadline is looked at in between.
const ROUND: Duration = Duration::from_millis(20);
/// From the type to where an error's quoted packet, or an echo's payload, begins.
const HEADER: usize = 8;

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    pub from: IpAddr,
    pub kind: u8,
    pub code: u8,
    /// From the type on.
    pub bytes: Vec<u8>,
}

/// What an error says has not arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
}

impl Icmp {
    /// The type of echo requests to addresses of the family of `like`, and of their replies.
    #[must_use]
    pub fn echo_types(like: IpAddr) -> (u8, u8) {
        if like.is_ipv4() { (8, 0) } else { (128, 129) }
    }

    /// "Fragmentation needed" or "packet too big".
    #[must_use]
    pub fn is_too_big(&self) -> bool {
        (self.kind, self.code) == if self.from.is_ipv4() { (3, 4) } else { (2, 0) }
    }

    /// "Time exceeded" on the way.
    #[must_use]
    pub fn is_time_exceeded(&self) -> bool {
        (self.kind, self.code) == if self.from.is_ipv4() { (11, 0) } else { (3, 0) }
    }

    /// "Port unreachable".
    #[must_use]
    pub fn is_port_unreachable(&self) -> bool {
        (self.kind, self.code) == if self.from.is_ipv4() { (3, 3) } else { (1, 4) }
    }

    /// The MTU that a "too big" tells.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        let word = self.bytes.get(4..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        // IPv4 has 16 bits for it, behind 16 that are 0 (RFC 1191).
        u32::from_be_bytes(word)
    }

    /// Identifier and sequence number of an echo.
    #[must_use]
    pub fn echo(&self) -> (u16, u16) {
        let word = |at: usize| self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
        let number = |at| word(at).map_or(0, u16::from_be_bytes);
        (number(4), number(6))
    }

    /// What follows the first eight bytes: the payload of an echo, the packet that an error quotes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// Addresses and ports of the TCP or UDP packet that an error quotes; `None` if it is another, or too short.
    #[must_use]
    pub fn quoted(&self) -> Option<Quoted> {
        let packet = self.payload();
        let v4 = packet.first()? >> 4 == 4;
        let (protocol, source, destination, transport) = if v4 {
            let length = usize::from(packet.first()? & 0xf) * 4;
            let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
            (*packet.get(9)?, address(12)?, address(16)?, packet.get(length..)?)
        } else {
            let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
            (*packet.get(6)?, address(8)?, address(24)?, packet.get(40..)?)
        };
        let port = |at: usize| Some(u16::from_be_bytes(*transport.get(at..)?.first_chunk()?));
        let known = matches!(i32::from(protocol), libc::IPPROTO_TCP | libc::IPPROTO_UDP);
        known.then_some(())?;
        Some(Quoted {
            source: SocketAddr::new(source, port(0)?),
            destination: SocketAddr::new(destination, port(2)?),
            protocol,
        })
    }
}

/// Hears every ICMP message of one family that a namespace's kernel accepts from now on.
#[derive(Debug)]
pub struct IcmpListener {
    /// A raw socket: `UdpSocket` is what std has for sending to and receiving from addresses.
    socket: UdpSocket,
    place: String,
}

impl IcmpListener {
    /// Begins to listen for messages of the family of `like`.
    pub fn start(namespace: &Namespace, like: IpAddr) -> Result<Self> {
        let place = namespace.name().to_owned();
        let open = || Ok(raw_socket(like)?);
        let socket = namespace.enter(open).with_context(|| format!("listen for ICMP in {place}"))?;
        socket.set_read_timeout(Some(ROUND))?;
        Ok(Self { socket, place })
    }

    /// The next message that `wanted` returns true for; others that came before it are forgotten. If none comes, the
    /// error shows those.
    pub fn wait_for(&self, what: &str, timeout: Duration, wanted: impl Fn(&Icmp) -> bool) -> Result<Icmp> {
        let deadline = Instant::now() + timeout;
        let mut others = Vec::new();
        while Instant::now() < deadline {
            match self.receive()? {
                Some(icmp) if wanted(&icmp) => return Ok(icmp),
                Some(other) => others.push((other.from, other.kind, other.code)),
                None => {}
            }
        }
        others.dedup();
        bail!("{what} in {}: not within {timeout:?}; what came (from, type, code): {others:?}", self.place)
    }

    /// Sends an echo request and waits for its reply.
    pub fn ping(
        &self,
        to: IpAddr,
        (identifier, sequence): (u16, u16),
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Icmp> {
        let (request, reply) = Icmp::echo_types(to);
        let mut message =
            [&[request, 0, 0, 0][..], &identifier.to_be_bytes(), &sequence.to_be_bytes(), payload].concat();
        if to.is_ipv4() {
            // The kernel does it for IPv6 alone.
            let sum = checksum(&message).to_be_bytes();
            message.splice(2..4, sum);
        }
        self.socket.send_to(&message, SocketAddr::new(to, 0)).with_context(|| format!("ping {to}"))?;
        self.wait_for(&format!("the reply of {to}"), timeout, |icmp| {
            icmp.kind == reply && icmp.echo() == (identifier, sequence)
        })
    }

    fn receive(&self) -> Result<Option<Icmp>> {
        let mut buffer = vec![0; LONGEST_MESSAGE];
        let (length, from) = match self.socket.recv_from(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            other => other.with_context(|| format!("listen for ICMP in {}", self.place))?,
        };
        let (from, mut bytes) = (from.ip(), buffer);
        bytes.truncate(length);
        if from.is_ipv4() {
            // Raw IPv4 sockets get the IP header too.
            let header = usize::from(bytes.first().copied().unwrap_or_default() & 0xf) * 4;
            bytes.drain(..header.min(bytes.len()));
        }
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        Ok(Some(Icmp { from, kind: byte(0), code: byte(1), bytes }))
    }
}

fn raw_socket(like: IpAddr) -> io::Result<UdpSocket> {
    let socket = match like {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)),
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)),
    };
    socket.map(Into::into)
}

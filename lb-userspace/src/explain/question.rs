//! What is asked about, and the frame that it is.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

use super::{ExplainError, interface::Interface};
use crate::{
    control::{ServiceView, Snapshot},
    domain::Protocol,
    similar,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub what: What,
    /// By which it comes; `None`: the first that the program is attached to.
    pub interface: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A whole frame as it is on the wire, without FCS.
    Frame(Vec<u8>),
    Packet(Packet),
}

/// A packet to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: SocketAddr,
    /// A service's name; or else `to` and `protocol` say where it goes.
    pub service: Option<String>,
    pub to: Option<SocketAddr>,
    /// Of a service of every port.
    pub port: Option<u16>,
    /// TCP unless the service or this says otherwise.
    pub protocol: Option<Protocol>,
    /// A TCP segment that opens a connection, and not one in its midst.
    pub syn: bool,
    /// IP header and all that is behind it, in bytes; `None`: as short as it can be.
    pub length: Option<usize>,
}

/// What makes sense.
pub(super) enum Sensible {
    Frame(Vec<u8>),
    Packet(Addressed),
}

impl What {
    pub(super) fn sensible(&self, snapshot: &Snapshot) -> Result<Sensible, ExplainError> {
        match self {
            Self::Frame(frame) if frame.len() < MIN_FRAME => Err(invalid(
                "frame",
                format!("a frame of {} bytes is shorter than an Ethernet header", frame.len()),
            )),
            Self::Frame(frame) => Ok(Sensible::Frame(frame.clone())),
            Self::Packet(packet) => packet.addressed(snapshot).map(Sensible::Packet),
        }
    }
}

impl Sensible {
    /// The frame as it comes by the interface.
    pub(super) fn frame(self, interface: &Interface) -> Result<Vec<u8>, ExplainError> {
        match self {
            Self::Frame(frame) => Ok(frame),
            Self::Packet(packet) => packet.frame(interface),
        }
    }
}

impl Packet {
    fn addressed(&self, snapshot: &Snapshot) -> Result<Addressed, ExplainError> {
        let (to, protocol) = match (&self.service, self.to) {
            (Some(service), None) => self.of_service(find(snapshot, service)?)?,
            (None, Some(to)) => (to, self.protocol.unwrap_or(Protocol::Tcp)),
            _ => return Err(invalid("service", "name either a service or where the packet goes".to_owned())),
        };
        if self.from.is_ipv4() != to.is_ipv4() {
            let family = |is_ipv4| if is_ipv4 { "IPv4" } else { "IPv6" };
            let message = format!(
                "{} is an {} address and {} an {} one: a packet has two of one family",
                self.from.ip(),
                family(self.from.is_ipv4()),
                to.ip(),
                family(to.is_ipv4()),
            );
            return Err(invalid("from", message));
        }
        if self.syn && protocol == Protocol::Udp {
            return Err(invalid("syn", "only TCP has a SYN".to_owned()));
        }
        let payload = payload_len(self.length, to.is_ipv4(), protocol)?;
        Ok(Addressed { from: self.from, to, protocol, syn: self.syn, payload })
    }

    fn of_service(&self, view: &ServiceView) -> Result<(SocketAddr, Protocol), ExplainError> {
        let service = &view.service;
        if self.protocol.is_some_and(|protocol| protocol != service.protocol) {
            let message = format!("service {} is {}", service.name, service.protocol.as_str());
            return Err(invalid("protocol", message));
        }
        let port = match (service.vip.port, self.port) {
            (Some(own), Some(asked)) if own != asked => {
                let elsewhere = SocketAddr::new(service.vip.address, asked);
                let message =
                    format!("service {} has port {own}; ask about {elsewhere} instead", service.name);
                return Err(invalid("port", message));
            }
            (Some(own), _) => own,
            (None, Some(asked)) => asked,
            (None, None) => {
                let message = format!("service {} has every port: say which one", service.name);
                return Err(invalid("port", message));
            }
        };
        Ok((SocketAddr::new(service.vip.address, port), service.protocol))
    }
}

/// Bytes behind the headers.
fn payload_len(length: Option<usize>, is_ipv4: bool, protocol: Protocol) -> Result<usize, ExplainError> {
    let ip = if is_ipv4 { 20 } else { 40 };
    let headers = ip
        + match protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
        };
    let length = length.unwrap_or(headers);
    if (headers..=MAX_LENGTH).contains(&length) {
        Ok(length - headers)
    } else {
        let message = format!("such a packet has {headers} to {MAX_LENGTH} bytes, not {length}");
        Err(invalid("length", message))
    }
}

pub(super) struct Addressed {
    from: SocketAddr,
    to: SocketAddr,
    protocol: Protocol,
    syn: bool,
    payload: usize,
}

impl Addressed {
    fn frame(&self, interface: &Interface) -> Result<Vec<u8>, ExplainError> {
        let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, interface.mac);
        let ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), TTL),
            (from, to) => ethernet.ipv6(octets(from), octets(to), TTL),
        };
        let payload = vec![0; self.payload];
        let mut frame = Vec::new();
        let (from, to) = (self.from.port(), self.to.port());
        let written = match self.protocol {
            Protocol::Udp => ip.udp(from, to).write(&mut frame, &payload),
            Protocol::Tcp => self.segment(ip, from, to).write(&mut frame, &payload),
        };
        written.map_err(|error| invalid("length", format!("such a packet can't be made: {error}")))?;
        Ok(frame)
    }

    fn segment(
        &self,
        ip: PacketBuilderStep<etherparse::IpHeaders>,
        from: u16,
        to: u16,
    ) -> PacketBuilderStep<TcpHeader> {
        let segment = ip.tcp(from, to, 1, WINDOW);
        if self.syn { segment.syn() } else { segment.ack(1) }
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a ServiceView, ExplainError> {
    let found = snapshot.services.iter().find(|view| view.service.name.as_str() == name);
    found.ok_or_else(|| {
        let names = snapshot.services.iter().map(|view| view.service.name.as_str());
        let similar = similar::closest(name, names).map(ToOwned::to_owned);
        ExplainError::NoSuchService { name: name.to_owned(), similar }
    })
}

pub(super) fn invalid(field: &'static str, message: String) -> ExplainError {
    ExplainError::Invalid { field, message }
}

/// The kernel runs no program on less.
const MIN_FRAME: usize = 14;
const MAX_LENGTH: usize = 65_535;
const TTL: u8 = 64;
const WINDOW: u16 = 64_240;
/// In the place of the router's that would hand over the client's packet: locally administered.
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

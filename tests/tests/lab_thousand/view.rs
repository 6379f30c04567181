//! Where the attached program sends clients.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Attached, Daemon, Lab, Passage, VIP_V4, VIP_V6};
use lb_tests::model::Protocol;
use lb_tests::packet::{ACK, Packet, SYN};

use crate::scene::{PORT, number_of};

/// Of each family.
pub(crate) const CLIENTS: u16 = 512;
/// The port of the flow that each client keeps open. New flows come from others.
const OPEN_PORT: u16 = 4_000;
const FIRST_NEW_PORT: u16 = 10_000;

/// The backend of each client, by its number: IPv4 clients first.
pub(crate) type Backends = Vec<u16>;

/// What clients send, and what becomes of it.
pub(crate) struct View {
    open: Vec<Vec<u8>>,
    clients: Vec<Packet>,
    macs: ([u8; 6], [u8; 6]),
    next_port: u16,
}

impl View {
    pub(crate) fn new(lab: &Lab) -> Self {
        let client = lab.client(0);
        let macs = (lab.balancer(0).first_leg().mac, client.first_leg().mac);
        let packet = |vip: IpAddr, number| {
            let from = (client.source(number, vip), OPEN_PORT);
            Packet { tcp_flags: ACK, ..Packet::new(Protocol::Tcp, from, (vip, PORT)) }
        };
        let of_family = |vip| (0..CLIENTS).map(move |number| packet(vip, number));
        let clients: Vec<_> = [VIP_V4, VIP_V6].into_iter().flat_map(of_family).collect();
        let open = clients.iter().map(|packet| frame(packet, macs)).collect();
        Self { open, clients, macs, next_port: FIRST_NEW_PORT }
    }

    /// What becomes of the IPv4 clients' packets to another port.
    pub(crate) fn to_port(&self, daemon: &Daemon, port: u16) -> Result<Vec<Passage>> {
        let clients = self.clients.iter().filter(|packet| packet.source.is_ipv4());
        let to = |packet: &Packet| Packet { destination_port: port, ..packet.clone() };
        let frames: Vec<_> = clients.map(|packet| frame(&to(packet), self.macs)).collect();
        daemon.attached()?.judge(&frames)
    }

    /// Where the open flows go. Fails if a packet is not sent to a backend.
    pub(crate) fn open_flows(&self, daemon: &Daemon) -> Result<Backends> {
        backends(&daemon.attached()?, &self.open).context("a flow that is open")
    }

    /// Where a new flow of each client goes.
    pub(crate) fn new_flows(&mut self, daemon: &Daemon) -> Result<Backends> {
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_NEW_PORT);
        let syn = |packet: &Packet| {
            let packet = Packet { source_port: self.next_port, tcp_flags: SYN, ..packet.clone() };
            frame(&packet, self.macs)
        };
        let frames: Vec<_> = self.clients.iter().map(syn).collect();
        backends(&daemon.attached()?, &frames).context("a new flow")
    }
}

fn frame(packet: &Packet, (to, from): ([u8; 6], [u8; 6])) -> Vec<u8> {
    [packet.l2(to, from), packet.ip()].concat()
}

fn backends(attached: &Attached, frames: &[Vec<u8>]) -> Result<Backends> {
    let passages = attached.judge(frames)?;
    let lost = passages.iter().filter(|passage| !passage.is_forwarded()).count();
    ensure!(lost == 0, "{lost} of {} packets are lost", frames.len());
    passages.iter().map(|passage| outer_destination(passage).and_then(number_of)).collect()
}

/// Where a tunnel packet goes.
fn outer_destination(passage: &Passage) -> Result<IpAddr> {
    let field = |at: usize, length: usize| passage.frame.get(at..at + length).context("a frame cut short");
    Ok(match field(12, 2)? {
        [0x08, 0x00] => IpAddr::from(<[u8; 4]>::try_from(field(30, 4)?)?),
        _ => IpAddr::from(<[u8; 16]>::try_from(field(38, 16)?)?),
    })
}

//! Cases: description, packet in, verdict and packet out.
//!
//! A case is run for each family, protocol and number of VLAN tags it is meant for. What should come out is made from
//! the packet's description and a library's headers, not by the model; the model has to agree, and so has the program.

use anyhow::{Context, Result, ensure};
use lb_common::abi::DropReason;

use super::answer::{self, Answer};
use super::fixture::{Family, Host, Way, packet};
use super::frame::Packet;
use super::tunnel::{Tunnel, hash, outer};
use super::world::World;
use crate::model::{Decision, Protocol, SlotHash, Verdict, decide};

/// One row of a table.
pub struct Case {
    pub description: &'static str,
    pub to: Host,
    pub port: u16,
    pub families: &'static [Family],
    pub protocols: &'static [Protocol],
    /// How the packet is special while well formed.
    pub shape: fn(&mut Packet),
    /// What is done to its bytes after that; told where the IP header begins.
    pub mangle: fn(&mut Vec<u8>, usize),
    pub expect: Expect,
}

#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// Passed, byte for byte.
    Pass,
    /// New MAC addresses and nothing else, out of the interface it came in on.
    L2Dsr,
    L2DsrElsewhere,
    /// Tunnelled.
    Ipip,
    IpipElsewhere,
    Gue,
    GueElsewhere,
    /// Answered: the hop limit was used up.
    TimeExceeded,
    /// Answered: this is what would have fitted.
    TooBig(fn(&Packet) -> u32),
    Drop(DropReason),
}

/// The row that most others differ from in one thing.
pub const PLAIN: Case = Case {
    description: "",
    to: Host::Vip,
    port: Way::L2Dsr.port(),
    families: &Family::BOTH,
    protocols: &Protocol::BOTH,
    shape: |_| {},
    mangle: |_, _| {},
    expect: Expect::Pass,
};

impl Case {
    /// Runs the case in all its variants; returns how many there were.
    pub fn run(&self, world: &mut World) -> Result<usize> {
        let mut variants = 0;
        for &family in self.families {
            for &protocol in self.protocols {
                for tags in 0..=2 {
                    self.run_one(world, family, protocol, tags).with_context(|| {
                        format!("{} ({family:?}, {protocol:?}, {tags} VLAN tags)", self.description)
                    })?;
                    variants += 1;
                }
            }
        }
        Ok(variants)
    }

    fn run_one(&self, world: &mut World, family: Family, protocol: Protocol, tags: usize) -> Result<()> {
        let mut packet = packet(family, protocol, self.to, self.port).with_tags(tags);
        (self.shape)(&mut packet);
        let mut frame = packet.build();
        (self.mangle)(&mut frame, packet.l3());

        let model = decide(&world.state, &frame);
        let wanted = self.wanted(world, &packet, &frame, &model)?;
        ensure!(model.verdict == wanted, "the model says {:?}\n  the case says {wanted:?}", model.verdict);
        if let Some(counted) = model.counted {
            ensure!(counted.bytes == frame.len() as u64, "the model counts {} bytes", counted.bytes);
        }
        world.expect(&frame, 0, &model)
    }

    fn wanted(&self, world: &World, packet: &Packet, frame: &[u8], model: &Decision) -> Result<Verdict> {
        let (elsewhere, tunnel) = match self.expect {
            Expect::Pass => return Ok(Verdict::Pass),
            Expect::Drop(reason) => return Ok(Verdict::Drop(reason)),
            Expect::TimeExceeded => {
                return Ok(Verdict::Transmit(answer::frame(packet, frame, Answer::TimeExceeded)?));
            }
            Expect::TooBig(fits) => {
                return Ok(Verdict::Transmit(answer::frame(packet, frame, Answer::TooBig(fits(packet)))?));
            }
            Expect::L2Dsr => (false, None),
            Expect::L2DsrElsewhere => (true, None),
            Expect::Ipip => (false, Some(Tunnel::Ipip)),
            Expect::IpipElsewhere => (true, Some(Tunnel::Ipip)),
            Expect::Gue => (false, Some(Tunnel::Gue)),
            Expect::GueElsewhere => (true, Some(Tunnel::Gue)),
        };
        // Which of the service's backends is for the hashing tests to check.
        let counted = model.counted.context("the model does not forward this")?;
        let backend = world.state.backends[&counted.backend];
        let (mac, number) = backend.next_hop.context("the backend has no next hop")?;
        let egress = world.state.egress[&number];
        let out = match tunnel {
            Some(tunnel) => {
                let covers = match tunnel {
                    Tunnel::Ipip => world.state.services[counted.service as usize].hash,
                    Tunnel::Gue => SlotHash::Flow,
                };
                let entropy = hash(world, packet, covers);
                let ethertype = if backend.address.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
                let mut l2 = packet.l2(mac, egress.source_mac);
                l2.truncate(l2.len() - 2);
                [
                    l2,
                    ethertype.to_vec(),
                    outer(packet, (egress.source, backend.address), tunnel, entropy)?,
                    inner(packet),
                ]
                .concat()
            }
            None => [&mac[..], &egress.source_mac, &frame[12..]].concat(),
        };
        Ok(if elsewhere { Verdict::Redirect(out) } else { Verdict::Transmit(out) })
    }
}

/// The packet after one more hop.
fn inner(packet: &Packet) -> Vec<u8> {
    Packet { ttl: packet.ttl - 1, ..packet.clone() }.ip()
}

/// Runs a table in a world, says every case that fails, and audits all counters at the end.
///
/// # Errors
///
/// The first failure, after all have been printed.
pub fn run_table(world: &mut World, cases: &[Case]) -> Result<usize> {
    let mut failures = Vec::new();
    let mut variants = 0;
    for case in cases {
        match case.run(world) {
            Ok(count) => variants += count,
            Err(error) => {
                eprintln!("FAILED: {error:#}\n");
                failures.push(error);
            }
        }
    }
    let failed = failures.len();
    if let Some(first) = failures.into_iter().next() {
        return Err(first.context(format!("{failed} of {} cases failed; the first", cases.len())));
    }
    world.audit()?;
    Ok(variants)
}

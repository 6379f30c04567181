//! Differential fuzzing: frames made from well-formed ones by damaging them, and the maps changed in between, with
//! program and model asked the same about each.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use super::fixture::{self, BACKENDS, Exit, Family, Host, SLOTS, Way, backend_mac};
use super::frame::{Packet, hex};
use super::tracked::Tracked;
use super::world::World;
use super::{ACK, FIN, RST, SYN, fuzz_flows};
use crate::model::{Decision, Fate, Kind, Protocol, Selection, Service, Slot, Verdict, decide};

/// What a run met, so that a test can tell that it met everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    pub packets: u64,
    pub passed: u64,
    pub transmitted: u64,
    pub redirected: u64,
    /// By drop reason.
    pub drops: [u64; 12],
    pub state_changes: u64,
    /// Of tracked packets.
    pub fates: BTreeMap<(Selection, Kind, Fate), u64>,
    pub exceptions: u64,
    pub failures: u64,
    pub new_flows: u64,
}

impl Coverage {
    fn add(&mut self, decision: &Decision) {
        self.packets += 1;
        match &decision.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Transmit(_) => self.transmitted += 1,
            Verdict::Redirect(_) => self.redirected += 1,
            Verdict::Drop(reason) => self.drops[*reason as usize] += 1,
        }
        let effects = &decision.effects;
        if let Some(looked) = effects.looked_at {
            *self.fates.entry((looked.selection, looked.kind, looked.fate)).or_default() += 1;
        }
        self.exceptions += u64::from(effects.exception);
        self.failures += u64::from(effects.failed);
        self.new_flows += u64::from(decision.counted.is_some_and(|counted| counted.new_flow));
    }
}

/// Packets between two changes of the maps, and between two publications of services.
const CHANGE_EVERY: u64 = 16;
const PUBLISH_EVERY: u64 = 5_000;
/// Packets between two moves to another CPU.
const MOVE_EVERY: u64 = 1_000;

/// Runs `packets` frames; the same seed gives the same frames and changes.
///
/// # Errors
///
/// The first frame about which program and model disagree, cut down as far as they still do.
pub fn run(world: &mut World, seed: u64, packets: u64) -> Result<Coverage> {
    let mut rng = Rng::with_seed(seed);
    let mut coverage = Coverage::default();
    let furnished = world.state.services.clone();
    world.set_time(rng.u64(..1 << 20));
    for number in 0..packets {
        if number % CHANGE_EVERY == 0 {
            change(world, &mut rng).context("change the maps")?;
            fuzz_flows::change(world, &mut rng).context("change what is known of flows")?;
            coverage.state_changes += 1;
        }
        if number % PUBLISH_EVERY == 0 {
            republish(world, &mut rng, &furnished).context("publish services")?;
        }
        if number % MOVE_EVERY == 0 {
            let cpu = world.cpus()[rng.usize(..world.cpus().len())];
            world.run_on_cpu(cpu)?;
        }
        let (story, frame) = frame(&mut rng);
        match rng.u8(..16) {
            0 => fuzz_flows::plant(world, &mut rng, &frame),
            1 => change_its_slot(world, &mut rng, &frame)?,
            _ => {}
        }
        match world.check(&frame) {
            Ok(decision) => coverage.add(&decision),
            Err(error) => return Err(report(world, &story, &frame, number, &error)),
        }
    }
    world.audit()?;
    Ok(coverage)
}

fn report(
    world: &World,
    story: &[String],
    frame: &[u8],
    number: u64,
    error: &anyhow::Error,
) -> anyhow::Error {
    let minimal = shrink(world, frame);
    let difference = world.differs(&minimal).unwrap_or_default();
    anyhow::anyhow!(
        "packet {number}: {}\n  minimal frame:\n{}\n  {difference}\n  at first:\n{error:#}",
        story.join(", then "),
        hex(&minimal),
    )
}

/// A frame with its story.
fn frame(rng: &mut Rng) -> (Vec<String>, Vec<u8>) {
    let packet = seed_packet(rng);
    let mut story = vec![format!(
        "{:?} {}:{} to {}:{}, {} tags, {} option bytes",
        packet.protocol,
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.tags.len(),
        packet.options.len()
    )];
    let mut frame = packet.build();
    // Most often nothing or one thing is wrong, seldom many things.
    let damages = match rng.u8(..) {
        0..=143 => 0,
        144..=207 => 1,
        208..=239 => 2,
        _ => rng.usize(3..8),
    };
    for _ in 0..damages {
        story.push(damage(rng, &packet, &mut frame));
    }
    (story, frame)
}

fn seed_packet(rng: &mut Rng) -> Packet {
    let family = if rng.bool() { Family::V4 } else { Family::V6 };
    let protocol = if rng.bool() { Protocol::Tcp } else { Protocol::Udp };
    let host = match rng.u8(..10) {
        0 => Host::NotVip,
        1 => Host::EveryPort,
        2 => Host::TcpOnly,
        _ => Host::Vip,
    };
    let port = match rng.u8(..16) {
        0 => rng.u16(..),
        1 => 443,
        // The four that forward.
        2..=8 => Way::ALL[rng.usize(..4)].port(),
        _ => Way::ALL[rng.usize(..Way::ALL.len())].port(),
    };
    // Half of them flows that are tracked one way or another, of a few clients, so that they are met again.
    let (host, port, source_port) = match rng.bool() {
        true => (Host::Vip, Tracked::all()[rng.usize(..Tracked::COUNT)].port(), rng.u16(..3)),
        false => (host, port, rng.u16(..8)),
    };
    let client = fixture::client(family, rng.u16(..8));
    let mut packet =
        Packet::new(protocol, (client, source_port), (host.address(family), port)).with_tags(rng.usize(..3));
    packet.traffic_class = rng.u8(..);
    packet.identification = rng.u16(..);
    packet.dont_fragment = rng.bool();
    packet.ttl = if rng.u8(..16) == 0 { rng.u8(..3) } else { rng.u8(..) };
    packet.tcp_flags = match rng.u8(..8) {
        0..=1 => SYN,
        2..=3 => ACK,
        4 => FIN | ACK,
        5 => RST,
        _ => rng.u8(..),
    };
    if family == Family::V4 && rng.u8(..4) == 0 {
        packet.options = vec![1; rng.usize(..=10) * 4];
    }
    let payload_len = match rng.u8(..32) {
        0 => rng.usize(..1600),
        1 | 2 => around_the_mtu(rng, &packet),
        _ => rng.usize(..64),
    };
    packet.payload = vec![0x5a; payload_len];
    packet.padding = if rng.u8(..4) == 0 { rng.usize(..30) } else { 0 };
    packet
}

/// A payload with which the packet just fits or just doesn't fit a link once it has its outer header.
fn around_the_mtu(rng: &mut Rng, packet: &Packet) -> usize {
    let mtu = if rng.bool() { fixture::MTU } else { fixture::SMALL_MTU } as usize;
    let outer = if packet.source.is_ipv4() { 20 } else { 40 };
    let headers = packet.l4() - packet.l3() + packet.protocol.header_len();
    mtu + rng.usize(..3) - 1 - outer - headers
}

/// Does one thing to the frame and says what. Whatever was done before, this must not go out of its bounds.
fn damage(rng: &mut Rng, packet: &Packet, frame: &mut Vec<u8>) -> String {
    let (l3, l4) = (packet.l3(), packet.l4());
    let v4 = packet.source.is_ipv4();
    let frame_len = frame.len();
    let mut set = |at: usize, bytes: &[u8]| {
        for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    match rng.u8(..16) {
        0 => {
            // The kernel takes nothing shorter.
            let len = rng.usize(14..=frame.len().max(14));
            frame.truncate(len);
            format!("cut to {len} bytes")
        }
        1 => {
            let more = rng.usize(1..64);
            frame.extend(std::iter::repeat_with(|| rng.u8(..)).take(more));
            format!("{more} bytes appended")
        }
        2 => {
            let near = frame_len.saturating_sub(l3) as u16;
            let len =
                if rng.bool() { rng.u16(..) } else { near.wrapping_add(rng.u16(..80)).wrapping_sub(60) };
            set(l3 + if v4 { 2 } else { 4 }, &len.to_be_bytes());
            format!("IP length {len}")
        }
        3 => {
            let byte = rng.u8(..);
            set(l3, &[byte]);
            format!("first byte of the IP header {byte:#x}")
        }
        4 => {
            let ihl = 0x40 | rng.u8(..16);
            set(l3, &[if v4 { ihl } else { 0x60 | (ihl & 0xf) }]);
            format!("header length or class {ihl:#x}")
        }
        5 => {
            let flags = match rng.u8(..4) {
                0 => 0x2000,
                1 => rng.u16(..) & 0x1fff,
                2 => 0x8000,
                _ => rng.u16(..),
            };
            set(l3 + 6, &flags.to_be_bytes());
            format!("flags and offset (next header and hop limit of IPv6) {flags:#x}")
        }
        6 => {
            let numbers = [0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139, 140, 253];
            let next = numbers[rng.usize(..numbers.len())];
            set(l3 + if v4 { 9 } else { 6 }, &[next]);
            format!("protocol {next}")
        }
        7 => {
            let ttl = rng.u8(..3);
            set(l3 + if v4 { 8 } else { 7 }, &[ttl]);
            format!("TTL {ttl}")
        }
        8 => {
            let types = [0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x9100, 0x0500, 0x8863];
            let ethertype: u16 = types[rng.usize(..types.len())];
            let at = 12 + 4 * rng.usize(..3);
            set(at, &ethertype.to_be_bytes());
            format!("type {ethertype:#x} at {at}")
        }
        9 => {
            let tag = if rng.bool() { [0x81, 0, 0, 5] } else { [0x88, 0xa8, 0, 6] };
            let at = 12.min(frame.len());
            frame.splice(at..at, tag);
            "one more tag".into()
        }
        10 => {
            let [high, low] = rng.u16(..).to_be_bytes();
            set(l3 + 10, &[high, low]);
            format!("bytes 10 and 11 of the IP header {high:#x} {low:#x}")
        }
        11 if !v4 => {
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 10];
            set(l3 + 24, &mapped);
            "destination the IPv4-mapped VIP".into()
        }
        11 | 12 => {
            let bytes = rng.u32(..).to_be_bytes();
            set(l4, &bytes);
            format!("ports {bytes:x?}")
        }
        13 => {
            let (at, byte) = (rng.usize(l3..l4 + 20), rng.u8(..));
            set(at, &[byte]);
            format!("byte {at} {byte:#x}")
        }
        14 => {
            let (at, bit) = (rng.usize(..frame.len()), rng.u8(..8));
            frame[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        _ => {
            let from = rng.usize(..frame.len());
            for byte in frame.iter_mut().skip(from) {
                *byte = rng.u8(..);
            }
            format!("noise from byte {from}")
        }
    }
}

/// Changes one thing in the maps, as a controller does while packets flow.
fn change(world: &mut World, rng: &mut Rng) -> Result<()> {
    let service = rng.usize(..world.state.services.len());
    let family = if world.state.services[service].address.is_ipv4() { Family::V4 } else { Family::V6 };
    // A service keeps to its own three indexes, which follow from its number.
    let first = 1 + world.state.services[service].number * BACKENDS;
    let index = first + rng.u32(..BACKENDS);
    let number = rng.usize(..SLOTS);
    match rng.u8(..8) {
        0..=3 => {
            if world.state.services[service].base < world.state.lookup_limit {
                change_slot(world, rng, service, number)?;
            }
        }
        4 => {
            let (new, existing, weight) = (rng.u8(..4) != 0, rng.u8(..8) != 0, rng.u16(..5));
            world.change_backend(index, |backend| {
                backend.accepts_new_flows = new;
                backend.accepts_existing_flows = existing;
                backend.weight = weight;
            })?;
        }
        _ => {
            let exits = [Exit::Same, Exit::Same, Exit::Elsewhere, Exit::Hole, Exit::Small, Exit::BeyondMap];
            let mut mac = backend_mac(index);
            mac[1] = rng.u8(..);
            let hop = match rng.u8(..8) {
                0 => None,
                // A number in range that was never written.
                1 => Some((mac, 777)),
                _ => Some((mac, exits[rng.usize(..exits.len())].number(family))),
            };
            world.change_backend(index, |backend| backend.next_hop = hop)?;
        }
    }
    Ok(())
}

/// Changes the slot that a frame looks at.
fn change_its_slot(world: &mut World, rng: &mut Rng, frame: &[u8]) -> Result<()> {
    let Some(slot) = decide(&world.state, frame).effects.slot else { return Ok(()) };
    let of = |service: &Service| (service.base..service.base + SLOTS as u32).contains(&slot);
    let service = world.state.services.iter().position(of).context("a slot of no service")?;
    let Service { base, number, selection, rotation, .. } = world.state.services[service];
    let next = world.state.placed.get(&number).copied().unwrap_or_default();
    let slot = match selection {
        // The one that the next new flow gets.
        Selection::RoundRobin if rng.bool() => (next % u64::from(rotation)) as usize,
        _ => (slot - base) as usize,
    };
    change_slot(world, rng, service, slot)
}

fn change_slot(world: &mut World, rng: &mut Rng, service: usize, number: usize) -> Result<()> {
    let first = 1 + world.state.services[service].number * BACKENDS;
    let (limit, selection) = (world.state.backend_limit, world.state.services[service].selection);
    let mut any = || match rng.u8(..24) {
        0 | 1 => 0,
        // What least-connections makes of a weight that isn't there is nobody's business.
        2 if selection != Selection::LeastConnections => limit + rng.u32(..100),
        // An index that was never written.
        3 => limit - 1,
        // Another service's.
        4 => 1 + rng.u32(..100),
        _ => first + rng.u32(..BACKENDS),
    };
    let (current, previous) = (any(), any());
    let opened = rng.u16(..);
    let slot = match rng.u8(..4) {
        0 => Slot::steady(current),
        1 => Slot { current, previous: 0, opened, tracked: true },
        _ => Slot { current, previous, opened, tracked: true },
    };
    world.change_slot(service, number, slot)
}

/// Makes another choice of services live. Those that stay keep their slots.
fn republish(world: &mut World, rng: &mut Rng, furnished: &[Service]) -> Result<()> {
    let live = std::mem::take(&mut world.state.services);
    for service in furnished {
        if rng.u8(..8) == 0 {
            continue;
        }
        match live.iter().find(|known| known.number == service.number) {
            Some(known) => world.state.services.push(known.clone()),
            // It comes back with the slots it was furnished with.
            None => world.add_service(service.clone())?,
        }
    }
    if world.state.services.is_empty() {
        bail!("no service was left");
    }
    world.publish()
}

/// Cuts a frame down as long as program and model still disagree about it.
fn shrink(world: &World, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut step = frame.len() / 2;
    while step > 0 {
        let shorter = frame.len().saturating_sub(step);
        if shorter >= 14 && world.differs(&frame[..shorter]).is_some() {
            frame.truncate(shorter);
        } else {
            step /= 2;
        }
    }
    for at in 0..frame.len() {
        let byte = std::mem::take(&mut frame[at]);
        if world.differs(&frame).is_none() {
            frame[at] = byte;
        }
    }
    frame
}

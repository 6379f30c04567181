//! Frames of a fuzz run: well-formed ones, most of them damaged, and many about others that came before.

use std::collections::VecDeque;

use fastrand::Rng;

use super::fixture::Family;
use super::frame::{Packet, l3_of};
use super::pieces::{self, Extension};
use super::world::World;
use super::{fuzz_damage, fuzz_errors, fuzz_packets};
use crate::model::{Decision, Verdict};

/// A frame with its story.
pub(super) struct Frame {
    pub(super) story: Vec<String>,
    pub(super) bytes: Vec<u8>,
}

/// Where frames come from.
#[derive(Default)]
pub(super) struct Frames {
    /// Packets of clients.
    came: VecDeque<Packet>,
    /// Frames that left.
    left: VecDeque<Vec<u8>>,
    /// Fragments that are to come.
    pieces: Vec<Frame>,
}

/// How many of each are remembered.
const REMEMBERED: usize = 48;

impl Frames {
    /// The next frame.
    pub(super) fn next(&mut self, rng: &mut Rng, world: &World) -> Frame {
        if !self.pieces.is_empty() && rng.u8(..3) != 0 {
            // Mostly in order.
            let number = if rng.u8(..4) == 0 { rng.usize(..self.pieces.len()) } else { 0 };
            let mut piece = self.pieces.remove(number);
            if rng.u8(..8) == 0 {
                self.damage(rng, &mut piece);
            }
            return piece;
        }
        let (mut frame, packet) = self.whole(rng, world);
        if let Some(packet) = packet {
            self.shape(rng, &packet, &mut frame);
            remember(&mut self.came, packet);
        }
        // Most often nothing or one thing is wrong, seldom many things.
        let damages = match rng.u8(..) {
            0..=159 => 0,
            160..=215 => 1,
            216..=243 => 2,
            _ => rng.usize(3..8),
        };
        for _ in 0..damages {
            self.damage(rng, &mut frame);
        }
        frame
    }

    /// Remembers what became of a frame.
    pub(super) fn saw(&mut self, decision: &Decision) {
        if let Verdict::Transmit(out) | Verdict::Redirect(out) = &decision.verdict {
            remember(&mut self.left, out.clone());
        }
    }

    fn whole(&self, rng: &mut Rng, world: &World) -> (Frame, Option<Packet>) {
        match rng.u8(..32) {
            0..=3 if !self.left.is_empty() => {
                let about = &self.left[rng.usize(..self.left.len())];
                if let Some(message) = fuzz_errors::about_frame(rng, about) {
                    return (message_frame(rng, "an error about a frame that left", message), None);
                }
            }
            4 | 5 if !self.came.is_empty() => {
                let about = &self.came[rng.usize(..self.came.len())];
                let message = fuzz_errors::about_the_reply(rng, about);
                return (message_frame(rng, "an error about a reply", message), None);
            }
            6 => {
                let echo = fuzz_errors::echo(rng);
                return (message_frame(rng, "echo", echo), None);
            }
            7..=12 => {
                let from_backend = rng.u8(..3) != 0;
                if let Some(mut packet) = fuzz_errors::of_nat(rng, world, from_backend) {
                    fuzz_packets::fill(rng, &mut packet);
                    return (packet_frame(&packet), Some(packet));
                }
            }
            _ => {}
        }
        let packet = fuzz_packets::seed(rng);
        (packet_frame(&packet), Some(packet))
    }

    /// Extension headers, and fragments of which all but the first come later.
    fn shape(&mut self, rng: &mut Rng, packet: &Packet, frame: &mut Frame) {
        let l3 = packet.l3();
        if packet.source.is_ipv6() && rng.u8(..4) == 0 {
            let chain = fuzz_packets::extensions(rng);
            frame.story.push(format!(
                "extension headers {:?}",
                chain.iter().map(|header| header.kind).collect::<Vec<_>>()
            ));
            pieces::extend(&mut frame.bytes, l3, &chain);
        }
        if rng.u8(..8) == 0 {
            // Few identifications, so that some are met again.
            let identification = rng.u32(..4) << 8 | 0x00c0_0000;
            let size = [8, 16, 24, 24, 24, 64][rng.usize(..6)];
            let parts = pieces::fragments(&frame.bytes, l3, identification, size);
            if parts.len() > 12 {
                return;
            }
            let mut parts = parts.into_iter().enumerate().map(|(number, bytes)| {
                let mut story = frame.story.clone();
                story.push(format!("fragment {number} of {identification:#x}"));
                Frame { story, bytes }
            });
            let Some(first) = parts.next() else { return };
            self.pieces.extend(parts);
            *frame = first;
        }
    }

    fn damage(&self, rng: &mut Rng, frame: &mut Frame) {
        // Where it was before anything was done to it is not known any more; nearly there will do.
        let l3 = l3_of(&frame.bytes).unwrap_or(14);
        let header = match frame.bytes.get(l3).map_or(4, |byte| byte >> 4) {
            6 => 40,
            _ => usize::from(frame.bytes.get(l3).map_or(5, |byte| byte & 0xf)) * 4,
        };
        frame.story.push(fuzz_damage::damage(rng, (l3, l3 + header), &mut frame.bytes));
    }
}

fn remember<T>(queue: &mut VecDeque<T>, new: T) {
    if queue.len() == REMEMBERED {
        queue.pop_front();
    }
    queue.push_back(new);
}

fn packet_frame(packet: &Packet) -> Frame {
    let story = vec![format!(
        "{:?} {}:{} to {}:{}, flags {:#x}, {} tags, {} option bytes",
        packet.protocol,
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.tcp_flags,
        packet.tags.len(),
        packet.options.len()
    )];
    Frame { story, bytes: packet.build() }
}

fn message_frame(rng: &mut Rng, what: &str, mut message: super::message::Message) -> Frame {
    message.tags = fuzz_packets::tags(rng);
    if rng.u8(..12) == 0 {
        message.ttl = rng.u8(..3);
    }
    let family = if message.source.is_ipv4() { Family::V4 } else { Family::V6 };
    if rng.u8(..16) == 0 {
        message.source = fuzz_errors::nobody(rng, family);
    }
    let l3 = message.l3();
    let mut bytes = message.build();
    if family == Family::V6 && rng.u8(..16) == 0 {
        let chain: Vec<Extension> = fuzz_packets::extensions(rng);
        pieces::extend(&mut bytes, l3, &chain);
    }
    let story =
        format!("{what}: {}/{} {} to {}", message.kind, message.code, message.source, message.destination);
    Frame { story: vec![story], bytes }
}

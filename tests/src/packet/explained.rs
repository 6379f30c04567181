//! `explain` and the wire: each packet is asked about first and run then, while the maps change in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use ballast::control::{FlowTable, InterfaceView, Snapshot};
use ballast::dataplane::Tracer;
use ballast::explain::{Explainer, Explanation, Packet, Question, Verdict as Said, What};
use fastrand::Rng;
use lb_common::abi::DropReason;

use super::fixture::{self, Family};
use super::frame::hex;
use super::fuzz_changes::{change, change_its_slot};
use super::fuzz_frames::{Frame, Frames};
use super::world::{LIMITS, World};
use super::{fuzz_flows, fuzz_nat};
use crate::model::{Decision, Event, Protocol, Service, Verdict};

/// Packets between two changes of the maps, and between two looks at every byte of them.
const CHANGE_EVERY: u64 = 16;
const DUMP_EVERY: u64 = 50;

/// How often something was said.
#[derive(Debug, Default)]
pub struct Told {
    pub reasons: BTreeMap<&'static str, u64>,
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Packets that were forwarded to a backend, by how, and whether they were IPv4.
    pub forwarded: BTreeMap<(String, bool), u64>,
    /// Packets of flows that the flow table, or NAT, knew.
    pub of_known_flows: u64,
}

/// Asks about packets of a world, and sees what becomes of them.
pub struct Asked {
    world: World,
    explainer: Explainer,
    told: Told,
}

impl Asked {
    /// # Errors
    ///
    /// If the programs can't be loaded.
    pub fn new() -> Result<Self> {
        let world = fixture::pinned_world()?;
        let place = world.pins().context("a world whose maps are pinned")?;
        let explainer = Explainer::new(move || Tracer::load(&place, LIMITS, World::hash_key()));
        Ok(Self { world, explainer, told: Told::default() })
    }

    /// Client and service by chance, so many times.
    ///
    /// # Errors
    ///
    /// The first packet about which they disagree, or by asking about which something changed.
    pub fn about_tuples(mut self, seed: u64, tuples: u64) -> Result<Told> {
        let mut rng = Rng::with_seed(seed);
        self.world.set_time(rng.u64(..1 << 20));
        for number in 0..tuples {
            self.change(&mut rng, number)?;
            // `lo` has no address of its own.
            self.world.set_own_macs(None)?;
            let services = &self.world.state.services;
            let limited: Vec<_> = services.iter().filter(|service| service.new_flow_limit > 0).collect();
            let service = match rng.u8(..16) {
                // Or their limit would never be met.
                0 => limited[rng.usize(..limited.len())],
                _ => &services[rng.usize(..services.len())],
            };
            let question = question(&mut rng, service);
            self.prepare(&mut rng, &question)?;
            let text = format!("tuple {number}: {question:?}");
            self.ask(question, number).context(text)?;
        }
        Ok(self.told)
    }

    /// Frames of all kinds, damaged ones too.
    ///
    /// # Errors
    ///
    /// As [`about_tuples`](Self::about_tuples).
    pub fn about_frames(mut self, seed: u64, count: u64) -> Result<Told> {
        let (mut rng, mut frames) = (Rng::with_seed(seed), Frames::default());
        self.world.set_time(rng.u64(..1 << 20));
        for number in 0..count {
            self.change(&mut rng, number)?;
            let Frame { story, bytes } = frames.next(&mut rng, &self.world);
            if rng.u8(..8) == 0 {
                fuzz_flows::plant(&mut self.world, &mut rng, &bytes);
            }
            let decision = self
                .ask(What::Frame(bytes), number)
                .with_context(|| format!("frame {number}: {}", story.join(", then ")))?;
            frames.saw(&decision);
        }
        Ok(self.told)
    }

    fn change(&mut self, rng: &mut Rng, number: u64) -> Result<()> {
        if number.is_multiple_of(CHANGE_EVERY) {
            change(&mut self.world, rng).context("change the maps")?;
            fuzz_flows::change(&mut self.world, rng).context("change what is known of flows")?;
            fuzz_nat::change(&mut self.world, rng).context("change what is known of NAT")?;
        }
        Ok(())
    }

    /// Has the packet's flow known now and then, or its slot changed.
    fn prepare(&mut self, rng: &mut Rng, question: &What) -> Result<()> {
        let what = rng.u8(..8);
        if what < 4 {
            // As the question will be made a frame of.
            let frame = self.explain(question.clone())?.input;
            match what {
                0 | 1 => fuzz_flows::plant(&mut self.world, rng, &frame),
                _ => change_its_slot(&mut self.world, rng, &frame)?,
            }
        }
        Ok(())
    }

    fn explain(&self, what: What) -> Result<Explanation> {
        let state = &self.world.state;
        let nat_table =
            FlowTable { entries: state.nat.replies.len() as u64, capacity: state.nat.limit as u64 };
        let lo = InterfaceView { name: "lo".into(), mode: "generic", attached: true };
        let snapshot = Snapshot { interfaces: vec![lo], nat_table, ..Snapshot::default() };
        Ok(self.explainer.explain(&snapshot, &Question { what, interface: None })?)
    }

    /// Asks, sees that nothing changed, runs the program itself and compares.
    fn ask(&mut self, what: What, number: u64) -> Result<Decision> {
        let before = number.is_multiple_of(DUMP_EVERY).then(|| self.world.dump()).transpose()?;
        let explanation = self.explain(what)?;
        self.world.is_untouched().context("asking changed something")?;
        if let Some(before) = before {
            let after = self.world.dump()?;
            let changed: Vec<_> = before
                .iter()
                .filter(|(map, content)| after.get(*map) != Some(content))
                .map(|(map, _)| map)
                .collect();
            ensure!(changed.is_empty(), "asking changed {changed:?}");
        }
        let decision = self.world.check(&explanation.input).context("program and model")?;
        agree(&explanation, &decision).with_context(|| {
            format!("{explanation:#?}\n{:?}\n  frame in:\n{}", decision.verdict, hex(&explanation.input))
        })?;
        self.told.note(&explanation);
        Ok(decision)
    }
}

impl Told {
    fn note(&mut self, explanation: &Explanation) {
        *self.reasons.entry(explanation.reason).or_default() += 1;
        *self.verdicts.entry(explanation.verdict.as_str()).or_default() += 1;
        self.of_known_flows += u64::from(["flow", "nat_flow"].contains(&explanation.reason));
        if let (Some(_), Said::Tx | Said::Redirect) = (&explanation.backend, explanation.verdict) {
            let layers: Vec<_> = explanation.headers.iter().skip(1).map(|header| header.layer).collect();
            let is_v4 =
                explanation.headers.iter().any(|header| header.layer == "ipv4" && header.before.is_some());
            *self.forwarded.entry((layers.join(" "), is_v4)).or_default() += 1;
        }
    }
}

/// Whether what was said is what happened.
fn agree(explanation: &Explanation, decision: &Decision) -> Result<()> {
    let said = explanation.verdict;
    if is_beyond_asking(explanation, decision) {
        return Ok(());
    }
    let (verdict, frame) = match &decision.verdict {
        Verdict::Pass => (Said::Pass, Some(&explanation.input)),
        Verdict::Transmit(frame) => (Said::Tx, Some(frame)),
        Verdict::Redirect(frame) => (Said::Redirect, Some(frame)),
        Verdict::Drop(_) => (Said::Drop, None),
    };
    ensure!(said == verdict, "said {said:?}, and it is {verdict:?}");
    if let Verdict::Drop(reason) = decision.verdict {
        ensure!(explanation.drop == Some(reason), "said {:?}, and it is {reason:?}", explanation.drop);
    }
    ensure!(
        frame == explanation.output.as_ref() || is_by_chance(explanation),
        "another frame:\n{}",
        frame.map(|frame| hex(frame)).unwrap_or_default()
    );
    Ok(())
}

/// What nobody can know without doing it: whether there is room in NAT's tables, and how many ICMP errors the program that runs
/// has made this second on the CPU that the packet will meet.
fn is_beyond_asking(explanation: &Explanation, decision: &Decision) -> bool {
    let full = decision.verdict == Verdict::Drop(DropReason::NatExhausted) && explanation.trace.tries > 0;
    let told = explanation.sentences.iter().any(|sentence| sentence.contains("NAT's tables were full"));
    let limited = decision.effects.events.contains(&Event::ErrorLimited) && explanation.trace.answer != 0;
    (full && (told || is_by_chance(explanation))) || limited
}

/// Whether the port of a new flow is none that can be foretold.
fn is_by_chance(explanation: &Explanation) -> bool {
    explanation.sentences.iter().any(|sentence| sentence.contains("chosen by chance"))
        || explanation.drop == Some(DropReason::NatExhausted)
        // `dnat` has tried the client's own; the world's services are not the daemon's, so that sentence does not know.
        || explanation.trace.tries > 1
}

fn question(rng: &mut Rng, service: &Service) -> What {
    let family = if service.address.is_ipv4() { Family::V4 } else { Family::V6 };
    // Few enough that flows are met again.
    let from = SocketAddr::new(fixture::client(family, rng.u16(..6)), rng.u16(1..4));
    let to = SocketAddr::new(service.address, service.port.unwrap_or_else(|| rng.u16(1..)));
    let tcp = service.protocol == Protocol::Tcp;
    What::Packet(Packet {
        from,
        service: None,
        to: Some(to),
        port: None,
        protocol: Some(if tcp { ballast::domain::Protocol::Tcp } else { ballast::domain::Protocol::Udp }),
        syn: tcp && rng.u8(..3) != 0,
        length: (rng.u8(..8) == 0).then(|| rng.usize(60..1600)),
    })
}

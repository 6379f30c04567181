//! Packets a second over veth: live frames go to a balancer's interface, through the driver and the program attached
//! there, and back over the wire, where the last program counts and drops them. All of it on one CPU.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::net::if_::if_nametoindex;

use super::packets::stay_on_one_cpu;
use super::scenario::{Family, Under};
use super::stage::{Entry, Program};
use crate::lab::{self, Assembler, Daemon, Kind, Lab, Node, Service, VIP_V4, VIP_V6, wait_until};
use crate::model::Protocol;
use crate::packet::{ACK, Packet};

pub(super) const GROUP: &str = "live";

/// Rounds unless told otherwise.
const ROUNDS: u32 = 10;
/// Addresses that frames come from.
const FLOWS: u64 = 1 << 20;
const FRAMES: u32 = 1_000_000;
const ATTEMPTS: u32 = 10;
const FEW: u32 = 64;
const PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(10);
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

pub(super) const FLOOR: &str = "floor: XDP_TX";
/// What is attached to the balancers' interfaces: nothing but a program that sends back, or Ballast in these modes.
const ATTACHED: [(&str, Option<&str>); 3] =
    [(FLOOR, None), ("ballast l2-dsr", Some("l2-dsr")), ("ballast ipip", Some("ipip"))];

/// One family and one program.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) family: Family,
    pub(super) name: &'static str,
    /// Millions of packets a second that came back, one value a round.
    pub(super) rates: Vec<f64>,
}

impl Line {
    /// Nanoseconds a packet takes on its way round.
    pub(super) fn nanoseconds(&self) -> Vec<f64> {
        self.rates.iter().map(|rate| 1e3 / rate).collect()
    }
}

pub(super) fn run(rounds: Option<u32>, objects: &Path, ballast: &Path) -> Result<Vec<Line>> {
    let wire = Wire::build(objects, ballast)?;
    let mut lines = Vec::new();
    for family in [Family::V4, Family::V6] {
        lines.extend(ATTACHED.map(|(name, _)| Line { family, name, rates: Vec::new() }));
    }
    for round in 0..=rounds.unwrap_or(ROUNDS) as usize {
        for step in 0..lines.len() {
            let number = (round + step) % lines.len();
            let line = &mut lines[number];
            let rate = wire.turn(line.family, number % ATTACHED.len());
            let rate = rate.with_context(|| format!("{}, IP{}", line.name, line.family.name()))?;
            // The first round fills caches, and is forgotten.
            if round > 0 {
                line.rates.push(rate);
            }
        }
    }
    Ok(lines)
}

/// The lab: a balancer for each program, and what sends to them.
struct Wire {
    /// In the order of the families.
    entries: [Entry; 2],
    /// Nothing but there to be dropped before the lab is.
    _daemons: Vec<Daemon>,
    lab: Lab,
    pins: Pins,
}

/// Programs for the far ends of balancers' links, in bpffs.
struct Pins {
    drop: PathBuf,
    pass: PathBuf,
}

impl Wire {
    fn build(objects: &Path, ballast: &Path) -> Result<Self> {
        let lab = Lab::builder().balancers(ATTACHED.len() as u16).backends(3).decapsulating().build()?;
        let mut daemons = Vec::new();
        for (number, (_, forwarding)) in ATTACHED.into_iter().enumerate() {
            let balancer = lab.balancer(number);
            let Some(forwarding) = forwarding else {
                let program = Assembler::default().exit(XDP_TX).finish();
                balancer.attach_xdp(&balancer.first_leg().interface, &program)?;
                continue;
            };
            let mut daemon =
                Daemon::with_binary(&lab, number, &config(&lab, forwarding), ballast.to_owned())?;
            daemon.launch()?;
            daemon.wait_ready(PATIENCE)?;
            daemons.push(daemon);
        }
        let pin = |name: &str, code| {
            let path = lab.pins().join(name);
            let program = lab::Program::load(Kind::Xdp, name, &Assembler::default().exit(code).finish())?;
            program.pin(&path)?;
            anyhow::Ok(path)
        };
        let pins = Pins { drop: pin("bench_drop", XDP_DROP)?, pass: pin("bench_pass", XDP_PASS)? };
        let entry = |family| {
            // It comes back from there with XDP_TX, which sends a live frame.
            let back = Program::load(Under::Floor { encapsulates: false }, family, objects, false)?;
            Entry::before(&back, family, objects)
        };
        let entries = [entry(Family::V4)?, entry(Family::V6)?];
        let wire = Self { entries, _daemons: daemons, lab, pins };
        for number in 0..ATTACHED.len() {
            for family in [Family::V4, Family::V6] {
                // Ballast drops what it has no next hop for yet.
                wait_until("every frame comes back", PATIENCE, || {
                    wire.send(family, number, FEW).is_ok_and(|(back, _)| back == u64::from(FEW))
                })?;
            }
        }
        Ok(wire)
    }

    /// Millions of packets a second.
    fn turn(&self, family: Family, number: usize) -> Result<f64> {
        let mut back = 0;
        for _ in 0..ATTEMPTS {
            let (counted, took) = self.send(family, number, FRAMES)?;
            back = counted;
            // Where another process keeps a softirq from running, the ring fills up. That is no forwarding rate.
            if back == u64::from(FRAMES) {
                return Ok(back as f64 / took.as_secs_f64() / 1e6);
            }
        }
        bail!("{back} of {FRAMES} frames came back, and no more in {ATTEMPTS} attempts: the machine is busy")
    }

    /// Sends frames to a balancer; how many came back, and how long it took.
    fn send(&self, family: Family, number: usize, frames: u32) -> Result<(u64, Duration)> {
        let balancer = self.lab.balancer(number);
        let (entry, frame) = match family {
            Family::V4 => (&self.entries[0], frame(&self.lab, balancer, VIP_V4)),
            Family::V6 => (&self.entries[1], frame(&self.lab, balancer, VIP_V6)),
        };
        entry.prepare(&frame, family, 0, FLOWS, 0)?;
        let port = balancer.first_leg().port.as_str();
        self.attach(port, &self.pins.drop)?;
        let before = self.dropped(port)?;
        let sent = self.lab.switch().enter(|| {
            stay_on_one_cpu()?;
            let interface = if_nametoindex(port).context("find a port")?;
            let start = Instant::now();
            entry.send(&frame, frames, interface)?;
            Ok(start.elapsed())
        });
        let after = self.dropped(port)?;
        // Daemons go on probing, neighbours are asked for.
        self.attach(port, &self.pins.pass)?;
        Ok((after - before, sent?))
    }

    fn attach(&self, port: &str, pin: &Path) -> Result<()> {
        let line = format!("link set dev {port} xdpdrv pinned {}", pin.display());
        let args = ["-force".to_owned()].into_iter().chain(line.split(' ').map(str::to_owned));
        self.lab.switch().run("ip", args).map(drop)
    }

    fn dropped(&self, port: &str) -> Result<u64> {
        let counters = self.lab.switch().counters(port)?;
        counters.get("rx_xdp_drops").copied().context("veth counts what XDP drops")
    }
}

/// One TCP service for each family; whether backends are well is not asked here.
fn config(lab: &Lab, forwarding: &str) -> String {
    let service = |(name, vip)| {
        let address = SocketAddr::new(vip, PORT);
        Service::new(name, address, "tcp", forwarding).nodes(lab.backends(), address).toml()
    };
    [("v4", VIP_V4), ("v6", VIP_V6)].map(service).concat()
}

/// An acknowledgement, as short as one is.
fn frame(lab: &Lab, balancer: &Node, vip: IpAddr) -> Vec<u8> {
    let client = lab.client(0);
    let source = (client.address(vip), 8080);
    let packet =
        Packet { tcp_flags: ACK, payload: Vec::new(), ..Packet::new(Protocol::Tcp, source, (vip, PORT)) };
    [packet.l2(balancer.first_leg().mac, client.first_leg().mac), packet.ip()].concat()
}

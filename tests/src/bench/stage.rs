//! Programs ready to be measured: loaded, their maps filled, an entry program in front.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::Map;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use ballast::dataplane::scan::{Moment, Region, Scanner, Tracked, World};
use ballast::dataplane::{CaptureProgram, Dataplane as _, Limits, bpf::BpfDataplane, loader, track};
use ballast::domain::TableSize;
use ballast::lookup::maglev::{self, Candidate};
use lb_common::abi::{
    BackendValue, CAPTURE_ANY_SERVICE, CaptureSettings, ENTRY_OCCUPIED, EgressValue, HASH_SOURCE,
    MAX_SNAPLEN, NatPool, NextHop, PROTOCOL_ANY, STATE_EXISTING_FLOWS, STATE_IN_USE, STATE_IPV6,
    STATE_NEW_FLOWS, ServiceEntry, ServiceKey, Slot, TRACK_AUTO, mac_word, translates,
};
use lb_common::hash::HashKey;

use super::scenario::{
    Capture, Change, FLAVOURS, Family, Flavour, NAT_FLOWS, News, Scenario, Under, VIP, port,
};
use super::turn::{FLOWS, Reply, Turn};
use crate::packet::sys::{self, ProgramInfo, Run};
use crate::packet::{BALANCER_MAC, SYN};

pub(super) const BACKENDS: u32 = 100;
pub(super) const TABLE_SIZE: u32 = 1 << 16;
/// Twice as many as the most flows that are measured.
pub(super) const FLOW_ENTRIES: u32 = 1 << 21;

const LIMITS: Limits = Limits {
    services: 1024,
    backends: 2048,
    lookup_slots: TABLE_SIZE * FLAVOURS.len() as u32,
    flow_entries: FLOW_ENTRIES,
    nat_flows: 2 * NAT_FLOWS as u32,
    source_prefixes: 1024,
};
const KEY: HashKey = HashKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };

/// Test runs receive on `lo`; what is sent there too is not redirected.
const INTERFACE: u32 = 1;
/// When a change is made, in coarse time.
const CHANGED: u64 = 100;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Packets to see whether a program does what it is measured for.
pub(super) const CHECKED: u32 = 1000;
/// Packets that there is room for where all are captured.
pub(super) const CAPTURED: u32 = 1 << 12;
/// News of flows that there is room for, and more than that.
pub(super) const TOLD: u32 = 1 << 11;
pub(super) const TOO_MUCH_TOLD: u32 = 1 << 13;

/// A program with its maps.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: String,
    fd: OwnedFd,
    pub(super) info: ProgramInfo,
    /// What its maps are filled through.
    dataplane: Option<BpfDataplane>,
    /// Of one that copies packets.
    capture: Option<CaptureProgram>,
}

impl Program {
    pub(super) fn load(under: Under, family: Family, objects: &Path, with_nat: bool) -> Result<Self> {
        let mut capture = None;
        let (name, fd, dataplane) = match under {
            Under::Floor { encapsulates } => {
                let name = match (encapsulates, family) {
                    (false, _) => "tx",
                    (true, Family::V4) => "encap_v4",
                    (true, Family::V6) => "encap_v6",
                };
                let mut harness = harness(objects)?;
                (name.to_owned(), program(&mut harness, name)?, None)
            }
            Under::Ballast => {
                let (fd, mut dataplane) = loader::load_for_test(LIMITS, KEY, true, true)?;
                fill(&mut dataplane, family, with_nat)?;
                ("ballast".to_owned(), fd, Some(dataplane))
            }
            Under::Capturing => {
                let (programs, mut dataplane, copies) = loader::load_capturing_for_test(LIMITS, KEY, false)?;
                fill(&mut dataplane, family, with_nat)?;
                capture = Some(copies);
                ("ballast, capturing".to_owned(), programs.balancer, Some(dataplane))
            }
            Under::Replicating => {
                let (programs, mut dataplane) = loader::load_replicating_for_test(LIMITS, KEY, true)?;
                fill(&mut dataplane, family, with_nat)?;
                ("ballast, with peers".to_owned(), programs.balancer, Some(dataplane))
            }
            Under::Variant(name) => {
                let path = objects.join(name);
                let object = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let (fd, mut dataplane) =
                    loader::load_variant(&object, LIMITS, KEY).with_context(|| format!("load {name}"))?;
                fill(&mut dataplane, family, with_nat)?;
                (format!("ballast, {}", path.file_name().unwrap_or_default().display()), fd, Some(dataplane))
            }
        };
        Ok(Self { name, info: sys::program_info(&fd)?, fd, dataplane, capture })
    }

    /// Says what to capture from now on, where it captures at all.
    pub(super) fn ask(&self, wanted: Option<Capture>, family: Family) -> Result<()> {
        let (Some(program), Some(wanted)) = (&self.capture, wanted) else { return Ok(()) };
        let all = CaptureSettings {
            deadline: u64::MAX,
            service: CAPTURE_ANY_SERVICE,
            actions: u32::MAX,
            snaplen: MAX_SNAPLEN,
            burst: u64::MAX,
            ..CaptureSettings::default()
        };
        let settings = match wanted {
            Capture::Others => {
                CaptureSettings { client: mapped(family.address(VIP)), client_mask: [0xff; 16], ..all }
            }
            // As `ballast capture` asks for 1,000 a second.
            Capture::Few => CaptureSettings { interval: 1_000_000, burst: 99_000_000, ..all },
            Capture::All => all,
        };
        Ok(program.set(&settings)?)
    }

    /// Takes what was captured, so that there is room for more. Returns how many packets that are.
    pub(super) fn fetch(&mut self) -> Result<u32> {
        let mut count = 0;
        if let Some(program) = &mut self.capture {
            while program.fetch()?.is_some() {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Takes news of flows, so that there is room for more. Returns how many buckets they name.
    fn take_news(&mut self) -> u32 {
        self.dataplane.as_mut().map_or(0, |dataplane| dataplane.take_flow_news().len() as u32)
    }

    /// Makes room for what packets leave, unless there is to be none.
    pub(super) fn make_room(&mut self, scenario: &Scenario) -> Result<()> {
        self.fetch()?;
        if scenario.news != News::Full {
            self.take_news();
        }
        Ok(())
    }

    /// Empties the flow table.
    pub(super) fn forget_flows(&self) {
        for entry in self.dataplane.iter().flat_map(|dataplane| dataplane.words().flows) {
            entry.store(0, Ordering::Relaxed);
        }
    }

    /// Makes sure that there was no room for all news.
    pub(super) fn check_full(&mut self, scenario: &Scenario) -> Result<()> {
        let told = self.take_news();
        let room = TOLD..TOO_MUCH_TOLD;
        ensure!(room.contains(&told), "{}: told of {told} buckets, not {room:?}", scenario.name);
        Ok(())
    }

    /// Makes sure that what is left of `sent` packets, each of another flow, is what a scenario is about.
    pub(super) fn check(&mut self, scenario: &Scenario, sent: u32) -> Result<()> {
        let captured = self.fetch()?;
        let is_right = match scenario.capture {
            None | Some(Capture::Others) => captured == 0,
            Some(Capture::Few) => (1..sent).contains(&captured),
            Some(Capture::All) => captured == sent,
        };
        ensure!(is_right, "{}: {captured} of {sent} packets captured", scenario.name);
        let told = self.take_news();
        let is_right = match scenario.news {
            News::None => told == 0,
            // Some flows share a bucket. So far there is room.
            News::Taken | News::Full => (sent * 9 / 10..=sent).contains(&told),
        };
        ensure!(is_right, "{}: told of {told} of {sent} flows", scenario.name);
        Ok(())
    }
}

/// An entry program in front of a program under test.
#[derive(Debug)]
pub(super) struct Entry {
    /// Makes packets of clients, and of backends.
    requests: OwnedFd,
    replies: OwnedFd,
    turn: sys::Map,
    /// What answers a flow.
    answers: sys::Map,
    /// The program array, which forgets its programs when nobody holds it.
    _under_test: sys::Map,
}

impl Entry {
    pub(super) fn before(program: &Program, family: Family, objects: &Path) -> Result<Self> {
        let mut harness = harness(objects)?;
        let map = |name: &str| {
            let fd = match harness.map(name).with_context(|| format!("the harness has no map {name}"))? {
                Map::Array(data) | Map::ProgramArray(data) => data.fd().as_fd().try_clone_to_owned()?,
                other => anyhow::bail!("map {name} is a {other:?}"),
            };
            sys::Map::new(fd)
        };
        let (turn, answers, under_test) = (map("TURN")?, map("REPLIES")?, map("UNDER_TEST")?);
        under_test.update(0, &program.fd.as_raw_fd().to_ne_bytes())?;
        let (requests, replies) = match family {
            Family::V4 => ("entry_v4", "reply_v4"),
            Family::V6 => ("entry_v6", "reply_v6"),
        };
        let (requests, replies) =
            (self::program(&mut harness, requests)?, self::program(&mut harness, replies)?);
        Ok(Self { requests, replies, turn, answers, _under_test: under_test })
    }

    /// Tells the entry program what packets to make: flows from `first` on. `outer_len` is by how much the program under
    /// test makes them longer.
    pub(super) fn prepare(
        &self,
        frame: &[u8],
        family: Family,
        outer_len: usize,
        flows: u64,
        first: u64,
    ) -> Result<()> {
        self.turn.update(0, &bytes(turn(frame, family, outer_len, flows, first)))
    }

    /// Has `flows` flows opened, where packets of others would be dropped.
    pub(super) fn open(&self, scenario: &Scenario, family: Family, flows: u64) -> Result<()> {
        if scenario.service.is_some_and(|service| translates(service.forwarding)) {
            let frame = Scenario { flags: SYN, ..*scenario }.frame(family);
            self.prepare(&frame, family, 0, flows, 0)?;
            self.run(&frame, flows as u32, false)?;
        }
        Ok(())
    }

    /// Finds out what backends answer to flows that are open: what comes out of the program, the other way round.
    fn learn(&self, scenario: &Scenario, family: Family) -> Result<()> {
        let frame = scenario.frame(family);
        let turn = turn(&frame, family, 0, FLOWS.into(), 0);
        self.turn.update(0, &bytes(turn))?;
        for number in 0..FLOWS.into() {
            let run = self.run(&frame, 1, false)?;
            ensure!(run.code == XDP_TX, "{}: code {} instead of {XDP_TX}", scenario.name, run.code);
            self.answers.update(turn.flow(number) as u32, &answer(&run.frame, family))?;
        }
        Ok(())
    }

    pub(super) fn run(&self, frame: &[u8], times: u32, replies: bool) -> Result<Run> {
        let program = if replies { &self.replies } else { &self.requests };
        sys::test_run_repeatedly(program, frame, times).context("run a program")
    }

    /// Makes live frames, which go where the program under test sends them from this interface of the thread's namespace.
    pub(super) fn send(&self, frame: &[u8], times: u32, interface: u32) -> Result<()> {
        sys::send_live_frames(&self.requests, frame, times, interface).context("send live frames")
    }

    /// Makes sure that the program does what it is measured for.
    pub(super) fn check(&self, scenario: &Scenario, family: Family, frame: &[u8]) -> Result<()> {
        self.open(scenario, family, 1 << 16)?;
        if scenario.replies {
            self.learn(scenario, family)?;
        }
        self.prepare(frame, family, scenario.outer_len(family), 1 << 16, 0)?;
        // Several times, so that the entry program's undoing is seen too.
        let run = self.run(frame, CHECKED, scenario.replies)?;
        let is_floor = matches!(scenario.under, Under::Floor { .. });
        let code = if scenario.service.is_none() && !is_floor { XDP_PASS } else { XDP_TX };
        let outer = scenario.outer_len(family);
        ensure!(
            (run.code, run.frame.len()) == (code, frame.len() + outer),
            "{}: code {} instead of {code}, {} bytes out of {}:\n{}",
            scenario.name,
            run.code,
            run.frame.len(),
            frame.len(),
            crate::packet::hex(&run.frame)
        );
        let version = run.frame[14] >> 4;
        ensure!(version == if family == Family::V4 { 4 } else { 6 }, "{}: no IP header", scenario.name);
        Ok(())
    }
}

fn turn(frame: &[u8], family: Family, outer_len: usize, flows: u64, first: u64) -> Turn {
    let word = |at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
    let double = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
    let l4 = 14 + family.header_len();
    let quad = |at: usize| u64::from(double(at)) | u64::from(double(at + 4)) << 32;
    let is_v4 = family == Family::V4;
    Turn {
        packet: first,
        flow_mask: flows - 1,
        frame_len: frame.len() as u64,
        destination: if is_v4 { [double(30).into(), 0] } else { [quad(38), quad(46)] },
        source_high: if is_v4 { 0 } else { quad(22) },
        macs: quad(0),
        macs_rest: double(8),
        ethertype: word(12),
        ttl: word(if is_v4 { 22 } else { 20 }),
        checksum: word(24),
        destination_port: word(l4 + 2),
        outer_len: outer_len as i32,
    }
}

/// A [`Reply`] to a frame without tags, as it lies in memory.
fn answer(frame: &[u8], family: Family) -> Vec<u8> {
    let l4 = 14 + family.header_len();
    let (source, len) = if family == Family::V4 { (26, 4) } else { (22, 16) };
    let mut bytes = vec![0; size_of::<Reply>()];
    bytes[..len].copy_from_slice(&frame[source + len..][..len]);
    bytes[16..16 + len].copy_from_slice(&frame[source..][..len]);
    bytes[32..34].copy_from_slice(&frame[l4 + 2..][..2]);
    bytes[34..36].copy_from_slice(&frame[l4..][..2]);
    bytes
}

/// As it lies in memory.
fn bytes(turn: Turn) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<Turn>());
    let [first, second] = turn.destination;
    for word in [turn.packet, turn.flow_mask, turn.frame_len, first, second, turn.source_high, turn.macs] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(turn.macs_rest.to_ne_bytes());
    for half in [turn.ethertype, turn.ttl, turn.checksum, turn.destination_port] {
        bytes.extend(half.to_ne_bytes());
    }
    bytes.extend(turn.outer_len.to_ne_bytes());
    bytes
}

fn harness(objects: &Path) -> Result<Ebpf> {
    let path = objects.join("harness");
    EbpfLoader::new().load_file(&path).with_context(|| format!("load {}", path.display()))
}

fn program(harness: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let program: &mut Xdp = harness
        .program_mut(name)
        .with_context(|| format!("the harness has no program {name}"))?
        .try_into()?;
    program.load().with_context(|| format!("load {name}"))?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// One service of each flavour, with backends and a table of its own. Those of NAT only where they are measured: beside them
/// every packet for no service is looked up as a reply.
fn fill(dataplane: &mut BpfDataplane, family: Family, with_nat: bool) -> Result<()> {
    let vip = mapped(family.address(VIP));
    let egress = EgressValue {
        source_mac: [2, 0, 0, 0, 0, 1],
        ifindex: INTERFACE,
        mtu: 1500,
        source: mapped(family.address(1)),
        ..EgressValue::default()
    };
    dataplane.write_egress(1, &egress)?;
    let mut entries = vec![marker(vip, PROTOCOL_ANY), marker(vip, 6), marker(vip, 17)];
    let flavours = (0..).zip(FLAVOURS).filter(|(_, flavour)| with_nat || !translates(flavour.forwarding));
    for (number, flavour) in flavours {
        let first = 1 + number * BACKENDS;
        for index in first..first + BACKENDS {
            dataplane.write_backend(index, &backend(family, number, index))?;
        }
        let names: Vec<_> =
            (first..).take(BACKENDS as usize).map(|index| format!("backend-{index}")).collect();
        let candidates: Vec<_> =
            (first..).zip(&names).map(|(index, name)| Candidate { name, weight: 1, index }).collect();
        let size = TableSize::new(TABLE_SIZE).context("a table size")?;
        let table = maglev::build(size, &candidates);
        let base = number * TABLE_SIZE;
        match flavour.change {
            Change::None => {
                let slots: Vec<_> = table.into_iter().map(Slot::steady).collect();
                dataplane.store_slots(base, &slots, 0)?;
            }
            Change::AgedOut => {
                change(dataplane, base, &table)?;
                age_out(dataplane, base)?;
            }
            Change::Open => change(dataplane, base, &table)?,
        }
        entries.push(service(vip, flavour, number, base));
    }
    dataplane.publish_services(&entries, false)?;
    dataplane.publish_own_macs(&[mac_word(BALANCER_MAC)])?;
    dataplane.publish_nat_pool(&NatPool { first_port: 1024, last_port: u16::MAX, ..NatPool::default() })?;
    Ok(())
}

/// Gives every slot another backend than it had, as the controller does.
fn change(dataplane: &mut BpfDataplane, base: u32, table: &[u32]) -> Result<()> {
    let before: Vec<_> = table.iter().rev().map(|index| Slot::steady(*index)).collect();
    dataplane.store_slots(base, &before, 0)?;
    let changed = before.into_iter().zip(table);
    let slots: Vec<_> =
        changed.map(|(old, index)| track::publish(old, *index, TRACK_AUTO, |_| true, CHANGED)).collect();
    dataplane.store_slots(base, &slots, CHANGED)?;
    ensure!(slots.iter().any(|slot| slot.is_tracked()), "nothing changed");
    Ok(())
}

/// Lets the time pass that makes slots steady again.
fn age_out(dataplane: &mut BpfDataplane, base: u32) -> Result<()> {
    const IDLE: u32 = 2;
    let at = |second| {
        let now = Duration::from_secs(second);
        Moment { monotonic: now, boot: now }
    };
    let region = Region { base, slots: TABLE_SIZE, idle: IDLE, always: false, open: true };
    let backend = Tracked { idle: IDLE, accepts_existing: true, weighed: false };
    let backends = vec![backend; LIMITS.backends as usize];
    let mut world = World { regions: vec![region], backends, ..World::default() };
    let mut scanner = Scanner::default();
    let mut pass = |dataplane: &BpfDataplane, second| {
        scanner.step(dataplane.words(), &mut world, at(second), usize::MAX / 2)
    };
    for second in CHANGED..CHANGED + 10 {
        pass(dataplane, second).context("a pass a second")?;
    }
    let left = dataplane.load_slots(base, TABLE_SIZE)?;
    ensure!(left.iter().all(|slot| !slot.is_tracked()), "the change has not aged out");
    Ok(())
}

fn marker(vip: [u8; 16], protocol: u8) -> ServiceEntry {
    ServiceEntry { key: ServiceKey::marker(vip, protocol), flags: ENTRY_OCCUPIED, ..ServiceEntry::default() }
}

fn service(vip: [u8; 16], flavour: Flavour, number: u32, base: u32) -> ServiceEntry {
    ServiceEntry {
        key: ServiceKey::service(vip, port(flavour), flavour.protocol),
        service: number,
        slots_base: base,
        slot_shift: (64 - TABLE_SIZE.trailing_zeros()) as u8,
        forwarding: flavour.forwarding,
        hash_key: HASH_SOURCE,
        flags: ENTRY_OCCUPIED,
        tracking: flavour.tracking,
        flow_idle_timeout: 3600,
        ..ServiceEntry::default()
    }
}

fn backend(family: Family, service: u32, index: u32) -> BackendValue {
    let [.., high, low] = index.to_be_bytes();
    let family_bit = if family == Family::V6 { STATE_IPV6 } else { 0 };
    BackendValue {
        next_hop: NextHop::new([2, 0, 0, 1, high, low], 1).0,
        address: mapped(family.address(0x100 + index as u16)),
        state: STATE_IN_USE | STATE_NEW_FLOWS | STATE_EXISTING_FLOWS | family_bit,
        service,
        port: 8080_u16.to_be_bytes(),
        ..BackendValue::default()
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

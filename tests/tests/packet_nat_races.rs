//! Packets of one NAT flow on two CPUs at once.

use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use lb_common::abi::{NAT_FIN, NatFlowKey, NatReplyKey, NatSeen};
use lb_tests::model::{NatChange, NatFlow, NatReply, Protocol, Seen, mapped};
use lb_tests::packet::fixture::{Family, world};
use lb_tests::packet::fuzz;
use lb_tests::packet::modes::Mode;
use lb_tests::packet::nat_story::{NatStory, START};
use lb_tests::packet::{ACK, SYN};
use lb_tests::{lab, require_root};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Where nothing limits it.
const ROUNDS: u64 = 20_000;
/// Different delays.
const MOMENTS: usize = 100;

/// While its client connects again, a late segment of the old connection comes. The new one has nothing of the old one's
/// end, or it would be taken away as soon as one side says FIN.
#[test]
fn a_flow_that_starts_anew_keeps_nothing_of_its_end() -> Result<()> {
    require_root!(Ok(()));
    let mut s = NatStory::within(world()?, Mode::Nat, Family::V4, Protocol::Tcp);
    s.reaches(&s.sends(SYN))?;
    let (key, flow) = (s.flow_key(), s.flow().context("a flow")?);
    let (reply_key, reply) = s.reply().context("its other side")?;
    let closed = Seen { confirmed: true, fin: true, ..Seen::at(START - 1) };
    let (syn, late) = (s.sends(SYN).build(), s.sends(ACK).build());
    let abi_key = NatFlowKey {
        client: mapped(key.client).octets(),
        ports: ports(key.client_port, key.vip_port),
        service: key.service,
    };
    let abi_reply_key = NatReplyKey {
        backend: mapped(reply_key.backend).octets(),
        our_address: mapped(reply_key.our_address).octets(),
        ports: ports(reply_key.backend_port, reply_key.our_port),
        protocol: Protocol::Tcp.number(),
        ..NatReplyKey::default()
    };

    let (asked, done, other) = (AtomicUsize::new(0), AtomicUsize::new(0), s.world.runner()?);
    let (cpus, rounds) = (s.world.cpus().to_vec(), fuzz::packets(ROUNDS)? as usize);
    if cpus.len() < 2 {
        lab::skip("needs two CPUs");
        return Ok(());
    }
    s.world.run_on_cpu(cpus[0])?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let pinned = pin_to(cpus[1]);
            let sent = (1..=rounds).map(|round| {
                wait_for(&asked, round);
                // Every moment of the other's run is met.
                (0..round % MOMENTS).for_each(|_| hint::spin_loop());
                let sent = other.run(&late);
                done.store(round, Ordering::Release);
                sent.map(drop)
            });
            sent.collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()?;
            pinned
        });
        let mut mixed = 0;
        let mut races = || -> Result<()> {
            for round in 1..=rounds {
                s.world.plant_nat(&NatChange::Flow(key, Some(NatFlow { seen: closed, ..flow })))?;
                s.world.plant_nat(&NatChange::Reply(reply_key, Some(NatReply { seen: closed, ..reply })))?;
                asked.store(round, Ordering::Release);
                s.world.run(&syn)?;
                wait_for(&done, round);
                let flow = s.world.dataplane().nat_flow(&abi_key)?.context("the flow")?;
                let reply = s.world.dataplane().nat_reply(&abi_reply_key)?.context("its other side")?;
                mixed += u32::from([flow.seen, reply.seen].iter().any(|&seen| NatSeen(seen).has(NAT_FIN)));
            }
            Ok(())
        };
        let outcome = races();
        // Let it go on to its end, whatever happened here.
        asked.store(usize::MAX, Ordering::Release);
        sender.join().expect("the sender does not panic")?;
        outcome?;
        ensure!(mixed == 0, "{mixed} of {rounds} times a FIN of the old connection was left");
        Ok(())
    })
}

fn wait_for(word: &AtomicUsize, least: usize) {
    while word.load(Ordering::Acquire) < least {
        hint::spin_loop();
    }
}

fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("name a CPU")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pin the sender")
}

fn ports(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}

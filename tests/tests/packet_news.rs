//! Which flows the program tells the controller of, for peers to know (docs/flow-replication.md): those that the table of
//! backends alone does not lead, once they are confirmed, for both families.

use anyhow::{Result, ensure};
use lb_common::abi::limits::FLOW_NEWS;
use lb_tests::model::Fate::{Hit, Inserted, Replaced};
use lb_tests::model::Protocol::{Tcp, Udp};
use lb_tests::model::{Protocol, Slot, Tracking};
use lb_tests::packet::fixture::{Family, world, world_capturing, world_replicating};
use lb_tests::packet::story::Story;
use lb_tests::packet::tracked::{Algorithm, Tracked};
use lb_tests::packet::{ACK, SYN, World};
use lb_tests::require_root;

const AUTO: Tracked = Tracked { algorithm: Algorithm::FlowHash, tracking: Tracking::Auto };

/// Tells a story with the program that runs where there are peers, and with the one that runs during a capture there.
fn tell(tracked: Tracked, protocol: Protocol, story: fn(&mut Story) -> Result<()>) -> Result<()> {
    require_root!(Ok(()));
    let worlds: [fn() -> Result<World>; 2] = [world_replicating, || Ok(world_capturing(false)?.0)];
    for load in worlds {
        // One at a time: each holds the thread to a CPU of its own.
        let mut world = load()?;
        for family in Family::BOTH {
            let mut teller = Story::within(world, tracked, family, protocol);
            story(&mut teller)?;
            world = teller.end()?;
        }
    }
    Ok(())
}

/// Whether what is told is the story's flow, and nothing else; once it is asked for it is told no more.
fn is_told(s: &mut Story) -> Result<bool> {
    let news = s.world.dataplane().take_flow_news();
    if news.is_empty() {
        return Ok(false);
    }
    let bucket = u32::try_from(s.place().0)?;
    ensure!(news == [bucket], "told of {news:?}, and the flow is in {bucket}");
    Ok(true)
}

#[test]
fn a_connection_in_a_tracked_slot_is_told_when_it_is_confirmed_and_once() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.syn(new, Inserted)?;
        s.syn(new, Hit)?;
        ensure!(!is_told(s)?, "anybody can send a SYN");
        s.ack(new, Hit)?;
        ensure!(is_told(s)?);
        s.ack(new, Hit)?;
        s.fin(new, Hit)?;
        ensure!(!is_told(s)?, "it is known");
        // Its next backend is news.
        s.accepts(new, false, false)?;
        s.ack(old, Replaced)?;
        ensure!(is_told(s)?);
        Ok(())
    })
}

#[test]
fn datagrams_in_a_tracked_slot_are_told_at_the_second() -> Result<()> {
    tell(AUTO, Udp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.datagram(new, Inserted)?;
        ensure!(!is_told(s)?);
        s.datagram(new, Hit)?;
        ensure!(is_told(s)?);
        s.datagram(new, Hit)?;
        ensure!(!is_told(s)?, "it is known");
        Ok(())
    })
}

/// Every host leads it by its table.
#[test]
fn what_is_in_a_slot_that_is_not_tracked_is_not_told_also_where_all_flows_have_entries() -> Result<()> {
    for tracking in [Tracking::Auto, Tracking::Always] {
        tell(Tracked { tracking, ..AUTO }, Tcp, |s| {
            s.set_slot(Slot::steady(s.backend(0)))?;
            s.world.check(&s.frame(SYN))?;
            s.world.check(&s.frame(ACK))?;
            ensure!(!is_told(s)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Their table leads no flow.
#[test]
fn flows_of_round_robin_and_least_connections_are_told_in_every_slot() -> Result<()> {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
        let tracked = Tracked { algorithm, ..AUTO };
        tell(tracked, Tcp, |s| {
            let chosen = s.world.check(&s.frame(SYN))?.counted.map_or(0, |counted| counted.backend);
            ensure!(!is_told(s)?);
            s.ack(chosen, Hit)?;
            ensure!(is_told(s)?);
            s.ack(chosen, Hit)?;
            ensure!(!is_told(s)?, "it is known");
            Ok(())
        })?;
        tell(tracked, Udp, |s| {
            let chosen = s.world.check(&s.frame(0))?.counted.map_or(0, |counted| counted.backend);
            ensure!(!is_told(s)?);
            s.datagram(chosen, Hit)?;
            ensure!(is_told(s)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Beyond that it would wait for the ring's lock in vain.
#[test]
fn the_program_tells_as_many_as_the_ring_has_room_for() -> Result<()> {
    require_root!(Ok(()));
    let mut s = Story::within(world_replicating()?, AUTO, Family::BOTH[0], Tcp);
    let (new, old) = (s.backend(0), s.backend(1));
    s.open(new, old)?;
    let (bucket, _) = s.place();
    for _ in 0..FLOW_NEWS + 10 {
        s.ack(old, Inserted)?;
        s.world.plant(bucket, 0, 0);
    }
    let told = s.world.take_news()?;
    ensure!(told == FLOW_NEWS as usize, "told of {told}");
    s.end().map(drop)
}

#[test]
fn nothing_is_told_where_there_are_no_peers() -> Result<()> {
    require_root!(Ok(()));
    let mut s = Story::within(world()?, AUTO, Family::BOTH[0], Tcp);
    let (new, old) = (s.backend(0), s.backend(1));
    s.open(new, old)?;
    s.ack(old, Inserted)?;
    ensure!(!is_told(&mut s)?);
    s.end().map(drop)
}

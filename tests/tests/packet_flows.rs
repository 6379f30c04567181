//! Tracked flows, rule by rule (docs/flow-tracking.md), for both families.

use anyhow::{Result, ensure};
use lb_tests::model::Fate::{Evicted, Hit, Inserted, NoBackend, Observed, Refused, Replaced};
use lb_tests::model::FlowState::{Closing, Confirmed, Unconfirmed};
use lb_tests::model::Protocol::{Tcp, Udp};
use lb_tests::model::{Load, Protocol, Slot, Stamps, Tracking};
use lb_tests::packet::fixture::{Family, world, world_without_side_effects};
use lb_tests::packet::story::{START, Story};
use lb_tests::packet::tracked::{Algorithm, ROTATION, Tracked};
use lb_tests::packet::{ACK, FIN, RST, SYN};
use lb_tests::require_root;

const AUTO: Tracked = Tracked { algorithm: Algorithm::FlowHash, tracking: Tracking::Auto };

/// Tells a story for both families, and audits every map at its end.
fn tell(tracked: Tracked, protocol: Protocol, story: fn(&mut Story) -> Result<()>) -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let mut teller = Story::within(world, tracked, family, protocol);
        story(&mut teller)?;
        world = teller.end()?;
    }
    Ok(())
}

#[test]
fn in_a_tracked_slot_new_connections_go_to_its_current_backend_and_keep_it() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.syn(new, Inserted)?;
        ensure!(s.entries() == [(Unconfirmed, new)]);
        s.syn(new, Hit)?;
        ensure!(s.entries() == [(Unconfirmed, new)], "a SYN again confirms nothing");
        s.ack(new, Hit)?;
        ensure!(s.entries() == [(Confirmed, new)]);
        let stamps = s.stamps();
        ensure!(stamps == Stamps { exception: START as u16, failed: START as u16 }, "nothing was stamped");
        Ok(())
    })
}

#[test]
fn in_a_tracked_slot_connections_without_an_entry_go_to_its_previous_backend() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.wait(5);
        s.ack(old, Inserted)?;
        ensure!(s.entries() == [(Confirmed, old)]);
        ensure!(s.stamps() == Stamps { exception: (START + 5) as u16, failed: START as u16 });
        s.wait(5);
        s.ack(old, Hit)?;
        ensure!(s.stamps().exception == (START + 10) as u16, "each packet is an exception");
        Ok(())
    })
}

#[test]
fn a_previous_backend_that_takes_no_existing_flows_is_none() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.accepts(old, false, false)?;
        s.ack(new, Inserted)?;
        s.accepts(old, false, true)?;
        s.ack(new, Hit)?;
        Ok(())
    })
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_one_on_their_tuples() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.ack(old, Inserted)?;
        s.accepts(old, false, true)?;
        s.ack(old, Hit)?;
        s.syn(new, Replaced)?;
        ensure!(s.entries() == [(Unconfirmed, new)], "in the same place");
        s.ack(new, Hit)?;
        Ok(())
    })
}

#[test]
fn a_backend_that_takes_new_flows_gets_the_syn_of_its_connections_tuple() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.ack(old, Inserted)?;
        let decision = s.syn(old, Hit)?;
        ensure!(decision.counted.is_some_and(|counted| counted.new_flow));
        ensure!(s.entries() == [(Confirmed, old)]);
        Ok(())
    })
}

#[test]
fn a_reset_leaves_no_trace() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.wait(7);
        s.rst(old, Observed)?;
        s.send(SYN | RST, old, Some(Observed))?;
        s.send(FIN | RST | ACK, old, Some(Observed))?;
        ensure!(s.entries().is_empty());
        s.ack(old, Inserted)?;
        let before = s.world.state.flows.clone();
        let stamps = s.stamps();
        s.wait(7);
        s.rst(old, Hit)?;
        ensure!(s.world.state.flows == before && s.stamps() == stamps);
        Ok(())
    })
}

#[test]
fn a_fin_closes_a_flow_which_keeps_its_backend() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.fin(old, Inserted)?;
        ensure!(s.entries() == [(Closing, old)]);
        s.ack(old, Hit)?;
        ensure!(s.entries() == [(Closing, old)], "a half-closed connection goes on");
        s.syn(old, Hit)?;
        ensure!(s.entries() == [(Confirmed, old)], "its tuple is used again");
        s.send(SYN | FIN, old, Some(Hit))?;
        ensure!(s.entries() == [(Closing, old)]);
        Ok(())
    })
}

#[test]
fn a_syn_with_ack_continues_and_opens_nothing() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        let decision = s.send(SYN | ACK, old, Some(Inserted))?;
        ensure!(decision.counted.is_some_and(|counted| !counted.new_flow));
        ensure!(s.entries() == [(Confirmed, old)]);
        Ok(())
    })
}

#[test]
fn a_flow_that_finds_no_place_goes_where_its_next_packet_will() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.fill(Confirmed, 4000);
        s.wait(5);
        let decision = s.syn(old, Refused)?;
        ensure!(decision.effects.refused && decision.counted.is_some_and(|counted| counted.new_flow));
        ensure!(s.stamps() == Stamps { exception: (START + 5) as u16, failed: (START + 5) as u16 });
        s.ack(old, Refused)?;
        s.fin(old, Refused)?;
        s.fill(Closing, 4000);
        s.syn(old, Refused)?;
        // Where there is no previous both go to the current one, and the slot knows it failed.
        s.open(new, 0)?;
        s.wait(5);
        s.syn(new, Refused)?;
        ensure!(s.stamps() == Stamps { exception: (START + 5) as u16, failed: (START + 10) as u16 });
        Ok(())
    })
}

#[test]
fn an_unconfirmed_entry_may_be_taken_over_when_it_is_older_than_three_seconds() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        s.fill(Unconfirmed, 3);
        s.syn(old, Refused)?;
        s.wait(1);
        let decision = s.syn(new, Evicted)?;
        ensure!(decision.effects.inserted && decision.effects.evicted);
        ensure!(s.entries() == [(Unconfirmed, new)]);
        // An age that can't be told is none.
        s.source_port += 1;
        s.open(new, old)?;
        s.fill(Unconfirmed, 4096);
        s.syn(old, Refused)?;
        s.fill(Unconfirmed, 4095);
        s.syn(new, Evicted)?;
        Ok(())
    })
}

#[test]
fn time_goes_on_when_epochs_and_stamps_begin_anew() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        for wrap in [9 * 8192, 2 * 65_536] {
            s.source_port += 1;
            s.world.set_time(wrap - 2);
            s.open(new, old)?;
            s.fill(Unconfirmed, 0);
            s.wait(3);
            s.syn(old, Refused)?;
            s.wait(1);
            s.ack(old, Evicted)?;
            s.wait(3000);
            s.ack(old, Hit)?;
            ensure!(s.stamps().exception == (wrap + 3002) as u16);
        }
        Ok(())
    })
}

#[test]
fn an_entry_for_another_services_backend_is_not_obeyed() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.open(new, old)?;
        let foreign = s.backend(3);
        ensure!(s.world.state.backends[&foreign].accepts_existing_flows);
        s.plant(4, Confirmed, foreign);
        s.ack(old, Replaced)?;
        ensure!(s.entries() == [(Confirmed, old)]);
        // Nor is a previous one.
        s.source_port += 1;
        s.open(new, foreign)?;
        s.ack(new, Inserted)?;
        Ok(())
    })
}

#[test]
fn of_two_entries_of_one_flow_the_lower_counts() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (new, old, other) = (s.backend(0), s.backend(1), s.backend(2));
        s.open(new, old)?;
        s.plant(5, Confirmed, other);
        s.ack(other, Hit)?;
        s.plant(2, Confirmed, new);
        s.ack(new, Hit)?;
        s.accepts(new, true, false)?;
        s.ack(old, Replaced)?;
        ensure!(s.entries() == [(Confirmed, old), (Confirmed, other)]);
        Ok(())
    })
}

#[test]
fn where_no_backend_is_chosen_no_entry_is_made() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let old = s.backend(1);
        s.open(0, old)?;
        s.syn(0, NoBackend)?;
        ensure!(s.entries().is_empty());
        s.ack(old, Inserted)?;
        s.source_port += 1;
        s.open(0, 0)?;
        for flags in [SYN, ACK, FIN] {
            s.send(flags, 0, Some(NoBackend))?;
        }
        s.rst(0, Observed)?;
        Ok(())
    })
}

#[test]
fn a_slot_that_is_not_tracked_touches_no_flow() -> Result<()> {
    tell(AUTO, Tcp, |s| {
        let (current, other) = (s.backend(0), s.backend(1));
        // An entry from before is no more obeyed.
        s.open(current, 0)?;
        s.plant(0, Confirmed, other);
        s.set_slot(Slot::steady(current))?;
        let before = s.world.state.flows.clone();
        for flags in [SYN, ACK, FIN | ACK, RST] {
            s.send(flags, current, None)?;
        }
        ensure!(s.world.state.flows == before);
        Ok(())
    })
}

#[test]
fn a_service_that_never_tracks_touches_no_flow_in_any_slot() -> Result<()> {
    for algorithm in [Algorithm::FlowHash, Algorithm::SourceHash] {
        for protocol in [Tcp, Udp] {
            tell(Tracked { algorithm, tracking: Tracking::Never }, protocol, |s| {
                let (new, old) = (s.backend(0), s.backend(1));
                s.set_slot(Slot { current: new, previous: old, opened: START as u16, tracked: true })?;
                for flags in [SYN, ACK, FIN | ACK, RST] {
                    s.send(flags, new, None)?;
                }
                ensure!(s.world.state.flows.iter().flatten().all(|&word| word == 0));
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_service_that_always_tracks_does_in_every_slot_and_stamps_no_exception() -> Result<()> {
    tell(Tracked { tracking: Tracking::Always, ..AUTO }, Tcp, |s| {
        let (new, old) = (s.backend(0), s.backend(1));
        s.set_slot(Slot::steady(old))?;
        s.syn(old, Inserted)?;
        s.open(new, 0)?;
        s.wait(5);
        s.ack(old, Hit)?;
        ensure!(s.stamps().exception == START as u16);
        Ok(())
    })
}

#[test]
fn a_datagram_opens_its_flow_and_the_second_confirms_it() -> Result<()> {
    tell(AUTO, Udp, |s| {
        let (first, other) = (s.backend(0), s.backend(1));
        s.set_slot(Slot::steady(first))?;
        let decision = s.datagram(first, Inserted)?;
        ensure!(decision.counted.is_some_and(|counted| counted.new_flow));
        ensure!(s.entries() == [(Unconfirmed, first)]);
        let decision = s.datagram(first, Hit)?;
        ensure!(decision.counted.is_some_and(|counted| !counted.new_flow));
        ensure!(s.entries() == [(Confirmed, first)]);
        // It keeps its backend when the slot changes, and leaves it as soon as that takes nothing.
        s.open(other, first)?;
        s.datagram(first, Hit)?;
        s.accepts(first, false, false)?;
        s.datagram(other, Replaced)?;
        ensure!(s.entries() == [(Unconfirmed, other)]);
        Ok(())
    })
}

#[test]
fn round_robin_takes_one_slot_after_the_other_and_begins_again() -> Result<()> {
    let tracked = Tracked { algorithm: Algorithm::RoundRobin, tracking: Tracking::Auto };
    for protocol in [Tcp, Udp] {
        tell(tracked, protocol, |s| {
            let service = s.service();
            s.world.set_placed(service, u64::from(ROTATION) - 2);
            for turn in [ROTATION - 2, ROTATION - 1, 0, 1, 2, 3] {
                s.source_port += 1;
                let backend = s.backend(turn % 3);
                s.send(SYN, backend, Some(Inserted))?;
                s.send(SYN, backend, Some(Hit))?;
            }
            ensure!(s.world.state.placed[&service] == u64::from(ROTATION) + 4, "only new flows take turns");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn least_connections_takes_the_less_loaded_of_two_by_weight() -> Result<()> {
    let tracked = Tracked { algorithm: Algorithm::LeastConnections, tracking: Tracking::Auto };
    tell(tracked, Tcp, |s| {
        // Whichever two are looked at, the one that has more flows for its weight is not chosen.
        let mut chosen = [0; 3];
        for number in 0..3 {
            let (weight, live) = [(1, 10), (4, 39), (4, 41)][number as usize];
            let index = s.backend(number);
            s.world.change_backend(index, |backend| backend.weight = weight)?;
            s.world.set_load(index, Load { base: 5u64.wrapping_sub(live), changes: 2 * live - 5 });
        }
        for _ in 0..90 {
            s.source_port += 1;
            let decision = s.world.check(&s.frame(SYN))?;
            let index = decision.counted.map_or(0, |counted| counted.backend);
            let number = (0..3).find(|&number| s.backend(number) == index).expect("one of three");
            chosen[number as usize] += 1;
            // As if it had closed at once.
            let load = s.world.state.loads[&index];
            s.world.set_load(index, Load { changes: load.changes - 1, ..load });
        }
        ensure!(chosen[1] > chosen[0] && chosen[0] > chosen[2], "{chosen:?}");
        Ok(())
    })
}

#[test]
fn least_connections_counts_flows_that_open_and_close() -> Result<()> {
    let tracked = Tracked { algorithm: Algorithm::LeastConnections, tracking: Tracking::Auto };
    tell(tracked, Tcp, |s| {
        let decision = s.world.check(&s.frame(SYN))?;
        let index = decision.counted.map_or(0, |counted| counted.backend);
        let live = |s: &Story| s.world.state.live_flows(index);
        ensure!(live(s) == 1);
        s.ack(index, Hit)?;
        ensure!(live(s) == 1);
        s.fin(index, Hit)?;
        s.fin(index, Hit)?;
        ensure!(live(s) == 0);
        s.syn(index, Hit)?;
        ensure!(live(s) == 1);
        Ok(())
    })
}

#[test]
fn a_program_without_side_effects_writes_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world_without_side_effects()?;
    for family in Family::BOTH {
        for tracked in Tracked::all() {
            let mut s = Story::within(world, tracked, family, Tcp);
            let (new, old) = (s.backend(0), s.backend(1));
            s.open(new, old)?;
            for flags in [SYN, ACK, FIN, RST, SYN] {
                s.world.check(&s.frame(flags))?;
            }
            ensure!(s.world.state.flows.iter().flatten().all(|&word| word == 0));
            if tracked.tracking != Tracking::Never {
                s.plant(3, Confirmed, old);
                s.ack(old, Hit)?;
                s.fill(Confirmed, 0);
                s.ack(old, Refused)?;
            }
            world = s.end()?;
        }
    }
    Ok(())
}

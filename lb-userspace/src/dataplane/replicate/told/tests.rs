use super::*;
use crate::peers::wire::Shape;

fn say(service: &mut ServiceSlots, number: u32, first: u64, version: u64) {
    let told = |name| Some(Told { current: name, previous: name + 1, tracked: true });
    let slots = std::array::from_fn(|slot| told(first + 2 * slot as u64));
    service.take(&Chunk { number, slots }, version);
}

/// Where a window goes on for which both have told `previous` all the while it is not to be kept for another whole one.
#[test]
fn what_a_peer_says_again_after_it_was_not_heard_is_nothing_new() {
    let mut slots = PeerSlots::default();
    let id = ServiceId { address: [1; 16], port: 1, protocol: 6, shape: Shape::default() };
    let told = |name| Some(Told { current: name, previous: 7, tracked: true });
    let said = |slots: &mut PeerSlots, names: &[u64], version| {
        let chunk =
            Chunk { number: 0, slots: std::array::from_fn(|at| names.get(at).copied().and_then(told)) };
        slots.take(&Slots { service: id, version, chunks: vec![chunk] });
        let mut fresh = Vec::new();
        slots.look(&id, false, |said| {
            fresh.push(said.fresh);
            true
        });
        fresh
    };
    assert_eq!(said(&mut slots, &[1, 2], 9), [true, true]);
    slots.lapse(5);
    assert_eq!(slots.silence(9), 4);
    slots.look(&id, false, |said| unreachable!("{said:?}"));
    slots.begin_anew();
    // Of another process versions begin anew.
    assert_eq!(said(&mut slots, &[1, 3], 1), [false, true]);
    slots.forget_lapsed();
    assert_eq!(said(&mut slots, &[1, 3], 2), [false, false]);
    // Also of what nobody has looked at yet.
    let say = |slots: &mut PeerSlots, name, version| {
        let told = std::array::from_fn(|at| told(if at == 0 { 1 } else { name }).filter(|_| at < 2));
        let chunk = Chunk { number: 0, slots: told };
        slots.take(&Slots { service: id, version, chunks: vec![chunk] });
    };
    say(&mut slots, 4, 3);
    say(&mut slots, 4, 4);
    assert_eq!(said(&mut slots, &[1, 4], 5), [false, true]);
    say(&mut slots, 5, 6);
    slots.begin_anew();
    assert_eq!(said(&mut slots, &[1, 5], 1), [false, true], "nobody has looked at it before");
    // What was not said again when all was is new when it is.
    slots.begin_anew();
    slots.forget_lapsed();
    assert_eq!(said(&mut slots, &[1, 3], 1), [true, true]);
}

/// Each time costs a walk over all chunks.
#[test]
fn names_are_forgotten_only_where_there_are_many_and_twice_as_many_as_the_last_time() {
    let mut service = ServiceSlots::default();
    let (mut bounds, mut most) = (std::collections::BTreeSet::new(), 0);
    for number in 0..250 {
        say(&mut service, number, 1 + 64 * u64::from(number), 1);
        bounds.insert(service.most_names);
        most = most.max(service.names.len());
    }
    assert_eq!(most, 16_000, "all are in use");
    assert!(bounds.len() <= 3, "it was looked {bounds:?}");
    // And again, with others: what is in no chunk any more goes.
    for turn in 1..10 {
        for number in 0..250 {
            say(&mut service, number, 1 + 64 * u64::from(number) + turn * 100_000, 1 + turn);
            assert!(service.names.len() <= 2 * 16_000 + 64 + LEAST_NAMES, "{}", service.names.len());
        }
    }
    let mut slots = PeerSlots::default();
    let id = ServiceId { address: [1; 16], port: 1, protocol: 6, shape: Shape::default() };
    slots.services.insert(id, service);
    let mut heard = 0;
    slots.look(&id, false, |said| {
        assert_eq!(said.told.current, 900_001 + 2 * u64::from(said.slot));
        assert_eq!(said.told.previous, said.told.current + 1);
        heard += 1;
        true
    });
    assert_eq!(heard, 250 * CHUNK);
}

#[test]
fn windows_of_maps_that_were_made_meanwhile_are_others() {
    let mut slots = PeerSlots::default();
    slots.note_age(100);
    assert!(slots.is_of_maps(255, 1000) && slots.is_of_maps(100, 1000));
    // This host has stood still meanwhile, and has not seen that the peer was silent.
    assert!(!slots.is_of_maps(50, 1000));
    slots.lapse(1000);
    assert!(slots.is_of_maps(131, 1030));
    assert!(!slots.is_of_maps(38, 1030));
    // That the peer was given up says nothing of when it said how old its maps were.
    slots.begin_anew();
    assert!(!slots.is_of_maps(50, 1030));
}

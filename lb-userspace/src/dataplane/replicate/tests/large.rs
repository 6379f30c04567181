//! More than a peer's queue holds.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::abi::{
    BackendValue, SELECT_HASH, SELECT_ROUND_ROBIN, ServiceKey, ServiceRecord, Slot, TRACK_AUTO,
};

use super::{IDLE, fleet::Fleet, member::Member};
use crate::{
    dataplane::{replicate::FleetMap, scan::Moment, track},
    peers::{FlowFate, MAX_QUEUE},
};

/// So many services, each with backends of its own; numbers are the same everywhere.
fn services(count: u16, backends: u16, slots: u32, selection: u8) -> FleetMap {
    let record = |number: u16| ServiceRecord {
        stable_id: [number as u8; 16],
        key: ServiceKey::service([9; 16], number, 6),
        slots_log2: slots.ilog2() as u8,
        forwarding: 1,
        flow_idle_timeout: IDLE,
        selection,
        tracking: TRACK_AUTO,
        ..ServiceRecord::default()
    };
    let records: Vec<_> = (1..=count).map(|number| (u32::from(number), record(number))).collect();
    let values = (1..=count).flat_map(|service| (0..backends).map(move |backend| (service, backend)));
    let value = |(service, backend): (u16, u16)| BackendValue {
        service: service.into(),
        address: [7; 16],
        port: (service * backends + backend).to_be_bytes(),
        ..BackendValue::default()
    };
    let values: Vec<_> = (1..).zip(values.map(value)).collect();
    let values = values.iter().map(|(index, value)| (*index, value));
    FleetMap::new(records.iter().map(|(number, record)| (*number, record)), values, &HashMap::new())
}

impl Member {
    /// Has these services, of which the first has all slots, and so many backends.
    fn take(&mut self, map: &FleetMap, backends: u32, slots: u32) {
        let (tracked, state) = (self.world.backends[1], self.states[1]);
        self.world.backends = vec![tracked; backends as usize + 1];
        self.states = vec![state; backends as usize + 1];
        self.world.regions[0].slots = slots;
        self.slots = (0..slots).map(|slot| AtomicU64::new(u64::from(1 + slot % backends))).collect();
        self.stamps = (0..slots / 2).map(|_| AtomicU64::new(0)).collect();
        self.map = map.clone().after(&self.map);
    }
}

#[test]
fn a_few_flows_of_each_of_many_services_are_told_once_each() {
    const COUNT: u32 = MAX_QUEUE as u32 + 200;
    let map = services(COUNT as u16, 1, 32, SELECT_ROUND_ROBIN);
    let mut fleet = Fleet::new(2, 1, true);
    fleet.members.iter_mut().flatten().for_each(|member| member.take(&map, COUNT, 32));
    fleet.rest_without_loss();
    let seconds = fleet.seconds();
    for index in 1..=COUNT {
        fleet.member(0).enter(index.into(), index, seconds);
    }
    fleet.rest(4);
    // Who falls behind by a whole queue is told all again.
    assert_eq!(fleet.member(0).endpoint.flows_told(), u64::from(COUNT));
    assert_eq!(fleet.member(1).replicator.fates.get(&FlowFate::Taken), Some(&u64::from(COUNT)));
}

/// What finds no room is not taken for told.
#[test]
fn more_news_than_there_is_room_for_are_told_once_each_by_and_by() {
    const COUNT: u32 = MAX_QUEUE as u32 + 200;
    let map = services(COUNT as u16, 1, 32, SELECT_ROUND_ROBIN);
    for peers in [2, 1] {
        let mut fleet = Fleet::new(2, 1, true);
        fleet.members.iter_mut().flatten().for_each(|member| member.take(&map, COUNT, 32));
        let late = (peers == 1).then(|| fleet.members[1].take()).flatten();
        fleet.rest_without_loss();
        let seconds = fleet.seconds();
        let member = fleet.member(0);
        for index in 1..=COUNT {
            member.enter(index.into(), index, seconds);
            member.news.borrow_mut().push(index);
        }
        let moment = Moment { monotonic: fleet.boot(), boot: fleet.boot() };
        fleet.member(0).exchange(moment);
        let told = fleet.member(0).endpoint.flows_told();
        if late.is_some() {
            // Where nobody is there nobody is told, until somebody comes.
            assert_eq!(told, 0);
            fleet.pass(500);
            fleet.members[1] = late;
        } else {
            assert!((1..u64::from(COUNT)).contains(&told), "{told}");
        }
        fleet.rest(4);
        assert_eq!(fleet.member(0).endpoint.flows_told(), u64::from(COUNT));
        assert_eq!(fleet.member(1).replicator.fates.get(&FlowFate::Taken), Some(&u64::from(COUNT)));
    }
}

#[test]
fn a_newcomer_is_told_of_a_table_larger_than_a_queue_while_slots_change() {
    const SLOTS: u32 = 1 << 17;
    const BACKENDS: u32 = 500;
    let map = services(1, BACKENDS as u16, SLOTS, SELECT_HASH);
    let mut fleet = Fleet::new(2, 1, true);
    fleet.members.iter_mut().flatten().for_each(|member| member.take(&map, BACKENDS, SLOTS));
    let mut newcomer = Member::new(1, 2, &[0, 1, 2, 3], TRACK_AUTO, true, fleet.boot());
    newcomer.take(&map, BACKENDS, SLOTS);
    fleet.members[1] = None;
    fleet.rest_without_loss();
    fleet.members[1] = Some(newcomer);
    let mut waited = 0;
    while fleet.member(1).replicator.complete.is_empty() {
        assert!(waited < 120);
        // Two backends change places in a slot of another chunk each time.
        let (number, seconds) = (waited * 32, fleet.seconds());
        let member = fleet.member(0);
        let slot = Slot::tracked_since(seconds as u16, 1 + (number + 1) % BACKENDS, 1 + number % BACKENDS);
        member.slots[number as usize].store(slot.word(), Ordering::Relaxed);
        member.world.regions[0].open = true;
        track::stamp(&member.stamps, number, seconds);
        fleet.pass(100);
        waited += 1;
    }
}

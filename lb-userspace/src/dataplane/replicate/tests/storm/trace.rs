//! The history of a flow.

use std::sync::atomic::Ordering;

use lb_common::{
    abi::{FLOW_EMPTY, FlowEntry, Slot},
    flow,
};

use super::{
    super::{FLOWS, SHIFT, member::Member},
    Storm,
};
use crate::dataplane::{scan, track};

impl Storm {
    pub(super) fn note(&mut self, text: String) {
        let now = self.now;
        if let Some((_, notes)) = &mut self.traced {
            notes.push(format!("{now:>7} {text}"));
        }
    }

    /// Notes what has become of the slot and the entries of the flow that is traced.
    pub(super) fn trace(&mut self) {
        let Some((hash, mut notes)) = self.traced.take() else { return };
        let now = self.boot().as_secs();
        for balancer in &self.balancers {
            let text = state(&balancer.member, hash, now);
            let prefix = format!("member {}:", balancer.member.number);
            let last = notes.iter().rev().find(|note| note.contains(&prefix));
            if !last.is_some_and(|last| last.ends_with(&text)) {
                notes.push(format!("{:>7} {prefix} {text}", self.now));
            }
        }
        self.traced = Some((hash, notes));
    }
}

fn state(member: &Member, hash: u64, now: u64) -> String {
    let number = (hash >> SHIFT) as u32;
    let slot = Slot::from_word(member.slots[number as usize].load(Ordering::Relaxed));
    let region = &member.world.regions[0];
    let is_own = scan::is_own(slot, track::stamps(&member.stamps, number), region, now);
    let hold = member.world.holds.of(number);
    let at = flow::bucket(hash, FLOWS as u32 / 8 - 1) as usize * 8;
    let entries: Vec<_> = (at..at + 8)
        .filter_map(|place| {
            let entry = FlowEntry::from_word(member.flows[place].load(Ordering::Relaxed));
            let told = member.replicator.ledger.told(place);
            let is = |one: FlowEntry| one.state() != FLOW_EMPTY && one.tag() == flow::tag(hash);
            let text = |one: FlowEntry| {
                is(one).then(|| format!("{:?} state {}", member.backend(one.index()), one.state()))
            };
            (is(entry) || is(told)).then(|| format!("entry {:?} told {:?}", text(entry), text(told)))
        })
        .collect();
    format!(
        "{:?} before {:?} opened {} {}{} held {} {} entries {entries:?}",
        member.backend(slot.current()),
        member.backend(slot.previous()),
        slot.opened(),
        if slot.is_tracked() { "tracked" } else { "" },
        if is_own { " own" } else { "" },
        hold.tracked >= now,
        hold.previous >= now,
    )
}

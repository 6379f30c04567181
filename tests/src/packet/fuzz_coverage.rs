//! What a fuzz run met.

use std::collections::BTreeMap;

use lb_common::abi::DropReason;

use crate::model::{Decision, Event, Fate, Kind, Selection, Verdict};

/// So that a test can tell that a run met everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    pub packets: u64,
    pub passed: u64,
    pub transmitted: u64,
    pub redirected: u64,
    /// By drop reason.
    pub drops: [u64; DropReason::ALL.len()],
    pub state_changes: u64,
    /// Of tracked packets.
    pub fates: BTreeMap<(Selection, Kind, Fate), u64>,
    pub exceptions: u64,
    pub failures: u64,
    pub new_flows: u64,
    pub events: BTreeMap<Event, u64>,
    /// By the model's names of them, and whether the frame that came was of IPv4.
    pub ways: BTreeMap<(&'static str, bool), u64>,
}

impl Coverage {
    pub(super) fn add(&mut self, frame: &[u8], decision: &Decision) {
        self.packets += 1;
        match &decision.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Transmit(_) => self.transmitted += 1,
            Verdict::Redirect(_) => self.redirected += 1,
            Verdict::Drop(reason) => self.drops[*reason as usize] += 1,
        }
        let effects = &decision.effects;
        if let Some(looked) = effects.looked_at {
            *self.fates.entry((looked.selection, looked.kind, looked.fate)).or_default() += 1;
        }
        self.exceptions += u64::from(effects.exception);
        self.failures += u64::from(effects.failed);
        self.new_flows += u64::from(decision.counted.is_some_and(|counted| counted.new_flow));
        for &event in &effects.events {
            *self.events.entry(event).or_default() += 1;
        }
        for &way in &effects.met {
            *self.ways.entry((way, is_v4(frame))).or_default() += 1;
        }
    }
}

fn is_v4(frame: &[u8]) -> bool {
    super::frame::l3_of(frame).is_some_and(|l3| frame[l3] >> 4 == 4)
}

//! Those who speak from a peer's address without proof that they are the peer: what is done for them, and how often.

use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// A session that somebody asks to be answered in.
    asked: Option<u64>,
    answered: Option<Duration>,
    /// A second, and the hellos that may still be looked at in it.
    left: (u64, u32),
}

impl Strangers {
    /// Whether another hello is looked at.
    pub(super) const fn may_be_looked_at(&mut self, now: Duration) -> bool {
        let (second, left) = self.left;
        let left = if second == now.as_secs() { left } else { UNPROVEN_A_SECOND };
        self.left = (now.as_secs(), left.saturating_sub(1));
        left > 0
    }

    /// Somebody wants an answer in this session, and gets it unless somebody had one just now.
    pub(super) fn ask(&mut self, session: u64, now: Duration) {
        if self.answered.is_none_or(|last| now.saturating_sub(last) >= ANSWER_INTERVAL) {
            self.asked = Some(session);
        }
    }

    /// Whether somebody is to be answered.
    pub(super) const fn wait(&self) -> bool {
        self.asked.is_some()
    }

    /// The session in which somebody is answered now.
    pub(super) fn answer(&mut self, now: Duration) -> Option<u64> {
        let session = self.asked.take()?;
        self.answered = Some(now);
        Some(session)
    }
}

/// Hellos without a session whose authentication is computed.
const UNPROVEN_A_SECOND: u32 = 50;
/// Answers to those who may be anybody.
const ANSWER_INTERVAL: Duration = Duration::from_millis(200);

//! How late a datagram is, without comparing clocks.

use std::time::Duration;

/// The least difference of the two clocks seen so far, in milliseconds, and when: of the quickest datagram.
#[derive(Debug, Default)]
pub(super) struct Quickest(Option<(i64, Duration)>);

impl Quickest {
    /// How much longer a datagram has been on its way than the quickest one. `sent`: milliseconds on the sender's clock.
    pub(super) fn delay(&mut self, sent: u64, now: Duration) -> Duration {
        let apparent = (now.as_millis() as i64).wrapping_sub(sent as i64);
        let (least, at) = self.0.unwrap_or((apparent, now));
        // Clocks drift; a millisecond in a second is more than any does.
        let seconds = now.saturating_sub(at).as_secs();
        let least = least.saturating_add_unsigned(seconds).min(apparent);
        self.0 = Some((least, at + Duration::from_secs(seconds)));
        Duration::from_millis(apparent.saturating_sub(least).unsigned_abs())
    }
}

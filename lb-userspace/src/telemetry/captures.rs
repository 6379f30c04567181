//! What is told of captures: that one runs, and what became of wanted packets. Who captures what is for the control socket.

use super::text::Page;
use crate::capture::{Board, Counts};

pub(super) fn render(page: &mut Page, captures: &Board) {
    let Counts { captured, missed } = captures.totals();
    page.gauge(
        "ballast_capture_active",
        "Whether a capture runs, and with it the program that copies packets.",
    )
    .sample(&[], u8::from(captures.running().is_some()));
    page.counter("ballast_capture_packets_total", "Packets captured.").sample(&[], captured);
    page.counter(
        "ballast_capture_missed_packets_total",
        "Packets that were to be captured, and came faster than the capture's rate or than they were read.",
    )
    .sample(&[], missed);
}

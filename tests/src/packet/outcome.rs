//! What the program did with a frame, against what it should have done.

use super::frame::hex;
use crate::model::{Decision, Verdict};

/// A program's code and the frame it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub code: u32,
    pub frame: Vec<u8>,
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What is different, for people.
pub(super) fn difference(frame: &[u8], decision: &Decision, observed: &Observed) -> Option<String> {
    let (code, out) = match &decision.verdict {
        Verdict::Pass => (XDP_PASS, Some(frame)),
        Verdict::Transmit(out) => (XDP_TX, Some(&out[..])),
        Verdict::Redirect(out) => (XDP_REDIRECT, Some(&out[..])),
        // What is left of a dropped frame is nobody's business.
        Verdict::Drop(_) => (XDP_DROP, None),
    };
    if observed.code == code && out.is_none_or(|out| out == observed.frame) {
        return None;
    }
    let reason = match &decision.verdict {
        Verdict::Drop(reason) => format!(" ({})", reason.name()),
        _ => String::new(),
    };
    let out = out.map(|out| format!("\n{}", hex(out))).unwrap_or_default();
    let (wanted, found) = (code_name(code), code_name(observed.code));
    Some(format!("expected: {wanted}{reason}{out}\n  observed: {found}\n{}", hex(&observed.frame)))
}

fn code_name(code: u32) -> &'static str {
    match code {
        0 => "aborted",
        XDP_DROP => "drop",
        XDP_PASS => "pass",
        XDP_TX => "transmit",
        XDP_REDIRECT => "redirect",
        _ => "no XDP code",
    }
}

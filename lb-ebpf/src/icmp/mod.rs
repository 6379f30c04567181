//! ICMP.

pub mod error;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, programs::XdpContext};

use crate::refusal::Outcome;

pub fn handle(ctx: &mut XdpContext) -> Outcome {
    let _ = ctx;
    Ok(XDP_PASS)
}

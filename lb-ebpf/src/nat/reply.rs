//! From a backend to a client.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    programs::XdpContext,
};
use lb_common::abi::{FATE_REPLY, PASSED_NO_FLOW};

use super::{
    backend,
    fate::{self, Fate},
    leg,
    rewrite::{self, Endpoints},
    scratch::Scratch,
    way_back::WayBack,
};
use crate::{
    fragment,
    journey::{FRAGMENT_FIRST, Journey},
    refusal::{self, Outcome},
    trace,
};

/// [`super::reply`] of this CPU's [`Journey`].
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_nat_reply(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(reply(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn reply(ctx: &mut XdpContext) -> Outcome {
    if !backend::find()? {
        trace::passed(PASSED_NO_FLOW);
        return Ok(XDP_PASS);
    }
    let (journey, scratch) = (Journey::of_this_cpu()?, Scratch::of_this_cpu()?);
    let reply = &scratch.reply;
    let endpoints = Endpoints {
        source: &reply.vip,
        destination: &reply.client,
        ports: reply.ports,
        identification: None,
    };
    let account = leg::Account { service: reply.service, backend: reply.backend };
    let sent = leg::to_client(ctx, journey, account, &WayBack::in_reply(reply), |ctx| {
        rewrite::rewrite(ctx, journey, &endpoints)
    })?;
    if journey.fragment == FRAGMENT_FIRST {
        let fate = Fate { kind: FATE_REPLY, forwarding: 0, service: reply.service, backend: reply.backend };
        let draft = fragment::draft()?;
        fate::note(journey, draft, &fate, &endpoints);
        fate::note_way(draft, &WayBack::in_reply(&scratch.reply));
    }
    Ok(sent)
}

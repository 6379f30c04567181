//! `dnat` and `nat`: new addresses and ports, in both directions, by entries in exact maps. The rules are in
//! docs/packet-path.md and `lb_common::nat`.

mod backend;
mod change;
mod client;
pub mod entry;
mod fate;
mod forward;
pub mod leg;
mod new;
mod port;
mod remove;
mod reply;
pub mod rewrite;
mod scratch;
mod straight;
pub mod table;
pub mod way_back;

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{DropReason, NAT_DEAD, ServiceEntry};

pub use entry::{FlowKey, ReplyKey};
pub use fate::ballast_nat_follow;
pub use reply::ballast_nat_reply;
pub use scratch::Scratch;

use self::{remove::When, scratch::Whose, table::Place};
use crate::{
    forward::encap::UNTAGGED,
    journey::Journey,
    maps,
    parse::{Address, Packet},
    refusal::{self, Outcome},
};

/// How often an entry is looked at that others keep changing.
const ATTEMPTS: u32 = 3;

/// A packet for a service whose replies pass here.
#[inline(always)]
pub fn forward<A: Address>(ctx: &mut XdpContext, service: &ServiceEntry, packet: &Packet<A>) -> Outcome {
    if packet.l3 == UNTAGGED
        && let Some(outcome) = straight::forward::<A>(ctx, service.service)
    {
        return outcome;
    }
    Journey::start(packet)?;
    forward_journey(ctx, service)
}

/// [`forward`] of this CPU's [`Journey`].
#[inline(always)]
pub fn forward_journey(ctx: &XdpContext, service: &ServiceEntry) -> Outcome {
    // SAFETY: a live context, and a reference.
    refusal::from_word(unsafe { forward::ballast_nat_forward(ctx.ctx, service) })?;
    // SAFETY: as above.
    refusal::from_word(unsafe { forward::ballast_nat_send(ctx.ctx, service) })
}

/// A packet for no service: a reply, or none of our business, as most of them.
#[inline(always)]
pub fn reply<A: Address>(ctx: &mut XdpContext, packet: &Packet<A>) -> Outcome {
    if packet.l3 == UNTAGGED
        && let Some(outcome) = straight::reply::<A>(ctx)
    {
        return outcome;
    }
    Journey::start(packet)?;
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_nat_reply(ctx.ctx) })
}

/// Takes a flow away for the controller, and says whether it is gone. The records of its service and of its backend have
/// to be there still.
#[inline(always)]
pub fn sweep(key: &FlowKey, force: bool) -> Result<bool, DropReason> {
    let scratch = Scratch::of(Whose::Controller)?;
    scratch.flow_key = *key;
    let Some(at) = Place::of_flow(&scratch.flow_key) else { return Ok(true) };
    if at.copy_flow(&mut scratch.flow).has(NAT_DEAD) {
        return Ok(false);
    }
    let service = maps::SERVICES.get(key.service).ok_or(DropReason::BadMapEntry)?;
    remove::name(scratch, service.key.protocol)?;
    Ok(remove::remove(if force { When::Now } else { When::Over }, Whose::Controller))
}

/// Takes a backend's entry away for the controller if no client's belongs to it, and says whether it is gone.
#[inline(always)]
pub fn sweep_lone(key: &ReplyKey) -> Result<bool, DropReason> {
    let scratch = Scratch::of(Whose::Controller)?;
    scratch.old_reply = *key;
    let Some(at) = Place::of_reply(&scratch.old_reply) else { return Ok(true) };
    // SAFETY: a live map entry. Whose it is is asked again before it goes.
    scratch.old_flow = unsafe { &*at.reply() }.flow_key();
    Ok(remove::remove(When::Lone, Whose::Controller))
}

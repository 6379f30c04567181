//! Who may send to a service, and how many flows it takes a second.

use lb_common::abi::DropReason;

use super::effects::Effects;
use super::headers::Kind;
use super::nat::NatFlowKey;
use super::service::Service;
use super::track;
use super::work::{Flow5, Work};

pub(super) fn admit(
    work: &Work<'_>,
    service: &Service,
    flow: &Flow5,
    flow_hash: u64,
    kind: Kind,
    effects: &mut Effects,
) -> Result<(), DropReason> {
    let prefixes = work.state.prefixes.iter();
    let covering = prefixes
        .filter(|prefix| service.source_list != 0 && prefix.list == service.source_list)
        .filter(|prefix| prefix.covers(flow.source));
    if covering.max_by_key(|prefix| prefix.bits).is_some_and(|prefix| !prefix.allows) {
        return Err(DropReason::SourceDenied);
    }
    if service.new_flow_limit == 0 || !opens(work, service, flow, flow_hash, kind) {
        return Ok(());
    }
    let now = work.state.now as u32;
    let (second, flows) = work.state.opened.get(&service.number).copied().unwrap_or_default();
    let flows = if second == now { flows } else { 0 };
    if flows >= service.new_flow_limit {
        return Err(DropReason::NewFlowLimit);
    }
    effects.opened = Some((service.number, (now, flows + 1)));
    Ok(())
}

fn opens(work: &Work<'_>, service: &Service, flow: &Flow5, flow_hash: u64, kind: Kind) -> bool {
    match kind {
        Kind::Opens => true,
        Kind::Datagram if service.forwarding.translates() => {
            !work.state.nat.flows.contains_key(&NatFlowKey::of(flow, service.number))
        }
        Kind::Datagram => !track::has_entry(work.state, service, flow_hash),
        _ => false,
    }
}

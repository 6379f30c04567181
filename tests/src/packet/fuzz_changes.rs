//! What a fuzz run does to services and backends.

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use super::fixture::{BACKENDS, Exit, Family, SLOTS, backend_mac};
use super::world::World;
use crate::model::{Selection, Service, Slot, decide};

/// Changes one thing in the maps, as a controller does while packets flow.
pub(super) fn change(world: &mut World, rng: &mut Rng) -> Result<()> {
    let service = rng.usize(..world.state.services.len());
    // A service keeps to its own three indexes, which follow from its number.
    let first = 1 + world.state.services[service].number * BACKENDS;
    let index = first + rng.u32(..BACKENDS);
    let number = rng.usize(..SLOTS);
    let family = if world.state.backends[&index].address.is_ipv4() { Family::V4 } else { Family::V6 };
    match rng.u8(..8) {
        0..=3 => {
            if world.state.services[service].base < world.state.lookup_limit {
                change_slot(world, rng, service, number)?;
            }
        }
        4 => {
            let (new, existing, weight) = (rng.u8(..4) != 0, rng.u8(..8) != 0, rng.u16(..5));
            world.change_backend(index, |backend| {
                backend.accepts_new_flows = new;
                backend.accepts_existing_flows = existing;
                backend.weight = weight;
            })?;
        }
        _ => {
            let exits = [Exit::Same, Exit::Same, Exit::Elsewhere, Exit::Hole, Exit::Small, Exit::BeyondMap];
            // Whether NAT finds out before or after it has made a flow is nobody's business.
            let translates = world.state.services[service].forwarding.translates();
            let exits = if translates { &exits[..5] } else { &exits };
            let mut mac = backend_mac(index);
            mac[1] = rng.u8(..);
            let hop = match rng.u8(..8) {
                0 => None,
                // A number in range that was never written.
                1 if !translates => Some((mac, 777)),
                _ => Some((mac, exits[rng.usize(..exits.len())].number(family))),
            };
            world.change_backend(index, |backend| backend.next_hop = hop)?;
        }
    }
    Ok(())
}

/// Changes the slot that a frame looks at.
pub(super) fn change_its_slot(world: &mut World, rng: &mut Rng, frame: &[u8]) -> Result<()> {
    let Some(slot) = decide(&world.state, frame).effects.slot else { return Ok(()) };
    let of = |service: &Service| (service.base..service.base + SLOTS as u32).contains(&slot);
    let service = world.state.services.iter().position(of).context("a slot of no service")?;
    let Service { base, number, selection, rotation, .. } = world.state.services[service];
    let next = world.state.placed.get(&number).copied().unwrap_or_default();
    let slot = match selection {
        // The one that the next new flow gets.
        Selection::RoundRobin if rng.bool() => (next % u64::from(rotation)) as usize,
        _ => (slot - base) as usize,
    };
    change_slot(world, rng, service, slot)
}

fn change_slot(world: &mut World, rng: &mut Rng, service: usize, number: usize) -> Result<()> {
    let first = 1 + world.state.services[service].number * BACKENDS;
    let (limit, selection) = (world.state.backend_limit, world.state.services[service].selection);
    let translates = world.state.services[service].forwarding.translates();
    let mut any = || match rng.u8(..24) {
        0..=2 => 0,
        // What least-connections makes of a weight that isn't there is nobody's business.
        3 if selection != Selection::LeastConnections => limit + rng.u32(..100),
        // An index that was never written.
        4 => limit - 1,
        // Another service's. What NAT makes of another family is nobody's business.
        5 if !translates => 1 + rng.u32(..100),
        _ => first + rng.u32(..BACKENDS),
    };
    let (current, previous) = (any(), any());
    let opened = rng.u16(..);
    let slot = match rng.u8(..4) {
        0 => Slot::steady(current),
        1 => Slot { current, previous: 0, opened, tracked: true },
        _ => Slot { current, previous, opened, tracked: true },
    };
    world.change_slot(service, number, slot)
}

/// Makes another choice of services live. Those that stay keep their slots.
pub(super) fn republish(world: &mut World, rng: &mut Rng, furnished: &[Service]) -> Result<()> {
    let live = std::mem::take(&mut world.state.services);
    for service in furnished {
        if rng.u8(..8) == 0 {
            continue;
        }
        match live.iter().find(|known| known.number == service.number) {
            Some(known) => world.state.services.push(known.clone()),
            // It comes back with the slots it was furnished with.
            None => world.add_service(service.clone())?,
        }
    }
    if world.state.services.is_empty() {
        bail!("no service was left");
    }
    world.publish()
}

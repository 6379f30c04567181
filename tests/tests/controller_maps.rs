//! The controller's side of maps that are no arrays, against the kernel's own.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use ballast::dataplane::nat::NatCursor;
use ballast::dataplane::{Dataplane, Limits, loader::load_for_test, sources::SourcePrefix};
use lb_common::abi::{
    BackendValue, NAT_CLOSED_AGE, NatFlow as FlowValue, NatFlowKey as FlowKey, NatPool,
    NatReplyKey as ReplyKey, PROTOCOL_TCP, SERVICE_IN_USE, SOURCE_ALLOW, SOURCE_DENY, SWEEP_LONE_REPLY,
    ServiceKey, ServiceRecord, SweepRequest,
};
use lb_common::hash::HashKey;
use lb_tests::model::{NatChange, NatFlow, NatFlowKey, NatReply, NatReplyKey, Protocol, Seen};
use lb_tests::packet::World;
use lb_tests::require_root;

const LIMITS: Limits = Limits {
    services: 4,
    backends: 64,
    lookup_slots: 4096,
    flow_entries: 1024,
    nat_flows: 1024,
    source_prefixes: 100,
};

fn prefix(n: u8, length: u8) -> SourcePrefix {
    SourcePrefix { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, n, 0, 0], length }
}

#[test]
fn source_prefixes_are_found_again_list_by_list_up_to_the_limit() -> Result<()> {
    require_root!(Ok(()));
    let (_program, mut dataplane) = load_for_test(LIMITS, HashKey::default(), true, false)?;
    let mut written = Vec::new();
    for list in [1, 2, 0x0102_0304] {
        for (n, length) in [(0, 96), (0, 104), (1, 112), (2, 112), (3, 128)] {
            let verdict = if length == 112 { SOURCE_ALLOW } else { SOURCE_DENY };
            dataplane.write_source(list, prefix(n, length), verdict)?;
            written.push((list, prefix(n, length), verdict));
        }
    }
    let sorted = |mut sources: Vec<(u32, SourcePrefix, u32)>| {
        sources.sort_unstable();
        sources
    };
    assert_eq!(sorted(dataplane.sources()?), sorted(written.clone()));
    written.retain(|(list, prefix, _)| *list != 2 || prefix.length == 96);
    for (n, length) in [(0, 104), (1, 112), (2, 112), (3, 128), (9, 112)] {
        dataplane.remove_source(2, prefix(n, length))?;
    }
    assert_eq!(sorted(dataplane.sources()?), sorted(written.clone()));
    // Branches of the trie take no room.
    for n in 0..100 - u8::try_from(written.len())? {
        dataplane.write_source(7, prefix(n, 112), SOURCE_DENY)?;
    }
    assert!(dataplane.write_source(8, prefix(0, 112), SOURCE_DENY).is_err());
    Ok(())
}

#[test]
fn one_of_two_pools_is_live() -> Result<()> {
    require_root!(Ok(()));
    let (_program, mut dataplane) = load_for_test(LIMITS, HashKey::default(), true, false)?;
    assert_eq!(dataplane.nat_pool()?, NatPool::default());
    for first_port in 1024..1030 {
        let pool = NatPool { first_port, last_port: 2000, v6_count: 1, ..NatPool::default() };
        dataplane.publish_nat_pool(&pool)?;
        assert_eq!(dataplane.nat_pool()?, pool);
    }
    Ok(())
}

#[test]
fn a_pass_over_pages_meets_each_nat_flow_once() -> Result<()> {
    require_root!(Ok(()));
    for flows in [0, 1, 5000] {
        let mut world = World::with_nat_flows(8192)?;
        for number in 0..flows {
            plant(&mut world, number)?;
        }
        for size in [1024, 8192] {
            let found = every_flow(world.dataplane(), size)?;
            let distinct: HashSet<_> = found.iter().map(|(key, _)| *key).collect();
            assert_eq!((found.len(), distinct.len()), (flows as usize, flows as usize));
            assert!(found.iter().all(|(key, flow)| flow.our_port == [key.ports[0], key.ports[1]]));
        }
    }
    Ok(())
}

#[test]
fn a_sweep_takes_both_entries_of_a_flow_when_it_is_over_or_has_to_go() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::with_nat_flows(1024)?;
    for number in 0..4 {
        plant(&mut world, number)?;
    }
    let record = ServiceRecord {
        key: ServiceKey { protocol: PROTOCOL_TCP, ..ServiceKey::default() },
        flags: SERVICE_IN_USE,
        flow_idle_timeout: 100,
        ..ServiceRecord::default()
    };
    let dataplane = world.dataplane();
    dataplane.write_service_record(0, &record)?;
    let backend =
        BackendValue { address: mapped(BACKEND), port: 80u16.to_be_bytes(), ..BackendValue::default() };
    dataplane.write_backend(1, &backend)?;
    let flows = every_flow(dataplane, 1024)?;
    let request =
        |number: usize, force| SweepRequest { flow: flows[number].0, force, ..SweepRequest::default() };
    let replies = |dataplane: &dyn Dataplane| -> Result<usize> {
        let found = flows.iter().map(|(_, flow)| dataplane.nat_reply(&reply_key(flow)));
        Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().count())
    };
    assert_eq!(replies(dataplane)?, 4);
    dataplane.store_clock(TIME + 100);
    assert!(!dataplane.sweep(&request(0, 0))?);
    assert!(dataplane.sweep(&request(1, 1))?);
    assert_eq!((every_flow(dataplane, 1024)?.len(), replies(dataplane)?), (3, 3));
    dataplane.store_clock(TIME + 101);
    assert!(dataplane.sweep(&request(0, 0))?);
    // One that is gone already.
    assert!(dataplane.sweep(&request(0, 0))?);
    assert_eq!((every_flow(dataplane, 1024)?.len(), replies(dataplane)?), (2, 2));
    Ok(())
}

/// Nothing else would ever find it.
#[test]
fn a_sweep_takes_a_backends_side_that_is_alone_and_no_other() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::with_nat_flows(1024)?;
    for number in 0..3 {
        plant(&mut world, number)?;
    }
    let flows = every_flow(world.dataplane(), 1024)?;
    let of = |number: usize| reply_key(&flows[number].1);
    let request =
        |number: usize| SweepRequest { what: SWEEP_LONE_REPLY, reply: of(number), ..SweepRequest::default() };
    let keys: Vec<_> = world.state.nat.flows.keys().copied().collect();
    let lost = |number: usize| {
        let client = std::net::Ipv6Addr::from(flows[number].0.client).to_canonical();
        *keys.iter().find(|key| key.client == client).expect("it was planted")
    };
    // One flow is whole, of one the client's side is gone, and one has another port by now.
    world.plant_nat(&NatChange::Flow(lost(1), None))?;
    let moved = world.state.nat.flows[&lost(2)];
    world.plant_nat(&NatChange::Flow(lost(2), Some(NatFlow { our_port: moved.our_port ^ 1, ..moved })))?;

    let dataplane = world.dataplane();
    let exists = |dataplane: &dyn Dataplane, number| {
        Ok::<_, anyhow::Error>(dataplane.nat_reply(&of(number))?.is_some())
    };
    dataplane.store_clock(TIME + u64::from(NAT_CLOSED_AGE));
    for number in 0..3 {
        // It may be about to get its other side.
        assert!(!dataplane.sweep(&request(number))? && exists(dataplane, number)?, "{number}");
    }
    // What was seen while the clock stood still is younger than it looks.
    world.set_jump(TIME as u32 + NAT_CLOSED_AGE + 1, 100);
    let dataplane = world.dataplane();
    dataplane.store_clock(TIME + u64::from(NAT_CLOSED_AGE) + 1);
    for number in 0..3 {
        assert!(!dataplane.sweep(&request(number))? && exists(dataplane, number)?, "{number}, after a jump");
    }
    world.set_jump(0, 0);
    let dataplane = world.dataplane();
    // By force neither: that is for whole flows.
    assert!(dataplane.sweep(&SweepRequest { flow: flows[1].0, force: 1, ..SweepRequest::default() })?);
    assert!(exists(dataplane, 1)?);
    for (number, goes) in [(0, false), (1, true), (2, true)] {
        assert_eq!(dataplane.sweep(&request(number))?, goes, "{number}");
        assert_eq!(exists(dataplane, number)?, !goes, "{number}");
    }
    // However old it is.
    dataplane.store_clock(TIME + 100_000);
    assert!(!dataplane.sweep(&request(0))?);
    assert!(dataplane.sweep(&request(1))?, "one that is gone already");
    Ok(())
}

#[test]
fn a_pass_over_the_backends_sides_meets_each_once() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::with_nat_flows(8192)?;
    for number in 0..5000 {
        plant(&mut world, number)?;
    }
    let (mut found, mut cursor) = (HashSet::new(), Some(NatCursor::default()));
    while let Some(at) = cursor {
        let page = world.dataplane().nat_replies(at, 1024)?;
        for (key, reply) in page.entries {
            assert!(found.insert(key));
            let flow = world.dataplane().nat_flow(&reply.flow_key())?;
            assert!(flow.is_some_and(|flow| flow.is_answered_by(&key)));
        }
        cursor = page.next;
    }
    assert_eq!(found.len(), 5000);
    Ok(())
}

const TIME: u64 = 1000;
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn mapped(address: Ipv4Addr) -> [u8; 16] {
    address.to_ipv6_mapped().octets()
}

/// An established flow of service 0 to backend 1, of which both sides were seen at [`TIME`].
fn plant(world: &mut World, number: u32) -> Result<()> {
    let client = IpAddr::from(Ipv4Addr::from(0xc612_0000 + number));
    let client_port = 1024 + u16::try_from(number)?;
    let seen = Seen { confirmed: true, ..Seen::at(TIME) };
    let key = NatFlowKey { client, client_port, vip_port: 80, service: 0 };
    let (ours, backend) = (IpAddr::from(OURS), IpAddr::from(BACKEND));
    let (backend_port, our_port, came_by) = (80, client_port, ([2; 6], 1));
    let flow = NatFlow { seen, backend: 1, backend_port, our_address: ours, our_port, came_by };
    let reply = NatReply {
        seen,
        client,
        client_port,
        vip: IpAddr::from([203, 0, 113, 10]),
        vip_port: 80,
        service: 0,
        backend: 1,
        interface: 1,
        next_hop: [2; 6],
        source_mac: [2; 6],
    };
    let protocol = Protocol::Tcp;
    let reply_key = NatReplyKey { backend, backend_port, our_address: ours, our_port, protocol };
    world.plant_nat(&NatChange::Reply(reply_key, Some(reply)))?;
    world.plant_nat(&NatChange::Flow(key, Some(flow)))
}

fn every_flow(dataplane: &dyn Dataplane, page: u32) -> Result<Vec<(FlowKey, FlowValue)>> {
    let (mut found, mut cursor) = (Vec::new(), Some(NatCursor::default()));
    while let Some(at) = cursor {
        let page = dataplane.nat_flows(at, page)?;
        found.extend(page.entries);
        cursor = page.next;
    }
    Ok(found)
}

fn reply_key(flow: &FlowValue) -> ReplyKey {
    let [[a, b], [c, d]] = [flow.backend_port, flow.our_port];
    ReplyKey {
        backend: mapped(BACKEND),
        our_address: flow.our_address,
        ports: [a, b, c, d],
        protocol: PROTOCOL_TCP,
        ..ReplyKey::default()
    }
}

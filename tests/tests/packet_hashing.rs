//! Which backend a packet goes to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use lb_tests::model::{Backend, Forwarding, Protocol, Selection, Service, Slot, SlotHash, Tracking};
use lb_tests::packet::fixture::{Family, Host, Way, backend_mac, client, packet, world};
use lb_tests::packet::{Packet, World};
use lb_tests::require_root;

fn backend_of(world: &mut World, packet: &Packet) -> Result<u32> {
    let decision = world.check(&packet.build())?;
    Ok(decision.counted.expect("the packet is forwarded").backend)
}

#[test]
fn source_hash_sends_one_client_to_one_backend_whatever_its_ports() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for number in 0..20 {
                let mut packet = packet(family, protocol, Host::Vip, Way::L2Dsr.port());
                packet.source = client(family, number * 997);
                let backends: BTreeSet<_> = (0..50)
                    .map(|step| {
                        packet.source_port = 1 + step * 1301;
                        backend_of(&mut world, &packet)
                    })
                    .collect::<Result<_>>()?;
                assert_eq!(backends.len(), 1, "{family:?} {protocol:?} {}", packet.source);
            }
        }
    }
    world.audit()
}

#[test]
fn source_hash_spreads_clients_over_all_backends() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let shares = shares(&mut world, 3000, |number| {
            let mut packet = packet(family, Protocol::Tcp, Host::Vip, Way::L2Dsr.port());
            packet.source = client(family, number);
            packet
        })?;
        assert_even(&shares);
    }
    world.audit()
}

#[test]
fn flow_hash_spreads_the_flows_of_one_client_over_all_backends() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let shares = shares(&mut world, 3000, |number| {
                let mut packet = packet(family, protocol, Host::Vip, Way::IpipByFlow.port());
                packet.source_port = number;
                packet
            })?;
            assert_even(&shares);
        }
    }
    world.audit()
}

/// Packets that each of a service's backends got.
fn shares(world: &mut World, packets: u16, packet: impl Fn(u16) -> Packet) -> Result<Vec<u32>> {
    let mut shares = std::collections::BTreeMap::new();
    for number in 0..packets {
        *shares.entry(backend_of(world, &packet(number))?).or_default() += 1;
    }
    Ok(shares.into_values().collect())
}

/// Three backends with a third each, give or take five standard deviations.
fn assert_even(shares: &[u32]) {
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert!(shares.iter().all(|share| share.abs_diff(1000) < 130), "{shares:?}");
}

#[test]
fn the_slot_is_the_hashs_top_bits_at_every_table_size() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let (mut port, mut base, mut index) = (9000, world.next_base(), world.next_index());
    for log2 in [10, 11, 14, 15, 16] {
        for family in Family::BOTH {
            let number = world.state.services.len() as u32;
            let any =
                world.state.services.iter().find(|service| service.address == Host::Vip.address(family));
            let any = world.state.backends[&any.expect("the fixture has some").slots[0].current];
            let first = index;
            for own in first..first + 4 {
                let next_hop = any.next_hop.map(|(_, egress)| (backend_mac(own), egress));
                world.set_backend(own, Backend { next_hop, service: number, ..any })?;
            }
            // No two halves of the table are alike, and hardly two neighbours.
            let slots = (0..1u32 << log2)
                .map(|slot| first + (slot.wrapping_mul(0x9e37_79b9) >> 30))
                .map(Slot::steady);
            world.add_service(Service {
                number,
                address: Host::Vip.address(family),
                port: Some(port),
                protocol: Protocol::Tcp,
                forwarding: Forwarding::L2Dsr,
                hash: SlotHash::Flow,
                base,
                slots: slots.collect(),
                tracking: Tracking::Auto,
                selection: Selection::Hash,
                rotation: 0,
                idle_timeout: 60,
                source_list: 0,
                new_flow_limit: 0,
                rejects: false,
            })?;
            port += 1;
            base += 1 << log2;
            index += 4;
        }
    }
    world.publish()?;
    for service in world.state.services.clone().iter().filter(|service| service.port >= Some(9000)) {
        let family = if service.address.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut packet = packet(family, Protocol::Tcp, Host::Vip, service.port.unwrap_or_default());
        for source_port in 0..500 {
            packet.source_port = source_port * 131;
            world.check(&packet.build())?;
        }
    }
    world.audit()
}

#[test]
fn addresses_of_one_client_in_both_families_are_two_clients() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for number in 0..200 {
        let IpAddr::V4(v4) = client(Family::V4, number) else { unreachable!("asked for IPv4") };
        let mut packet = packet(Family::V6, Protocol::Tcp, Host::Vip, Way::L2Dsr.port());
        // A mapped source is nobody's address, but what it hashes to must not depend on how the maps write addresses.
        packet.source = v4.to_ipv6_mapped().into();
        world.check(&packet.build())?;
    }
    world.audit()
}

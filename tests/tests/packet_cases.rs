//! What becomes of a packet, case by case, for IPv4 and IPv6, TCP and UDP, and no, one and two VLAN tags.

use anyhow::Result;
use lb_common::abi::DropReason;
use lb_tests::model::Protocol::{Tcp, Udp};
use lb_tests::packet::fixture::Family::{V4, V6};
use lb_tests::packet::fixture::{Host, MTU, OTHER_MAC, SMALL_MTU, Way, world, world_without_side_effects};
use lb_tests::packet::{ACK, BALANCER_MAC, Case, Expect, PLAIN, Packet, SYN, run_table, seal_v4};
use lb_tests::require_root;

#[test]
fn packets_for_a_service_are_forwarded() -> Result<()> {
    require_root!(Ok(()));
    let variants = run_table(&mut world()?, FORWARDED)?;
    println!("{variants} variants of {} cases", FORWARDED.len());
    Ok(())
}

#[test]
fn everything_else_passes_untouched() -> Result<()> {
    require_root!(Ok(()));
    let variants = run_table(&mut world()?, PASSED)?;
    println!("{variants} variants of {} cases", PASSED.len());
    Ok(())
}

#[test]
fn what_cannot_be_forwarded_is_dropped_for_a_named_reason() -> Result<()> {
    require_root!(Ok(()));
    let variants = run_table(&mut world()?, DROPPED)?;
    println!("{variants} variants of {} cases", DROPPED.len());
    Ok(())
}

#[test]
fn what_a_router_would_send_no_further_is_answered() -> Result<()> {
    require_root!(Ok(()));
    let variants = run_table(&mut world()?, ANSWERED)?;
    println!("{variants} variants of {} cases", ANSWERED.len());
    Ok(())
}

#[test]
fn a_program_without_side_effects_decides_alike_and_counts_nothing() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world_without_side_effects()?;
    for table in [FORWARDED, PASSED, ANSWERED, DROPPED] {
        run_table(&mut world, table)?;
    }
    Ok(())
}

#[test]
fn frames_for_other_machines_pass_untouched() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    world.set_own_macs(Some([OTHER_MAC].into()))?;
    for table in [FORWARDED, ANSWERED, DROPPED] {
        let passed: Vec<_> = table.iter().map(|case| Case { expect: Expect::Pass, ..*case }).collect();
        run_table(&mut world, &passed)?;
    }
    // Every second one of the addresses, and then all.
    let many = |step| (0..64).step_by(step).map(|number| [0x02, 0, 0, 0, 1, number]);
    for (macs, forwards) in [
        (Some(many(1).collect()), false),
        (Some(many(2).chain([BALANCER_MAC]).collect()), true),
        // More than can be told apart.
        (Some(many(1).chain([OTHER_MAC]).collect()), true),
        (None, true),
    ] {
        world.state.own_macs = None;
        world.set_own_macs(macs)?;
        if forwards {
            world.state.own_macs = None;
            run_table(&mut world, FORWARDED)?;
        } else {
            let passed: Vec<_> =
                FORWARDED.iter().map(|case| Case { expect: Expect::Pass, ..*case }).collect();
            run_table(&mut world, &passed)?;
        }
    }
    Ok(())
}

/// The same malformed packets are the host's business where no service lives.
#[test]
fn malformed_packets_for_others_pass_untouched() -> Result<()> {
    require_root!(Ok(()));
    let for_others: Vec<_> = DROPPED
        .iter()
        .chain(ANSWERED)
        .map(|case| Case { to: Host::NotVip, expect: Expect::Pass, ..*case })
        .collect();
    run_table(&mut world()?, &for_others)?;
    Ok(())
}

/// What a service-less protocol of a VIP gets is the host's as well: here TCP has a service and UDP has none.
#[test]
fn malformed_packets_of_a_vips_other_protocol_pass_untouched() -> Result<()> {
    require_root!(Ok(()));
    let of_udp =
        DROPPED.iter().filter(|case| case.protocols.contains(&Udp) && !HIDDEN.contains(&case.description));
    let of_udp: Vec<_> = of_udp
        .map(|case| Case { to: Host::TcpOnly, protocols: &[Udp], expect: Expect::Pass, ..*case })
        .collect();
    assert!(of_udp.len() > 10, "the table has cases for UDP");
    run_table(&mut world()?, &of_udp)?;
    Ok(())
}

const FORWARDED: &[Case] = &[
    Case { description: "l2-dsr changes the MAC addresses and nothing else", expect: Expect::L2Dsr, ..PLAIN },
    Case {
        description: "ipip puts the packet into another",
        port: Way::Ipip.port(),
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "l2-dsr by flow hash",
        port: Way::L2DsrByFlow.port(),
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case { description: "ipip by flow hash", port: Way::IpipByFlow.port(), expect: Expect::Ipip, ..PLAIN },
    Case {
        description: "l2-dsr over another interface redirects",
        port: Way::L2DsrElsewhere.port(),
        expect: Expect::L2DsrElsewhere,
        ..PLAIN
    },
    Case {
        description: "ipip over another interface redirects",
        port: Way::IpipElsewhere.port(),
        expect: Expect::IpipElsewhere,
        ..PLAIN
    },
    Case {
        description: "a SYN counts as a new flow",
        protocols: &[Tcp],
        shape: |packet| packet.tcp_flags = SYN,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "a SYN with ECN flags counts too",
        port: Way::Ipip.port(),
        protocols: &[Tcp],
        shape: |packet| packet.tcp_flags = SYN | 0xc0,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "a SYN with ACK does not",
        protocols: &[Tcp],
        shape: |packet| packet.tcp_flags = SYN | ACK,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "every combination of flags a port scanner sends is forwarded",
        protocols: &[Tcp],
        shape: |packet| packet.tcp_flags = 0xff,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "DSCP and ECN go outwards",
        port: Way::Ipip.port(),
        shape: |packet| packet.traffic_class = 0xbb,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "a packet that may be fragmented keeps that and its identification",
        port: Way::Ipip.port(),
        families: &[V4],
        shape: |packet| (packet.dont_fragment, packet.identification) = (false, 0xbeef),
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "the last TTL that can be forwarded",
        port: Way::Ipip.port(),
        shape: |packet| packet.ttl = 2,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "the greatest TTL",
        port: Way::Ipip.port(),
        shape: |packet| packet.ttl = 255,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "l2-dsr leaves TTL 1 as a switch does",
        shape: |packet| packet.ttl = 1,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "l2-dsr leaves TTL 0 as a switch does",
        shape: |packet| packet.ttl = 0,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "IP options are forwarded",
        families: &[V4],
        shape: record_route,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "IP options are tunnelled untouched",
        port: Way::Ipip.port(),
        families: &[V4],
        shape: record_route,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "as many options as there can be",
        port: Way::IpipByFlow.port(),
        families: &[V4],
        shape: |packet| packet.options = vec![1; 40],
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "Ethernet padding stays",
        shape: |packet| packet.padding = 6,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "Ethernet padding stays behind a tunnelled packet and is not part of its length",
        port: Way::Ipip.port(),
        shape: |packet| packet.padding = 46,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "no payload at all",
        port: Way::Ipip.port(),
        shape: |packet| packet.payload.clear(),
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "the largest packet that fits after encapsulation",
        port: Way::SmallMtu.port(),
        shape: |packet| fill_to(packet, SMALL_MTU),
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "the largest packet of an ordinary link",
        shape: |packet| packet.payload = vec![0x5a; MTU as usize - 40 - packet.protocol.header_len()],
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "a wrong transport checksum is the backend's to find",
        port: Way::L2DsrElsewhere.port(),
        mangle: |frame, _| *frame.last_mut().expect("a frame has bytes") ^= 0xff,
        expect: Expect::L2DsrElsewhere,
        ..PLAIN
    },
    Case {
        description: "the flag that is reserved is neither a fragment's nor copied outwards",
        families: &[V4],
        mangle: |frame, l3| frame[l3 + 6] |= 0x80,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "a first fragment",
        families: &[V4],
        mangle: |frame, l3| first_fragment(frame, l3),
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "a first fragment of IPv6",
        families: &[V6],
        mangle: |frame, l3| extension(frame, l3, 44, 0x0001),
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "extension headers",
        families: &[V6],
        mangle: |frame, l3| extension(frame, l3, 60, 0x0104),
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "a service for every port takes any port",
        to: Host::EveryPort,
        port: 5353,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "a service for every port takes port 0",
        to: Host::EveryPort,
        port: 0,
        expect: Expect::L2Dsr,
        ..PLAIN
    },
    Case {
        description: "an exact port wins over every port",
        to: Host::EveryPort,
        port: 443,
        expect: Expect::Ipip,
        ..PLAIN
    },
    Case {
        description: "a TCP service takes TCP",
        to: Host::TcpOnly,
        protocols: &[Tcp],
        expect: Expect::L2Dsr,
        ..PLAIN
    },
];

const ANSWERED: &[Case] = &[
    Case {
        // Close to the most a frame can have without several buffers; larger than any link here.
        description: "an oversized frame does not fit an ordinary link",
        shape: |packet| packet.payload = vec![0x5a; 3400],
        expect: Expect::TooBig(|_| MTU),
        ..PLAIN
    },
    Case {
        description: "TTL 1 where a router would decrement it",
        port: Way::Ipip.port(),
        shape: |packet| packet.ttl = 1,
        expect: Expect::TimeExceeded,
        ..PLAIN
    },
    Case {
        description: "TTL 0",
        port: Way::Ipip.port(),
        shape: |packet| packet.ttl = 0,
        expect: Expect::TimeExceeded,
        ..PLAIN
    },
    Case {
        description: "one byte more than fits after encapsulation",
        port: Way::SmallMtu.port(),
        shape: |packet| fill_to(packet, SMALL_MTU + 1),
        expect: Expect::TooBig(|packet| SMALL_MTU - ip_header(packet)),
        ..PLAIN
    },
    Case {
        description: "an oversized packet does not fit a tunnel",
        port: Way::Ipip.port(),
        shape: |packet| packet.payload = vec![0x5a; 3400],
        expect: Expect::TooBig(|packet| MTU - ip_header(packet)),
        ..PLAIN
    },
];

const PASSED: &[Case] = &[
    Case { description: "a port without a service", port: 22, ..PLAIN },
    Case { description: "port 0 without a service for every port", port: 0, ..PLAIN },
    Case {
        description: "a frame to everybody is not a router's business",
        mangle: |frame, _| frame[..6].fill(0xff),
        ..PLAIN
    },
    Case { description: "nor is one to a group", mangle: |frame, _| frame[0] |= 1, ..PLAIN },
    Case { description: "an address without services", to: Host::NotVip, ..PLAIN },
    Case { description: "a TCP service does not take UDP", to: Host::TcpOnly, protocols: &[Udp], ..PLAIN },
    Case {
        description: "a reply from the VIP is not for it",
        shape: |packet| std::mem::swap(&mut packet.source, &mut packet.destination),
        ..PLAIN
    },
    Case {
        description: "the service's port as source port",
        shape: |packet| std::mem::swap(&mut packet.source_port, &mut packet.destination_port),
        ..PLAIN
    },
    Case {
        description: "an expired packet for another port",
        port: 22,
        shape: |packet| packet.ttl = 1,
        ..PLAIN
    },
    Case {
        description: "a first fragment for a port without a service",
        port: 22,
        families: &[V4],
        mangle: |frame, l3| first_fragment(frame, l3),
        ..PLAIN
    },
    Case {
        description: "a packet for another port that would not fit a tunnel",
        port: 22,
        shape: |packet| packet.payload = vec![0; 1460],
        ..PLAIN
    },
    Case {
        description: "ARP",
        families: &[V4],
        protocols: &[Udp],
        mangle: |frame, l3| {
            frame[l3 - 2..l3].copy_from_slice(&[0x08, 0x06]);
        },
        ..PLAIN
    },
    Case {
        description: "LLDP",
        protocols: &[Udp],
        mangle: |frame, l3| {
            frame[l3 - 2..l3].copy_from_slice(&[0x88, 0xcc]);
        },
        ..PLAIN
    },
    Case {
        description: "a frame with a length where others have a type",
        mangle: |frame, l3| {
            frame[l3 - 2..l3].copy_from_slice(&[0x00, 0x2e]);
        },
        ..PLAIN
    },
    Case {
        description: "IPv4 that says it is IPv6",
        families: &[V4],
        mangle: |frame, l3| {
            frame[l3 - 2..l3].copy_from_slice(&[0x86, 0xdd]);
        },
        ..PLAIN
    },
    Case {
        description: "IPv6 that says it is IPv4",
        families: &[V6],
        mangle: |frame, l3| {
            frame[l3 - 2..l3].copy_from_slice(&[0x08, 0x00]);
        },
        ..PLAIN
    },
    Case {
        description: "a version that is neither",
        mangle: |frame, l3| frame[l3] = frame[l3] & 0xf | 0x50,
        ..PLAIN
    },
    Case { description: "version 0", mangle: |frame, l3| frame[l3] &= 0xf, ..PLAIN },
    Case { description: "ICMP for a VIP", mangle: |frame, l3| protocol(frame, l3, 1), ..PLAIN },
    Case {
        description: "NDP and other ICMPv6 for a VIP",
        mangle: |frame, l3| protocol(frame, l3, 58),
        ..PLAIN
    },
    Case { description: "IGMP", mangle: |frame, l3| protocol(frame, l3, 2), ..PLAIN },
    Case { description: "ESP for a VIP", mangle: |frame, l3| protocol(frame, l3, 50), ..PLAIN },
    Case { description: "GRE for a VIP", mangle: |frame, l3| protocol(frame, l3, 47), ..PLAIN },
    Case { description: "IPv4 in IP for a VIP", mangle: |frame, l3| protocol(frame, l3, 4), ..PLAIN },
    Case { description: "IPv6 in IP for a VIP", mangle: |frame, l3| protocol(frame, l3, 41), ..PLAIN },
    Case { description: "SCTP for a VIP", mangle: |frame, l3| protocol(frame, l3, 132), ..PLAIN },
    Case {
        description: "no next header",
        families: &[V6],
        mangle: |frame, l3| protocol(frame, l3, 59),
        ..PLAIN
    },
    Case {
        // The maps write IPv4 addresses so; a packet that has one on the wire is not for the IPv4 VIP.
        description: "IPv6 to the IPv4 VIP's mapped address",
        families: &[V6],
        mangle: |frame, l3| {
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 10];
            frame[l3 + 24..l3 + 40].copy_from_slice(&mapped);
        },
        ..PLAIN
    },
    Case {
        // The tags are put in front of the ones there are, so that there are three at least.
        description: "three VLAN tags hide what follows",
        mangle: |frame, _| {
            frame.splice(12..12, [0x88, 0xa8, 0, 1, 0x88, 0xa8, 0, 2, 0x81, 0, 0, 3]);
        },
        ..PLAIN
    },
];

/// Cases whose protocol nobody can read, so that any service on the address is reason to drop.
const HIDDEN: &[&str] = &["extension headers and no end of them"];

const DROPPED: &[Case] = &[
    Case {
        description: "a total length beyond the frame",
        families: &[V4],
        mangle: |frame, l3| {
            let len = (frame.len() - l3 + 1) as u16;
            set_len(frame, l3, len);
        },
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "a payload length beyond the frame",
        families: &[V6],
        mangle: |frame, l3| {
            let len = (frame.len() - l3 - 40 + 1) as u16;
            set_len(frame, l3, len);
        },
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "the greatest length there is",
        mangle: |frame, l3| set_len(frame, l3, 0xffff),
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "a total length less than the header's",
        families: &[V4],
        mangle: |frame, l3| set_len(frame, l3, 19),
        expect: Expect::Drop(DropReason::BadIpHeader),
        ..PLAIN
    },
    Case {
        description: "a total length of 0",
        families: &[V4],
        mangle: |frame, l3| set_len(frame, l3, 0),
        expect: Expect::Drop(DropReason::BadIpHeader),
        ..PLAIN
    },
    Case {
        description: "a payload length of 0",
        families: &[V6],
        mangle: |frame, l3| set_len(frame, l3, 0),
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "a header length below the least",
        families: &[V4],
        mangle: |frame, l3| frame[l3] = 0x44,
        expect: Expect::Drop(DropReason::BadIpHeader),
        ..PLAIN
    },
    Case {
        description: "a header length of 0",
        families: &[V4],
        mangle: |frame, l3| frame[l3] = 0x40,
        expect: Expect::Drop(DropReason::BadIpHeader),
        ..PLAIN
    },
    Case {
        description: "options beyond the total length",
        families: &[V4],
        shape: |packet| packet.payload.clear(),
        mangle: |frame, l3| {
            frame[l3] = 0x4f;
            set_len(frame, l3, 28);
        },
        expect: Expect::Drop(DropReason::BadIpHeader),
        ..PLAIN
    },
    Case {
        description: "options that leave no room for the ports",
        families: &[V4],
        shape: |packet| packet.payload.clear(),
        mangle: |frame, l3| frame[l3] = 0x46,
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        // The bytes are there, but behind the packet's end they are padding.
        description: "a transport header that ends behind the packet",
        mangle: |frame, l3| {
            let ip_header = if frame[l3] >> 4 == 4 { 20 } else { 0 };
            set_len(frame, l3, ip_header + 7);
        },
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "a TCP header that lacks its last byte",
        protocols: &[Tcp],
        mangle: |frame, l3| {
            let ip_header = if frame[l3] >> 4 == 4 { 20 } else { 0 };
            set_len(frame, l3, ip_header + 19);
        },
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "a fragment in the middle",
        families: &[V4],
        mangle: |frame, l3| flags(frame, l3, 0x2000 | 185),
        expect: Expect::Drop(DropReason::Fragment),
        ..PLAIN
    },
    Case {
        description: "a last fragment whose bytes look like a service's ports",
        families: &[V4],
        mangle: |frame, l3| flags(frame, l3, 185),
        expect: Expect::Drop(DropReason::Fragment),
        ..PLAIN
    },
    Case {
        description: "a last fragment whose bytes look like another port",
        port: 22,
        families: &[V4],
        mangle: |frame, l3| flags(frame, l3, 185),
        expect: Expect::Drop(DropReason::Fragment),
        ..PLAIN
    },
    Case {
        description: "a first fragment without ports",
        families: &[V4],
        shape: |packet| packet.payload.clear(),
        mangle: |frame, l3| {
            set_len(frame, l3, 24);
            first_fragment(frame, l3);
        },
        expect: Expect::Drop(DropReason::TruncatedHeader),
        ..PLAIN
    },
    Case {
        description: "extension headers and no end of them",
        families: &[V6],
        shape: |packet| packet.payload = vec![0; 100],
        mangle: |frame, l3| {
            protocol(frame, l3, 0);
            frame[l3 + 40..].fill(0);
        },
        expect: Expect::Drop(DropReason::ExtensionHeader),
        ..PLAIN
    },
    Case {
        description: "a slot without a backend",
        port: Way::NoBackend.port(),
        expect: Expect::Drop(DropReason::NoBackend),
        ..PLAIN
    },
    Case {
        description: "a backend that accepts no flows",
        port: Way::Disabled.port(),
        expect: Expect::Drop(DropReason::BackendDisabled),
        ..PLAIN
    },
    Case {
        description: "a next hop nobody has resolved",
        port: Way::Unresolved.port(),
        expect: Expect::Drop(DropReason::NextHopUnresolved),
        ..PLAIN
    },
    Case {
        description: "an interface that is gone",
        port: Way::Hole.port(),
        expect: Expect::Drop(DropReason::NoEgress),
        ..PLAIN
    },
    Case {
        description: "a slot that names an index beyond the map",
        port: Way::IndexBeyondMap.port(),
        expect: Expect::Drop(DropReason::BadMapEntry),
        ..PLAIN
    },
    Case {
        description: "a next hop that names an egress beyond the map",
        port: Way::EgressBeyondMap.port(),
        expect: Expect::Drop(DropReason::BadMapEntry),
        ..PLAIN
    },
    Case {
        description: "a region beyond the lookup map",
        port: Way::RegionBeyondMap.port(),
        expect: Expect::Drop(DropReason::BadMapEntry),
        ..PLAIN
    },
    Case {
        description: "a forwarding mode nobody knows",
        port: Way::UnknownForwarding.port(),
        expect: Expect::Drop(DropReason::BadMapEntry),
        ..PLAIN
    },
];

/// Record route, with room for two addresses, and an end.
fn record_route(packet: &mut Packet) {
    packet.options = vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
}

fn ip_header(packet: &Packet) -> u32 {
    if packet.source.is_ipv4() { 20 } else { 40 }
}

/// Makes the packet as long as `mtu` allows once it has its outer header.
fn fill_to(packet: &mut Packet, mtu: u32) {
    let ip_header = if packet.source.is_ipv4() { 20 } else { 40 };
    packet.payload = vec![0x5a; mtu as usize - 2 * ip_header - packet.protocol.header_len()];
}

fn protocol(frame: &mut [u8], l3: usize, number: u8) {
    if frame[l3] >> 4 == 4 {
        frame[l3 + 9] = number;
        seal_v4(&mut frame[l3..]);
    } else {
        frame[l3 + 6] = number;
    }
}

fn first_fragment(frame: &mut [u8], l3: usize) {
    flags(frame, l3, 0x2000);
}

fn flags(frame: &mut [u8], l3: usize, flags: u16) {
    frame[l3 + 6..l3 + 8].copy_from_slice(&flags.to_be_bytes());
    seal_v4(&mut frame[l3..]);
}

/// IPv4's total length, or IPv6's payload length.
fn set_len(frame: &mut [u8], l3: usize, len: u16) {
    let at = if frame[l3] >> 4 == 4 { 2 } else { 4 };
    frame[l3 + at..l3 + at + 2].copy_from_slice(&len.to_be_bytes());
}

/// Puts an extension header of eight bytes before the transport header.
fn extension(frame: &mut Vec<u8>, l3: usize, number: u8, word: u16) {
    let next = frame[l3 + 6];
    let [high, low] = word.to_be_bytes();
    frame.splice(l3 + 40..l3 + 40, [next, 0, high, low, 0, 0, 0, 0]);
    frame[l3 + 6] = number;
    let len = (frame.len() - l3 - 40) as u16;
    set_len(frame, l3, len);
}

//! IPv6 extension headers: walked, bounded, kept.

use anyhow::{Result, ensure};
use lb_common::abi::DropReason;
use lb_tests::model::{Protocol, Verdict};
use lb_tests::packet::World;
use lb_tests::packet::fixture::{Family, Host, Way, packet, world};
use lb_tests::packet::modes::Mode;
use lb_tests::packet::pieces::{self, AUTHENTICATION, DESTINATION, Extension, HOP_BY_HOP, LIKE_OPTIONS};
use lb_tests::require_root;

/// What becomes of a packet with these headers.
fn verdict(world: &mut World, host: Host, port: u16, headers: &[Extension]) -> Result<Verdict> {
    let packet = packet(Family::V6, Protocol::Tcp, host, port).with_tags(1);
    let mut frame = packet.build();
    pieces::extend(&mut frame, packet.l3(), headers);
    Ok(world.check(&frame)?.verdict)
}

const TOO_MUCH: Verdict = Verdict::Drop(DropReason::ExtensionHeader);

fn options(words: u8) -> Extension {
    Extension::options(DESTINATION, words)
}

#[test]
fn every_kind_of_header_is_walked_and_kept() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let mut chains: Vec<Vec<Extension>> = LIKE_OPTIONS.map(|kind| vec![Extension::options(kind, 2)]).into();
    chains.push(vec![Extension::options(HOP_BY_HOP, 1)]);
    chains.push(vec![options(3)]);
    chains.push(vec![Extension::routing(0)]);
    chains.push(vec![Extension::authentication()]);
    chains.push(vec![Extension::fragment(1, 0, false)]);
    // In the order in which RFC 8200 would have them.
    chains.push(vec![
        Extension::options(HOP_BY_HOP, 1),
        options(1),
        Extension::routing(0),
        Extension::fragment(1, 0, false),
        Extension::authentication(),
        options(1),
    ]);
    for chain in chains {
        for port in [Way::L2Dsr.port(), Way::IpipByFlow.port(), Mode::Gue.port(), Mode::GueMixed.port()] {
            let plain = verdict(&mut world, Host::Vip, port, &[])?;
            let Verdict::Transmit(plain) = plain else { anyhow::bail!("{plain:?}") };
            let walked = verdict(&mut world, Host::Vip, port, &chain)?;
            let Verdict::Transmit(walked) = walked else { anyhow::bail!("{chain:?}: {walked:?}") };
            // The same backend, and all headers still there.
            let bytes: usize = chain.iter().map(|header| 1 + header.rest.len()).sum();
            ensure!(walked[..12] == plain[..12] && walked.len() == plain.len() + bytes, "{chain:?}");
        }
    }
    world.audit()
}

#[test]
fn eight_headers_are_walked_and_nine_are_not() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for count in 1..=12 {
        let chain = vec![options(1); count];
        let found = verdict(&mut world, Host::Vip, Way::L2Dsr.port(), &chain)?;
        ensure!((found == TOO_MUCH) == (count > 8), "{count}: {found:?}");
    }
    world.audit()
}

#[test]
fn five_hundred_and_twelve_bytes_are_walked_and_eight_more_are_not() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for words in 1..=34 {
        for chain in [vec![options(30), options(words)], vec![options(15), options(15), options(words)]] {
            let bytes: usize = chain.iter().map(|header| 1 + header.rest.len()).sum();
            let found = verdict(&mut world, Host::Vip, Way::Ipip.port(), &chain)?;
            ensure!((found == TOO_MUCH) == (bytes > 512), "{bytes}: {found:?}");
        }
    }
    world.audit()
}

#[test]
fn a_path_that_is_not_at_its_end_says_another_destination() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for left in [1, 2, 255] {
        let chain = [options(1), Extension::routing(left)];
        ensure!(verdict(&mut world, Host::Vip, Way::L2Dsr.port(), &chain)? == TOO_MUCH);
        ensure!(verdict(&mut world, Host::NotVip, Way::L2Dsr.port(), &chain)? == Verdict::Pass);
    }
    world.audit()
}

/// A length that leads out of the packet, wherever that ends.
#[test]
fn headers_that_end_behind_the_packet_are_truncated() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for kind in [HOP_BY_HOP, DESTINATION, AUTHENTICATION, LIKE_OPTIONS[0]] {
        let packet = packet(Family::V6, Protocol::Udp, Host::Vip, Way::L2Dsr.port());
        let mut frame = packet.build();
        frame[packet.l3() + 6] = kind;
        // The ports are its next header and length, then.
        for len in [0, 1, 2, 3, 9, 50] {
            frame[packet.l4()] = DESTINATION;
            frame[packet.l4() + 1] = len;
            frame[packet.l4() + 2..].fill(DESTINATION);
            let found = world.check(&frame)?.verdict;
            let wanted = [DropReason::TruncatedHeader, DropReason::ExtensionHeader].map(Verdict::Drop);
            ensure!(wanted.contains(&found), "{kind} {len}: {found:?}");
        }
    }
    world.audit()
}

#[test]
fn what_follows_the_headers_may_be_nobodys_business() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    // ESP, no next header, SCTP, OSPF.
    for protocol in [50, 59, 132, 89] {
        let packet = packet(Family::V6, Protocol::Udp, Host::Vip, Way::L2Dsr.port());
        let mut frame = packet.build();
        frame[packet.l3() + 6] = protocol;
        pieces::extend(&mut frame, packet.l3(), &[options(1), options(2)]);
        ensure!(world.check(&frame)?.verdict == Verdict::Pass, "{protocol}");
    }
    world.audit()
}

/// The walk decides nothing before it is known that the packet is for a VIP.
#[test]
fn hostile_chains_for_others_pass() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for chain in [vec![options(1); 12], vec![options(32), options(32)], vec![Extension::routing(3)]] {
        ensure!(verdict(&mut world, Host::NotVip, Way::L2Dsr.port(), &chain)? == Verdict::Pass);
    }
    world.audit()
}

//! The egress program for health checks: what it carries leaves as a client's packet to that backend would.

use anyhow::{Context, Result, ensure};
use lb_common::abi::{DropReason, PROBE_SENT_TTL, PROBE_TTL, probe_mark};
use lb_tests::model::{Protocol, Verdict, decide};
use lb_tests::packet::fixture::{Family, Host, MTU, Way, packet, world};
use lb_tests::packet::modes::Mode;
use lb_tests::packet::{Classified, LIMITS, Packet, World, seal_v4};
use lb_tests::require_root;

const UNSPEC: i32 = -1;
const OK: i32 = 0;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

/// Services whose packets need no flow.
const WAYS: [Way; 6] =
    [Way::L2Dsr, Way::Ipip, Way::L2DsrByFlow, Way::IpipByFlow, Way::L2DsrElsewhere, Way::IpipElsewhere];
const MODES: [Mode; 8] = [
    Mode::Gue,
    Mode::GueByFlow,
    Mode::GueElsewhere,
    Mode::IpipMixed,
    Mode::GueMixed,
    Mode::GueSmall,
    Mode::IpipMixedSmall,
    Mode::L2DsrSmall,
];

fn ports() -> impl Iterator<Item = u16> {
    WAYS.into_iter().map(Way::port).chain(MODES.into_iter().map(Mode::port))
}

/// As a client sends it, and as a check's socket does.
fn pair(packet: Packet) -> [Vec<u8>; 2] {
    [PROBE_TTL, PROBE_SENT_TTL].map(|ttl| Packet { ttl, ..packet.clone() }.build())
}

/// The backend that a client's packet goes to.
fn backend_of(world: &World, frame: &[u8]) -> Result<u32> {
    let counted = decide(&world.state, frame).counted.context("nobody is counted for")?;
    Ok(counted.backend)
}

#[test]
fn a_probe_leaves_as_a_clients_packet_to_its_backend() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        for port in ports() {
            for protocol in Protocol::BOTH {
                for class in [0, 0xb9] {
                    let packet = Packet { traffic_class: class, ..packet(family, protocol, Host::Vip, port) };
                    let [client, probe] = pair(packet);
                    let what = format!("{family:?} {protocol:?} to port {port}, class {class:#x}");
                    let mark = probe_mark(backend_of(&world, &client)?);
                    let wanted = match world.check(&client)?.verdict {
                        Verdict::Transmit(frame) => Classified { code: OK, frame, mark: 0 },
                        Verdict::Redirect(frame) => Classified { code: REDIRECT, frame, mark: 0 },
                        other => anyhow::bail!("{what}: {other:?}"),
                    };
                    let left = world.run_probe(&probe, mark, 0)?;
                    ensure!(left == wanted, "{what}:\n{left:x?}\ninstead of\n{wanted:x?}");
                }
            }
        }
    }
    // Probes are nobody's traffic.
    world.audit()
}

/// Echo requests are no traffic of a service, and are carried all the same: to the VIP by an outer header, say.
#[test]
fn an_echo_request_is_carried_as_well() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for family in Family::BOTH {
        for (port, overhead) in
            [(Way::L2Dsr.port(), 0), (Way::Ipip.port(), if family == Family::V4 { 20 } else { 40 })]
        {
            let [client, mut probe] = pair(packet(family, Protocol::Udp, Host::Vip, port));
            let mark = probe_mark(backend_of(&world, &client)?);
            let (at, protocol) = if family == Family::V4 { (14 + 9, 1) } else { (14 + 6, 58) };
            probe[at] = protocol;
            if family == Family::V4 {
                seal_v4(&mut probe[14..]);
            }
            let left = world.run_probe(&probe, mark, 0)?;
            ensure!(left.code == OK, "{left:x?}");
            ensure!(left.frame.len() == probe.len() + overhead, "{left:x?}");
            ensure!(left.frame[overhead + at] == protocol, "{left:x?}");
        }
    }
    Ok(())
}

/// The TTL is put right whatever it was, and the checksum with it.
#[test]
fn header_checksums_are_right_for_every_value() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    let plain = packet(Family::V4, Protocol::Tcp, Host::Vip, Way::L2Dsr.port());
    let mark = probe_mark(backend_of(&world, &plain.build())?);
    for identification in (0..=u16::MAX).step_by(7) {
        for ttl in [PROBE_SENT_TTL, PROBE_TTL, 255] {
            let sent = Packet { ttl, identification, payload: Vec::new(), ..plain.clone() };
            let left = world.run_probe(&sent.build(), mark, 0)?;
            let wanted = Packet { ttl: PROBE_TTL, ..sent };
            ensure!(left.frame[14..] == wanted.ip()[..], "{identification:#x}, TTL {ttl}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_probe_of_this_backend_goes_on_as_it_came() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    for family in Family::BOTH {
        let to_vip = packet(family, Protocol::Tcp, Host::Vip, Way::L2Dsr.port());
        let own = backend_of(&world, &to_vip.build())?;
        let beyond = probe_mark(0xf_ffff);
        let elsewhere = packet(family, Protocol::Tcp, Host::NotVip, Way::L2Dsr.port());
        let with_options = match family {
            Family::V4 => Packet { options: vec![1; 4], ..to_vip.clone() },
            Family::V6 => to_vip.clone().with_tags(1),
        };
        let mut other_protocol = to_vip.build();
        other_protocol[if family == Family::V4 { 23 } else { 20 }] = 47;
        let mut short = to_vip.build();
        short.truncate(to_vip.l4() + 19);
        for (what, frame, mark) in [
            ("no mark", to_vip.build(), 0),
            ("another mark", to_vip.build(), 0xba40_0000 | own),
            ("no index", to_vip.build(), probe_mark(0)),
            ("an index beyond the map", to_vip.build(), beyond),
            ("another VIP", elsewhere.build(), probe_mark(own)),
            ("IP options or a tag", with_options.build(), probe_mark(own)),
            ("another protocol", other_protocol, probe_mark(own)),
            ("a piece", short, probe_mark(own)),
        ] {
            let left = world.run_probe(&frame, mark, 0)?;
            ensure!(left == Classified { code: UNSPEC, frame, mark }, "{family:?}, {what}: {left:x?}");
        }
        ensure!(world.probe_met(own) == 0, "{family:?}: none of them was a probe");
        // A backend that is not there any more.
        world.change_backend(own, |backend| backend.accepts_new_flows = false)?;
        world.dataplane().store_backend_state(own, 0)?;
        let left = world.run_probe(&to_vip.build(), probe_mark(own), 0)?;
        ensure!(left.code == UNSPEC, "{left:x?}");
    }
    Ok(())
}

#[test]
fn what_could_not_be_forwarded_is_dropped() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for family in Family::BOTH {
        for (port, payload, reason) in [
            (Way::Unresolved.port(), 1, DropReason::NextHopUnresolved),
            (Way::Ipip.port(), MTU as usize - 40, DropReason::PacketTooBig),
            (Way::SmallMtu.port(), 980, DropReason::PacketTooBig),
            (Mode::GueSmall.port(), 980, DropReason::PacketTooBig),
        ] {
            let packet = packet(family, Protocol::Udp, Host::Vip, port);
            let [client, probe] = pair(Packet { payload: vec![7; payload], ..packet });
            let verdict = decide(&world.state, &client).verdict;
            let is_too_big = matches!(verdict, Verdict::Transmit(_)) && reason == DropReason::PacketTooBig;
            ensure!(is_too_big || verdict == Verdict::Drop(reason), "port {port}: {verdict:?}");
            for index in backends_of(&world, Host::Vip, family, Protocol::Udp, port) {
                let code = world.run_probe(&probe, probe_mark(index), 0)?.code;
                ensure!(code == SHOT, "{family:?}, port {port}: {code}");
                ensure!(
                    world.probe_met(index) > 0,
                    "{family:?}, port {port}: it came here and is its backend's fault"
                );
            }
        }
    }
    Ok(())
}

/// The daemon has to know a probe that was carried from one that somebody else took.
#[test]
fn each_probe_that_is_met_leaves_another_stamp_on_its_backend_and_on_no_other() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for (family, way) in Family::BOTH.into_iter().flat_map(|family| WAYS.map(|way| (family, way))) {
        let [client, probe] = pair(packet(family, Protocol::Tcp, Host::Vip, way.port()));
        let own = backend_of(&world, &client)?;
        let others =
            || (0..LIMITS.backends).filter(|index| *index != own).map(|index| world.probe_met(index));
        let mut last = world.probe_met(own);
        let before: Vec<_> = others().collect();
        for _ in 0..3 {
            world.run_probe(&probe, probe_mark(own), 0)?;
            let met = world.probe_met(own);
            ensure!(met > last, "{family:?}, {way:?}: {met} after {last}");
            last = met;
        }
        ensure!(others().eq(before), "{family:?}, {way:?}: another backend's stamp has changed");
    }
    Ok(())
}

/// Of a large packet that the interface will cut into segments, those have to fit.
#[test]
fn segments_have_to_fit_and_not_what_they_are_cut_from() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for family in Family::BOTH {
        let packet = packet(family, Protocol::Tcp, Host::Vip, Way::L2Dsr.port());
        let [client, _] = pair(packet.clone());
        let mark = probe_mark(backend_of(&world, &client)?);
        let [_, probe] = pair(Packet { payload: vec![7; 3000], ..packet });
        let headers = if family == Family::V4 { 40 } else { 60 };
        let fits = MTU - headers;
        for (gso_size, code) in [(0, SHOT), (fits, OK), (fits + 1, SHOT)] {
            let left = world.run_probe(&probe, mark, gso_size)?;
            ensure!(left.code == code, "{family:?}, segments of {gso_size}: {}", left.code);
        }
    }
    Ok(())
}

/// A backend that takes no flows is checked: else it could never come back.
#[test]
fn a_backend_that_takes_no_flows_is_reached() -> Result<()> {
    require_root!(Ok(()));
    let world = world()?;
    for family in Family::BOTH {
        let [_, probe] = pair(packet(family, Protocol::Tcp, Host::Vip, Way::Disabled.port()));
        for index in backends_of(&world, Host::Vip, family, Protocol::Tcp, Way::Disabled.port()) {
            let left = world.run_probe(&probe, probe_mark(index), 0)?;
            ensure!(left.code == OK && left.mark == 0, "{left:x?}");
        }
    }
    Ok(())
}

fn backends_of(world: &World, host: Host, family: Family, protocol: Protocol, port: u16) -> Vec<u32> {
    let is_it = |service: &&lb_tests::model::Service| {
        (service.address, service.protocol, service.port) == (host.address(family), protocol, Some(port))
    };
    let number = world.state.services.iter().find(is_it).map(|service| service.number);
    let backends = world.state.backends.iter().filter(|(_, backend)| Some(backend.service) == number);
    backends.map(|(index, _)| *index).collect()
}

//! The interfaces that clients' packets arrive on.

use std::{collections::BTreeSet, io};

use super::super::{
    check::Check,
    collect::{
        ethtool::{Ethtool, Queues},
        xdp_features::{self, BASIC, SENDS_REDIRECTED, SEVERAL_BUFFERS},
    },
    finding::Finding,
    setup::Setup,
};
use crate::{
    dataplane::inspect::{self, Pinned, Running},
    domain::XdpMode,
    neighbour::{Interface, Survey},
};

pub(in super::super) fn all(setup: &Setup, survey: &Survey, pinned: &Result<Pinned, String>) -> Vec<Finding> {
    let ethtool = Ethtool::new();
    let mut findings = Vec::new();
    for name in &setup.interfaces {
        let known = survey.interfaces.values().map(|interface| interface.name.as_str());
        let Some((index, interface)) = survey.named(name) else {
            findings.push(missing(name, known));
            continue;
        };
        findings.push(interface_itself(
            name,
            interface,
            &survey.interfaces.get(&interface.master.unwrap_or(0)).cloned(),
        ));
        let running = inspect::running(index);
        findings.push(program(name, index, running.as_ref().map(|found| *found), pinned));
        let features = xdp_features::of(index);
        let driver = ethtool.as_ref().ok().and_then(|ethtool| ethtool.driver(name).ok());
        let mode = match running {
            Ok(Some(Running { mode: "generic", .. })) => XdpMode::Generic,
            _ => setup.mode,
        };
        let xdp = features.as_ref().map(|features| *features);
        findings.push(native(name, interface, driver.as_deref(), mode, xdp));
        findings.push(mtu(name, interface, mode, xdp.ok().flatten()));
        let Ok(ethtool) = &ethtool else { continue };
        findings.push(match ethtool.queues(name) {
            Ok(found) => queues(name, interface, found, cpus()),
            Err(error) => Finding::skipped(Check::Queues, name, error.to_string()),
        });
        let has_vlans = survey
            .interfaces
            .values()
            .any(|above| above.lower == Some(index) && above.kind.as_deref() == Some("vlan"));
        findings.push(match ethtool.features(name) {
            Ok(on) => {
                let runs = matches!(running, Ok(Some(Running { mode: "native", .. })));
                offloads(name, &on, driver.as_deref(), mode, runs, has_vlans)
            }
            Err(error) => Finding::skipped(Check::Offloads, name, error.to_string()),
        });
    }
    findings
}

fn missing<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Finding {
    let known: Vec<_> = known.into_iter().collect();
    Finding::problem(
        Check::Interface,
        name,
        format!("there is no interface {name}; there are: {}", known.join(", ")),
    )
    .run(["ip -brief link"])
    .advise("name the interfaces that clients' packets arrive on in `interfaces` of [daemon]")
}

fn interface_itself(name: &str, interface: &Interface, master: &Option<Interface>) -> Finding {
    let of = |message: String| Finding::problem(Check::Interface, name, message);
    if !interface.up {
        return of(format!("{name} is down")).run([format!("ip link set {name} up")]);
    }
    if !interface.carrier {
        return of(format!("{name} is up and has no carrier")).advise(
            "look at the cable, the switch's port and its speed: `ethtool` tells what the card sees",
        );
    }
    if interface.mac.is_none() {
        return of(format!(
            "{name} has no Ethernet frames (it is {}), which the program looks for",
            interface.kind.as_deref().unwrap_or("of another kind")
        ))
        .advise("name the Ethernet interface that carries it");
    }
    let kind = interface.kind.as_deref();
    if let Some(kind @ ("vlan" | "macvlan" | "ipvlan" | "bridge")) = kind {
        return Finding::warning(
            Check::Interface,
            name,
            format!("{name} is a {kind}: XDP runs there in generic mode only, and can't send by it"),
        )
        .advise("name the network card below it; VLAN tags are kept");
    }
    match master {
        Some(master) if master.kind.as_deref() == Some("bond") => Finding::warning(
            Check::Interface,
            name,
            format!("{name} is a port of the bond {}: what the program sends back leaves by the same port, whatever the bond would choose", master.name),
        )
        .advise(format!("name {} itself: the bond's driver runs the program on all its ports", master.name)),
        _ => Finding::ok(Check::Interface, name, "up, with carrier"),
    }
}

fn program(
    name: &str,
    index: u32,
    running: Result<Option<Running>, &io::Error>,
    pinned: &Result<Pinned, String>,
) -> Finding {
    let running = match running {
        Ok(Some(running)) => running,
        Ok(None) => return Finding::ok(Check::Program, name, "no XDP program is in the way"),
        Err(error) => return Finding::skipped(Check::Program, name, error.to_string()),
    };
    let pinned = match pinned {
        Ok(pinned) => pinned,
        Err(error) => {
            let why = format!(
                "{name} runs XDP program id {}; whether it is Ballast's can't be told: {error}",
                running.program
            );
            return Finding::skipped(Check::Program, name, why);
        }
    };
    let Running { program, mode } = running;
    let is_own = |own: &inspect::PinnedProgram| own.ifindex == index && own.program == program;
    if pinned.programs.iter().any(is_own) {
        return Finding::ok(Check::Program, name, format!("Ballast's, in {mode} mode"));
    }
    let off = match mode {
        "generic" => "xdpgeneric",
        "offloaded" => "xdpoffload",
        "native" => "xdpdrv",
        _ => "xdp",
    };
    Finding::problem(
        Check::Program,
        name,
        format!("{name} runs XDP program id {program} ({mode}), which is not this Ballast's: an attachment is refused"),
    )
    .run([format!("bpftool prog show id {program}"), format!("ip link set dev {name} {off} off")])
    .advise(
        "the second command takes it off; where that is refused a link holds it: end the program that made it, or remove the link's \
         pin (`bpftool link show`). Another Ballast has another pin_dir: `ballast detach --pin-dir` there. libxdp's dispatcher: \
         `xdp-loader unload`",
    )
}

/// `features`: what the kernel says of the driver; `None` before 6.3.
fn native(
    name: &str,
    interface: &Interface,
    driver: Option<&str>,
    mode: XdpMode,
    features: Result<Option<u64>, &io::Error>,
) -> Finding {
    let what = driver.unwrap_or("unknown");
    if mode == XdpMode::Generic {
        return Finding::ok(Check::Xdp, name, format!("driver {what}, generic mode as it was asked for"));
    }
    let features = match features {
        Ok(features) => features,
        Err(error) => return Finding::skipped(Check::Xdp, name, error.to_string()),
    };
    let lacks = match features {
        Some(features) => features & BASIC == 0,
        None => !driver.is_some_and(|driver| KNOWN_DRIVERS.contains(&driver)),
    };
    let generic = "`xdp_mode = \"generic\"` in [daemon] works with every driver, several times slower";
    match (lacks, features) {
        (true, None) => Finding::skipped(
            Check::Xdp,
            name,
            format!("this kernel does not say what driver {what} can do (6.3 does), and it is none of those known for native XDP"),
        ),
        (true, Some(_)) if mode == XdpMode::Native => Finding::problem(
            Check::Xdp,
            name,
            format!("driver {what} has no native XDP as it is set up, and `xdp_mode` is \"native\": a start is refused"),
        )
        .advise(generic),
        (true, Some(_)) => Finding::warning(
            Check::Xdp,
            name,
            format!("driver {what} has no native XDP as it is set up: the program will run in generic mode, several times slower"),
        )
        .advise("another driver or card; `xdp_mode = \"generic\"` in [daemon] says that it is meant"),
        (false, Some(features)) if driver == Some("veth") && features & SENDS_REDIRECTED == 0 => Finding::warning(
            Check::Xdp,
            name,
            format!("{name} is a veth whose other end runs no XDP program: frames that are sent back by XDP get lost there"),
        )
        .advise("attach a program that passes everything to the other end; or `xdp_mode = \"generic\"` in [daemon]"),
        (false, _) => {
            let virtual_kind = interface.kind.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default();
            Finding::ok(Check::Xdp, name, format!("driver {what}{virtual_kind} has native XDP"))
        }
    }
}

fn mtu(name: &str, interface: &Interface, mode: XdpMode, features: Option<u64>) -> Finding {
    let mtu = interface.mtu;
    let takes_more =
        features.is_none_or(|features| features & SEVERAL_BUFFERS != 0) && inspect::takes_multi_buffer();
    match mtu_verdict(mtu, mode, takes_more) {
        true => Finding::ok(Check::InterfaceMtu, name, format!("{mtu} bytes")),
        false => {
            let message = format!(
                "an MTU of {mtu} bytes is more than native XDP takes here, about {PAGE}, for want of frames of several buffers"
            );
            let finding = match mode {
                XdpMode::Native => Finding::problem(Check::InterfaceMtu, name, message),
                _ => Finding::warning(Check::InterfaceMtu, name, message),
            };
            finding
                .run([format!("ip link set dev {name} mtu {PAGE}")])
                .advise("or a kernel (5.18) and a driver that have them")
        }
    }
}

fn mtu_verdict(mtu: u32, mode: XdpMode, several_buffers: bool) -> bool {
    mode == XdpMode::Generic || several_buffers || mtu <= PAGE
}

fn queues(name: &str, interface: &Interface, queues: Option<Queues>, cpus: u64) -> Finding {
    match queues {
        // What a virtual interface could have is a number without a card behind it.
        Some(Queues { on, most, combined })
            if interface.kind.is_none() && u64::from(on) < cpus && on < most =>
        {
            let wanted = u64::from(most).min(cpus);
            Finding::warning(
                Check::Queues,
                name,
                format!(
                    "{on} of {most} receive queues are on, and there are {cpus} CPUs: so many do all the work"
                ),
            )
            .run([format!("ethtool -L {name} {} {wanted}", if combined { "combined" } else { "rx" })])
            .advise("some drivers take the link down for a moment")
        }
        Some(Queues { on, .. }) => Finding::ok(Check::Queues, name, format!("{on} receive queues")),
        None => Finding::ok(Check::Queues, name, "the driver has no settings for them"),
    }
}

/// `runs`: whether a program runs there natively. A driver that took one has seen to it that nothing is merged.
fn offloads(
    name: &str,
    on: &BTreeSet<String>,
    driver: Option<&str>,
    mode: XdpMode,
    runs: bool,
    has_vlans: bool,
) -> Finding {
    let is_on = |feature: &str| on.contains(feature);
    if is_on("rx-lro") && !runs {
        return Finding::problem(
            Check::Offloads,
            name,
            "LRO is on: the card merges frames, and drivers refuse XDP or hand over what no egress takes",
        )
        .run([format!("ethtool -K {name} lro off")]);
    }
    // virtio_net turns it off for XDP by itself, and goes on saying that it is on.
    if is_on("rx-gro-hw") && !runs && driver != Some("virtio_net") {
        return Finding::warning(
            Check::Offloads,
            name,
            "hardware GRO is on: the card merges frames, and drivers may refuse XDP for it",
        )
        .run([format!("ethtool -K {name} rx-gro-hw off")]);
    }
    if mode == XdpMode::Generic && is_on("rx-gro") {
        return Finding::warning(
            Check::Offloads,
            name,
            "GRO is on, and the program runs in generic mode: merged packets are larger than the MTU",
        )
        .run([format!("ethtool -K {name} gro off")]);
    }
    if has_vlans && is_on("rx-vlan-hw-parse") {
        return Finding::warning(
            Check::Offloads,
            name,
            "the card takes VLAN tags off, and there are VLANs on it: the program can't see the tags, and answers leave without",
        )
        .run([format!("ethtool -K {name} rxvlan off txvlan off")]);
    }
    Finding::ok(Check::Offloads, name, "none that is in XDP's way")
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// With native XDP in Linux 6.2, which did not say so itself.
const KNOWN_DRIVERS: [&str; 26] = [
    "atlantic",
    "bnxt_en",
    "bond",
    "dpaa2-eth",
    "ena",
    "fec",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "qede",
    "sfc",
    "stmmac",
    "tun",
    "veth",
    "virtio_net",
];
/// What fits into one page with what XDP and the kernel need around it.
const PAGE: u32 = 3498;

#[cfg(test)]
mod tests {
    use super::{
        super::{super::finding::Severity, commands},
        *,
    };

    fn card() -> Interface {
        Interface {
            name: "eth0".into(),
            mac: Some([2; 6]),
            mtu: 1500,
            up: true,
            carrier: true,
            ..Interface::default()
        }
    }

    #[test]
    fn an_interface_is_up_with_carrier_and_no_device_on_top_of_others() {
        let of = |interface: Interface, master| interface_itself("eth0", &interface, &master);
        assert_eq!(of(card(), None).severity, Severity::Ok);
        assert_eq!(commands(&of(Interface { up: false, ..card() }, None)), ["ip link set eth0 up"]);
        assert_eq!(of(Interface { carrier: false, ..card() }, None).severity, Severity::Problem);
        assert_eq!(of(Interface { mac: None, ..card() }, None).severity, Severity::Problem);
        for kind in ["vlan", "macvlan", "bridge"] {
            assert_eq!(of(Interface { kind: Some(kind.into()), ..card() }, None).severity, Severity::Warning);
        }
        let bond = Interface { kind: Some("bond".into()), ..card() };
        assert_eq!(of(bond.clone(), None).severity, Severity::Ok);
        assert_eq!(of(card(), Some(bond)).severity, Severity::Warning);
    }

    #[test]
    fn somebody_elses_program_is_in_the_way() {
        let own = inspect::PinnedProgram { ifindex: 3, program: 7 };
        let pinned = Ok(Pinned { programs: vec![own], ..Pinned::default() });
        let running = |program| Ok(Some(Running { program, mode: "native" }));
        assert_eq!(program("eth0", 3, Ok(None), &pinned).severity, Severity::Ok);
        assert_eq!(program("eth0", 3, running(7), &pinned).severity, Severity::Ok);
        let foreign = program("eth0", 3, running(8), &pinned);
        assert_eq!(foreign.severity, Severity::Problem);
        assert_eq!(commands(&foreign)[1], "ip link set dev eth0 xdpdrv off");
        assert_eq!(program("eth0", 4, running(7), &pinned).severity, Severity::Problem);
        assert_eq!(program("eth0", 3, running(7), &Err("no".into())).severity, Severity::Skipped);
    }

    #[test]
    fn native_xdp_is_what_the_kernel_says_or_the_driver_is_known_for() {
        let of = |driver, mode, features| native("eth0", &card(), Some(driver), mode, Ok(features)).severity;
        assert_eq!(of("ice", XdpMode::Auto, Some(BASIC | SENDS_REDIRECTED)), Severity::Ok);
        assert_eq!(of("ice", XdpMode::Auto, None), Severity::Ok);
        assert_eq!(of("r8169", XdpMode::Auto, None), Severity::Skipped);
        assert_eq!(of("r8169", XdpMode::Auto, Some(0)), Severity::Warning);
        assert_eq!(of("r8169", XdpMode::Native, Some(0)), Severity::Problem);
        assert_eq!(of("r8169", XdpMode::Generic, Some(0)), Severity::Ok);
        assert_eq!(of("veth", XdpMode::Auto, Some(BASIC)), Severity::Warning);
        assert_eq!(of("veth", XdpMode::Auto, Some(BASIC | SENDS_REDIRECTED)), Severity::Ok);
    }

    #[test]
    fn jumbo_frames_take_several_buffers() {
        assert!(mtu_verdict(1500, XdpMode::Native, false));
        assert!(!mtu_verdict(9000, XdpMode::Native, false));
        assert!(mtu_verdict(9000, XdpMode::Native, true));
        assert!(mtu_verdict(9000, XdpMode::Generic, false));
    }

    #[test]
    fn queues_that_are_off_are_told_of_cards_only() {
        let found = |on, most| Some(Queues { on, most, combined: true });
        assert_eq!(commands(&queues("eth0", &card(), found(1, 16), 8)), ["ethtool -L eth0 combined 8"]);
        assert_eq!(queues("eth0", &card(), found(8, 16), 8).severity, Severity::Ok);
        assert_eq!(queues("eth0", &card(), found(1, 1), 8).severity, Severity::Ok);
        assert_eq!(queues("eth0", &card(), None, 8).severity, Severity::Ok);
        let veth = Interface { kind: Some("veth".into()), ..card() };
        assert_eq!(queues("eth0", &veth, found(1, 16), 8).severity, Severity::Ok);
    }

    #[test]
    fn offloads_that_merge_or_strip_are_told() {
        let of = |feature: &str, mode, vlans| {
            offloads("eth0", &[feature.to_owned()].into(), Some("ice"), mode, false, vlans)
        };
        for (driver, runs) in [("ice", true), ("virtio_net", false)] {
            let on = ["rx-gro-hw".to_owned()].into();
            let found = offloads("eth0", &on, Some(driver), XdpMode::Auto, runs, false);
            assert_eq!(found.severity, Severity::Ok, "{driver}");
        }
        assert_eq!(commands(&of("rx-lro", XdpMode::Auto, false)), ["ethtool -K eth0 lro off"]);
        assert_eq!(of("rx-lro", XdpMode::Auto, false).severity, Severity::Problem);
        assert_eq!(commands(&of("rx-gro-hw", XdpMode::Auto, false)), ["ethtool -K eth0 rx-gro-hw off"]);
        assert_eq!(of("rx-gro", XdpMode::Auto, false).severity, Severity::Ok);
        assert_eq!(commands(&of("rx-gro", XdpMode::Generic, false)), ["ethtool -K eth0 gro off"]);
        assert_eq!(of("rx-vlan-hw-parse", XdpMode::Auto, false).severity, Severity::Ok);
        assert_eq!(of("rx-vlan-hw-parse", XdpMode::Auto, true).severity, Severity::Warning);
    }
}

//! A host that is set up wrongly.

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Mode, VIP_V4, VIP_V6, require_root};

use super::examined::{Examined, servers, services};

/// For what is not about the network: nobody has to be waited for.
const NO_PROBES: [&str; 1] = ["--no-probes"];

/// An interface that is not there, an MTU that is too small, a metrics address that is taken, and ports that are shared.
#[test]
fn what_the_file_asks_of_the_host_is_compared_with_it() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Ipip.lab().backends(1).build()?;
    let _servers = servers(&lab, &[80, 81, 8082])?;
    let balancer = lab.balancer(0);
    let _taken = balancer.enter(|| Ok(TcpListener::bind(("127.0.0.1", 9640))?))?;
    balancer.ip("a usual MTU", ["link set eth0 mtu 1500"])?;
    let unanswered: IpAddr = {
        let [a, b, ..] = balancer.ipv4().octets();
        IpAddr::from([a, b, 201, 201])
    };
    let config = format!(
        "[daemon]\ninterfaces = [\"eth0\", \"eth9\"]\nstate_dir = \"{{state_dir}}\"\npin_dir = \"{{pin_dir}}\"\nsocket = \
         \"{{socket}}\"\n[nat]\nports = \"50000-51000\"\naddresses = [\"{}\", \"{unanswered}\"]\n{}{}{}",
        balancer.ipv4(),
        services(Mode::Ipip, 80, lab.backends()),
        services(Mode::GueMixed, 81, lab.backends()),
        services(Mode::Nat, 82, lab.backends()),
    );
    let daemon = Daemon::new(&lab, 0, &config)?;
    let examined = Examined::of(&daemon)?;
    let address = unanswered.to_string();
    let too_small = [
        "warning mtu ipip-4-80/backend0",
        "warning mtu ipip-6-80/backend0",
        "warning mtu gue-4-81/backend0",
        "warning mtu gue-6-81/backend0",
    ];
    let others = ["problem interface eth9", "problem metrics host"];
    let nat = ["warning nat-ports host".to_owned(), format!("problem nat-addresses {address}")];
    let all: Vec<_> = too_small.into_iter().chain(others).chain(nat.iter().map(String::as_str)).collect();
    examined.expect(&all)?;
    examined.says("interface", "eth9", "there is no interface eth9")?;
    examined.says("metrics", "host", "somebody else listens on 127.0.0.1:9640")?;
    examined.says("mtu", "ipip-4-80/backend0", "more than the 1500 of the way over eth0")?;

    for (check, subject) in
        [("nat-ports", "host"), ("nat-addresses", address.as_str()), ("mtu", "ipip-4-80/backend0")]
    {
        examined.mend(&lab, check, subject)?;
    }
    Examined::of(&daemon)?.expect(&others)
}

/// Without a BPF file system, in a mount namespace of its own, where the fix mounts one.
#[test]
fn a_missing_bpf_file_system_is_found_and_mounted() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::L2Dsr.lab().backends(1).build()?;
    let _servers = servers(&lab, &[80])?;
    let elsewhere = lab.directory().join("bpf");
    let config = format!(
        "[daemon]\ninterfaces = {{interfaces}}\nstate_dir = \"{{state_dir}}\"\nsocket = \"{{socket}}\"\npin_dir = \"{}\"\n{}",
        elsewhere.join("pins").display(),
        services(Mode::L2Dsr, 80, lab.backends()),
    );
    let daemon = Daemon::new(&lab, 0, &config)?;
    let examined = Examined::with(&daemon, &NO_PROBES)?;
    examined.expect(&["warning bpffs host"])?;
    examined.says("bpffs", "host", "no BPF file system is mounted")?;
    let commands = examined.find("bpffs", "host")?["fix"]["commands"].as_array().context("commands")?;
    let lines: Vec<_> = commands.iter().filter_map(|command| command.as_str()).collect();
    let binary = daemon.binary().display();
    let script = format!(
        "{} && exec {binary} --socket {} doctor -o json --no-probes --config {}",
        lines.join(" && "),
        daemon.files().socket.display(),
        daemon.files().config.display()
    );
    let output = lab.balancer(0).output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))?;
    Examined::read(&output)?.expect(&[])?;

    // Where there are files nobody mounts anything over them.
    fs::create_dir_all(&elsewhere)?;
    fs::write(elsewhere.join("file"), "")?;
    Examined::with(&daemon, &NO_PROBES)?.expect(&["problem bpffs host"])
}

/// What backends answer comes in by another interface than the host would send to them by.
#[test]
fn a_strict_reverse_path_filter_is_found_and_loosened() -> Result<()> {
    require_root!(Ok(()));
    let lab = lb_tests::lab::Lab::builder().two_armed().plain_backends().backends(1).build()?;
    let _servers = servers(&lab, &[8080])?;
    lab.switch().ip(
        "make it one network",
        [
            "link add one mtu 1600 type veth peer name other mtu 1600",
            "link set one up master front",
            "link set other up master back",
        ],
    )?;
    let (balancer, backend) = (lab.balancer(0), lab.backend(0));
    // As interfaces of VLANs are called.
    let rename = ["link set eth1 down", "link set eth1 name eth1.7", "link set eth1.7 up"];
    balancer.ip("have a dot in its name", rename)?;
    let front = balancer.ipv4();
    let route = format!("route replace {}/32 dev eth0 src {front}", backend.ipv4());
    balancer.ip("lead the way there over the other interface", [route])?;
    let to = SocketAddr::new(VIP_V4, 80);
    let config = format!(
        "[daemon]\ninterfaces = [\"eth0\", \"eth1.7\"]\nstate_dir = \"{{state_dir}}\"\npin_dir = \"{{pin_dir}}\"\nsocket = \
         \"{{socket}}\"\n{}",
        Mode::Dnat.service("web", to, "tcp", [backend]).toml()
    );
    let daemon = Daemon::new(&lab, 0, &config)?;
    Examined::of(&daemon)?.expect(&[])?;
    balancer.run("sysctl", ["-w", "net/ipv4/conf/eth1.7/rp_filter=1"])?;
    let examined = Examined::of(&daemon)?;
    examined.expect(&["problem rp-filter eth1.7"])?;
    examined.says("rp-filter", "eth1.7", "come in by eth1.7, this host's route back leaves by eth0")?;
    examined.mend(&lab, "rp-filter", "eth1.7")?;
    Examined::of(&daemon)?.expect(&[])
}

/// Wherever on this host it is, and as part of whichever network.
#[test]
fn a_vip_that_is_this_hosts_own_is_taken_away() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::L2Dsr.lab().backends(1).build()?;
    let _servers = servers(&lab, &[80])?;
    let daemon = Daemon::new(&lab, 0, &services(Mode::L2Dsr, 0, lab.backends()))?;
    Examined::with(&daemon, &NO_PROBES)?.expect(&[])?;
    let here =
        [format!("address add {VIP_V4}/24 dev eth0"), format!("address add {VIP_V6}/64 dev eth0 nodad")];
    lab.balancer(0).ip("have the VIPs itself", here)?;
    let examined = Examined::with(&daemon, &NO_PROBES)?;
    examined.expect(&["problem vip l2-dsr-4-0", "problem vip l2-dsr-6-0"])?;
    examined.says("vip", "l2-dsr-4-0", "is an address of this host")?;
    examined.mend(&lab, "vip", "l2-dsr-4-0")?;
    examined.mend(&lab, "vip", "l2-dsr-6-0")?;
    Examined::with(&daemon, &NO_PROBES)?.expect(&[])
}

/// The daemon that runs, and the file that it does not.
#[test]
fn a_file_that_is_not_what_runs_and_one_that_is_wrong_are_told() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::L2Dsr.lab().backends(2).build()?;
    let config = services(Mode::L2Dsr, 80, lab.backends());
    let mut daemon = Daemon::start(&lab, 0, &config)?;
    daemon.write_config(&(config.clone() + &services(Mode::L2Dsr, 81, lab.backends())))?;
    let examined = Examined::with(&daemon, &NO_PROBES)?;
    examined.expect(&["warning current host"])?;
    daemon.reload()?;
    Examined::with(&daemon, &NO_PROBES)?.expect(&[])?;
    daemon.write_config("[daemon]\ninterfaces = 7\n")?;
    let examined = Examined::with(&daemon, &NO_PROBES)?;
    examined.expect(&["problem config host"])?;
    examined.says("config", "host", "interfaces")?;
    daemon.write_config(&config)?;
    daemon.kill9()?;
    let examined = Examined::with(&daemon, &NO_PROBES)?;
    examined.expect(&["warning daemon host"])
}

/// Whether a frame at a backend is a question of the doctor's: no daemon runs, and so what else the load balancer sends is the
/// kernel's own, which resolves neighbours from its own addresses, looks for routers and joins groups.
fn is_probe(lab: &Lab, frame: &[u8]) -> bool {
    let Some((macs, rest)) = frame.split_at_checked(12) else { return false };
    if !macs.ends_with(&lab.balancer(0).first_leg().mac) {
        return false;
    }
    match *rest {
        // ARP: sender's address.
        [8, 6, ..] => rest.get(16..20) == Some(&[0; 4][..]),
        [8, 0, ..] => true,
        [0x86, 0xdd, _, _, _, _, _, _, next, ..] => {
            let (source, kind) = (rest.get(10..26), rest.get(42));
            match next {
                // Joins a group.
                0 => false,
                // Echo requests, and neighbour solicitations from nobody.
                58 => kind == Some(&128) || kind == Some(&135) && source == Some(&[0; 16][..]),
                _ => true,
            }
        }
        _ => false,
    }
}

/// Whoever has no rights, or wants no packets sent, is told what was left out, and nothing that is not so.
#[test]
fn what_could_not_be_looked_at_is_skipped_and_said() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::L2Dsr.lab().backends(1).build()?;
    let server = servers(&lab, &[80])?;
    let config = services(Mode::L2Dsr, 80, lab.backends());
    let daemon = Daemon::with_binary(&lab, 0, &config, Daemon::binary_for_everybody(&lab)?)?;
    let capture = lab.backend(0).capture("eth0")?;
    let examined = Examined::with(&daemon, &NO_PROBES)?;
    examined.expect(&[])?;
    let vip = VIP_V4.to_string();
    ensure!(examined.find("vip-answers", &vip)?["severity"] == "skipped", "not asked");
    ensure!(examined.find("reachable", "l2-dsr-4-80/backend0")?["severity"] == "skipped", "not asked");
    examined.says("reachable", "l2-dsr-4-80/backend0", "--no-probes")?;
    let frames = capture.stop()?;
    let probes: Vec<_> = frames.iter().filter(|frame| is_probe(&lab, &frame.bytes)).collect();
    ensure!(probes.is_empty(), "{probes:?}");
    // The same look finds them where there are some.
    let capture = lab.backend(0).capture("eth0")?;
    Examined::of(&daemon)?.expect(&[])?;
    let frames = capture.stop()?;
    ensure!(frames.iter().any(|frame| is_probe(&lab, &frame.bytes)), "{frames:?}");

    fs::set_permissions(lab.directory(), Permissions::from_mode(0o755))?;
    let file = daemon.files().config.display().to_string();
    let words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let examined = Examined::read(&daemon.cli_through(words, ["doctor", "-o", "json", "--config", &file])?)?;
    examined.expect(&[])?;
    ensure!(examined.find("rights", "host")?["severity"] == "skipped", "no rights");
    examined.says("reachable", "l2-dsr-4-80/backend0", "CAP_NET_RAW")?;
    drop(server);
    Ok(())
}

//! A package's life, as the guide tells it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, HttpServer, Lab, Root, Service, UdpServer, UdpTraffic, VIP_V4, require_root, try_wait_until,
    wait_for,
};
use xtask::packaging::{Effort, Package};

use super::guide::Guide;
use super::unit;

const SOON: Duration = Duration::from_secs(30);
const DNS: u16 = 53;
/// What the administrator's editor leaves.
const EDITED: &str = "/root/edited.toml";
const HANGING: &str = "/var/lib/ballast/state.toml.new";

struct Scene {
    lab: Lab,
    root: Root,
    guide: Guide,
    _servers: (Vec<UdpServer>, Vec<HttpServer>),
}

#[test]
fn a_package_is_installed_configured_upgraded_removed_and_purged_as_the_guide_says() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::new()?;
    scene.install()?;
    scene.configure_and_start()?;
    scene.change()?;
    scene.hang()?;
    scene.upgrade()?;
    scene.stop_and_detach()?;
    scene.remove_and_purge()?;
    scene.unpack()?;
    scene.guide.is_done()
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::builder().backends(2).build()?;
        let udp = lab.backends().map(|node| UdpServer::start(node, &[DNS])).collect::<Result<_>>()?;
        let http = lab.backends().map(|node| HttpServer::start(node, &[80])).collect::<Result<_>>()?;
        lab.balancer(0).route_vip_to(VIP_V4, lab.client(0))?;
        let root = Root::boot(&lab, lab.balancer(0))?;
        root.write("/usr/local/bin/editor", format!("#!/bin/sh\ncp {EDITED} \"$1\"\n"))?;
        root.run("chmod 755 /usr/local/bin/editor; useradd alice")?;
        Ok(Self { root, guide: Guide::read()?, lab, _servers: (udp, http) })
    }

    fn install(&mut self) -> Result<()> {
        let deb = self.package("0.1.0")?.deb(&self.directory("first")?)?;
        let again = self.package("0.1.0")?.deb(&self.directory("second")?)?;
        ensure!(fs::read(&deb)? == fs::read(again)?, "the same program makes another package");
        self.hand_over(&deb, "target/package")?;
        let said = self.guide.run(&self.root, "sudo apt install ./target/package/ballast_*.deb")?;
        ensure!(said.contains("Ballast has no configuration yet"), "{said}");
        assert_eq!(self.root.run("dpkg --verify ballast")?, "");
        unit::is_right(&self.root)?;
        assert_eq!(self.root.run("systemctl is-enabled ballast")?.trim(), "enabled");
        // Started, and left alone for want of a configuration.
        assert_eq!(
            (self.root.property("Result")?, self.root.property("MainPID")?),
            ("success".into(), "0".into())
        );
        assert_eq!(self.root.property("ConditionResult")?, "no");
        for (page, section) in [("ballast", 1), ("ballast-status", 1), ("ballast-config", 5)] {
            let place = self.root.run(&format!("man --where {page}"))?;
            ensure!(place.contains(&format!("/usr/share/man/man{section}/")), "{page}: {place}");
        }
        self.root
            .run("bash -c '. /usr/share/bash-completion/completions/ballast; complete -p ballast'")
            .map(drop)
    }

    fn configure_and_start(&mut self) -> Result<()> {
        let install =
            "sudo install -m 0640 -g ballast /usr/share/ballast/config.toml /etc/ballast/config.toml";
        self.guide.run(&self.root, install)?;
        self.root.run("ballast check").context("the example")?;
        self.edit(1)?;
        self.guide.run(&self.root, "sudo editor /etc/ballast/config.toml")?;
        self.guide.run(&self.root, "sudo ballast check")?;

        self.guide.run(&self.root, "sudo systemctl start ballast")?;
        ensure!(self.root.journal().contains("made new maps"), "{}", self.root.journal());
        self.root.run("ballast status --ready")?;
        unit::is_confined(&self.root)?;
        try_wait_until("both are healthy", SOON, || {
            self.root.property("StatusText").map(|text| text.starts_with("4 of 4 backends healthy"))
        })?;
        let shown = self.guide.run(&self.root, "systemctl status ballast")?;
        ensure!(shown.contains("Status: \"4 of 4 backends healthy in 2 services"), "{shown}");
        ensure!(self.guide.run(&self.root, "sudo ballast status")?.contains("web"));
        let curl = "curl http://203.0.113.10/";
        self.guide.has(curl)?;
        self.lab.client(0).run("sh", ["-c", &format!("{curl} --fail --silent --show-error")])?;
        self.assert_forwarding()?;

        let alice = "setpriv --reuid=alice --regid=alice --init-groups ballast status --ready";
        assert_eq!(self.root.try_run(alice)?.status.code(), Some(3), "alice is nobody");
        let check = self.root.try_run(&alice.replace("status --ready", "check"))?;
        ensure!(
            check.status.code() == Some(1) && check.stderr.contains("use sudo, or be in the group"),
            "{check:?}"
        );
        self.guide.run(&self.root, "sudo adduser alice ballast")?;
        self.root.run(alice).map(drop)
    }

    fn change(&mut self) -> Result<()> {
        self.edit(2)?;
        self.guide.run(&self.root, "sudo editor /etc/ballast/config.toml")?;
        let planned = self.guide.run(&self.root, "sudo ballast reload --dry-run")?;
        ensure!(planned.contains("weight 1 -> 2"), "{planned}");
        let reload = "sudo systemctl reload ballast";
        self.guide.run(&self.root, reload)?;
        ensure!(self.root.run("ballast reload --dry-run")?.contains("nothing to change"), "it is not live");
        self.root.write("/etc/ballast/conf.d/wrong.toml", "[[service]]\nnonsense = true\n")?;
        ensure!(!self.root.try_run(reload)?.status.success(), "what is wrong was taken");
        let journal = self.root.journal();
        ensure!(journal.contains("/etc/ballast/conf.d/wrong.toml:2"), "{journal}");
        try_wait_until("the status says so", SOON, || {
            self.root.property("StatusText").map(|text| text.starts_with("CONFIGURATION REFUSED"))
        })?;
        self.root.run("rm /etc/ballast/conf.d/wrong.toml; systemctl kill --signal=HUP ballast")?;
        try_wait_until("SIGHUP reloads", SOON, || {
            self.root.property("StatusText").map(|text| text.starts_with("4 of 4"))
        })?;
        assert_eq!(self.root.property("ActiveState")?, "active");
        Ok(())
    }

    /// systemd ends a daemon whose control task hangs, and starts another; traffic does not notice.
    fn hang(&mut self) -> Result<()> {
        let settings = "/run/systemd/system/ballast.service.d/hang.conf";
        self.root.write(settings, "[Service]\nWatchdogSec=2s\n")?;
        self.root.run("systemctl daemon-reload && systemctl restart ballast")?;
        let traffic = self.traffic().start(self.lab.client(0))?;
        // Whoever writes to a pipe that nobody reads waits, and this is where what is to be kept is written.
        self.root.run(&format!(
            "setpriv --reuid=ballast --regid=ballast --clear-groups mkfifo -m 600 {HANGING}"
        ))?;
        let waiting = self.root.spawn("ballast backend drain web backend0")?;
        try_wait_until("it is started again", SOON, || {
            self.root.property("NRestarts").map(|count| count == "1")
        })?;
        self.root
            .run(&format!("rm {HANGING} {settings}; systemctl daemon-reload && systemctl restart ballast"))?;
        drop(waiting);
        ensure!(self.root.journal().contains("the control task has not moved"), "{}", self.root.journal());
        let report = traffic.finish()?;
        ensure!(report.lost.is_empty() && report.refused == 0, "{report:?}");
        Ok(())
    }

    fn upgrade(&mut self) -> Result<()> {
        let deb = self.package("0.2.0")?.deb(&self.directory("next")?)?;
        self.hand_over(&deb, ".")?;
        let before = self.root.property("MainPID")?;
        let traffic = self.traffic().start(self.lab.client(0))?;
        self.guide.run(&self.root, "sudo apt install ./ballast_0.2.0-1_amd64.deb")?;
        ensure!(self.root.property("MainPID")? != before, "it was not started again");
        self.root.run("apt install --allow-downgrades ./target/package/ballast_*.deb").context("and back")?;
        self.root.run("ballast status --ready")?;
        let report = traffic.finish()?;
        ensure!(report.lost.is_empty() && report.refused == 0, "{report:?}");
        assert_eq!(self.root.property("Result")?, "success");
        Ok(())
    }

    fn stop_and_detach(&mut self) -> Result<()> {
        self.guide.run(&self.root, "sudo systemctl disable --now ballast")?;
        ensure!(!self.root.has("/run/ballast"), "its directory is left");
        self.assert_forwarding().context("without a daemon")?;
        ensure!(self.guide.run(&self.root, "sudo ballast detach")?.contains("detached from eth0"));
        ensure!(!self.is_attached()?, "it is attached");

        // A daemon that root started leaves what is root's.
        self.root.run("chown -R root:root /var/lib/ballast")?;
        let mut daemon = self.root.spawn("exec ballast run")?;
        try_wait_until("root's daemon is ready", SOON, || {
            self.root.try_run("ballast status --ready").map(|output| output.status.success())
        })?;
        self.root.run("pkill -TERM -x ballast")?;
        ensure!(daemon.wait(SOON)?.success(), "root's daemon did not stop as it should");
        self.root.run("systemctl enable --now ballast")?;
        let journal = self.root.journal();
        ensure!(
            journal
                .trim_end()
                .lines()
                .rev()
                .take(40)
                .any(|line| line.contains("went on with the pinned maps")),
            "{journal}"
        );
        unit::is_confined(&self.root)?;
        self.assert_forwarding()
    }

    fn remove_and_purge(&mut self) -> Result<()> {
        let said = self.guide.run(&self.root, "sudo apt remove ballast")?;
        ensure!(said.contains("goes on forwarding") && said.contains("apt purge ballast"), "{said}");
        ensure!(!self.root.has("/usr/bin/ballast"), "the program is left");
        ensure!(self.root.has("/etc/ballast/config.toml") && self.root.has("/var/lib/ballast/flow-hash.key"));
        assert_eq!(self.root.try_run("pgrep -x ballast")?.stdout, "");
        assert_eq!(self.qdiscs()?.matches("clsact").count(), 1, "checks go by the real path");
        self.assert_forwarding().context("after the package was removed")?;

        // Where the configuration names another place, that goes as well, and what others have beside it stays.
        self.root.run(
            "mkdir -p /sys/fs/bpf/lb/pins/abi-1 /sys/fs/bpf/lb/others\n\
             sed -i 's|^.daemon.$|&\\npin_dir = \"/sys/fs/bpf/lb/pins\"|' /etc/ballast/config.toml",
        )?;
        // Routers are led here no more, and routes of somebody else's stay.
        self.root.run(
            "printf '\\n[announce]\\nprotocol = 77\\n' >> /etc/ballast/config.toml\n\
             ip route add blackhole 198.51.100.77 proto 77\n\
             ip -6 route add blackhole 2001:db8::77 proto 77\n\
             ip route add blackhole 198.51.100.78 proto 117",
        )?;
        self.guide.run(&self.root, "sudo apt purge ballast")?;
        ensure!(!self.root.has("/sys/fs/bpf/lb/pins"), "the pins of the configured place are left");
        ensure!(self.root.has("/sys/fs/bpf/lb/others"), "what is somebody else's is gone");
        let routes = self.root.run("ip route show type blackhole; ip -6 route show type blackhole")?;
        ensure!(routes.contains("198.51.100.78") && !routes.contains("77"), "{routes}");
        try_wait_until("forwarding ends", SOON, || self.is_attached().map(|attached| !attached))?;
        for path in
            ["/sys/fs/bpf/ballast", "/etc/ballast", "/var/lib/ballast", "/run/ballast", "/usr/lib/ballast"]
        {
            ensure!(!self.root.has(path), "{path} is left");
        }
        assert_eq!(self.qdiscs()?.matches("clsact").count(), 0);
        self.root.run("id ballast").map(drop)
    }

    /// The same from the tarball.
    fn unpack(&mut self) -> Result<()> {
        let tarball = self.package("0.1.0")?.tarball(&self.directory("tarball")?)?;
        self.hand_over(&tarball, ".")?;
        for line in [
            "sudo tar -xf ballast-*.tar.xz -C / --strip-components=1 --wildcards --no-same-owner 'ballast-*/usr'",
            "sudo systemd-sysusers ballast.conf",
            "sudo install -d -g ballast -m 0750 /etc/ballast /etc/ballast/conf.d",
            "sudo systemctl daemon-reload",
            "sudo systemctl enable ballast",
        ] {
            self.guide.run(&self.root, line)?;
        }
        self.root.run(&format!("install -m 0640 -g ballast {EDITED} /etc/ballast/config.toml"))?;
        self.root.run("systemctl start ballast")?;
        unit::is_confined(&self.root)?;
        self.assert_forwarding()
    }

    fn package(&self, version: &str) -> Result<Package> {
        Ok(Package {
            program: Daemon::binary_for_everybody(&self.lab)?,
            workspace: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."),
            version: version.to_owned(),
            epoch: 1_700_000_000,
            third_party: "whose code is in it\n".to_owned(),
            effort: Effort::Least,
        })
    }

    fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.lab.directory().join(name);
        fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// Puts a package where the guide looks for it.
    fn hand_over(&self, package: &std::path::Path, directory: &str) -> Result<()> {
        let name = package.file_name().and_then(|name| name.to_str()).context("a name")?;
        self.root.write(&format!("/root/{directory}/{name}"), fs::read(package)?)
    }

    /// Lets the next use of the editor leave a configuration in which a backend has this weight.
    fn edit(&self, weight: u32) -> Result<()> {
        let (web, dns) = (SocketAddr::new(VIP_V4, 80), SocketAddr::new(VIP_V4, DNS));
        // By the real path, which takes a filter on the interface.
        let check = "type = \"http\"\npath = \"/healthz\"\nvia = \"vip\"\ninterval = \"500ms\"\n";
        let http = Service::new("web", web, "tcp", "l2-dsr").health(check).nodes(self.lab.backends(), web);
        let udp = Service::new("dns", dns, "udp", "l2-dsr").health("type = \"icmp\"\ninterval = \"500ms\"\n");
        let udp = (0..2).fold(udp, |service, index| {
            let node = self.lab.backend(index);
            let weight = if index == 0 { weight } else { 1 };
            service.backend(&node.label(), SocketAddr::new(node.ipv4().into(), DNS), weight)
        });
        self.root.write(EDITED, format!("[daemon]\ninterfaces = [\"eth0\"]\n\n{}{}", http.toml(), udp.toml()))
    }

    fn traffic(&self) -> UdpTraffic {
        let sources = (0..32).map(|number| self.lab.client(0).source_port(number, 4000, VIP_V4));
        UdpTraffic::new(sources, SocketAddr::new(VIP_V4, DNS)).rate(500)
    }

    fn assert_forwarding(&self) -> Result<()> {
        wait_for("the backends are in the table", SOON, || {
            let report = self.traffic().run(self.lab.client(0), 100).ok()?;
            (report.lost.is_empty() && report.refused == 0).then_some(())
        })
    }

    fn qdiscs(&self) -> Result<String> {
        Ok(self.lab.balancer(0).run("tc", ["qdisc", "show", "dev", "eth0"])?.stdout)
    }

    fn is_attached(&self) -> Result<bool> {
        Ok(self.lab.balancer(0).run("ip", ["link", "show", "dev", "eth0"])?.stdout.contains("xdp"))
    }
}

//! What a page's reader has done, or has before him, that the page does not spell out as a command.

use anyhow::{Result, ensure};
use lb_tests::lab::{Terminal, try_wait_for, try_wait_until};

use super::world::{CONFIGURATION, SOON, WEB, World};

/// Pages that begin with nothing installed or configured.
const FROM_NOTHING: [&str; 3] = ["docs/getting-started.md", "README.md", "docs/forwarding-modes.md"];

/// The first pages are read first; others, in any order, by who has done what they say.
pub(super) const FIRST: [&str; 2] = ["docs/getting-started.md", "README.md"];

/// Pages that change nothing.
const LOOKS: [&str; 4] = ["docs/capture.md", "docs/explain.md", "docs/runbook.md", "docs/status-page.md"];

pub(super) fn begin(world: &mut World, page: &str) -> Result<()> {
    match FROM_NOTHING.contains(&page) {
        true => world.clear(),
        false if world.is_serving => Ok(()),
        false => world.serve(),
    }
}

pub(super) fn end(world: &mut World, page: &str) {
    world.is_serving &= LOOKS.contains(&page);
}

/// Before a command.
pub(super) fn before(world: &mut World, page: &str, command: &str) -> Result<()> {
    let is = |of: &str, begin: &str| page == of && command.starts_with(begin);
    if is("README.md", "sudo ballast reload --dry-run") {
        world.insert("address = \"10.0.0.11:80\"", "weight  = 3\n")?;
    } else if is("docs/forwarding-modes.md", "ip address add VIP/32") {
        // Each mode is set up on its own.
        world.clear()?;
    } else if is("docs/operations.md", "(umask 077") {
        // Its first start is still to come.
        world.clear()?;
        world.write(CONFIGURATION, WEB)?;
    } else if is("docs/operations.md", "useradd") {
        world.clear()?;
        world.root.run("userdel ballast")?;
    } else if is("docs/operations.md", "setpriv") || command.contains("\nsetpriv") {
        let daemon = "interfaces = [\"eth0\"]\n";
        let pins = format!("{daemon}pin_dir = \"/run/ballast/bpf/pins\"\n");
        world.write(CONFIGURATION, &WEB.replace(daemon, &pins))?;
        world.root.run("chgrp -R ballast /etc/ballast")?;
    } else if is("docs/operations.md", "ballast import haproxy") {
        world.root.run("umount /run/ballast/bpf")?;
        world.serve()?;
        world.root.write("/etc/haproxy/haproxy.cfg", HAPROXY)?;
    } else if is("docs/operations.md", "ballast plan") {
        world.serve()?;
        world.write("/root/new/config.toml", &WEB.replace("10.0.0.12", "10.0.0.13"))?;
    } else if is("docs/operations.md", "ballast service add web") {
        world.clear()?;
        world.start("[daemon]\ninterfaces = [\"eth0\"]\n")?;
    } else if is("docs/operations.md", "curl --unix-socket") {
        world.serve()?;
    } else if is("docs/doctor.md", "ballast doctor") {
        world.run("web-1", "ip address del 203.0.113.10/32 dev lo", false)?;
        world.run("web-2", "sysctl -qw net.ipv4.conf.all.arp_ignore=0", false)?;
    }
    Ok(())
}

/// After a command that has ended as it should, what the page says of it has to come about.
pub(super) fn after(world: &World, page: &str, command: &str) -> Result<()> {
    match (page, command) {
        ("docs/getting-started.md" | "README.md", "sudo systemctl start ballast") => world.wait_healthy(),
        ("docs/getting-started.md", "sudo systemctl stop nginx") => {
            world.wait_for_state("web/web-1", "unhealthy")
        }
        ("docs/getting-started.md", "sudo systemctl start nginx") => {
            world.wait_for_state("web/web-1", "healthy")
        }
        ("docs/operations.md", line) if line.ends_with("ballast run") => world.stop_daemon(),
        ("docs/operations.md", line) if line.starts_with("ballast man ") => world.shells_complete(),
        _ => Ok(()),
    }
}

impl World {
    /// What a page starts in the foreground is stopped when it is ready.
    fn stop_daemon(&self) -> Result<()> {
        try_wait_for("the daemon is ready", SOON, || self.root.run("ballast status --ready").map(Some))?;
        self.root.run("pkill -TERM -x ballast")?;
        try_wait_until("the daemon has stopped", SOON, || {
            self.root.try_run("pgrep -x ballast").map(|found| !found.status.success())
        })?;
        self.root.run("ballast detach").map(drop)
    }
}

/// What the page has put where shells look is taken from there.
impl World {
    fn shells_complete(&self) -> Result<()> {
        let fish = self.root.run("fish -c 'complete -C \"ballast backend drain web \"'")?;
        ensure!(fish.contains("web-1") && fish.contains("web-2"), "fish: {fish}");
        let mut zsh = Terminal::start(self.balancer(), &self.root.command("exec zsh -f -i"))?;
        zsh.press("autoload -Uz compinit && compinit -u -D; PS1='ready> '\n")?;
        zsh.wait_for("\nready> ", SOON)?;
        zsh.press("ballast backend drain web \t\t")?;
        zsh.wait_until("both are offered", SOON, |text| text.contains("web-1") && text.contains("web-2"))?;
        self.root.run("man --where ballast-backend-drain && man --where ballast-config").map(drop)
    }
}

const HAPROXY: &str = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
    frontend http\n    bind *:80\n    default_backend web\n\
    backend web\n    balance roundrobin\n    server web-1 10.0.0.11:80 check\n    server web-2 10.0.0.12:80 check\n";

//! Backends that are missing are missing for all: no more withdraw for it at once than the fleet lets, and what is wrong with
//! a load balancer itself needs nobody's leave.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Lab, Segment, Service, VIP_V4, VIP_V6, let_pass, require_root, try_wait_for, try_wait_until,
};
use serde_json::Value;

use crate::scene::{PORT, SOON, Scene};

const SECOND: Duration = Duration::from_secs(1);
/// Short holds: a test waits for them. The leave lasts for 3 s where etcd can't be asked any more.
const ANNOUNCE: &str = "ttl = \"4s\"\n[announce]\ndown_hold = \"300ms\"\nup_hold = \"600ms\"\n";
const CHECKED: &str = "type = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1\nfall = 2";

/// All three backends are wanted.
fn demanding(lab: &Lab) -> String {
    let to = SocketAddr::new(VIP_V4, PORT);
    let service = Service::new("web", to, "tcp", "l2-dsr").health(CHECKED).line("withdraw_below = 3");
    service.nodes(lab.backends(), to).toml()
}

#[test]
fn one_of_three_withdraws_for_want_of_backends_and_whoever_is_broken_does_so_too() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::with(3, 1, ANNOUNCE, demanding)?;
    scene.wait_all_announce()?;

    scene.backend("down")?;
    let first = scene.wait_one_out()?;
    let told = scene.told(first)?;
    assert_eq!(told["reason"], "backends_below", "{told}");
    let others: Vec<_> = (0..3).filter(|member| *member != first).collect();
    for member in &others {
        scene.wait_kept(*member, &format!("already: lb-{first}, and of 3 members 1"))?;
        let kept = format!("ballast_announce_kept{{vip=\"{VIP_V4}\"}}");
        assert_eq!(scene.daemons[*member].metric(&kept)?, 1.0);
        assert_eq!(scene.daemons[*member].metric("ballast_fleet_withdrawal_permits")?, 1.0);
        let shown = scene.daemons[*member].cli_checked(["status"])?;
        ensure!(shown.contains("LACKS BACKENDS, AND IS NOT WITHDRAWN"), "{shown}");
        let shown = scene.daemons[*member].cli_checked(["fleet", "status"])?;
        ensure!(shown.contains(&format!("withdrawn for want of backends: lb-{first} (1 may")), "{shown}");
    }
    let_pass(SECOND / 2);
    assert_eq!(scene.out()?, [first]);

    // What is wrong with a member itself asks nobody.
    let broken = others[0];
    let mend = scene.daemons[broken].attached()?.forget_services()?;
    scene.wait_reason(broken, "probe_failed")?;
    try_wait_until("both are out", SOON, || scene.out().map(|out| out.len() == 2))?;
    mend();
    try_wait_until("it is back", SOON, || scene.out().map(|out| out == [first]))?;

    // A place that becomes free is another's.
    scene.daemons[first].cli_checked(["announce", "off"])?;
    let second = try_wait_for("another one has leave", SOON, || {
        for member in &others {
            if scene.told(*member)?["reason"] == "backends_below" {
                return Ok(Some(*member));
            }
        }
        Ok(None)
    })?;
    scene.daemons[first].cli_checked(["announce", "on"])?;
    scene.wait_kept(first, &format!("already: lb-{second}"))?;

    // Whoever can't ask stays, and whoever can't ask any more is back before another has its place.
    scene.etcd.ways(scene.lab.balancer(second), "add")?;
    scene.wait_kept(second, "cut off from etcd")?;
    let third = scene.wait_one_out()?;
    ensure!(third != second, "{}", scene.told(second)?);
    let_pass(SECOND / 2);
    assert_eq!(scene.out()?, [third]);
    scene.etcd.ways(scene.lab.balancer(second), "del")?;
    scene.wait_kept(second, &format!("already: lb-{third}"))?;

    scene.backend("up")?;
    scene.wait_all_announce()?;
    scene.wait_fleet(second, "nobody has leave", |fleet| {
        fleet["withdrawals"]["members"].as_array().is_some_and(Vec::is_empty)
    })?;
    Ok(())
}

/// And a VIP for which nobody withdraws.
fn with_another(lab: &Lab) -> String {
    let to = SocketAddr::new(VIP_V6, PORT);
    let service = Service::new("other", to, "tcp", "l2-dsr").nodes(lab.backends(), to);
    format!("{}{}", demanding(lab), service.toml())
}

/// etcd says no, and then nothing: whoever would withdraw stays. When it answers again all ask at once, and one has leave.
#[test]
fn an_etcd_that_gives_no_leave_is_asked_again_and_gives_it_to_one_of_those_that_ask_at_once() -> Result<()> {
    require_root!(Ok(()));
    let mut scene = Scene::with(3, 2, ANNOUNCE, with_another)?;
    scene.wait_all_announce()?;

    // It has no room for a permit, nor for what members have to say of themselves.
    scene.etcd.no_space(true)?;
    scene.backend("down")?;
    for member in 0..3 {
        scene.wait_kept(member, "space exceeded")?;
    }
    assert_eq!(scene.out()?, [0; 0]);
    scene.etcd.no_space(false)?;
    scene.one_has_leave()?;
    scene.backend("up")?;
    scene.wait_all_announce()?;

    // It has no majority when backends die.
    let another = 1 - scene.etcd.leader()?;
    scene.etcd.kill(another)?;
    scene.backend("down")?;
    for member in 0..3 {
        scene.wait_kept(member, "cut off from etcd")?;
    }
    assert_eq!(scene.out()?, [0; 0]);
    scene.etcd.revive()?;
    let one = scene.one_has_leave()?;

    // The others announce something, and not this.
    let others: Vec<_> = (0..3).filter(|member| *member != one).collect();
    for member in others {
        scene.daemons[member].cli_checked(["announce", "off", &VIP_V4.to_string()])?;
    }
    scene.wait_kept(one, "no other member of the fleet would be left to announce it")
}

impl Scene {
    /// Takes the link of one of the backends that are wanted, or gives it back.
    fn backend(&self, state: &str) -> Result<()> {
        let port = &self.lab.backend(0).leg(Segment::Front).port;
        self.lab.switch().ip("a backend", [format!("link set {port} {state}")])
    }

    /// Waits until all announce the VIP, and know it of each other.
    fn wait_all_announce(&self) -> Result<()> {
        try_wait_until("all announce", SOON, || self.out().map(|out| out.is_empty()))?;
        for member in 0..self.daemons.len() {
            self.wait_fleet(member, "all are heard of", |fleet| {
                let members = fleet["members"].as_array().map_or(&[][..], Vec::as_slice);
                members.iter().filter(|one| one["announces"] == true).count() == self.daemons.len()
            })?;
        }
        Ok(())
    }

    /// Waits until one member has withdrawn, and the others say that they may not for its sake.
    fn one_has_leave(&self) -> Result<usize> {
        let one = self.wait_one_out()?;
        for member in (0..self.daemons.len()).filter(|member| *member != one) {
            self.wait_kept(member, &format!("already: lb-{one}"))?;
        }
        ensure!(self.out()? == [one], "{:?} are out", self.out()?);
        Ok(one)
    }

    /// Members that have no route for the VIP.
    fn out(&self) -> Result<Vec<usize>> {
        let mut out = Vec::new();
        for (member, daemon) in self.daemons.iter().enumerate() {
            let args = ["-4", "route", "show", "table", "all", "proto", "117"];
            if !daemon.node().run("ip", args)?.stdout.contains(&VIP_V4.to_string()) {
                out.push(member);
            }
        }
        Ok(out)
    }

    /// Waits until one member has withdrawn, and it alone. Returns which.
    fn wait_one_out(&self) -> Result<usize> {
        let one = try_wait_for("one has withdrawn", SOON, || {
            Ok(match self.out()?[..] {
                [one] => Some(one),
                _ => None,
            })
        });
        one.with_context(|| {
            format!("{:?}", (0..self.daemons.len()).map(|one| self.told(one)).collect::<Vec<_>>())
        })
    }

    /// What a member says of the VIP.
    fn told(&self, member: usize) -> Result<Value> {
        let printed = self.daemons[member].cli_checked(["announce", "status", "-o", "json"])?;
        let announce: Value = serde_json::from_str(&printed)?;
        let vips = announce["vips"].as_array().with_context(|| printed.clone())?;
        vips.first().cloned().with_context(|| format!("no VIP in {printed}"))
    }

    fn wait_reason(&self, member: usize, reason: &str) -> Result<()> {
        try_wait_until(reason, SOON, || {
            self.told(member).map(|told| told["reason"] == reason && told["announced"] == false)
        })
        .with_context(|| format!("{:?}", self.told(member)))
    }

    /// Waits until a member announces the VIP although backends are missing, and says so of it.
    fn wait_kept(&self, member: usize, why: &str) -> Result<()> {
        try_wait_until(&format!("lb{member} stays: {why}"), SOON, || {
            self.told(member).map(|told| {
                told["announced"] == true && told["kept"].as_str().is_some_and(|kept| kept.contains(why))
            })
        })
        .with_context(|| format!("{:?}, {:?}", self.told(member), self.daemons[member].fleet_status()))
    }
}

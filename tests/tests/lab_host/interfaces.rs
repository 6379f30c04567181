//! Links that go down, drivers without native mode, and frames of one buffer.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Call, Daemon, Fault, Lab, require_root, try_wait_until};

use crate::scene::{FAMILIES, SOON, flows, mode, on, same_flows, serve, services, traffic};

#[test]
fn a_link_that_goes_down_and_comes_up_again_is_served_at_once() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let balancer = lab.balancer(0);
    // Or the kernel takes IPv6 addresses away with the link.
    balancer.sysctl("net.ipv6.conf.eth0.keep_addr_on_down", "1")?;
    let _servers = serve(&lab)?;
    let daemon = Daemon::start(&lab, 0, &services(&lab, 2))?;
    let before = flows(&lab)?;
    for _ in 0..2 {
        balancer.ip("take the link down", ["link set eth0 down"])?;
        try_wait_until("the way to the backends is gone", SOON, || {
            let status = daemon.status_json()?;
            Ok(status.pointer("/services/0/backends/0/reachable").is_some_and(|reachable| reachable == false))
        })?;
        let up = [
            "link set eth0 up".to_owned(),
            // Routes that were not made by the kernel went with the link.
            format!("route add 10.0.0.0/16 dev eth0 src {}", balancer.ipv4()),
            format!("route add fd00::/64 dev eth0 src {}", balancer.ipv6()),
        ];
        balancer.ip("take the link up", up)?;
        // The program has been there all the time; the neighbours have to be found.
        for vip in FAMILIES {
            try_wait_until("packets are forwarded again", SOON, || {
                traffic(&lab, vip).run(lab.client(0), 64).map(|report| report.lost.is_empty())
            })?;
        }
        let status = daemon.status_json()?;
        ensure!(status["ready"] == true && mode(&daemon)? == "native", "{status}");
        same_flows(&flows(&lab)?, &before)?;
    }
    Ok(())
}

#[test]
fn without_native_mode_generic_is_said_loudly_and_a_wish_for_native_refused() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    // A bridge has no native XDP.
    lab.balancer(0).ip("make a bridge", ["link add br9 type bridge", "link set br9 up"])?;
    let text = |mode: &str| on("[\"br9\"]", mode, &services(&lab, 2));
    let mut refused = Daemon::new(&lab, 0, &text("native"))?;
    refused.launch()?;
    ensure!(refused.wait_exit(SOON)?.code() == Some(1), "{}", refused.log());
    let hint = "its driver has no native XDP: set `xdp_mode` to \"generic\"";
    ensure!(refused.log().contains(hint), "{}", refused.log());
    drop(refused);

    let mut daemon = Daemon::start(&lab, 0, &text("auto"))?;
    ensure!(mode(&daemon)? == "generic");
    ensure!(daemon.log().contains("generic mode, which is several times slower"), "{}", daemon.log());
    ensure!(daemon.cli_checked(["status"])?.contains("generic"));
    // A start that is refused leaves what there was attached.
    daemon.sigterm()?;
    daemon.write_config(&text("native"))?;
    fs::write(&daemon.files().log, "")?;
    daemon.launch()?;
    ensure!(daemon.wait_exit(SOON)?.code() == Some(1) && daemon.log().contains(hint), "{}", daemon.log());
    let shown = lab.balancer(0).run("ip", ["link", "show", "dev", "br9"])?.stdout;
    ensure!(shown.contains("xdpgeneric"), "it is attached no more: {shown}");
    daemon.write_config(&text("auto"))?;
    daemon.launch()?;
    daemon.wait_ready(SOON)
}

/// As before Linux 5.18: asked whether programs take frames of several buffers, the kernel says that they don't.
#[test]
fn a_program_for_frames_of_one_buffer_goes_to_generic_mode_where_the_mtu_is_too_large_for_native()
-> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().mtu(1500, 9000).build()?;
    let _servers = serve(&lab)?;
    let old_kernel = (Call::ProgramLoad, 0, Fault::Errno(libc::EINVAL));
    let launch = |daemon: &mut Daemon, (call, at, fault)| daemon.launch_armed(call, at, fault);
    let text = |mode: &str| on("[\"eth0\"]", mode, &services(&lab, 2));
    let mut daemon = Daemon::new(&lab, 0, &text("native"))?;
    let calls = launch(&mut daemon, old_kernel)?;
    ensure!(daemon.wait_exit(SOON)?.code() == Some(1) && calls.struck().is_some(), "{}", daemon.log());
    ensure!(daemon.log().contains("a driver may want a smaller MTU"), "{}", daemon.log());

    daemon.write_config(&text("auto"))?;
    let calls = launch(&mut daemon, old_kernel)?;
    daemon.wait_ready(SOON)?;
    ensure!(mode(&daemon)? == "generic", "{}", daemon.log());
    for part in ["the driver refused the program", "generic mode", "drivers refuse it at MTUs above one page"]
    {
        ensure!(daemon.log().contains(part), "{part:?} in {}", daemon.log());
    }
    let before = flows(&lab)?;

    // The other program can't use a device map that this one has used: refused, and it goes on.
    daemon.sigterm()?;
    drop(calls);
    fs::write(&daemon.files().log, "")?;
    daemon.launch()?;
    // The loader has the verifier explain itself, at length.
    ensure!(daemon.wait_exit(6 * SOON)?.code() == Some(1), "{}", daemon.log());
    ensure!(daemon.log().contains("ballast detach"), "{}", daemon.log());
    same_flows(&flows(&lab)?, &before).context("after the other program was refused")?;
    let config = daemon.files().config.display().to_string();
    daemon.cli_checked(["detach", "--config", &config])?;
    daemon.launch()?;
    daemon.wait_ready(Duration::from_secs(20))?;
    ensure!(mode(&daemon)? == "native");
    Ok(())
}

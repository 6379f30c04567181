//! Two thousand backends that a daemon has never seen: their checks make no burst.

use std::collections::HashSet;
use std::env;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_tests::lab::{
    Capture, Daemon, Frame, Lab, Service, TcpServer, VIP_V4, VIP_V6, require_root, wait_until,
};

use crate::LONG;
use crate::scene::{MOST, PORT, SOON, address, lead_to_backends};

const CHECKED: u16 = 7;
const WINDOW: Duration = Duration::from_millis(100);
/// Rounds of checks that are looked at, the first one too.
const ROUNDS: usize = 2;

#[test]
fn two_thousand_backends_are_checked_from_cold_without_a_burst() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(0).remote_backends(1).build()?;
    lead_to_backends(&lab)?;
    let _server = TcpServer::start(lab.backend(0), &[CHECKED])?;
    let leg = lab.backend(0).first_leg();
    let capture = Capture::start_filtered(lab.backend(0), &leg.interface, |frame| probed(frame).is_some())?;
    let _daemon = Daemon::start(&lab, 0, &config())?;
    let all = 2 * usize::from(MOST);
    wait_until("every backend is checked a few times", 3 * SOON, || capture.count() >= ROUNDS * all)?;
    let probes: Vec<_> = capture.stop()?.iter().filter_map(probed).collect();
    let once: HashSet<_> = probes.iter().map(|(_, to)| to).collect();
    ensure!(once.len() == all, "of {all} backends {} were checked", once.len());

    let mut times: Vec<_> = probes.into_iter().map(|(time, _)| time).collect();
    times.sort_unstable();
    let (first, last) = times.first().zip(times.last()).context("there are probes")?;
    let lasted = last.duration_since(*first)?;
    let mean = times.len() as f64 * WINDOW.as_secs_f64() / lasted.as_secs_f64();
    let most = densest(&times)?;
    let allowed = if env::var_os(LONG).is_some() { 2.0 } else { 6.0 };
    ensure!(
        most <= mean * allowed,
        "{most:.1} probes within {WINDOW:?}, and {mean:.1} in the mean of {lasted:?}"
    );
    Ok(())
}

/// Probes in the window with the most of them. On a machine that is busy with other tests one that follows a silence counts from
/// where that began: whoever was kept from running has some catching up to do.
fn densest(times: &[SystemTime]) -> Result<f64> {
    let alone = env::var_os(LONG).is_some();
    let (mut most, mut from) = (0.0, 0);
    for (at, time) in times.iter().enumerate() {
        while time.duration_since(times[from])? >= WINDOW {
            from += 1;
        }
        let silence = match from.checked_sub(1) {
            Some(before) if !alone => times[from].duration_since(times[before])?,
            _ => Duration::ZERO,
        };
        let windows = 1.0 + silence.as_secs_f64() / WINDOW.as_secs_f64();
        most = f64::max(most, (at + 1 - from) as f64 / windows);
    }
    Ok(most)
}

/// When a connection that checks a backend begins, and which.
fn probed(frame: &Frame) -> Option<(SystemTime, IpAddr)> {
    let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
    let TransportSlice::Tcp(tcp) = packet.transport? else { return None };
    if frame.outgoing || !tcp.syn() || tcp.ack() || tcp.destination_port() != CHECKED {
        return None;
    }
    let to = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    Some((frame.time, to))
}

fn config() -> String {
    // A round of two thousand takes some 3.6 s.
    let check = format!("type = \"tcp\"\nport = {CHECKED}\ninterval = \"4s\"\n");
    let service = |vip| {
        let to = SocketAddr::new(vip, PORT);
        let name = if to.is_ipv4() { "web4" } else { "web6" };
        let service = Service::new(name, to, "tcp", "ipip").health(&check);
        let backend = |service: Service, number| {
            service.backend(&format!("b{number}"), SocketAddr::new(address(number, vip), PORT), 1)
        };
        (0..MOST).fold(service, backend).toml()
    };
    [VIP_V4, VIP_V6].map(service).concat()
}

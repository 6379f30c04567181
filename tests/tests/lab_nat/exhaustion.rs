//! More flows at once than ports.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, IcmpListener, Mode, TcpServer, VIP_V4, VIP_V6, connect, require_root, wait_for, wait_until,
};

use crate::scene::{PORT, SOON, Scene};

/// As many ports as are tried one after the other: all are found before one is refused.
const PORTS: &str = "61000-61015";
const COUNT: u16 = 16;
/// A refusal is silence: the SYN is dropped.
const REFUSED_AFTER: Duration = Duration::from_millis(300);

#[test]
fn a_flow_too_many_is_refused_and_counted_and_the_others_go_on() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Nat.lab().backends(1).build()?;
    let scene = Scene::new(Mode::Nat, lab, PORTS, &["flow_idle_timeout = \"2s\""], 0..1)?;
    for vip in [VIP_V4, VIP_V6] {
        let refused = || scene.daemon.metric("ballast_drops_total{reason=\"nat_exhausted\"}");
        let before = refused()?;
        let open = |number, patience| {
            let from = scene.lab.client(0).source_port(number, 0, vip);
            connect(scene.lab.client(0), Some(from), SocketAddr::new(vip, PORT), patience)
        };
        let mut streams: Vec<_> = (0..COUNT)
            .map(|number| open(number, SOON))
            .collect::<Result<_>>()
            .context("all ports are free")?;
        assert_eq!(refused()?, before);
        for number in 0..3 {
            ensure!(
                open(COUNT + number, REFUSED_AFTER).is_err(),
                "a port was given to two flows of one backend"
            );
            talk(&mut streams)?;
        }
        ensure!(refused()? >= before + 3.0, "{} refused", refused()? - before);
        // What ends makes room, a moment later.
        streams.truncate(usize::from(COUNT / 2));
        let mut late = wait_for("a port is free again", 2 * SOON, || {
            talk(&mut streams).err().map(Err).or_else(|| open(100, REFUSED_AFTER).ok().map(Ok))
        })??;
        talk(std::slice::from_mut(&mut late))?;
        talk(&mut streams)?;
    }
    scene.daemon.accounts().map(drop)
}

/// Each is answered what it asked.
fn talk(streams: &mut [TcpStream]) -> Result<()> {
    for stream in streams {
        let question = stream.local_addr()?.to_string();
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut answer = vec![0; "backend0 \n".len() + question.len()];
        stream.read_exact(&mut answer).with_context(|| format!("the answer to {question}"))?;
        ensure!(
            answer == format!("backend0 {question}\n").as_bytes(),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}

/// Nobody is refused because of flows of the other family, nor of another address.
#[test]
fn more_addresses_make_room_for_more_flows() -> Result<()> {
    require_root!(Ok(()));
    let lab = Mode::Nat.lab().backends(1).build()?;
    let pool: [(IpAddr, &str); 4] = [
        ([10, 0, 3, 101].into(), "10.0.3.101/16"),
        ([10, 0, 3, 102].into(), "10.0.3.102/16"),
        ("fd00::365".parse()?, "fd00::365/64"),
        ("fd00::366".parse()?, "fd00::366/64"),
    ];
    let lines = pool.iter().map(|(_, address)| format!("address add {address} dev eth0 noprefixroute nodad"));
    lab.balancer(0).ip("add addresses for NAT", lines)?;
    let addresses: Vec<_> = pool.iter().map(|(address, _)| format!("\"{address}\"")).collect();
    let mut config = format!("[nat]\naddresses = [{}]\nports = \"{PORTS}\"\n\n", addresses.join(", "));
    for (name, vip) in [("v4", VIP_V4), ("v6", VIP_V6)] {
        config += &Mode::Nat.service(name, SocketAddr::new(vip, PORT), "tcp", lab.backends()).toml();
    }
    let server = TcpServer::start(lab.backend(0), &[Mode::Nat.server_port(PORT)])?;
    let _daemon = Daemon::start(&lab, 0, &config)?;
    // No connection shall fail for want of a neighbour.
    for (number, (address, _)) in (0..).zip(&pool) {
        let backend = IcmpListener::start(lab.backend(0), *address)?;
        wait_until("the backend reaches an address for NAT", SOON, || {
            backend.ping(*address, (number, 1), b"there", REFUSED_AFTER).is_ok()
        })?;
    }
    let mut streams = Vec::new();
    for vip in [VIP_V4, VIP_V6] {
        // By the hash of the flow: of 24 at least one goes to each.
        for number in 0..24 {
            let from = lab.client(0).source_port(number, 0, vip);
            streams.extend(connect(lab.client(0), Some(from), SocketAddr::new(vip, PORT), REFUSED_AFTER));
        }
    }
    let seen: BTreeSet<_> = server.clients().iter().map(SocketAddr::ip).collect();
    assert_eq!(seen, pool.iter().map(|(address, _)| *address).collect(), "what the backend sees");
    ensure!(streams.len() > 2 * usize::from(COUNT), "{} flows", streams.len());
    Ok(())
}

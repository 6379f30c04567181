//! Two load balancers that replicate flows, and what the page of one says of the other while it lives and when it has died.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::lab::{
    Browser, Daemon, Lab, LiveClients, LiveServers, Service, VIP_V4, require_root, skip, try_wait_until,
};
use serde_json::Value;

use crate::scene::{DESKTOP, NO_BROWSER, PAGE, SOON};

const PORT: u16 = 80;
const FLOWS: usize = 20;
/// A peer is given up after 4 s (docs/flow-replication.md), and the page asks every 2 s (docs/status-page.md).
const PROMISED: Duration = Duration::from_secs(4 + 2);
/// A machine that has a browser to run may be so late; where an answer takes 0.5 s, the page asks every 5 s.
const BUSY: Duration = Duration::from_secs(4);

#[test]
fn a_peer_is_shown_while_it_is_there_and_when_it_has_died() -> Result<()> {
    require_root!(Ok(()));
    let Some(program) = Browser::program() else {
        skip(NO_BROWSER);
        return Ok(());
    };
    let lab = Lab::builder().balancers(2).backends(2).build()?;
    let to = SocketAddr::new(VIP_V4, PORT);
    let _servers = LiveServers::start(lab.backends(), PORT)?;
    let key = lab.directory().join("fleet.key");
    fs::write(&key, "00112233445566778899aabbccddeeff\n")?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    let mut members = [0, 1]
        .map(|member| Daemon::new(&lab, member, &config(&lab, member, to)))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    members.iter_mut().try_for_each(Daemon::launch)?;
    let mut browser = Browser::start(&program, lab.balancer(0), lab.directory())?;
    members.iter_mut().try_for_each(|member| member.wait_ready(SOON))?;
    try_wait_until("both are there for each other", SOON, || {
        let up =
            members.iter().map(|member| Ok(peer_of(member)?["up"] == true)).collect::<Result<Vec<_>>>()?;
        Ok(up == [true; 2])
    })?;
    let mut clients = LiveClients::start(lab.client(0), to, 0..1, FLOWS)?;
    let opened = clients.open(FLOWS)?;
    ensure!(opened.alive() == FLOWS as u64, "{}", opened.losses());

    browser.look(DESKTOP)?;
    browser.open(PAGE)?;
    browser.value("window.sameAsBefore = true")?;
    let peer = address(&lab, 1);
    try_wait_until("the peer is shown as connected, and what it was told", SOON, || {
        let (of, shown) = (peer_of(&members[0])?, browser.value(&fact(peer))?);
        let [sent, received] = [&of["flows_sent"], &of["flows_received"]];
        let expected = format!("good: up, equal tables, flows: {sent} sent, {received} received");
        ensure!(sent.as_u64() >= Some(FLOWS as u64) && shown == expected, "{shown} is shown of {of}");
        Ok(true)
    })?;
    browser.wait("nothing is wrong with it", SOON, &says(&problem(peer), "nothing"))?;

    members[1].kill9()?;
    let killed = Instant::now();
    let dead = format!("warn: Peer {peer} is silent, \\d+s: flows are not replicated with it");
    browser.wait("the page says that it is dead", PROMISED + BUSY, &says(&problem(peer), &dead))?;
    println!("the page says so {:?} after the peer's end", killed.elapsed());
    let counts = "flows: \\d+ sent, \\d+ received";
    let dead = says(&fact(peer), &format!("warn: silent, \\d+s, {counts}"));
    browser.wait("what it says of the peer does, too", SOON, &dead)?;

    members[1].launch()?;
    let again = says(&fact(peer), &format!("good: up, equal tables, {counts}"));
    browser.wait("the peer is shown as connected again", SOON, &again)?;
    browser.wait("nothing is wrong with it any more", SOON, &says(&problem(peer), "nothing"))?;
    ensure!(browser.value("window.sameAsBefore")? == true, "the page was loaded again");
    Ok(())
}

fn config(lab: &Lab, member: usize, to: SocketAddr) -> String {
    let key = lab.directory().join("fleet.key");
    let [own, other] = [member, 1 - member].map(|member| address(lab, member));
    // Peers are told of all its flows, at all times.
    let service = Service::new("web", to, "tcp", "l2-dsr").line("algorithm = \"least-connections\"");
    format!(
        "[flow_hash]\nkey_file = \"{}\"\n[peers]\nlisten = [\"{own}\"]\naddresses = [\"{other}\"]\n{}",
        key.display(),
        service.nodes(lab.backends(), to).toml()
    )
}

fn address(lab: &Lab, member: usize) -> SocketAddr {
    SocketAddr::new(lab.balancer(member).address(VIP_V4), 9650)
}

/// What a member says of the other.
fn peer_of(member: &Daemon) -> Result<Value> {
    Ok(member.status_json()?["peers"]["peers"][0].take())
}

/// What the page says of a peer, and how good that is.
fn fact(peer: SocketAddr) -> String {
    said("#facts > div", &format!("node.firstChild.textContent === 'Peer {peer}'"), "node.lastChild")
}

/// What is wrong with a peer, and how bad that is.
fn problem(peer: SocketAddr) -> String {
    said("#problems li", &format!("node.textContent.startsWith('Peer {peer} ')"), "node")
}

fn said(among: &str, is_it: &str, by: &str) -> String {
    format!(
        "([...document.querySelectorAll('{among}')].filter(node => {is_it})\
         .map(node => `${{node.dataset.level}}: ${{{by}.textContent}}`)[0] ?? 'nothing')"
    )
}

/// Whether it is this; what it is if not.
fn says(said: &str, pattern: &str) -> String {
    format!("(said => /^{pattern}$/.test(said) || said)({said})")
}

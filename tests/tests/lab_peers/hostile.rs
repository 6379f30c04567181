//! Datagrams that nobody who may send any has sent, and a member with another key.

use std::net::UdpSocket;

use anyhow::{Context, Result};
use lb_tests::lab::{Daemon, Segment, require_root, try_all, try_wait_until};

use crate::scene::{PEER_PORT, SOON, Scene, Wanted, number, peer};

fn refused(member: &Daemon, reason: &str) -> Result<u64> {
    Ok(number(&member.status_json()?["peers"]["datagrams_refused"][reason]))
}

fn entries(member: &Daemon) -> Result<u64> {
    Ok(number(&member.status_json()?["flow_table"]["entries"]))
}

/// The UDP payload of a frame from one member to the other.
fn payload(frame: &[u8]) -> Option<Vec<u8>> {
    let udp = frame.get(14 + 20..)?;
    (frame.get(12..14)? == [8, 0] && udp.get(2..4)? == PEER_PORT.to_be_bytes()).then(|| udp[8..].to_vec())
}

#[test]
fn forged_replayed_and_truncated_messages_change_nothing_and_are_counted() -> Result<()> {
    require_root!(Ok(()));
    let mut wanted = Wanted { connections: 200, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    let capture = scene.lab.balancer(0).capture_leg(Segment::Front)?;
    let flows = scene.open(200)?;
    wanted.serving = 4..8;
    scene.change(&wanted)?;
    scene.exchange()?;
    scene.wait_told(1, flows)?;
    let to = scene.address(1);
    let all = capture.stop()?;
    let recorded: Vec<_> = all.iter().filter_map(|frame| payload(&frame.bytes)).collect();
    let flows_told = recorded.iter().filter(|datagram| datagram.get(5) == Some(&4)).count();
    assert!(flows_told > 0, "{} frames, {} datagrams", all.len(), recorded.len());

    let received = number(&peer(&scene.members[1])?["flows_received"]);
    let before = entries(&scene.members[1])?;
    // The one that may send is gone, and somebody has its address.
    scene.members[0].kill9()?;
    let own = scene.address(0);
    let sender = scene.lab.balancer(0).enter(|| Ok(UdpSocket::bind(own)?))?;
    let forged = |datagram: &[u8]| {
        let mut datagram = datagram.to_vec();
        // A sequence number that is still to come.
        datagram[24] = 0x7f;
        datagram
    };
    for datagram in &recorded {
        sender.send_to(datagram, to)?;
        sender.send_to(&forged(datagram), to)?;
        for length in [0, 1, 47, 79, datagram.len() - 1] {
            sender.send_to(&datagram[..length], to)?;
        }
    }
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..rng.usize(..1400)).map(|_| rng.u8(..)).collect();
        sender.send_to(&noise, to)?;
    }
    let strange = (scene.lab.backend(0).ipv4(), PEER_PORT);
    let stranger = scene.lab.backend(0).enter(|| Ok(UdpSocket::bind(strange)?))?;
    stranger.send_to(recorded.first().context("a datagram")?, to)?;
    try_wait_until("all of them are refused", SOON, || {
        let reasons = ["stranger", "malformed", "replayed", "unauthentic"];
        try_all(reasons, |reason| Ok(refused(&scene.members[1], reason)? > 0))
    })?;
    assert_eq!(number(&peer(&scene.members[1])?["flows_received"]), received);
    assert_eq!(entries(&scene.members[1])?, before);
    scene.lead_to(1)?;
    scene.exchange()?;
    Ok(())
}

#[test]
fn a_member_with_another_hash_key_is_an_alarm_and_is_not_heard() -> Result<()> {
    require_root!(Ok(()));
    let wanted = Wanted { connections: 10, started: 1, ..Wanted::default() };
    let mut scene = Scene::new(&wanted)?;
    let config = scene.config(1, &wanted).replace("fleet.key", "other.key");
    scene.members.push(Daemon::start(&scene.lab, 1, &config)?);
    for member in &scene.members {
        try_wait_until("the other key is noticed", SOON, || {
            peer(member).map(|peer| peer["hash_key_equal"] == false && peer["up"] == false)
        })?;
        let shown = member.cli_checked(["status"])?;
        assert!(shown.contains("HAS ANOTHER HASH KEY"), "{shown}");
        assert!(refused(member, "other_key")? > 0);
    }
    let fingerprints: Vec<_> = scene
        .members
        .iter()
        .map(|member| Ok(member.status_json()?["hash_key_fingerprint"].to_string()))
        .collect::<Result<_>>()?;
    assert_ne!(fingerprints[0], fingerprints[1]);
    Ok(())
}

//! Datagrams that no peer has sent, or not now.

use super::*;

#[test]
fn whatever_is_sent_again_or_changed_is_refused_and_counted() {
    let mut pair = Pair::new(5);
    pair.run(2 * SECOND, FINE);
    pair.say(0..20);
    pair.run(SECOND, FINE);
    let heard = pair.heard(1);
    let recorded = pair.recorded.clone();
    let now = pair.now;
    let (member, from) = (&mut pair.members[1], address(0));
    for datagram in &recorded {
        member.receive(from, datagram, now);
        for at in [0, 5, 10, 30, 50, datagram.len() - 1] {
            let mut forged = datagram.clone();
            forged[24] = 0x40;
            forged[at] ^= 0x10;
            member.receive(from, &forged, now);
        }
        member.receive(address(7), datagram, now);
    }
    let mut rng = Rng::with_seed(5);
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..rng.usize(..1300)).map(|_| rng.u8(..)).collect();
        member.receive(from, &noise, now);
    }
    assert_eq!(member.events(), []);
    let refused = member.refused().clone();
    for refusal in
        [Refusal::Stranger, Refusal::Malformed, Refusal::OtherKey, Refusal::Unauthentic, Refusal::Replayed]
    {
        assert!(refused[&refusal] > 0, "{refusal:?}: {refused:?}");
    }
    pair.run(2 * SECOND, FINE);
    assert_eq!(pair.heard(1), heard);
    assert!(pair.are_up());
}

#[test]
fn a_flood_of_hellos_that_anybody_may_send_is_not_looked_at() {
    let mut pair = Pair::new(6);
    pair.run(SECOND / 2, FINE);
    let hello = pair.recorded.iter().find(|datagram| datagram[16..24] == [0; 8]).unwrap().clone();
    for _ in 0..1000 {
        pair.members[1].receive(address(0), &hello, pair.now);
    }
    assert!(pair.members[1].refused()[&Refusal::Limited] >= 900);
    let sent = pair.sent[1];
    pair.run(SECOND / 10, FINE);
    assert!(pair.sent[1] - sent < 1000, "{} bytes answer it", pair.sent[1] - sent);
    pair.run(2 * SECOND, FINE);
    assert!(pair.are_up());
}

#[test]
fn peers_with_other_keys_say_so_and_do_not_meet() {
    let mut pair = Pair::new(8);
    pair.members[1] = endpoint(1, HashKey { k0: 5, k1: 5 }, 9, pair.now);
    pair.run(3 * SECOND, FINE);
    for member in &pair.members {
        assert_eq!(member.up_peers().count(), 0);
        let exchange = status::of(member, exchange::Figures::default(), pair.now);
        assert_eq!(exchange.peers[0].has_our_key, Some(false));
    }
}

/// Whoever listens sees what it takes for a datagram to be looked at, and sends more of them than are.
#[test]
fn who_restarts_or_was_cut_off_comes_back_though_hellos_are_forged_in_its_name() {
    // Who is forged to whom: the one that restarts, or, where none does, both.
    for (restarts, forged) in [(Some(0), [true, false]), (Some(1), [false, true]), (None, [true, true])] {
        let mut pair = Pair::new(13);
        // Of what comes in a second the first is looked at.
        pair.run(5 * SECOND / 2, FINE);
        let noise = forged_hello();
        if let Some(member) = restarts {
            pair.members[member] = endpoint(member, KEY, 78, pair.now);
        }
        let weather = |millisecond| match restarts {
            None if millisecond < 6000 => Weather { lost: 100, ..FINE },
            _ => FINE,
        };
        for millisecond in 0..10_000u64 {
            for member in (0..2).filter(|member| forged[*member]) {
                (0..60).for_each(|_| pair.members[1 - member].receive(address(member), &noise, pair.now));
            }
            pair.run(MILLISECOND, weather(millisecond));
        }
        assert!(pair.are_up(), "{restarts:?} restarted, {forged:?}");
        let counts = pair.members.iter().map(|member| member.refused()[&Refusal::Limited]);
        assert!(counts.sum::<u64>() > 1000);
    }
}

/// A hello without a session, with nobody's authentication.
fn forged_hello() -> Vec<u8> {
    let mut pair = Pair::new(14);
    pair.run(SECOND / 2, FINE);
    let mut hello = pair.recorded.iter().find(|datagram| datagram[16..24] == [0; 8]).unwrap().clone();
    *hello.last_mut().unwrap() ^= 1;
    hello
}

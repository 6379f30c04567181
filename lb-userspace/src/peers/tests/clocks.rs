//! Clocks that count from different moments, drift or stand still, and what is late by them.

use super::*;

#[test]
fn what_was_on_its_way_for_too_long_is_refused_and_comes_again() {
    let mut pair = Pair::new(7);
    pair.run(2 * SECOND, FINE);
    pair.say(0..1);
    let slow = Weather { delay: 0, ..FINE };
    while let Some((_, datagram)) = pair.members[0].transmit(pair.now) {
        pair.on_its_way.push((pair.now + Duration::from_millis(2200), 1, datagram));
    }
    // Nothing else comes meanwhile that would be newer.
    let dead = Weather { lost: 100, ..slow };
    pair.run(Duration::from_millis(2300), dead);
    assert!(pair.members[1].refused()[&Refusal::Late] > 0, "{:?}", pair.members[1].refused());
    assert_eq!(pair.heard(1), [0; 0]);
    pair.run(3 * SECOND, slow);
    assert_eq!(pair.heard(1), [0]);
}

#[test]
fn clocks_that_drift_are_no_delay() {
    let mut link = link::Link::new(address(0), 1, 2, Duration::ZERO);
    for second in 0..10_000u64 {
        // The sender's is slower by 100 parts in a million.
        let sent = second * 1000 - second / 10;
        let delay = link.delay(sent, Duration::from_secs(second) + Duration::from_millis(3));
        assert!(delay < Duration::from_millis(5), "{delay:?} after {second} s");
    }
    assert!(link.delay(9_000_000, Duration::from_secs(10_001)) > 900 * SECOND);
}

/// As those of machines that are paused: for less than it takes to be given up, and for longer.
#[test]
fn a_clock_that_has_stood_still_is_late_no_longer_than_until_both_have_begun_anew() {
    for (seconds, member) in [(3, 0), (3, 1), (10, 0)] {
        let mut pair = Pair::new(15);
        pair.run(2 * SECOND, FINE);
        pair.stopped = Some(member);
        pair.run(seconds * SECOND, FINE);
        pair.stopped = None;
        pair.say(0..10);
        // Nobody takes what is said, and that is noticed.
        pair.run(15 * SECOND, FINE);
        assert!(pair.are_up(), "{member} for {seconds} s");
        pair.say(10..20);
        pair.run(SECOND, FINE);
        let heard: BTreeSet<_> = pair.heard(1).into_iter().collect();
        assert!(heard.is_superset(&(10..20).collect()), "{member} for {seconds} s: {heard:?}");
    }
}

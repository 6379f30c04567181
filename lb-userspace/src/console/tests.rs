use std::time::Duration;

use super::{
    Rating,
    fixture::{backend, pass, service, status},
    news,
    rates::{self, Rate},
};
use crate::api::v1;

const TWO_SECONDS: Duration = Duration::from_secs(2);

fn rate(packets: f64) -> Option<Rate> {
    Some(Rate { packets, bits: packets * 8000.0, new_flows: Some(packets / 10.0) })
}

fn web() -> v1::Service {
    service("web", "203.0.113.10:80", 3)
}

#[test]
fn rates_are_what_passed_in_a_second() {
    let before = status(vec![web()]);
    let mut after = before.clone();
    pass(&mut after.services[0], &[100, 0, 20]);
    (after.packets, after.verdicts.tx, after.verdicts.drop) = (130, 120, 10);
    after.drops.insert("no_backend".into(), 10);
    let found = rates::of_status(&before, &after, TWO_SECONDS);
    assert_eq!(found.services[0].rate, rate(60.0));
    assert_eq!(found.services[0].backends, [rate(50.0), rate(0.0), rate(10.0)]);
    assert_eq!(
        (found.received, found.drops["no_backend"], found.drops["new_flow_limit"]),
        (Some(65.0), Some(5.0), Some(0.0))
    );
    assert_eq!(found.verdicts.map(|verdicts| (verdicts.tx, verdicts.drop)), Some((60.0, 5.0)));
    assert_eq!(rates::of_status(&before, &after, Duration::ZERO).services[0].rate, None);
}

#[test]
fn counters_that_began_anew_and_objects_that_are_new_have_no_rate() {
    let mut before = web();
    pass(&mut before, &[100, 100, 100]);
    let mut after = before.clone();
    pass(&mut after, &[10, 10, 10]);
    // One is another server under the old name, one counts from the beginning, one moved up, one is new.
    after.backends[0].address = "10.9.9.9:80".into();
    after.backends[1].packets = 3;
    after.backends.swap(1, 2);
    after.backends.push(backend("web", 3));
    let found = rates::of_service(&before, &after, TWO_SECONDS);
    assert_eq!(found.backends, [None, rate(5.0), None, None]);
    assert_eq!(found.rate, rate(15.0));

    let mut elsewhere = after.clone();
    elsewhere.address = "203.0.113.11:80".into();
    assert_eq!(rates::of_service(&before, &elsewhere, TWO_SECONDS).rate, None);
    let other = service("other", "203.0.113.12:80", 2);
    let found = rates::of_services(&[before], &[other], TWO_SECONDS);
    assert_eq!((found[0].rate, found[0].backends.as_slice()), (None, [None, None].as_slice()));
}

#[test]
fn where_nobody_counts_new_flows_there_is_no_rate_of_them() {
    let mut before = web();
    before.new_flows = None;
    let mut after = before.clone();
    pass(&mut after, &[10]);
    let found = rates::of_service(&before, &after, TWO_SECONDS).rate;
    assert_eq!(found.map(|rate| (rate.packets, rate.new_flows)), Some((5.0, None)));
}

#[test]
fn what_changed_is_news() {
    let before = status(vec![web(), service("old", "203.0.113.12:80", 1)]);
    assert_eq!(news::of_status(&before, &before), []);
    let mut after = before.clone();
    after.interfaces[0].attached = false;
    after.config_error = Some("error: no".into());
    after.services[1] = service("new", "203.0.113.12:80", 1);
    let web = &mut after.services[0];
    web.state = "degraded".into();
    (web.backends[0].health, web.backends[0].health_detail) = ("unhealthy".into(), "refused\u{1b}[2J".into());
    web.backends[1].admin = "draining".into();
    web.backends[2] = backend("web", 7);
    let told: Vec<_> =
        news::of_status(&before, &after).into_iter().map(|one| (one.text, one.rating)).collect();
    let expected = [
        ("interface eth0: detached", Rating::Bad),
        ("the configuration file is refused: what ran before goes on", Rating::Bad),
        ("service web: healthy -> degraded", Rating::Doubtful),
        ("backend web/web-1: healthy -> unhealthy: refused\u{fffd}[2J", Rating::Bad),
        ("backend web/web-2: active -> draining", Rating::Doubtful),
        ("backend web/web-8: added", Rating::Doubtful),
        ("backend web/web-3: removed", Rating::Doubtful),
        ("service new: added", Rating::Doubtful),
        ("service old: removed", Rating::Doubtful),
    ];
    assert_eq!(told, expected.map(|(text, rating)| (text.to_owned(), rating)));
    let back = news::of_status(&after, &before);
    assert!(
        back.iter().any(|one| one.text == "interface eth0: attached, native" && one.rating == Rating::Good)
    );
    assert!(
        back.iter()
            .any(|one| one.text == "backend web/web-1: unhealthy -> healthy" && one.rating == Rating::Good)
    );
}

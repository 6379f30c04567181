//! How often something is made live when much happens.

use std::time::{Duration, Instant};

use super::*;
use crate::domain::Admin;

const BACKENDS: usize = 1_000;
const LASTS: Duration = Duration::from_secs(3);

/// A thousand backends toggle each second, the ways to them change ten times a second, and slow start and graces bring
/// something every second.
#[tokio::test]
async fn what_nobody_asked_for_is_made_live_at_most_ten_times_a_second() {
    let fake = Fake::new(Limits { backends: 2_048, lookup_slots: 16_384, ..LIMITS });
    let control = control_over(fake.clone());
    let names: Vec<_> = (0..BACKENDS).map(|number| format!("b{number}")).collect();
    let with_weights: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut web = service("web", &with_weights);
    (web.slow_start, web.unhealthy_grace) = (Duration::from_secs(4), Duration::from_secs(1));
    let addresses: Vec<_> = web.backends.values().map(|one| (one.name.clone(), one.address)).collect();
    control.submit(declare(vec![web])).await.unwrap();
    let before = control.snapshot().revision;
    let began = Instant::now();

    let health = async {
        // As the scheduler tells it: a tenth of them every 100 ms.
        for (round, some) in (0..).zip(addresses.chunks(BACKENDS / 10).cycle()) {
            if began.elapsed() >= LASTS {
                return;
            }
            let health = if round / 10 % 2 == 0 { Health::Healthy } else { Health::Unhealthy };
            let report = |(backend, address): &(_, SocketAddr)| {
                report(&format!("{backend}"), &address.to_string(), health)
            };
            let next = tokio::time::Instant::now() + Duration::from_millis(100);
            control.submit(Command::Health(some.iter().map(report).collect())).await.unwrap();
            tokio::time::sleep_until(next).await;
        }
    };
    let ways = async {
        for mac in 0.. {
            if began.elapsed() >= LASTS {
                return;
            }
            let mut way = way(&addresses[0].1.ip().to_string(), None);
            way.hop.as_mut().unwrap().mac[5] = mac;
            let next = tokio::time::Instant::now() + Duration::from_millis(100);
            control.submit(Command::NextHops(vec![way])).await.unwrap();
            tokio::time::sleep_until(next).await;
        }
    };
    let ((), ()) = futures_util::join!(health, ways);
    let (published, lasted) = (control.snapshot().revision - before, began.elapsed());
    let allowed = lasted.as_millis() / 100 + 1;
    assert!(u128::from(published) <= allowed, "{published} publishes in {lasted:?}");
    assert!(published >= 10, "only {published} publishes in {lasted:?}");

    // Whoever asks for something does not wait for that.
    let (name, _) = addresses[1].clone();
    let edit =
        crate::control::Edit::SetAdmin { service: super::name("web"), backend: name, admin: Admin::Draining };
    let asked = Instant::now();
    control.submit(Command::Edit { edit, ways: vec![] }).await.unwrap();
    control.submit(Command::NextHops(vec![way("10.9.9.9", None)])).await.unwrap();
    control.submit(declare(vec![])).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_waits_together_is_made_live_together() {
    let control = control();
    let names = ["a", "b", "c"];
    control.submit(declare(vec![service("web", &names.map(|name| (name, 1)))])).await.unwrap();
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    let before = control.snapshot().revision;
    // None of them is due for another 100 ms.
    let outcomes = futures_util::join!(
        control.submit(Command::Health(vec![report("b", "10.0.0.2:80", Health::Healthy)])),
        control.submit(Command::NextHops(vec![way("10.0.0.1", None)])),
        control.submit(Command::Health(vec![report("c", "10.0.0.3:80", Health::Healthy)])),
    );
    assert!(outcomes.0.is_ok() && outcomes.1.is_ok() && outcomes.2.is_ok(), "{outcomes:?}");
    assert_eq!(control.snapshot().revision, before + 1);
    assert_eq!(shares(&control).iter().filter(|share| **share > 0.3).count(), 3);
    assert!(control.snapshot().services[0].backends[0].reachable);
}

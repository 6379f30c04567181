use serde_json::json;

use super::*;
use crate::domain::{Fraction, HealthCheck, Http, OnPanic, Probe, testing};

#[test]
fn a_service_written_down_is_read_as_the_same() {
    let mut service = made_here(testing::service("web", &[("a", 1), ("b", 7)]));
    service.health.probe = Probe::Http(Http { path: "/x".into(), host: Some("h".into()), ..Http::default() });
    service.health.interval = Duration::from_millis(1500);
    service.health.fast_interval = Some(Duration::from_millis(300));
    service.health.down_interval = Some(Duration::from_secs(10));
    service.health.address = Some("10.9.0.1".parse().expect("an address"));
    service.health.source = Some("10.9.0.2".parse().expect("an address"));
    service.unhealthy_grace = Duration::ZERO;
    service.slow_start = Duration::from_secs(90);
    service.withdraw_below = 2;
    service.panic.threshold = Fraction::new(0.333).expect("a fraction");
    service.panic.action = OnPanic::HealthyOnly;
    service.backends.values_mut().for_each(|backend| backend.backup = backend.name.as_str() == "b");
    service.admission.allow.insert("10.0.0.0/8".parse().expect("a prefix"));
    service.admission.new_flow_rate = 9;
    service.discovery.file = Some(std::sync::Arc::new("/etc/web.toml".into()));
    let name = crate::domain::DnsName { host: "web.example.org".into(), port: 80 };
    service.discovery.names.push(DnsBackends { name, weight: 3, backup: true });
    assert_eq!(ServiceShape::from(&service).validate(), Ok(service));
}

#[test]
fn mistakes_are_those_of_the_file_and_name_their_key() {
    let good = ServiceShape {
        name: Some("web".into()),
        address: Some("203.0.113.10:80".into()),
        ..ServiceShape::default()
    };
    let refused = |shape: ServiceShape| shape.validate().expect_err("wrong");
    let algorithm = refused(ServiceShape { algorithm: Some("random".into()), ..good.clone() });
    assert_eq!(algorithm.field, "algorithm");
    assert!(algorithm.message.starts_with("`algorithm` can't be \"random\": one of"), "{algorithm}");
    let health = HealthShape { interval: Some("1ms".into()), ..HealthShape::default() };
    assert_eq!(refused(ServiceShape { health: Some(health), ..good.clone() }).field, "interval");
    let nameless = refused(ServiceShape { name: None, ..good });
    assert!(nameless.message.contains("the request has no `name`"), "{nameless}");
    let wrong =
        BackendShape { weight: Some(65536), ..BackendShape::default() }.validate().expect_err("wrong");
    assert!(!wrong.message.is_empty());
}

#[test]
fn a_shorter_interval_alone_shortens_the_timeout_and_a_longer_one_does_not_lengthen_it() {
    let service = testing::service("web", &[("a", 1)]);
    let patched = |interval: &str, timeout: Option<&str>| {
        let mut patch = json!({ "health": { "interval": interval } });
        if let Some(timeout) = timeout {
            patch["health"]["timeout"] = timeout.into();
        }
        let shape = ServiceShape::from(&service).patched(&patch).expect("of the shape");
        shape.validate().map(|service| service.health.timeout)
    };
    assert_eq!(patched("500ms", None), Ok(Duration::from_millis(500)));
    assert_eq!(patched("1m", None), Ok(service.health.timeout));
    assert_eq!(patched("500ms", Some("2s")).expect_err("too long").field, "timeout");
    assert_eq!(patched("soon", None).expect_err("no time").field, "interval");

    // The default is an interval like another.
    let default = HealthCheck::default().interval;
    let mut service = service;
    (service.health.interval, service.health.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
    let taken_back = |timeout: Value| {
        let patch = json!({ "health": { "interval": null, "timeout": timeout } });
        ServiceShape::from(&service).patched(&patch).expect("of the shape").validate()
    };
    let patch = json!({ "health": { "interval": null } });
    let health = ServiceShape::from(&service).patched(&patch).expect("of the shape").validate();
    let health = health.expect("valid").health;
    assert_eq!((health.interval, health.timeout), (default, default));
    let health = taken_back(Value::Null).expect("valid").health;
    assert_eq!((health.interval, health.timeout), (default, HealthCheck::default().timeout));
    let refused = taken_back("30s".into()).expect_err("too long");
    assert_eq!(refused.field, "timeout");
    assert!(refused.message.contains("2s"), "{refused}");
}

#[test]
fn another_type_of_check_forgets_what_only_the_old_one_has() {
    let mut service = testing::service("web", &[("a", 1)]);
    service.health.probe = Probe::Http(Http { path: "/x".into(), ..Http::default() });
    service.health.port = Some(81);
    for kind in [json!("tcp"), json!(null)] {
        let patch = json!({ "health": { "type": kind } });
        let patched = ServiceShape::from(&service).patched(&patch).expect("of the shape");
        let health = patched.validate().expect("valid").health;
        assert_eq!((health.probe, health.port), (Probe::Tcp, Some(81)));
    }
}

#[test]
fn null_takes_a_setting_back_and_nothing_else() {
    let mut service = made_here(testing::service("web", &[("a", 1)]));
    let plain = service.clone();
    service.health.probe = Probe::Http(Http { host: Some("h".into()), ..Http::default() });
    service.health.port = Some(81);
    service.health.source = Some("10.9.0.2".parse().expect("an address"));
    service.health.down_interval = Some(Duration::from_secs(10));
    service.drain_timeout = Duration::from_secs(7);
    let patched = |patch: Value| {
        let shape = ServiceShape::from(&service).patched(&patch).expect("of the shape");
        shape.validate().expect("valid")
    };
    let patch = json!({ "health": { "port": null, "source": null, "host": null }, "drain_timeout": null });
    let mut expected = service.clone();
    expected.health.probe = Probe::Http(Http::default());
    (expected.health.port, expected.health.source) = (None, None);
    expected.drain_timeout = plain.drain_timeout;
    assert_eq!(patched(patch), expected);
    assert_eq!(patched(json!({ "health": null, "drain_timeout": null })), plain);
    assert_eq!(patched(json!({})), service);
}

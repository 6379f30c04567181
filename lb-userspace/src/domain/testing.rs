//! Small services for unit tests.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    Admin, Admission, Algorithm, Backend, Discovery, Forwarding, HealthCheck, Name, OnAllDown, Origin, Panic,
    Protocol, Service, TableSize, Tracking, Vip,
};

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

/// An `ipip` service of 1,024 slots at 203.0.113.10:80 with these backends and weights, at 10.0.0.1 and on.
pub(crate) fn service(service: &str, backends: &[(&str, u16)]) -> Service {
    let backend = |(number, &(backend, weight)): (usize, &(&str, u16))| Backend {
        name: name(backend),
        address: format!("10.0.{}.{}:80", (number + 1) / 256, (number + 1) % 256)
            .parse()
            .expect("an address"),
        weight,
        backup: false,
        admin: Admin::Active,
        origin: origin(),
    };
    Service {
        name: name(service),
        vip: Vip { address: "203.0.113.10".parse().expect("an address"), port: Some(80) },
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Ipip,
        algorithm: Algorithm::SourceHash,
        table_size: TableSize::new(1024).expect("a power of two"),
        health: HealthCheck::default(),
        panic: Panic::default(),
        on_all_down: OnAllDown::FailOpen,
        tracking: Tracking::Auto,
        flow_idle_timeout: Duration::from_secs(900),
        unhealthy_grace: Service::DEFAULT_UNHEALTHY_GRACE,
        drain_timeout: Service::DEFAULT_DRAIN_TIMEOUT,
        slow_start: Duration::ZERO,
        withdraw_below: 0,
        admission: Admission::default(),
        discovery: Discovery::default(),
        backends: backends.iter().enumerate().map(backend).map(|b| (b.name.clone(), b)).collect(),
        origin: origin(),
    }
}

fn origin() -> Origin {
    Origin::File { path: Arc::new(PathBuf::from("test.toml")), line: 1 }
}

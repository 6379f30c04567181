//! Health checks against the servers that they are made for, and against some that mean harm.

mod databases;
mod descriptors;
mod failover;
mod hostile;
mod mysql8;
mod servers;
mod types;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Node, Service, VIP_V4, try_wait_for};
use serde_json::Value;

/// What a server takes to start, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
/// A quick check that a busy machine can keep up with: a backend is down after at most 0.5 × 3 + 0.5 s.
const QUICK: &str = "interval = \"500ms\"\ntimeout = \"500ms\"\nrise = 2\nfall = 3\n";

/// A service on `port` of the VIP, checked as `check` says.
fn service(name: &str, port: u16, check: &str) -> Service {
    Service::new(name, SocketAddr::new(VIP_V4, port), "tcp", "l2-dsr").health(&format!("{QUICK}{check}"))
}

/// With this node as a backend, under its label.
fn at(service: Service, node: &Node, port: u16) -> Service {
    service.backend(&node.label(), SocketAddr::new(node.ipv4().into(), port), 1)
}

/// Health of a backend and why.
fn verdict(daemon: &Daemon, service: &str, backend: &str) -> Result<(String, String)> {
    let status = daemon.status_json()?;
    let named = |all: Option<&Value>, name: &str| {
        let all = all?.as_array()?;
        all.iter().find(|one| one.get("name").and_then(Value::as_str) == Some(name)).cloned()
    };
    let service = named(status.get("services"), service).with_context(|| format!("no service {service}"))?;
    let backend = named(service.get("backends"), backend).with_context(|| format!("no backend {backend}"))?;
    let text = |key: &str| Some(backend.get(key)?.as_str()?.to_owned());
    text("health").zip(text("health_detail")).context("a backend without health")
}

/// Waits until the backend's health is `wanted`, and returns why it is.
fn wait_verdict(daemon: &Daemon, service: &str, backend: &str, wanted: &str) -> Result<String> {
    try_wait_for(&format!("{service}/{backend} is {wanted}"), SOON, || {
        let (health, detail) = verdict(daemon, service, backend)?;
        ensure!(health == wanted, "it is {health}: {detail}");
        Ok(Some(detail))
    })
}

//! What the checks' tests look at.

use crate::{
    doctor::setup::{Served, Server},
    domain::{Forwarding, Protocol},
};

pub(super) fn backend() -> Server {
    let address = "10.0.0.9:80".parse().expect("an address");
    Server { label: "web/web-1".into(), name: "web-1".into(), address, traffic: None }
}

/// A service of that backend.
pub(super) fn service(forwarding: Forwarding) -> Served {
    Served {
        name: "web".into(),
        vip: "203.0.113.10".parse().expect("an address"),
        port: Some(80),
        protocol: Protocol::Tcp,
        forwarding,
        via_vip: false,
        icmp: false,
        checked: true,
        backends: vec![backend()],
    }
}

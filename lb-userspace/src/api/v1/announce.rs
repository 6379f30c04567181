use serde::{Deserialize, Serialize};

/// `GET /v1/announce`, and in `GET /v1/status`: what the network is told of VIPs. `null` where this host makes no routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Number under which the kernel files the routes.
    pub protocol: u8,
    pub table: u32,
    pub metric: u32,
    /// Where the routes lead; `null`: they are blackhole routes.
    pub device: Option<String>,
    /// The administrator has taken all VIPs off the network.
    pub off: bool,
    pub vips: Vec<AnnouncedVip>,
    /// Why the kernel's routes can't be read or changed; `null` if they can.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedVip {
    pub vip: String,
    /// Its route is in the kernel.
    pub announced: bool,
    /// Why it is not: `administrator`, `no_carrier`, `not_attached`, `probe_failed`, `backends_below`, `foreign_route`,
    /// `route_refused` or `starting`; `null` if it is.
    pub reason: Option<String>,
    /// The same in words.
    pub detail: String,
    /// Why it is announced although a service asks for more healthy backends: the fleet gives no leave to withdraw it;
    /// `null` where that is not so.
    pub kept: Option<String>,
    /// Since it is announced, or is not.
    pub seconds: u64,
    pub services: Vec<String>,
    /// Packets forwarded to backends of all of its services.
    pub packets: u64,
}

/// A VIP that is an address of this host, on an interface of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldVip {
    pub vip: String,
    pub interface: String,
    /// MAC address of another host that says that it has the VIP, too; `null` if there is none.
    pub rival: Option<String>,
}

/// `PATCH /v1/announce`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcing {
    /// `null`, or not there: all VIPs, also those that come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    pub on: bool,
}

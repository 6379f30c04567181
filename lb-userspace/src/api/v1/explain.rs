//! `POST /v1/explain`.

use serde::{Deserialize, Serialize};

/// What becomes of one packet? Nothing is sent, and nothing changes. Either `frame` says what it is, or `from` and where it
/// goes: `service`, or `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Address and port of the client: `198.51.100.7:40000`, `[2001:db8::7]:40000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Address and port that it is sent to, in the place of a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Of a service of every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp` or `udp`; that of the service, or `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// A TCP segment that opens a connection, and not one in its midst.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub syn: bool,
    /// By which it comes; the first that the program is attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// IP header and all behind it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// A whole frame without FCS, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// `null`: it is for none, or that can't be said.
    pub service: Option<String>,
    /// Slot of the service's lookup table; `null` where it was not asked.
    pub slot: Option<u32>,
    /// `null`: it goes to none.
    pub backend: Option<String>,
    /// Why, in a word: `table`, `flow`, `previous`, `fallback`, `new_flow`, `round_robin`, `least_connections`, `nat_flow`,
    /// `fragment`; a drop reason; `echo`, `icmp_error`, `tunnel_error`; or of what passes `no_service`, `no_flow`, `other_mac`,
    /// `fragment_passed`, `icmp_passed`, `other`.
    pub reason: String,
    /// Whether the flow table was asked.
    pub tracked: bool,
    /// `tx`, `redirect`, `pass` or `drop`.
    pub verdict: String,
    /// The frame that leaves, in hexadecimal digits; `null` where it is dropped.
    pub output: Option<String>,
    /// The frame that was asked about, likewise.
    pub input: String,
    /// By which it comes, and by which it leaves.
    pub interface: String,
    pub egress: Option<String>,
    /// The same in sentences, and more.
    pub explanation: Vec<String>,
    /// What to do about a packet that goes no further; `null` for others.
    pub remedy: Option<String>,
    /// Headers as it comes, and as it leaves.
    pub headers: Vec<HeaderPair>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderPair {
    /// `ethernet`, `vlan`, `ipv4`, `ipv6`, `tcp`, `udp`, `icmp`, `icmpv6`.
    pub layer: String,
    /// `null`: it has none such.
    pub before: Option<String>,
    pub after: Option<String>,
}

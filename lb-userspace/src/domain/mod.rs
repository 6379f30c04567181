//! The plain model: what services and backends are, free of serde, sockets, clocks and map layouts.

mod address;
mod admission;
mod announce;
mod backend;
mod destination_mac;
mod discovery;
mod filling;
mod health;
mod kept;
mod name;
mod nat;
mod origin;
mod panic;
pub mod policy;
mod prefix;
mod probe;
mod service;
#[cfg(test)]
pub(crate) mod testing;
mod xdp_mode;

pub use address::unusable;
pub use admission::Admission;
pub use announce::AnnounceOff;
pub use backend::{Admin, Backend};
pub use destination_mac::DestinationMac;
pub use discovery::{Discovery, DnsBackends, DnsName, Source, name_of};
pub use filling::Filling;
pub use health::{Health, HealthCheck, Pace, Via};
pub use kept::{Found, Kept, Override};
pub use name::{Name, NameError};
pub use nat::NatPool;
pub use origin::Origin;
pub use panic::{Fraction, OnPanic, Panic};
pub use prefix::{Prefix, PrefixError};
pub use probe::{Database, Dns, Engine, Grpc, Http, Probe, Rcode, RecordType, Role, Tls, may_be_secret};
pub use service::{
    Algorithm, Forwarding, Misfit, OnAllDown, Protocol, Service, TableSize, Tracking, Vip, place,
};
pub use xdp_mode::XdpMode;

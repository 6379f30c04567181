//! The plain model: what services and backends are, free of serde, sockets, clocks and map layouts.

mod backend;
mod health;
mod kept;
mod name;
mod origin;
pub mod policy;
mod service;
#[cfg(test)]
pub(crate) mod testing;
mod xdp_mode;

pub use backend::{Admin, Backend};
pub use health::{Health, HealthCheck, Probe};
pub use kept::{Kept, Override};
pub use name::{Name, NameError};
pub use origin::Origin;
pub use service::{
    Algorithm, Forwarding, Misfit, OnAllDown, Protocol, Service, TableSize, Tracking, Vip, place,
};
pub use xdp_mode::XdpMode;

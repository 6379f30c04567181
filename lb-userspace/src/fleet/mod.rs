//! Several load balancers with one truth: their services are documents in etcd, which every member watches, and which are
//! changed there alone.
//!
//! What is decided is pure ([`book`], [`marks`], [`permit`], `edit`); `task` listens to etcd, `write` changes it.

#[cfg(feature = "fleet")]
mod alive;
pub mod book;
#[cfg(feature = "fleet")]
mod edit;
#[cfg(feature = "fleet")]
pub mod etcd;
#[cfg(feature = "fleet")]
mod import;
pub mod kept;
pub mod keys;
pub mod marks;
pub mod member;
pub mod permit;
#[cfg(feature = "fleet")]
mod task;
pub mod view;
#[cfg(feature = "fleet")]
mod write;

#[cfg(feature = "fleet")]
pub use import::{Imported, export, import};
pub use permit::{LAST, Leave, Wish};
pub use view::{Link, View, Views};
#[cfg(feature = "fleet")]
pub use {
    task::{Join, Settings, start},
    write::{Plan, Writer},
};

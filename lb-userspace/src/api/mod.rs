//! The control API: JSON over HTTP on a Unix socket, under `/v1`.

pub mod client;
mod error;
pub mod server;
#[cfg(test)]
mod tests;
pub mod v1;
mod view;

pub use error::ReloadError;
pub use server::{Api, Reloading};

//! What Ballast's tests stand on: the [`lab`] of network namespaces, and the [`packet`] tests' harness with its
//! reference [`model`]. The tests themselves are in `tests/tests`. What `cargo xtask bench` runs is in [`bench`], what
//! `cargo xtask storm` runs in [`storm`].

pub mod bench;
pub mod lab;
pub mod model;
pub mod packet;
pub mod simulation;
pub mod storm;

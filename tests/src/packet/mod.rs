//! Packet tests: the loaded program, run by the kernel on frames of the tests' making (`BPF_PROG_TEST_RUN`), and
//! compared with the [`crate::model`].
//!
//! The kernel takes no frame shorter than an Ethernet header, and without taking fragments none longer than a page
//! less its reserves; both ends are for the lab tests.

mod case;
pub mod fixture;
mod frame;
pub mod fuzz;
mod network;
mod sys;
mod world;

pub use case::{Case, Expect, PLAIN, run_table};
pub use frame::{ACK, BALANCER_MAC, CLIENT_MAC, Packet, SYN, hex, seal_v4};
pub use world::{LIMITS, Observed, World};

//! Packet tests: the loaded program, run by the kernel on frames of the tests' making (`BPF_PROG_TEST_RUN`), and
//! compared with the [`crate::model`].
//!
//! The kernel takes no frame shorter than an Ethernet header; that end is for the lab tests.

pub mod answer;
mod bpffs;
pub mod budget;
mod case;
mod counters;
mod dump;
mod encode;
mod exact;
mod exact_encode;
pub mod explained;
pub mod fixture;
mod flows;
mod frame;
pub mod fuzz;
mod fuzz_changes;
mod fuzz_coverage;
mod fuzz_damage;
mod fuzz_errors;
mod fuzz_flows;
mod fuzz_frames;
mod fuzz_nat;
mod fuzz_packets;
pub mod kernel;
pub mod message;
pub mod modes;
pub mod nat_story;
mod network;
mod notes;
mod outcome;
pub mod pieces;
pub mod story;
pub(crate) mod sys;
pub mod tracked;
pub mod tunnel;
mod world;

pub use case::{Case, Expect, PLAIN, run_table};
pub use frame::{ACK, BALANCER_MAC, CLIENT_MAC, FIN, Packet, RST, SYN, hex, seal_v4};
pub use outcome::Observed;
pub use sys::Classified;
pub use world::{FIRST_BUFFER, LIMITS, Runner, World};

//! A fleet over a bad network: each member has its own tables, and numbers backends in its own way. A connection's truth is the
//! backend that took its SYN, and nothing else knows it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod balancer;
mod fleet;
mod foreign;
mod large;
mod member;
mod moving;
mod newcomers;
mod packets;
mod storm;
mod timeouts;
mod times;
mod told;
mod windows;

const SLOTS: u32 = 256;
const SHIFT: u32 = 56;
const BACKENDS: u32 = 8;
/// So many that no bucket is ever full.
const FLOWS: usize = 16384;
const BITS: u8 = (FLOWS / 8).ilog2() as u8;
const IDLE: u32 = 8;
/// How long it may take, in such a network, until the others know of a flow.
const LAG: u64 = 6000;
const START: u64 = 5000;

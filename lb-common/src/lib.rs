//! What the data plane (`lb-ebpf`) and the controller (`lb-userspace`) must compute alike.
//!
//! Nothing here touches a map, a socket or a clock: these are layouts, names and pure functions, and all of them
//! run on the host as well as in the kernel.

#![no_std]

pub mod abi;
pub mod checksum;
pub mod flow;
pub mod hash;
pub mod nat;
pub mod wire;

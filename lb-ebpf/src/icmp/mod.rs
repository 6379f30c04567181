//! ICMP.

pub mod error;

//! VIPs that the network learns from the kernel's routes: real routing daemons, real links that go down, and connections that
//! notice nothing of it.
//!
//! | | |
//! |---|---|
//! | routers that share the packets (BIRD, ECMP, BFD) | `ecmp` |
//! | the example for FRR | `frr` |
//! | what withdraws a VIP, and what does not | `reasons` |
//! | whose routes are whose, and what a restart and other settings do to them | `routes` |

mod ecmp;
mod frr;
mod reasons;
mod routes;
mod scene;

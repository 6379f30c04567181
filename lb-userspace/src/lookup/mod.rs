//! Building lookup tables: pure functions from names and weights to slots.

pub mod maglev;
pub mod rotation;

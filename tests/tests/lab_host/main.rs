//! What the host does to a load balancer: its interfaces and drivers, its addresses, its clock, its disk, and what an
//! older version left.
//!
//! Every loss that is asserted to be 0 was 0 before, in a control run without the fault.

mod addresses;
mod clock;
mod interfaces;
mod memory;
mod pins;
mod scene;
mod wall_clock;

//! NAT flows: what they are told apart by, how long they live, and what happens when there is no room for more.

mod counters;
mod exhaustion;
mod reuse;
mod scene;
mod survival;

//! Who may send to a service, and how many flows it takes a second.

use lb_common::abi::ServiceEntry;

use crate::{
    parse::{Address, Packet},
    refusal::Refusal,
};

/// Whether the service takes this packet.
#[inline(always)]
pub fn admit<A: Address>(service: &ServiceEntry, packet: &Packet<A>) -> Result<(), Refusal> {
    let _ = (service, packet);
    Ok(())
}

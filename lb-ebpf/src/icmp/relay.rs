//! Errors about a packet from a VIP: they go where the flow's packets go.

use lb_common::wire::transport::TCP_RST;

use super::quoted::Quoted;
use crate::{
    journey::Journey,
    nat::entry::swapped,
    service::{self, Found},
};

/// Makes of the error's journey one of the flow, if it quotes a packet of a service that lives where it goes.
#[inline(always)]
pub fn to_the_flow(journey: &mut Journey, quoted: &Quoted) -> bool {
    if !quoted.has_ports() || quoted.source != journey.destination {
        return false;
    }
    journey.ports = swapped(quoted.ports);
    journey.protocol = quoted.protocol;
    let Found::Service(_) = service::of_journey() else { return false };
    journey.source = quoted.destination;
    // Of all segments the one that leaves no trace.
    journey.tcp_flags = TCP_RST;
    journey.observes = 1;
    true
}

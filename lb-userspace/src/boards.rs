//! What the daemon's tasks post for those who ask: the API, the metrics, the status page.

use std::sync::Arc;

use crate::{
    announce::{self, split_brain::HeldVips},
    capture,
    fleet::Views,
    health::Links,
    peers::Exchange,
};

#[derive(Clone, Default)]
pub struct Boards {
    /// What there is to tell of captures.
    pub captures: capture::Board,
    /// Whether this host has a link, without which failed checks don't count.
    pub links: Arc<Links>,
    /// What the network is told of VIPs.
    pub announce: Arc<announce::Board>,
    /// VIPs that are addresses of this host, and who else says that it has them.
    pub held: Arc<HeldVips>,
    /// What is known of the fleet; `None`: this load balancer is in none.
    pub fleet: Option<Views>,
    /// With whom flows are replicated, and how that goes; `None` without `[peers]`.
    pub peers: Option<Arc<Exchange>>,
}

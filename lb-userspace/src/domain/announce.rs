use std::{collections::BTreeSet, net::IpAddr};

/// VIPs that the administrator has taken off the network, until they are put on again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceOff {
    /// All of them, also those that come later.
    pub all: bool,
    pub vips: BTreeSet<IpAddr>,
}

impl AnnounceOff {
    pub fn covers(&self, vip: IpAddr) -> bool {
        self.all || self.vips.contains(&vip)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

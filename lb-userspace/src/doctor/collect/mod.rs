//! Where values come from that nothing else of Ballast asks for.

pub(super) mod ethtool;
pub(super) mod xdp_features;

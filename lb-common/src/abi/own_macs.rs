//! The MAC addresses that frames for this host go to.

/// Entries of `OWN_MACS`, each a MAC address in the low 48 bits, in memory order, or [`NO_MAC`].
pub const OWN_MAC_PLACES: u32 = 256;
/// Addresses for which a seed is looked for.
pub const MAX_OWN_MACS: usize = 64;
/// What stands where no address is: none is that large.
pub const NO_MAC: u64 = u64::MAX;

/// `ControlBlock::own_macs`: the seed by which each address has a place of its own in `OWN_MACS`, or 0 where frames for any
/// MAC address are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct OwnMacs(pub u64);

impl OwnMacs {
    pub const ANY: Self = Self(0);

    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.0 == Self::ANY.0
    }

    /// Where in `OWN_MACS` this address is, if it is there.
    #[inline(always)]
    pub const fn place(self, mac: u64) -> u32 {
        // The top bits of a product depend on all bits of its factors.
        (mac.wrapping_mul(self.0) >> (u64::BITS - OWN_MAC_PLACES.ilog2())) as u32
    }
}

/// An address as `OWN_MACS` has it.
#[inline(always)]
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

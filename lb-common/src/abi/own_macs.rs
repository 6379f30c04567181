//! The MAC addresses that frames for this host go to.

pub use crate::wire::ethernet::mac_word;

/// Entries of `OWN_MACS`, each a MAC address in the low 48 bits, in memory order, or [`NO_MAC`].
pub const OWN_MAC_PLACES: u32 = 256;
/// Addresses for which a seed is looked for.
pub const MAX_OWN_MACS: usize = 64;
/// What stands where no address is: none is that large.
pub const NO_MAC: u64 = u64::MAX;

/// `ControlBlock::own_macs`: the seed by which each address has a place of its own in `OWN_MACS`, an odd number; or 0 where
/// frames for any MAC address are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct OwnMacs(pub u64);

impl OwnMacs {
    pub const ANY: Self = Self(0);

    /// Whether an address is one of them, by what stands in its place. Without a branch: the verifier would walk all that follows
    /// once for each way there.
    #[inline(always)]
    pub const fn contain(self, mac: u64, in_its_place: u64) -> bool {
        let counts = 0_u64.wrapping_sub(self.0 & 1);
        (mac ^ in_its_place) & counts == 0
    }

    /// Where in `OWN_MACS` this address is, if it is there.
    #[inline(always)]
    pub const fn place(self, mac: u64) -> u32 {
        // The top bits of a product depend on all bits of its factors.
        (mac.wrapping_mul(self.0) >> (u64::BITS - OWN_MAC_PLACES.ilog2())) as u32
    }
}

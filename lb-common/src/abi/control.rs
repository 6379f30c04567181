//! The one-entry map that names what is live.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entry 0 of the `CONTROL` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControlBlock {
    /// A [`ServiceTableWord`]: which copy of the service table is live. Switching it publishes a set of services.
    pub service_table: u64,
    /// Number of the control state that the maps hold, written last in an apply.
    pub revision: u64,
    /// `HashKey::fingerprint` of the key that the tables are used with; 0 before the first start is done. Another key
    /// would send clients to other backends.
    pub hash_key: u64,
    /// Which of the two entries of `NAT_POOL` is live: 0 or 1.
    pub nat_pool: u64,
    /// An [`OwnMacs`](super::OwnMacs): which frames are looked at.
    pub own_macs: u64,
    pub _reserved: [u64; 3],
}

const _: () = assert!(size_of::<ControlBlock>() == 64);

/// `seed:32 << 32 | translates:1 << 2 | every_port:1 << 1 | copy:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ServiceTableWord(pub u64);

impl ServiceTableWord {
    pub const fn new(copy: u32, every_port: bool, translates: bool, seed: u32) -> Self {
        Self(
            ((seed as u64) << 32)
                | ((translates as u64) << 2)
                | ((every_port as u64) << 1)
                | (copy & 1) as u64,
        )
    }

    /// Which of the two copies is live: 0 or 1.
    #[inline(always)]
    pub const fn copy(self) -> u32 {
        (self.0 & 1) as u32
    }

    /// Whether any service owns every port of its VIP. Where none does, a miss costs one lookup instead of two.
    #[inline(always)]
    pub const fn every_port(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether any service's replies pass the load balancer. Where none does, nobody looks for them.
    #[inline(always)]
    pub const fn translates(self) -> bool {
        self.0 & 4 != 0
    }

    #[inline(always)]
    pub const fn seed(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

//! Who may send to a service, and how fast flows may be opened.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Data of a key of `SOURCES`: a longest-prefix match whose first 32 bits have to match whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceKey {
    /// The service's `source_list`, in memory order.
    pub list: [u8; 4],
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

const _: () = assert!(size_of::<SourceKey>() == 20);

/// Bits before the address.
pub const SOURCE_LIST_BITS: u32 = 32;

/// Values of `SOURCES`. A source that no prefix covers is allowed: a list of allowed prefixes has a last one, of all
/// addresses, that denies.
pub const SOURCE_ALLOW: u32 = 1;
pub const SOURCE_DENY: u32 = 2;

/// An entry of `NEW_FLOWS`, by service: flows opened in this unit of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct NewFlows {
    /// `coarse time:32 << 32 | flows:32`, changed by compare-and-swap.
    pub word: u64,
    pub _padding: [u64; 7],
}

const _: () = assert!(size_of::<NewFlows>() == 64);

/// The only entry of `ICMP_BUDGET`, by CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(16))]
pub struct IcmpBudget {
    /// Coarse time to which `sent` belongs.
    pub time: u64,
    /// Errors made in it.
    pub sent: u64,
}

const _: () = assert!(size_of::<IcmpBudget>() == 16);

/// ICMP errors a CPU makes in a unit of time (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
pub const ICMP_ERRORS_PER_UNIT: u64 = 1000;

//! Backend records: the line the data plane reads, and the line a restarted controller goes on from.

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

/// One entry of `BACKENDS`. An index belongs to one (service, backend address); index 0 is never used.
///
/// `next_hop`, `state` and `weight` change while packets flow and are read and written as single words; the rest of the
/// first line is written before the index appears in any slot or flow entry and never changes while it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct BackendValue {
    /// A [`NextHop`].
    pub next_hop: u64,
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// `STATE_*` bits.
    pub state: u32,
    /// The service this index belongs to.
    pub service: u32,
    /// Network order.
    pub port: [u8; 2],
    /// Relative to the other backends', host order; 0 for one that gets no new flows. Least-connections reads it.
    pub weight: u16,
    pub _padding: [u8; 28],

    /// 128-bit hash of service name, backend name, address and port.
    pub stable_id: [u8; 16],
    /// 64-bit hash of service name and backend name: finds the record of a backend whose address changed.
    pub name_id: u64,
    /// Boot-time seconds at which this backend left its lookup table, 0 while it is in it.
    pub left_table_at: u64,
    /// Boot-time seconds at which existing flows are no longer accepted, 0 for none.
    pub drain_deadline: u64,
    /// Boot-time seconds since when the index waits to be reused, 0 while it is in use.
    pub quarantined_at: u64,
    /// The service's, in time units: how long a flow entry may name this index after its last packet.
    pub flow_idle_timeout: u32,
    /// `ADMIN_*`.
    pub admin: u8,
    /// `HEALTH_*`: the last verdict, with which a restarted controller starts.
    pub health: u8,
    pub _reserved: [u8; 2],
    /// Boot-time seconds at which its slow start began, 0 where it has none.
    pub started_at: u64,

    /// In ASCII, zeros behind it: what a restarted controller calls a backend that drains and is declared nowhere.
    pub name: [u8; 64],
}

const _: () = assert!(size_of::<BackendValue>() == 192);

impl Default for BackendValue {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// How to reach a backend: `mac:48 | egress:16 << 48`, the MAC's first byte lowest. One word, so a packet never sees
/// half of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct NextHop(pub u64);

impl NextHop {
    /// The kernel has not resolved the neighbour: packets are dropped and counted, never sent to a zero MAC.
    pub const UNRESOLVED: Self = Self(0);

    pub const fn new(mac: [u8; 6], egress: u16) -> Self {
        Self(
            u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
                | ((egress as u64) << 48),
        )
    }

    #[inline(always)]
    pub const fn mac(self) -> [u8; 6] {
        let b = self.0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }

    /// Index into `EGRESS`; 0 means unresolved.
    #[inline(always)]
    pub const fn egress(self) -> u32 {
        (self.0 >> 48) as u32
    }
}

/// The index belongs to a backend of the present state.
pub const STATE_IN_USE: u32 = 1;
/// New flows may be sent here.
pub const STATE_NEW_FLOWS: u32 = 2;
/// Packets of existing flows may be sent here.
pub const STATE_EXISTING_FLOWS: u32 = 4;
/// Its address is IPv6.
pub const STATE_IPV6: u32 = 8;

pub const ADMIN_ACTIVE: u8 = 0;
pub const ADMIN_DRAINING: u8 = 1;
pub const ADMIN_DISABLED: u8 = 2;

pub const HEALTH_UNKNOWN: u8 = 0;
pub const HEALTH_HEALTHY: u8 = 1;
pub const HEALTH_UNHEALTHY: u8 = 2;
pub const HEALTH_INELIGIBLE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_word_keeps_its_mac_and_egress() {
        let hop = NextHop::new([2, 3, 4, 5, 6, 255], 0xfffe);
        assert_eq!(hop.mac(), [2, 3, 4, 5, 6, 255]);
        assert_eq!(hop.egress(), 0xfffe);
        assert_eq!(NextHop::UNRESOLVED.egress(), 0);
    }
}

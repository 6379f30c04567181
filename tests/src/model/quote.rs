//! The packet that an ICMP error is about.

use std::net::IpAddr;

use super::headers::{v4, v6, word};
use super::service::Protocol;
use super::work::Flow5;

/// As far as it is quoted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote {
    /// Where in the frame it begins, and where that ends which is there of it.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where its IP header is followed by eight bytes at least.
    pub(super) l4: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
}

const UDP: u8 = 17;
const GUE_PORT: u16 = 6080;

impl Quote {
    /// One of either family that begins at `start`, if it can be read.
    pub(super) fn read(head: &[u8], start: usize, end: usize) -> Option<Self> {
        let bytes = head.get(start..end)?;
        let (l4, source, destination, protocol) = match bytes.first()? >> 4 {
            4 => {
                let header = bytes.get(..20)?;
                let header_len = usize::from(header[0] % 16) * 4;
                if header_len < 20 || word(header, 6)? % 0x2000 > 0 {
                    return None;
                }
                (header_len, v4(&header[12..16]), v4(&header[16..20]), header[9])
            }
            6 => {
                let header = bytes.get(..40)?;
                (40, v6(&header[8..24]), v6(&header[24..40]), header[6])
            }
            _ => return None,
        };
        bytes.get(l4..l4 + 8)?;
        Some(Self { start, end, l4: start + l4, source, destination, protocol })
    }

    /// Of TCP and UDP.
    pub(super) fn flow(&self, head: &[u8]) -> Option<Flow5> {
        Some(Flow5 {
            source: self.source,
            destination: self.destination,
            source_port: word(head, self.l4)?,
            destination_port: word(head, self.l4 + 2)?,
            protocol: Protocol::from_number(self.protocol)?,
        })
    }

    /// The packet inside, and the length of what is around it.
    pub(super) fn inner(&self, head: &[u8]) -> Option<(Self, usize)> {
        let outer_len = if self.source.is_ipv4() { 20 } else { 40 };
        let (start, overhead) = match self.protocol {
            4 | 41 => (self.l4, outer_len),
            UDP if word(head, self.l4 + 2)? == GUE_PORT => (self.l4 + 8, outer_len + 8),
            _ => return None,
        };
        let inner = Self::read(head, start, self.end)?;
        let fits = match self.protocol {
            4 => inner.source.is_ipv4(),
            41 => inner.source.is_ipv6(),
            _ => true,
        };
        fits.then_some((inner, overhead))
    }
}

use std::fmt;

use lb_common::abi::MAX_SNAPLEN;

use crate::domain::{Name, Prefix};

/// Which packets are wanted, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Those for this service alone.
    pub service: Option<Name>,
    /// Those of these clients, replies to them through NAT included.
    pub from: Option<Prefix>,
    /// Those that come by this interface.
    pub interface: Option<String>,
    /// Nothing but what is dropped.
    pub dropped: bool,
    /// Also what is the host's.
    pub passed: bool,
    /// It ends after so many; `None`: it goes on until nobody listens any more.
    pub count: Option<u64>,
    /// Packets a second, 1 to [`MAX_RATE`].
    pub rate: u32,
    /// Bytes of a frame that are kept, [`MIN_SNAPLEN`] to `MAX_SNAPLEN`.
    pub snaplen: u32,
    pub format: Format,
}

/// What the listener gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>
    #[default]
    Pcapng,
    /// A JSON object a line.
    Json,
}

impl Format {
    pub const ALL: [Self; 2] = [Self::Pcapng, Self::Json];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pcapng => "pcapng",
            Self::Json => "json",
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            service: None,
            from: None,
            interface: None,
            dropped: false,
            passed: false,
            count: None,
            rate: DEFAULT_RATE,
            snaplen: MAX_SNAPLEN,
            format: Format::Pcapng,
        }
    }
}

impl Request {
    /// Nanoseconds between two packets at the rate, and how far ahead of it packets may come: a tenth of a second's worth, and
    /// at least [`MIN_BURST`] packets.
    pub(super) fn pace(&self) -> (u64, u64) {
        let interval = NANOS / u64::from(self.rate.max(1));
        let burst = u64::from(self.rate / 10).max(MIN_BURST);
        // The first one is not ahead of anything.
        (interval, interval * (burst - 1))
    }
}

/// `service web, from 198.51.100.0/24, only what is dropped`; `everything`.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            self.service.as_ref().map(|service| format!("service {service}")),
            self.from.map(|from| format!("from {from}")),
            self.interface.as_ref().map(|interface| format!("on {interface}")),
            self.dropped.then(|| "only what is dropped".to_owned()),
            self.passed.then(|| "also what is passed".to_owned()),
        ];
        let named: Vec<_> = named.into_iter().flatten().collect();
        f.write_str(if named.is_empty() { "everything" } else { "" })?;
        f.write_str(&named.join(", "))
    }
}

pub const DEFAULT_RATE: u32 = 1_000;
pub const MAX_RATE: u32 = 100_000;
/// Room for the headers of most packets.
pub const MIN_SNAPLEN: u32 = 64;
const MIN_BURST: u64 = 10;
const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_told_in_words() {
        assert_eq!(Request::default().to_string(), "everything");
        let some = Request {
            service: Some("web".parse().expect("a name")),
            from: Some("198.51.100.0/24".parse().expect("a prefix")),
            dropped: true,
            ..Request::default()
        };
        assert_eq!(some.to_string(), "service web, from 198.51.100.0/24, only what is dropped");
    }

    #[test]
    fn the_pace_is_that_of_the_rate_with_a_tenth_of_a_second_or_ten_packets_at_once() {
        let pace = |rate| Request { rate, ..Request::default() }.pace();
        assert_eq!(pace(1), (1_000_000_000, 9_000_000_000));
        assert_eq!(pace(1_000), (1_000_000, 99_000_000));
        assert_eq!(pace(100_000), (10_000, 99_990_000));
    }
}

use std::{fmt, net::IpAddr, str::FromStr};

/// An address and how many of its first bits count: `198.51.100.0/24`, `2001:db8::/32`. The other bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("that is not an address and a prefix length")]
    Form,
    #[error("the prefix length is at most {longest}")]
    Length { longest: u8 },
    #[error("it has bits behind its prefix length; the network is {network}")]
    HostBits { network: Prefix },
    #[error("an IPv4 address inside an IPv6 one never is on the wire; write the IPv4 address")]
    Mapped,
}

impl Prefix {
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// In bits.
    pub const fn length(self) -> u8 {
        self.length
    }

    pub const fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// An address alone is a prefix of all its bits.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Form)?;
        if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(PrefixError::Mapped);
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                return Err(PrefixError::Form);
            }
            Some(digits) => match digits.parse() {
                Ok(length) if length <= longest => length,
                _ => return Err(PrefixError::Length { longest }),
            },
        };
        let network = Self { address: network(address, length), length };
        if network.address == address { Ok(network) } else { Err(PrefixError::HostBits { network }) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn network(address: IpAddr, length: u8) -> IpAddr {
    // A shift by all bits leaves none, which is what a length of 0 means.
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_held_to_one_form() {
        for text in
            ["198.51.100.0/24", "0.0.0.0/0", "10.0.0.1/32", "2001:db8::/32", "::/0", "2001:db8::1/128"]
        {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("10.0.0.1".parse::<Prefix>(), "10.0.0.1/32".parse());
        for text in ["", "/", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Form), "{text}");
        }
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length { longest: 32 }));
        assert_eq!("2001:db8::/999".parse::<Prefix>(), Err(PrefixError::Length { longest: 128 }));
        assert_eq!("::ffff:10.0.0.0/104".parse::<Prefix>(), Err(PrefixError::Mapped));
        let network = "198.51.100.0/22".parse().expect("a prefix");
        assert_eq!("198.51.101.0/22".parse::<Prefix>(), Err(PrefixError::HostBits { network }));
    }
}

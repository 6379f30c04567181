//! Interfaces of this network namespace, as its kernel knows them.

mod netlink;

use std::{collections::HashSet, fs, io};

use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
};

pub(crate) use netlink::{changes, link};

/// What an interface is called now; `if7` if there is no number 7 any more.
pub(crate) fn name(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    // Of one that is gone nix returns an empty name, and no error.
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("if{index}"))
}

/// The number of the interface that goes by this name, alternative names included; 0 if there is none. `None`: the kernel
/// can't be asked, for want of a descriptor, say.
pub(crate) fn index(name: &str) -> Option<u32> {
    match if_nametoindex(name) {
        Ok(index) => Some(index),
        Err(Errno::ENODEV | Errno::ENXIO) => Some(0),
        Err(_) => None,
    }
}

/// An interface's link at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carrier {
    /// The interface's number; 0: there is no such interface.
    pub(crate) index: u32,
    /// It is up, and the other end of its cable, too.
    pub(crate) up: bool,
    /// How often the link was lost, as the driver told the kernel. Who asks later than that learns of it all the same.
    pub(crate) losses: u32,
}

/// The link of interface `index`; one that is gone has none. Waits for whoever changes interfaces at the moment.
pub(crate) fn carrier(index: u32) -> io::Result<Carrier> {
    if index == 0 {
        return Ok(Carrier::default());
    }
    let link = match link(index) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Carrier::default()),
        link => link?,
    };
    let losses = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::CarrierDownCount(count) => Some(*count),
        _ => None,
    });
    let up = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    Ok(Carrier { index, up, losses: losses.unwrap_or_default() })
}

/// The interfaces with an IPv6 address that nobody may use yet: whether somebody else has it is being found out (RFC 4862,
/// section 5.4). Waits for nobody.
pub(crate) fn detecting() -> io::Result<HashSet<u32>> {
    // That of this thread: /proc/net is the main thread's.
    Ok(tentative(&fs::read_to_string("/proc/thread-self/net/if_inet6")?).collect())
}

/// Lines are `address index prefix scope flags name`, numbers in hexadecimal.
fn tentative(addresses: &str) -> impl Iterator<Item = u32> {
    addresses.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let index = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.nth(2)?, 16).ok()?;
        // One that somebody else has stays as it is.
        (flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == libc::IFA_F_TENTATIVE).then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tentative_until_it_is_known_whose_they_are() {
        let addresses = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 0a 40 20 c0     eth0
20010db8000000000000000000000001 0b 40 00 88     eth1
20010db8000000000000000000000002 0c 40 00 c8     eth2
nonsense
";
        assert_eq!(tentative(addresses).collect::<Vec<_>>(), [10]);
        assert!(!detecting().expect("it is readable").contains(&1));
    }

    #[test]
    fn an_interface_has_its_name_and_one_that_is_gone_its_number() {
        assert_eq!(name(1), "lo");
        assert_eq!(name(0x7fff_fff0), "if2147483632");
        assert_eq!((index("lo"), index("no-such-if")), (Some(1), Some(0)));
    }

    #[test]
    fn one_that_is_gone_has_no_link() {
        assert_eq!(carrier(1).expect("every namespace has a loopback").index, 1);
        for gone in [0, 0x7fff_fff0] {
            assert_eq!(carrier(gone).expect("that is an answer"), Carrier::default());
        }
    }
}

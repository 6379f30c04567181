//! What a driver says of itself: `ioctl(SIOCETHTOOL)`, which every kernel has, and other than sysfs in any network namespace.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use zerocopy::IntoBytes as _;

/// Asks about interfaces of the network namespace it was made in.
pub(crate) struct Ethtool {
    socket: OwnedFd,
}

/// Receive queues: those that are on, and those that the card has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queues {
    pub(crate) on: u32,
    pub(crate) most: u32,
    /// Whether a queue is for both directions.
    pub(crate) combined: bool,
}

impl Ethtool {
    pub(crate) fn new() -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Name of the interface's driver.
    pub(crate) fn driver(&self, interface: &str) -> io::Result<String> {
        let mut info = [0u32; DRVINFO_WORDS];
        info[0] = ETHTOOL_GDRVINFO;
        self.call(interface, &mut info)?;
        Ok(text(&info.as_bytes()[4..4 + NAME_LENGTH]))
    }

    /// Names of the offloads that are on: `rx-lro`, `rx-gro-hw` and so on.
    pub(crate) fn features(&self, interface: &str) -> io::Result<BTreeSet<String>> {
        // One set is asked for, so there is one number in the answer.
        let mut sets = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        self.call(interface, &mut sets)?;
        let count = sets[4].min(MOST_FEATURES);
        let mut names = vec![0u32; 3 + count as usize * NAME_LENGTH / 4];
        names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
        self.call(interface, &mut names)?;
        let blocks = count.div_ceil(32);
        // Each block: available, requested, active, never changed.
        let mut blocks_of = vec![0u32; 2 + 4 * blocks as usize];
        blocks_of[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks]);
        self.call(interface, &mut blocks_of)?;
        let is_on = |index: usize| {
            let active = blocks_of.get(2 + index / 32 * 4 + 2).copied().unwrap_or_default();
            active >> (index % 32) & 1 == 1
        };
        let names = names[3..].as_bytes().chunks_exact(NAME_LENGTH).enumerate();
        Ok(names.filter(|(index, _)| is_on(*index)).map(|(_, name)| text(name)).collect())
    }

    /// `None` where the driver has nothing to say.
    pub(crate) fn queues(&self, interface: &str) -> io::Result<Option<Queues>> {
        let mut channels = [0u32; 9];
        channels[0] = ETHTOOL_GCHANNELS;
        match self.call(interface, &mut channels) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
        let [_, most_rx, _, _, most_combined, rx, _, _, combined] = channels;
        Ok(Some(Queues { on: rx + combined, most: most_rx.max(most_combined), combined: most_combined > 0 }))
    }

    /// `data` begins with the command, and has room for what the kernel answers to it.
    fn call(&self, interface: &str, data: &mut [u32]) -> io::Result<()> {
        let name = interface.as_bytes();
        if name.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a structure of numbers and pointers, for which zeroes are values.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
        // SAFETY: `request` is an ifreq with a name that ends within it, and its data is memory of ours that the callers above
        // made as large as the answer to its command, by the counts that stand in it.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`, also of a driver's name.
const NAME_LENGTH: usize = 32;
/// `struct ethtool_drvinfo`
const DRVINFO_WORDS: usize = 49;
/// Linux has some 60.
const MOST_FEATURES: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_says_what_it_does() {
        let ethtool = Ethtool::new().expect("a socket");
        let features = ethtool.features("lo").expect("features of lo");
        assert!(features.contains("loopback"), "{features:?}");
        assert_eq!(ethtool.queues("lo").expect("an answer"), None);
        assert!(ethtool.driver("no-such-one").is_err());
        assert!(ethtool.driver("a-name-that-is-too-long-for-linux").is_err());
    }
}

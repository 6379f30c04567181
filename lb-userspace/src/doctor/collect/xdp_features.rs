//! What the kernel knows of a driver's XDP: the family `netdev` of generic netlink (Documentation/netlink/specs/netdev.yaml),
//! since 6.3.

use std::{io, os::fd::AsRawFd as _};

use netlink_packet_core::{DefaultNla, Emitable as _, NlasIterator};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike as _},
};

/// Programs run, and pass, drop and send back.
pub(crate) const BASIC: u64 = 1;
/// It sends frames that were redirected from other interfaces.
pub(crate) const SENDS_REDIRECTED: u64 = 1 << 2;
/// It hands over frames of several buffers.
pub(crate) const SEVERAL_BUFFERS: u64 = 1 << 5;

/// `NETDEV_XDP_ACT_*` of an interface; `None` where the kernel is too old to say.
pub(crate) fn of(ifindex: u32) -> io::Result<Option<u64>> {
    let mut name = NETDEV.to_vec();
    name.push(0);
    let family = match ask(CONTROL_FAMILY, GET_FAMILY, &attribute(CONTROL_NAME, &name)) {
        Ok(answer) => find(&answer, CONTROL_ID).map(u16::from_ne_bytes),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => return Err(error),
    };
    let Some(family) = family else { return Ok(None) };
    let answer = ask(family, GET_DEVICE, &attribute(DEVICE_INDEX, &ifindex.to_ne_bytes()))?;
    Ok(find(&answer, DEVICE_FEATURES).map(u64::from_ne_bytes))
}

/// Sends a question and returns the attributes of its answer.
fn ask(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkGeneric)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1))?;
    let length = u32::try_from(HEADERS + attributes.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence and port.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = vec![0; 16 * 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let kind = answer.get(4..6).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)));
    if kind == Some(libc::NLMSG_ERROR as u16) {
        let code = answer.get(16..20).and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
        return Err(io::Error::from_raw_os_error(-code.unwrap_or(-libc::EPROTO)));
    }
    Ok(answer.get(HEADERS..).unwrap_or_default().to_vec())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The value of the first attribute of a kind.
fn find<const N: usize>(attributes: &[u8], wanted: u16) -> Option<[u8; N]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    all.find(|attribute| attribute.kind() == wanted)?.value().try_into().ok()
}

/// `struct nlmsghdr` and `struct genlmsghdr`
const HEADERS: usize = 20;
const NETDEV: &[u8] = b"netdev";
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`, `CTRL_ATTR_FAMILY_ID`
const CONTROL_FAMILY: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const CONTROL_NAME: u16 = 2;
const CONTROL_ID: u16 = 1;
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES`
const GET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let mut all = attribute(2, b"netdev\0");
        all.extend(attribute(1, &7u16.to_ne_bytes()));
        assert_eq!(find(&all, 1), Some(7u16.to_ne_bytes()));
        assert_eq!(find(&all, 2), Some(*b"netdev\0"));
        // Of another size, not there, and cut short.
        assert_eq!(find::<8>(&all, 1), None);
        assert_eq!(find::<2>(&all, 3), None);
        assert_eq!(find::<2>(&[3, 0], 3), None);
        assert_eq!(find::<2>(&[0, 0, 0, 0], 3), None);
    }

    #[test]
    fn the_loopback_has_no_native_xdp() {
        let features = of(1).expect("the kernel answers");
        assert!(features.is_none_or(|features| features & BASIC == 0), "{features:?}");
        assert!(of(0x7fff_fff0).is_err() || features.is_none());
    }
}

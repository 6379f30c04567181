//! Which XDP program an interface runs, asked over rtnetlink: the error of an attempt to attach does not say.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached},
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) program: u32,
    /// `native`, `generic`, or what else the kernel knows.
    pub(super) mode: &'static str,
}

/// Asks for the program that interface `ifindex` runs.
pub(super) fn running(ifindex: u32) -> io::Result<Option<Running>> {
    link(ifindex).map(|link| program(&link))
}

/// Whether interface `ifindex` is up, and the other end of its cable, too.
pub(super) fn has_carrier(ifindex: u32) -> io::Result<bool> {
    link(ifindex).map(|link| link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp))
}

fn link(ifindex: u32) -> io::Result<LinkMessage> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    // Not connected: a message without an address goes to the kernel.
    send(socket.as_raw_fd(), &buffer, MsgFlags::empty())?;
    answer(&socket)
}

fn answer(socket: &OwnedFd) -> io::Result<LinkMessage> {
    let mut buffer = vec![0; 64 * 1024];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, format!("answer over netlink: {error}"));
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length])
        .map_err(|error| invalid(error.to_string()))?;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(invalid(format!("{other:?}"))),
    }
}

fn program(link: &LinkMessage) -> Option<Running> {
    let attributes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    })?;
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("offloaded"),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("several"),
        _ => None,
    })?;
    // With several programs there is no ProgId, but one for each mode.
    let program = attributes.iter().find_map(|attribute| match *attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(id)
        }
        _ => None,
    })?;
    Some(Running { program, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_a_program_runs_none() {
        assert_eq!(running(1).expect("every namespace has a loopback"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert_eq!(running(0x7fff_fff0).expect_err("no such index").raw_os_error(), Some(libc::ENODEV));
    }
}

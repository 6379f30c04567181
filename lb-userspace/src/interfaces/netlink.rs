//! Interfaces asked for over rtnetlink, one at a time, and followed.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use futures_util::{StreamExt as _, stream::BoxStream};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use rtnetlink::MulticastGroup;

/// What the kernel says of interface `index`.
pub(crate) fn link(index: u32) -> io::Result<LinkMessage> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut link = LinkMessage::default();
    link.header.index = index;
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

/// Tells whenever an interface has changed, or such news were lost; ends when the connection is lost.
pub(crate) fn changes() -> io::Result<BoxStream<'static, ()>> {
    let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    Ok(messages.map(drop).boxed())
}

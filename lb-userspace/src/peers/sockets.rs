//! The sockets that peers speak to.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};

/// An address that can't be listened on: it is in use, or the kernel gives no socket.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Opens a socket for each address.
///
/// # Errors
///
/// If one can't be opened.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<UdpSocket>, BindError> {
    let open = |address: &SocketAddr| {
        let address = *address;
        bind_one(address).map_err(|source| BindError { address, source })
    };
    addresses.iter().map(open).collect()
}

fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // The same port may be bound for IPv4, too.
        socket.set_only_v6(true)?;
    }
    // The address may come only after the start: by DHCP, duplicate address detection, keepalived.
    let _ = if address.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) };
    // A burst of a peer's, beyond net.core.rmem_max where CAP_NET_ADMIN allows it; else the kernel gives what it may.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Bytes; the kernel reckons twice as many, for what it needs itself.
const RECEIVE_BUFFER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

    use super::*;

    const CAP_NET_ADMIN: u32 = 12;

    #[test]
    fn of_several_addresses_the_one_that_can_not_be_listened_on_is_named() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
        let error = bind(&["127.0.0.2:0".parse().unwrap(), taken.1]).unwrap_err();
        assert_eq!(error.to_string(), format!("can't listen on {}", taken.1));
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    /// As the daemon may. Without that capability it is what the host allows.
    #[test]
    fn a_burst_has_room_whatever_the_host_allows() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let allowed: usize = allowed.trim().parse().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let may_more = u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << CAP_NET_ADMIN != 0;
        let socket = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
        let room = Socket::from(socket).recv_buffer_size().unwrap();
        let expected = if may_more { RECEIVE_BUFFER } else { RECEIVE_BUFFER.min(allowed) };
        assert_eq!(room, 2 * expected);
    }
}

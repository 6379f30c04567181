//! Frames out and in, packet(7). The only unsafe code of the probes is here.

use std::{io, mem::zeroed, net::TcpListener, os::fd::AsRawFd as _, time::Duration};

use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use lb_common::{
    abi::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP},
    wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use super::frame::ETHERTYPE_ARP;

/// Sends on any interface, and sees what may be an answer on all of them: after XDP, before the host's own filters.
pub(super) struct Frames {
    socket: Socket,
    /// Keeps the port from the host's connections.
    _reserved: TcpListener,
    port: u16,
    buffer: Vec<u8>,
}

impl Frames {
    /// # Errors
    ///
    /// It takes CAP_NET_RAW.
    pub(super) fn open() -> io::Result<Self> {
        // It takes no connections: they would go to this host's own sockets only.
        let reserved = TcpListener::bind(("127.0.0.1", 0))?;
        let port = reserved.local_addr()?.port();
        // Protocol 0 until the filter is there.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.attach_filter(&answers_to(port))?;
        socket.set_read_timeout(Some(PAUSE))?;
        socket.bind(&address(0, libc::ETH_P_ALL as u16)?)?;
        Ok(Self { socket, _reserved: reserved, port, buffer: vec![0; 64 * 1024] })
    }

    /// That SYNs come from.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &address(interface, 0)?).map(drop)
    }

    /// The next frame that came in, and by which interface; `None` if none comes within a moment.
    pub(super) fn receive(&mut self) -> io::Result<Option<(u32, &[u8])>> {
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
            Ok((length, Some(from))) if from.pkttype() != libc::PACKET_OUTGOING => {
                Ok(self.buffer.get(..length).map(|frame| (from.ifindex() as u32, frame)))
            }
            Ok(_) => Ok(None),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
            // An interface went down.
            Err(nix::Error::ENETDOWN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// An interface; 0 is all of them.
fn address(interface: u32, protocol: u16) -> io::Result<SockAddr> {
    // SAFETY: the closure fills the storage with a sockaddr_ll, which fits and for which zeroes are values, and sets its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let mut link: libc::sockaddr_ll = zeroed();
            link.sll_family = libc::AF_PACKET as u16;
            link.sll_protocol = protocol.to_be();
            link.sll_ifindex = interface.cast_signed();
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// ARP, ICMP of both families, and TCP to a port: all else stays in the kernel.
fn answers_to(port: u16) -> [SockFilter; 17] {
    let load_half = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let load_byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let load_half_behind = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    let load_header_length = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, yes, no, k: u32| SockFilter::new(code, yes, no, k);
    [
        instruction(load_half, 0, 0, 12),
        instruction(equal, 13, 0, ETHERTYPE_ARP.into()),
        instruction(equal, 1, 0, ETHERTYPE_IPV4.into()),
        instruction(equal, 6, 12, ETHERTYPE_IPV6.into()),
        // IPv4: protocol, and the port behind a header of any length.
        instruction(load_byte, 0, 0, 23),
        instruction(equal, 9, 0, PROTOCOL_ICMP.into()),
        instruction(equal, 0, 9, PROTOCOL_TCP.into()),
        instruction(load_header_length, 0, 0, 14),
        instruction(load_half_behind, 0, 0, 16),
        instruction(equal, 5, 6, port.into()),
        // IPv6.
        instruction(load_byte, 0, 0, 20),
        instruction(equal, 3, 0, PROTOCOL_ICMPV6.into()),
        instruction(equal, 0, 3, PROTOCOL_TCP.into()),
        instruction(load_half, 0, 0, 56),
        instruction(equal, 0, 1, port.into()),
        instruction(end, 0, 0, u32::MAX),
        instruction(end, 0, 0, 0),
    ]
}

/// How long a look for a frame takes at most.
const PAUSE: Duration = Duration::from_millis(10);

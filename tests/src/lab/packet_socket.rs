//! `AF_PACKET` sockets, packet(7). The only `unsafe` code about sockets in the lab is here.

use std::ffi::c_int;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::capture::Frame;

/// Room for what a stalled capture thread has to catch up with.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Where a VLAN tag stands in a frame: after both MAC addresses.
const VLAN_OFFSET: usize = 12;
const ETH_P_8021Q: u16 = 0x8100;

/// A socket bound to one interface of the namespace it was made in.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Sees every frame that passes `interface` from now on.
    pub(super) fn capture(interface: &str) -> Result<Self> {
        // Protocol 0 until it is bound: no frame of another interface gets in.
        let this = Self::open(interface, libc::ETH_P_ALL)?;
        this.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, i32::try_from(RECEIVE_BUFFER)?)?;
        this.set_option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        this.set_option(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        this.socket.set_nonblocking(true)?;
        this.bind(interface, libc::ETH_P_ALL)?;
        Ok(this)
    }

    /// Sees nothing.
    pub(super) fn send_only(interface: &str) -> Result<Self> {
        let this = Self::open(interface, 0)?;
        this.bind(interface, 0)?;
        Ok(this)
    }

    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// The next frame, or `None` if there is none now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Frame>> {
        let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
        // u64s, because control messages want that alignment.
        let mut control = [0u64; 16];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: msghdr is plain data, for which zeroes are a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = address.as_mut_ptr().cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in `message` is to a local that lives through the call, with its own size.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            let none_now = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if none_now { Ok(None) } else { Err(error) };
        };
        // SAFETY: the kernel wrote the address, and where it did not it is zeroes, which are a value too.
        let address = unsafe { address.assume_init() };
        let (time, tag) = read_control(&message);
        let mut bytes = buffer.get(..length).unwrap_or_default().to_vec();
        if let (Some(tag), true) = (tag, bytes.len() >= VLAN_OFFSET) {
            bytes.splice(VLAN_OFFSET..VLAN_OFFSET, tag);
        }
        let outgoing = address.sll_pkttype == libc::PACKET_OUTGOING;
        Ok(Some(Frame { time: time.unwrap_or_else(SystemTime::now), outgoing, bytes }))
    }

    /// Frames that found the buffer full since the last call.
    pub(super) fn lost(&self) -> Result<u32> {
        let mut statistics = [0u32; 2];
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the option is a struct tpacket_stats, two u32, and the length is that of our two.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        checked(result).context("read a capture's statistics")?;
        let [_packets, lost] = statistics;
        Ok(lost)
    }

    fn open(interface: &str, protocol: c_int) -> Result<Self> {
        let what = if protocol == 0 { "sending" } else { "capturing" };
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
            .with_context(|| format!("open a packet socket for {what} on {interface}"))?;
        Ok(Self { socket })
    }

    fn bind(&self, interface: &str, protocol: c_int) -> Result<()> {
        let index = if_nametoindex(interface).with_context(|| format!("find the interface {interface}"))?;
        let protocol = u16::try_from(protocol)?.to_be();
        // SAFETY: the closure fills the storage with a sockaddr_ll, which fits, and sets its length.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                let mut link: libc::sockaddr_ll = zeroed();
                link.sll_family = libc::AF_PACKET as u16;
                link.sll_protocol = protocol;
                link.sll_ifindex = index.cast_signed();
                storage.cast::<libc::sockaddr_ll>().write(link);
                *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                Ok(())
            })
        }?;
        self.socket.bind(&address).with_context(|| format!("bind to {interface}"))
    }

    fn set_option(&self, level: c_int, name: c_int, value: c_int) -> Result<()> {
        // SAFETY: the options used here take an int, and that is what it points to.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<c_int>() as libc::socklen_t,
            )
        };
        checked(result).with_context(|| format!("set option {name} of a packet socket"))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The kernel's timestamp, and the VLAN tag that it took off the frame.
fn read_control(message: &libc::msghdr) -> (Option<SystemTime>, Option<[u8; 4]>) {
    let (mut time, mut tag) = (None, None);
    // SAFETY: recvmsg filled the control buffer and its length; CMSG_* walk it within that length, and each message's
    // data is read unaligned as the type that its level and type stand for.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let at = data.cast::<libc::timespec>().read_unaligned();
                    time = since_epoch(at);
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    tag = vlan_tag(&data.cast::<libc::tpacket_auxdata>().read_unaligned());
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (time, tag)
}

fn vlan_tag(auxiliary: &libc::tpacket_auxdata) -> Option<[u8; 4]> {
    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let known = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let protocol = if known { auxiliary.tp_vlan_tpid } else { ETH_P_8021Q };
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

fn since_epoch(at: libc::timespec) -> Option<SystemTime> {
    let (seconds, nanoseconds) = (u64::try_from(at.tv_sec).ok()?, u32::try_from(at.tv_nsec).ok()?);
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds))
}

fn checked(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

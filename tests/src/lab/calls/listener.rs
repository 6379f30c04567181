//! A process whose calls of some kinds wait for an answer: seccomp's user notification (seccomp_unotify(2)). All unsafe
//! code of this room is here.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result};

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) id: u64,
    /// Number of the system call.
    pub(super) number: libc::c_long,
    pub(super) first_argument: u64,
}

/// Where the calls of one process and its threads arrive. While it is closed they fail with ENOSYS.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// Brings the listener of a process that has yet to be started.
#[derive(Debug)]
pub(super) struct Delivery(UnixStream);

/// Has `command` start a process whose calls of these numbers wait.
pub(super) fn intercept(command: &mut Command, numbers: &[libc::c_long]) -> Result<Delivery> {
    let (ours, theirs) = UnixStream::pair().context("make a way for the listener")?;
    let filter = filter(numbers)?;
    let install = move || send(&theirs, install(&filter)?.as_raw_fd());
    // SAFETY: between fork and exec it makes three system calls and touches nothing but its own memory, without
    // allocating: the filter was made before.
    unsafe { command.pre_exec(install) };
    Ok(Delivery(ours))
}

impl Delivery {
    /// The listener, once the process has been started.
    pub(super) fn listener(self) -> Result<Listener> {
        receive(&self.0).map(Listener).context("receive the listener")
    }
}

impl Listener {
    /// The next call; `None` if it is gone again, as is one whose process has died.
    pub(super) fn next(&self) -> io::Result<Option<Waiting>> {
        // SAFETY: numbers alone, of which zeros are some.
        let mut request: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes a `seccomp_notif` there, as the command says.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut request) };
        match gone(result)? {
            true => Ok(None),
            false => Ok(Some(Waiting {
                id: request.id,
                number: request.data.nr.into(),
                first_argument: request.data.args[0],
            })),
        }
    }

    /// Has the kernel make the call, or fail it with this error without making it.
    pub(super) fn answer(&self, call: Waiting, error: Option<i32>) -> io::Result<()> {
        let mut response = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: error.map_or(0, |errno| -errno),
            flags: if error.is_none() { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 },
        };
        // SAFETY: the kernel reads a `seccomp_notif_resp` there, as the command says.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
        gone(result).map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the call that was meant is there no more.
fn gone(result: libc::c_int) -> io::Result<bool> {
    match result {
        0 => Ok(false),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
            error => Err(error),
        },
    }
}

/// A program of classic BPF: these calls wait, all others are made.
fn filter(numbers: &[libc::c_long]) -> Result<Vec<libc::sock_filter>> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number is the first word of `seccomp_data`.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (at, number) in numbers.iter().enumerate() {
        let k = u32::try_from(*number).context("a call's number")?;
        // Over the others and the line that lets pass.
        let jt = u8::try_from(numbers.len() - at).context("few calls")?;
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        program.push(libc::sock_filter { code, jt, jf: 0, k });
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF));
    Ok(program)
}

/// Puts the filter before all calls of this process. Takes CAP_SYS_ADMIN.
fn install(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // A signal that is handled shall not have a call that waits made twice.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the kernel reads the program, whose instructions live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    new_fd(result)
}

fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just handed this descriptor to us and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Room for a control message with one descriptor, aligned as one has to be.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 64],
}

/// Sends a descriptor. Without allocating: this runs between fork and exec.
fn send(stream: &UnixStream, fd: RawFd) -> io::Result<()> {
    let mut control = Control { bytes: [0; 64] };
    let mut byte = [0u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    let length = size_of::<RawFd>() as u32;
    // SAFETY: a `msghdr` is numbers and pointers, of which zeros are none; CMSG_SPACE works on numbers; the first control
    // message lies in `control`, which has room for it and a descriptor.
    let sent = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = libc::CMSG_SPACE(length) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(length) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(stream.as_raw_fd(), &raw const message, 0)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut control = Control { bytes: [0; 64] };
    let mut byte = [0u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: as in `send`; the kernel writes at most `msg_controllen` bytes of control messages, and a descriptor is read
    // only from one that says it holds that.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>();
        if libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::Error::other("a message without a descriptor"));
        }
        new_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned().into())
    }
}

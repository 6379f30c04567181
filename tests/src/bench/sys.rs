//! What the benchmark needs of the kernel besides `bpf(2)`. The only `unsafe` code of the benchmark
//! is here and in `end_to_end/clock.rs`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

/// The capabilities that production has for its maps and programs (the daemon's CAP_NET_RAW is for probes alone).
const KEPT: u64 = 1 << CAP_NET_ADMIN | 1 << CAP_PERFMON | 1 << CAP_BPF;
const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// `struct __user_cap_header_struct` and two of `struct __user_cap_data_struct` (`_LINUX_CAPABILITY_VERSION_3`).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Gives up every capability that production does not have: what the verifier makes of a program depends on them.
pub(super) fn drop_capabilities() -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |bits: u64| Data { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [half(KEPT), half(KEPT >> 32)];
    // SAFETY: both structures are what capset(2) reads, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// `union bpf_attr` as BPF_PROG_TEST_RUN reads it since Linux 5.18.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    frame_len: u32,
    output_len: u32,
    frame: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_len: u32,
    context_output_len: u32,
    context: u64,
    context_output: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs an XDP program on `times` copies of `frame` as if they had come in at `interface` of this thread's network
/// namespace, and does with each what the program says (kernel commit b530e9e1063e).
///
/// # Errors
///
/// What the kernel says: EINVAL before Linux 5.18.
pub(super) fn send_live_frames(
    program: &OwnedFd,
    frame: &[u8],
    times: u32,
    interface: u32,
) -> io::Result<()> {
    let context = XdpMd { data_end: frame.len() as u32, ingress_ifindex: interface, ..XdpMd::default() };
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        frame_len: frame.len() as u32,
        frame: frame.as_ptr() as u64,
        repeat: times,
        context_len: size_of::<XdpMd>() as u32,
        context: &raw const context as u64,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        ..TestRun::default()
    };
    // SAFETY: the attributes are what BPF_PROG_TEST_RUN reads; frame and context live through the call and are as long as
    // stated, and nothing but the attributes is written.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<TestRun>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How long this thread has been running on a CPU.
pub(super) fn cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec and nothing else.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

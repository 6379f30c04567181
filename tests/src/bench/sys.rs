//! What the benchmark needs of the kernel besides `bpf(2)`. The only `unsafe` code of the benchmark
//! is here and in `end_to_end/clock.rs`.

use std::io;
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

/// How long this thread has been running on a CPU.
pub(super) fn cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec and nothing else.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

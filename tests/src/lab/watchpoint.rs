//! Death at a store: a process ends with the instruction that writes a certain word of a map it has mapped.
//!
//! What is published by stores makes no system call at which it could be stopped. The processor's debug registers can
//! watch a word, and the kernel turns that into a signal before the next instruction (perf_event_open(2),
//! `PERF_TYPE_BREAKPOINT`, `sigtrap`).

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};

/// Ends a process by a SIGTRAP it does not handle, which leaves it as little as SIGKILL, when one of its threads stores
/// to the word. Dropping it takes the watch away.
#[derive(Debug)]
pub struct Watchpoint {
    _events: Vec<OwnedFd>,
}

/// `struct perf_event_attr` up to `sig_data`.
#[repr(C)]
#[derive(Default)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    breakpoint_address: u64,
    breakpoint_length: u64,
    _unused: [u64; 7],
}

impl Watchpoint {
    /// Watches the word number `at` of the only BPF map of `length` bytes that the process has mapped.
    pub fn on_map(process: u32, length: u64, at: u64) -> Result<Self> {
        let start = mapping(process, length)?;
        let address = start + at * size_of::<u64>() as u64;
        ensure!(address < start + length, "word {at} of {length} bytes");
        // Debug registers are a thread's.
        let threads = fs::read_dir(format!("/proc/{process}/task")).context("list the process's threads")?;
        let watch = |entry: io::Result<fs::DirEntry>| {
            let thread = entry?.file_name().to_string_lossy().parse().context("a thread's number")?;
            watch(thread, address).with_context(|| format!("watch a word in thread {thread}"))
        };
        Ok(Self { _events: threads.map(watch).collect::<Result<_>>()? })
    }
}

/// Where the process has mapped the map.
fn mapping(process: u32, length: u64) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).context("read what is mapped")?;
    let start = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16));
        let (start, end) = (start.ok()?, end.ok()?);
        (line.contains("bpf-map") && end - start == length).then_some(start)
    };
    let mut found = maps.lines().filter_map(start);
    let first = found.next().with_context(|| format!("no map of {length} bytes is mapped:\n{maps}"))?;
    ensure!(found.next().is_none(), "several maps of {length} bytes are mapped:\n{maps}");
    Ok(first)
}

fn watch(thread: libc::pid_t, address: u64) -> io::Result<OwnedFd> {
    let attributes = EventAttributes {
        kind: PERF_TYPE_BREAKPOINT,
        size: size_of::<EventAttributes>() as u32,
        sample_period: 1,
        // Threads that it has yet to start as well.
        flags: INHERIT | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR | INHERIT_THREAD | REMOVE_ON_EXEC | SIGTRAP,
        breakpoint_kind: HW_BREAKPOINT_W,
        breakpoint_address: address,
        breakpoint_length: size_of::<u64>() as u64,
        ..EventAttributes::default()
    };
    let (any_cpu, no_group, no_flags) = (-1, -1, 0);
    // SAFETY: the kernel reads the attributes, whose size they hold, and touches no memory of ours otherwise.
    let result = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread, any_cpu, no_group, no_flags)
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just handed this descriptor to us and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

const PERF_TYPE_BREAKPOINT: u32 = 5;
const HW_BREAKPOINT_W: u32 = 2;
/// Bits of `flags`, in the order of the structure.
const INHERIT: u64 = 1 << 1;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const INHERIT_THREAD: u64 = 1 << 35;
const REMOVE_ON_EXEC: u64 = 1 << 36;
const SIGTRAP: u64 = 1 << 37;

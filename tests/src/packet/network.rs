//! Where a test's thread runs: in a network namespace of its own, whose interfaces disturb nobody, and on one CPU.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

/// Index of `lo`, on which test runs receive.
pub(super) const LOOPBACK: u32 = 1;

/// The kernel's own choices.
pub(super) const LOOPBACK_MTU: u32 = 65_536;
pub(super) const VETH_MTU: u32 = 1500;

/// Keeps the thread that made it in a fresh namespace. Dropping it takes the thread back to where it was.
#[derive(Debug)]
pub(super) struct Place {
    namespace: File,
    affinity: CpuSet,
    /// CPUs the thread may run on.
    pub(super) cpus: Vec<usize>,
    /// One end of a veth pair.
    pub(super) interface: u32,
}

impl Place {
    pub(super) fn enter() -> Result<Self> {
        let affinity = sched_getaffinity(THIS_THREAD).context("ask for this thread's CPUs")?;
        let cpus = (0..CpuSet::count()).filter(|&cpu| affinity.is_set(cpu).unwrap_or(false)).collect();
        let namespace = File::open("/proc/thread-self/ns/net").context("open this thread's namespace")?;
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        let mut place = Self { namespace, affinity, cpus, interface: 0 };
        let pair = ["link", "add", "blx-out", "type", "veth", "peer", "name", "blx-peer"];
        let made = Command::new("ip").args(pair).output().context("run ip")?;
        ensure!(made.status.success(), "make a veth pair: {}", String::from_utf8_lossy(&made.stderr));
        place.interface = nix::net::if_::if_nametoindex("blx-out").context("find the veth pair just made")?;
        Ok(place)
    }

    /// Runs the thread on `cpu` alone: per-CPU counters are compared CPU by CPU.
    pub(super) fn pin_to(&self, cpu: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu).context("name a CPU")?;
        sched_setaffinity(THIS_THREAD, &set).with_context(|| format!("run on CPU {cpu}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The thread may be the harness's own and run other tests after this one.
        if let Err(error) = sched_setaffinity(THIS_THREAD, &self.affinity) {
            eprintln!("give the thread its CPUs back: {error}");
        }
        if let Err(error) = setns(&self.namespace, CloneFlags::CLONE_NEWNET) {
            eprintln!("leave a test's network namespace: {error}");
        }
    }
}

const THIS_THREAD: Pid = Pid::from_raw(0);

//! What becomes of a frame, and why, by the program and on the maps that packets meet, of which none changes.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use lb_common::{
    abi::{Trace, names},
    hash::HashKey,
};

use super::{
    Error, Limits,
    loader::{self, Beside, LoadError},
    per_cpu::PerCpuMap,
    sys,
};

/// A copy of the program that runs, without side effects, on the same maps.
#[derive(Debug)]
pub struct Tracer {
    program: OwnedFd,
    traces: PerCpuMap,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    pub trace: Trace,
    /// As it leaves; as it came if it passes, and anything if it is dropped.
    pub frame: Vec<u8>,
}

impl Tracer {
    /// Loads it on the maps that are pinned, as the program that runs is.
    ///
    /// # Errors
    ///
    /// If the pinned maps are not what `limits` ask for, or the kernel refuses the program.
    pub fn load(pin_dir: &Path, limits: Limits, hash_key: HashKey) -> Result<Self, LoadError> {
        let Beside { program, trace } = loader::load_beside(pin_dir, limits, hash_key)?;
        let traces = PerCpuMap::new(names::TRACE, trace)?;
        Ok(Self { program, traces })
    }

    /// Runs it on a frame that seems to come in by an interface of this network namespace.
    ///
    /// # Errors
    ///
    /// The kernel's, which takes no frame shorter than an Ethernet header, and none that does not fit a page before 5.18.
    pub fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Traced, Error> {
        // Whichever CPU it runs on, its trace is the only one then.
        self.traces.clear(0)?;
        let ran = sys::run_xdp(self.program.as_fd(), frame, ifindex, ROOM);
        let (_, frame) = ran.map_err(|source| Error::Program { program: names::PROGRAM, source })?;
        Ok(Traced { trace: self.traces.sum(0)?, frame })
    }
}

/// What is put in front of a packet at most: IPv6 and UDP, or IPv6 and ICMP.
const ROOM: usize = 64;

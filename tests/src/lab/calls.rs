//! What a process asks of the kernel, counted, and made to fail or to be its last call.

mod listener;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use listener::{Delivery, Listener, Waiting, intercept};

use super::stop::Stop;
use super::tcp::lock;

/// A kind of system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// bpf(2), whatever the command.
    Bpf,
    /// bpf(2) that writes an entry of a map: what a change does, and the daemon by itself does not.
    MapUpdate,
    /// bpf(2) that loads a program.
    ProgramLoad,
    Rename,
    /// fsync(2) and fdatasync(2).
    Fsync,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not made, and nothing after it: SIGKILL.
    Kill,
    /// It is not made, and fails with this error.
    Errno(i32),
}

/// Looks at the calls of one process and all its threads, for as long as that lives: keep it.
#[derive(Debug)]
pub struct Calls {
    shared: Arc<Mutex<Counts>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Since [`Calls::arm`].
    seen: BTreeMap<Call, usize>,
    aim: Option<Aim>,
    /// The first argument of the call that was struck.
    struck: Option<u64>,
}

/// Which call is struck, counted from 0, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aim {
    pub(super) call: Call,
    pub(super) at: usize,
    pub(super) fault: Fault,
}

impl Calls {
    /// From now on counts, and strikes the `at`-th call of this kind, counted from 0.
    pub fn arm(&self, call: Call, at: usize, fault: Fault) {
        *lock(&self.shared) = Counts { aim: Some(Aim { call, at, fault }), ..Counts::default() };
    }

    /// From now on counts, and leaves all calls alone.
    pub fn count(&self) {
        *lock(&self.shared) = Counts::default();
    }

    /// How many calls of a kind were made since it began to count.
    #[must_use]
    pub fn seen(&self, call: Call) -> usize {
        lock(&self.shared).seen.get(&call).copied().unwrap_or_default()
    }

    /// The first argument of the call that was aimed at, once it has come: of bpf(2) that is the command.
    #[must_use]
    pub fn struck(&self) -> Option<u64> {
        lock(&self.shared).struck
    }

    /// Has `command` start a process that can be looked at.
    pub(super) fn prepare(command: &mut Command) -> Result<Prepared> {
        let numbers: Vec<_> = NUMBERS.iter().map(|(number, _)| *number).collect();
        Ok(Prepared(intercept(command, &numbers)?))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The way to the [`Calls`] of a process that has yet to be started.
pub(super) struct Prepared(Delivery);

impl Prepared {
    /// Begins to look at the process, now that it has been started under this number.
    pub(super) fn follow(self, process: u32, aim: Option<Aim>) -> Result<Calls> {
        let listener = self.0.listener()?;
        let shared = Arc::new(Mutex::new(Counts { aim, ..Counts::default() }));
        let stop = Stop::new()?;
        let process = Pid::from_raw(i32::try_from(process).context("a process id fits an i32")?);
        let thread = std::thread::Builder::new().name("calls".to_owned()).spawn({
            let (shared, stop) = (shared.clone(), stop.clone());
            move || serve(&listener, process, &shared, &stop)
        })?;
        Ok(Calls { shared, stop, thread: Some(thread) })
    }
}

fn serve(listener: &Listener, process: Pid, shared: &Mutex<Counts>, stop: &Stop) {
    while stop.wait_for_more(listener.as_fd()).unwrap_or(false) {
        let Ok(call) = listener.next() else { return };
        let Some(call) = call else { continue };
        let answered = match lock(shared).judge(call) {
            None => listener.answer(call, None),
            Some(Fault::Errno(errno)) => listener.answer(call, Some(errno)),
            Some(Fault::Kill) => kill(process, Signal::SIGKILL).map_err(Into::into),
        };
        if let Err(error) = answered {
            eprintln!("calls: a call goes unanswered: {error}");
            return;
        }
    }
}

impl Counts {
    fn judge(&mut self, waiting: Waiting) -> Option<Fault> {
        const BPF_MAP_UPDATE_ELEM: u64 = 2;
        const BPF_PROG_LOAD: u64 = 5;
        let (_, call) = NUMBERS.iter().find(|(number, _)| *number == waiting.number)?;
        let command = match (call, waiting.first_argument) {
            (Call::Bpf, BPF_MAP_UPDATE_ELEM) => Some(Call::MapUpdate),
            (Call::Bpf, BPF_PROG_LOAD) => Some(Call::ProgramLoad),
            _ => None,
        };
        let mut fault = None;
        for kind in [Some(*call), command].into_iter().flatten() {
            let count = self.seen.entry(kind).or_default();
            let aim = self.aim.filter(|aim| (aim.call, aim.at) == (kind, *count));
            *count += 1;
            fault = fault.or(aim.map(|aim| aim.fault));
        }
        if fault.is_some() {
            self.struck = Some(waiting.first_argument);
        }
        fault
    }
}

/// Every call by which these things can be done here.
const NUMBERS: &[(libc::c_long, Call)] = &[
    (libc::SYS_bpf, Call::Bpf),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, Call::Rename),
    (libc::SYS_renameat, Call::Rename),
    (libc::SYS_renameat2, Call::Rename),
    (libc::SYS_fsync, Call::Fsync),
    (libc::SYS_fdatasync, Call::Fsync),
];

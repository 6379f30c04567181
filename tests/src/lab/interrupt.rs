//! Ctrl-C leaves nothing behind either.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::Lab;

/// The signal that asked us to end; 0 is none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// From now on SIGINT and SIGTERM remove this lab and end the process.
///
/// Blocking the signals and waiting for them would be simpler, but the lab's processes would inherit the block.
pub fn interrupt_cleans_up(lab: &str) -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a handler.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handle {signal}"))?;
    }
    let lab = lab.to_owned();
    thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || end_at_signal(&lab))
        .context("start a thread")?;
    Ok(())
}

extern "C" fn note(signal: c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
}

fn end_at_signal(lab: &str) {
    while SIGNAL.load(Ordering::Relaxed) == 0 {
        thread::sleep(Duration::from_millis(50));
    }
    eprintln!("\nInterrupted: cleaning up");
    // The lab's own guard can't do it: its thread may be waiting for something for seconds.
    if let Err(error) = Lab::remove_kept(lab) {
        eprintln!("{error:#}");
    }
    std::process::exit(130);
}

//! Being told to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, from the moment it is made.
pub(crate) struct Interrupt([Signal; 3]);

impl Interrupt {
    /// # Errors
    ///
    /// If the process can't have signal handlers.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Returns when one of them has come.
    pub(crate) async fn wait(&mut self) {
        let Self([interrupt, terminate, hang_up]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

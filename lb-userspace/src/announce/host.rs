//! What this host says of the interfaces that clients' packets arrive on, and what the program says.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use super::probe;
use crate::{
    control::Snapshot,
    dataplane::loader::{Attachments, Standing, lock},
    explain::{ExplainError, Explainer},
    peers::Exchange,
};

/// Where facts about this host come from.
#[derive(Clone)]
pub struct Host {
    attachments: Arc<Mutex<Attachments>>,
    explainer: Arc<Explainer>,
    peers: Option<Arc<Exchange>>,
}

impl Host {
    /// `peers`: with whom flows are replicated, if that is done.
    pub fn new(
        attachments: Arc<Mutex<Attachments>>,
        explainer: Arc<Explainer>,
        peers: Option<Arc<Exchange>>,
    ) -> Self {
        Self { attachments, explainer, peers }
    }

    /// Whether peers are still to tell which flows there are. They have half a minute for it.
    pub(super) fn is_joining(&self) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.is_joining())
    }

    /// Every configured interface.
    pub(super) fn interfaces(&self) -> Vec<Standing> {
        lock(&self.attachments).standing()
    }

    /// What the program says to a packet for each VIP: an error in words where it does not take it for its service's. Takes a
    /// moment, the first time some tenths of a second: not for an asynchronous task.
    ///
    /// # Errors
    ///
    /// The program could not be asked.
    pub(super) fn probe(
        &self,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<IpAddr, Result<(), String>>, ExplainError> {
        probe::ask(&self.explainer, snapshot)
    }
}

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
};

/// Where facts about this host come from.
#[derive(Clone)]
pub struct Host {
    attachments: Arc<Mutex<Attachments>>,
    explainer: Arc<Explainer>,
}

impl Host {
    pub fn new(attachments: Arc<Mutex<Attachments>>, explainer: Arc<Explainer>) -> Self {
        Self { attachments, explainer }
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

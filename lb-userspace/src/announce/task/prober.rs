//! Asks the program about VIPs again and again, while other things are done.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{JoinError, JoinHandle};

use crate::{
    announce::{Host, probe::Probed},
    control::Snapshot,
    explain::ExplainError,
};

pub(super) struct Prober {
    probed: BTreeMap<IpAddr, Probed>,
    probing: Option<JoinHandle<Outcomes>>,
    probe_at: Instant,
    /// Why the program could not be asked.
    unasked: Option<String>,
}

pub(super) type Outcomes = Result<BTreeMap<IpAddr, Result<(), String>>, ExplainError>;

impl Prober {
    pub(super) fn new() -> Self {
        Self { probed: BTreeMap::new(), probing: None, probe_at: Instant::now(), unasked: None }
    }

    /// What became of probes so far.
    pub(super) const fn probed(&self) -> &BTreeMap<IpAddr, Probed> {
        &self.probed
    }

    /// Begins to ask the program, if it is time.
    pub(super) fn begin(&mut self, host: &Host, snapshot: &Arc<Snapshot>) {
        let is_vip = |vip: &IpAddr| snapshot.services.iter().any(|view| view.service.vip.address == *vip);
        self.probed.retain(|vip, _| is_vip(vip));
        let now = Instant::now();
        if self.probing.is_none() && now >= self.probe_at {
            self.probe_at = now + PROBE_INTERVAL;
            let (host, snapshot) = (host.clone(), Arc::clone(snapshot));
            self.probing = Some(tokio::task::spawn_blocking(move || host.probe(&snapshot)));
        }
    }

    /// The end of what may be under way.
    pub(super) async fn finished(&mut self) -> Result<Outcomes, JoinError> {
        match &mut self.probing {
            Some(probing) => probing.await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn note(&mut self, outcomes: Result<Outcomes, JoinError>) {
        self.probing = None;
        match outcomes {
            Ok(Ok(outcomes)) => {
                self.unasked = None;
                for (vip, outcome) in &outcomes {
                    self.probed.entry(*vip).or_default().note(outcome);
                }
            }
            // That nobody can be asked says nothing of packets.
            Ok(Err(error)) => {
                let error = error.to_string();
                if self.unasked.as_ref() != Some(&error) {
                    log::warn!(
                        "the program can't be asked about VIPs, so that none is announced anew: {error}"
                    );
                }
                self.unasked = Some(error);
            }
            Err(error) => log::error!("asking the program ended: {error}"),
        }
    }
}

const PROBE_INTERVAL: Duration = Duration::from_millis(500);

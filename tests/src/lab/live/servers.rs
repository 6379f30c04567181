//! Backends that answer on every connection with their name.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::super::node::Node;
use super::peer::Peer;
use super::protocol::Served;

/// Each of them has room for 20,000 descriptors.
const PROCESSES: usize = 3;

/// The servers of many backends, a few backends a process in turn.
#[derive(Debug)]
pub struct LiveServers {
    peers: Vec<Peer>,
}

impl LiveServers {
    /// Serves on this port, both families, on all addresses of each of these nodes, under its name.
    pub fn start<'a>(backends: impl IntoIterator<Item = &'a Node>, port: u16) -> Result<Self> {
        let backends: Vec<_> = backends.into_iter().collect();
        let first = backends.first().context("no backends")?;
        let mut peers = Vec::new();
        for process in 0..PROCESSES.min(backends.len()) {
            let mut args = vec!["serve".to_owned(), port.to_string()];
            for backend in backends.iter().skip(process).step_by(PROCESSES) {
                args.push(format!("{}={}", backend.label(), backend.path().display()));
            }
            peers.push(Peer::start(first, &args)?);
        }
        Ok(Self { peers })
    }

    /// What each backend did so far.
    pub fn served(&mut self) -> Result<BTreeMap<String, Served>> {
        let mut all = BTreeMap::new();
        for peer in &mut self.peers {
            peer.order(&())?;
            let served: BTreeMap<String, Served> = peer.answer()?;
            let expected = all.len() + served.len();
            all.extend(served);
            ensure!(all.len() == expected, "two backends of one name");
        }
        Ok(all)
    }
}

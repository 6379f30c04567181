//! Clients that hold connections and know who is at the other end.

use std::iter;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::node::Node;
use super::super::wait::wait_for;
use super::peer::Peer;
use super::protocol::{Order, Report};

/// Connections that one process holds; below its 20,000 descriptors.
const PER_PROCESS: usize = 10_000;

/// Live connections from one client node, from many addresses.
#[derive(Debug)]
pub struct LiveClients {
    peers: Vec<Peer>,
}

impl LiveClients {
    /// Makes processes for up to `connections` of them, and opens none yet.
    ///
    /// Each connection comes from the next of the client's addresses with these numbers (see [`Node::source`]), from
    /// the first again after the last.
    pub fn start(client: &Node, to: SocketAddr, sources: Range<u16>, connections: usize) -> Result<Self> {
        let processes = connections.div_ceil(PER_PROCESS).max(1);
        let share = sources.len() / processes;
        ensure!(share > 0, "fewer addresses than processes: {sources:?}");
        let mut peers = Vec::new();
        for process in 0..processes {
            let first = sources.start + u16::try_from(process * share)?;
            let first = client.source(first, to.ip());
            let args = [to.to_string(), first.to_string(), share.to_string(), processes.to_string()];
            let args: Vec<_> = iter::once("hold".to_owned()).chain(args).collect();
            peers.push(Peer::start(client, &args)?);
        }
        Ok(Self { peers })
    }

    /// Opens `count` more connections and exchanges a message on each.
    pub fn open(&mut self, count: usize) -> Result<Report> {
        let processes = self.peers.len();
        // One after the other would be slower, and would not be what a crowd does.
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let share = count / processes + usize::from(number < count % processes);
            peer.order(&Order::Open { count: share })?;
        }
        self.answers()
    }

    /// Exchanges a message on every connection.
    pub fn exchange(&mut self) -> Result<Report> {
        self.all(&Order::Exchange)
    }

    /// Exchanges so many messages a second from now on, on one connection after the other; 0 ends that.
    pub fn pace(&mut self, per_second: u32) -> Result<Report> {
        let per_second = self.each(per_second)?;
        self.all(&Order::Pace { per_second })
    }

    /// Opens so many connections a second from now on, each for one message; 0 ends that.
    pub fn visit(&mut self, per_second: u32) -> Result<Report> {
        let per_second = self.each(per_second)?;
        self.all(&Order::Visit { per_second })
    }

    /// Closes the connections to these backends.
    pub fn close<'a>(&mut self, backends: impl IntoIterator<Item = &'a str>) -> Result<Report> {
        self.all(&Order::Close { backends: backends.into_iter().map(str::to_owned).collect() })
    }

    /// How they are.
    pub fn report(&mut self) -> Result<Report> {
        self.all(&Order::Report)
    }

    /// Waits until this is so of them, and says how they are then. At the deadline it is told how they are instead; and at once
    /// if they can't say it.
    pub fn wait(
        &mut self,
        what: &str,
        timeout: Duration,
        mut holds: impl FnMut(&Report) -> bool,
    ) -> Result<Report> {
        let mut last = None;
        let found = wait_for(what, timeout, || match self.report() {
            Ok(report) if !holds(&report) => {
                last = Some(report);
                None
            }
            report => Some(report),
        });
        found.with_context(|| format!("they are {}", last.unwrap_or_default().summary()))?
    }

    fn each(&self, per_second: u32) -> Result<u32> {
        Ok(per_second.div_ceil(u32::try_from(self.peers.len())?))
    }

    fn all(&mut self, order: &Order) -> Result<Report> {
        self.peers.iter_mut().try_for_each(|peer| peer.order(order))?;
        self.answers()
    }

    fn answers(&mut self) -> Result<Report> {
        let mut report = Report::default();
        for peer in &mut self.peers {
            report.add(peer.answer()?);
        }
        Ok(report)
    }
}

//! What a test and its `lab-peer` processes say to each other: a line of JSON each way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a client process is told to do. It answers each with its [`Report`], when it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Open that many more connections, and exchange a message on each.
    Open { count: usize },
    /// Exchange a message on every connection.
    Exchange,
    /// From now on, exchange so many messages a second, on one connection after the other.
    Pace { per_second: u32 },
    /// From now on, open so many connections a second, each for one message.
    Visit { per_second: u32 },
    /// Close the connections to these backends.
    Close { backends: Vec<String> },
    /// Nothing.
    Report,
}

/// Who answered where nobody did.
pub const NOBODY: &str = "nobody";

impl Order {
    /// A connection without an answer for so long is broken. TCP sends again after 0.2, 0.4, 0.8 s ...
    pub const PATIENCE: Duration = Duration::from_secs(20);
}

/// How a client process, or all of them together, are doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Connections that are open, by the backend that answered.
    pub open: BTreeMap<String, u64>,
    /// What went wrong, from the start.
    pub lost: Vec<Loss>,
    /// Messages answered, from the start.
    pub exchanged: u64,
    /// Visits answered, from the start, by backend.
    pub visits: BTreeMap<String, u64>,
    /// Those that wait for an answer now.
    pub waiting: Waiting,
}

/// Connections and visits that are waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// By the backend that answered before; those that are being opened are nobody's.
    pub count: BTreeMap<String, u64>,
    /// How long the first of them has waited, in milliseconds.
    pub longest: u64,
}

/// A connection that came to a bad end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub client: SocketAddr,
    /// Who answered first; `None` if nobody did: the connection was never established.
    pub backend: Option<String>,
    pub why: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

impl Report {
    /// Number of open connections.
    #[must_use]
    pub fn alive(&self) -> u64 {
        self.open.values().sum()
    }

    /// Number of connections that were established and broke.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.lost.iter().filter(|loss| loss.backend.is_some()).count()
    }

    /// Number of connections and visits that never got an answer.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.lost.len() - self.broken()
    }

    /// What went wrong, in short: empty if nothing did.
    #[must_use]
    pub fn losses(&self) -> String {
        let mut kinds = BTreeMap::<_, (usize, &Loss)>::new();
        for loss in &self.lost {
            kinds.entry(&loss.why).or_insert((0, loss)).0 += 1;
        }
        let kinds = kinds.values().map(|(count, first)| {
            let backend = first.backend.as_deref().unwrap_or(NOBODY);
            format!("{count} × {} (first {} of {backend} at {})", first.why, first.client, first.at)
        });
        kinds.collect::<Vec<_>>().join(", ")
    }

    /// In a line, however many there are.
    pub(super) fn summary(&self) -> String {
        let Self { open, lost, exchanged, visits, waiting } = self;
        let visits: u64 = visits.values().sum();
        let Waiting { count, longest } = waiting;
        format!(
            "{open:?} open, {exchanged} messages and {visits} visits answered, {count:?} waiting for up to {longest} ms, {} \
             lost: {}",
            lost.len(),
            self.losses()
        )
    }

    pub(super) fn add(&mut self, other: Self) {
        add(&mut self.open, other.open);
        add(&mut self.visits, other.visits);
        add(&mut self.waiting.count, other.waiting.count);
        self.waiting.longest = self.waiting.longest.max(other.waiting.longest);
        self.lost.extend(other.lost);
        self.exchanged += other.exchanged;
    }
}

/// What a backend did. A connection counts once it has asked something: probes do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub accepted: u64,
    pub open: u64,
}

fn add(to: &mut BTreeMap<String, u64>, from: BTreeMap<String, u64>) {
    for (name, count) in from {
        *to.entry(name).or_default() += count;
    }
}

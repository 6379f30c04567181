//! Clients: HTTP requests on a schedule that waits for nobody, from many addresses.
//!
//! A generator that sends its next request when the last one is answered asks less of a slow balancer, and does not see
//! the wait of those who would have come meanwhile. So latency counts from when a request was due. Load generators to be
//! had do not send from many addresses, which balancing by the client's address needs.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::clock::Clock;
use super::connection::{Connection, Failure};
use crate::lab::Node;

/// When a request counts as failed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// Addresses that clients come from.
const SOURCES: u16 = 256;
/// Connections of a load that keeps them.
const KEPT: u16 = 64;
/// Requests under way at once, when measuring what can be done at most.
const AT_MOST: usize = 32;
/// More would be another kind of breakdown: out of descriptors.
const UNDER_WAY: usize = 8_000;

/// What a request costs a client to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: connections are kept.
    Requests,
    /// A connection, each time.
    Connections,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// This many a second, come what may, at random moments (Poisson).
    PerSecond(f64),
    /// As fast as they are answered.
    AsFastAsCanBe,
}

/// What to do, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) kind: Kind,
    pub(super) pace: Pace,
    /// Requests due before this are made, and not counted.
    pub(super) warm_up: Duration,
    /// Requests due in this time are counted.
    pub(super) window: Duration,
}

/// What came of the requests that count.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) answered: u64,
    /// Nanoseconds from when a request was due to its last byte.
    pub(super) latency: Histogram<u64>,
    /// When requests that failed were due, from the begin of the window, and why they did; in the order they failed.
    pub(super) failures: Vec<(Duration, Failure)>,
}

impl Tally {
    pub(super) fn new() -> Result<Self> {
        // 1 µs to 10 s, to three digits.
        let latency = Histogram::new_with_bounds(1_000, 10_000_000_000, 3).context("make a histogram")?;
        Ok(Self { answered: 0, latency, failures: Vec::new() })
    }

    /// Microseconds that this part of the answered requests took at most.
    pub(super) fn microseconds(&self, part: f64) -> f64 {
        self.latency.value_at_quantile(part) as f64 / 1_000.0
    }
}

/// Makes the load from `client`, with a thread of its own there; `at` is when it begins.
pub(super) fn run(client: &Node, to: SocketAddr, load: Load, at: Instant) -> Result<Tally> {
    let sources: Vec<_> = (0..SOURCES).map(|number| client.source_port(number, 0, to.ip())).collect();
    client.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("start a runtime")?;
        let clients = Rc::new(Clients {
            to,
            sources,
            load,
            begin: at + load.warm_up,
            state: RefCell::new(State { next_source: 0, idle: Vec::new(), tally: Tally::new()? }),
            kept: Semaphore::new(usize::from(KEPT)),
        });
        LocalSet::new().block_on(&runtime, clients.clone().run(at))?;
        let clients = Rc::into_inner(clients).context("every request has ended")?;
        Ok(clients.state.into_inner().tally)
    })
}

struct Clients {
    to: SocketAddr,
    sources: Vec<SocketAddr>,
    load: Load,
    /// Of what counts.
    begin: Instant,
    state: RefCell<State>,
    /// A kept connection is to be had.
    kept: Semaphore,
}

struct State {
    next_source: usize,
    /// Kept connections that have nothing to do.
    idle: Vec<Connection>,
    tally: Tally,
}

impl Clients {
    async fn run(self: Rc<Self>, at: Instant) -> Result<()> {
        let mut requests = JoinSet::new();
        let end = self.begin + self.load.window;
        let mut clock = Clock::new()?;
        clock.wait_until(at).await?;
        match self.load.pace {
            Pace::AsFastAsCanBe => {
                for _ in 0..AT_MOST {
                    let this = self.clone();
                    requests.spawn_local(async move {
                        while Instant::now() < end {
                            this.request(Instant::now()).await;
                        }
                    });
                }
            }
            Pace::PerSecond(rate) => {
                let mut random = fastrand::Rng::with_seed(0x10ad);
                let mut due = at;
                loop {
                    // The gap of a Poisson process; 1 - [0, 1) is never 0.
                    due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
                    if due >= end {
                        break;
                    }
                    clock.wait_until(due).await?;
                    while requests.try_join_next().is_some() {}
                    if requests.len() < UNDER_WAY {
                        let this = self.clone();
                        requests.spawn_local(async move { this.request(due).await });
                    } else {
                        self.count(due, Err(Failure::NotTried));
                    }
                }
            }
        }
        while requests.join_next().await.is_some() {}
        Ok(())
    }

    /// Makes one request, and counts it.
    async fn request(&self, due: Instant) {
        let asked = async {
            match self.load.kind {
                Kind::Connections => Connection::open(self.source(), self.to).await?.ask(true).await,
                Kind::Requests => self.on_kept_connection().await,
            }
        };
        let outcome = tokio::time::timeout(TIMEOUT, asked).await.unwrap_or(Err(Failure::TimedOut));
        self.count(due, outcome);
    }

    /// A connection on which a request failed is not used again.
    async fn on_kept_connection(&self) -> Result<(), Failure> {
        let _permit = self.kept.acquire().await.map_err(|_| Failure::NotTried)?;
        let idle = self.state.borrow_mut().idle.pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.source(), self.to).await?,
        };
        connection.ask(false).await?;
        self.state.borrow_mut().idle.push(connection);
        Ok(())
    }

    fn source(&self) -> SocketAddr {
        let mut state = self.state.borrow_mut();
        state.next_source += 1;
        self.sources[state.next_source % self.sources.len()]
    }

    fn count(&self, due: Instant, outcome: Result<(), Failure>) {
        let Some(offset) = due.checked_duration_since(self.begin) else { return };
        let tally = &mut self.state.borrow_mut().tally;
        match outcome {
            Ok(()) => {
                tally.answered += 1;
                tally.latency.saturating_record(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            Err(failure) => tally.failures.push((offset, failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lab::{Behaviour, HttpServer, Lab, require_root};

    fn half_a_second(kind: Kind, pace: Pace) -> Load {
        Load { kind, pace, warm_up: Duration::from_millis(100), window: Duration::from_millis(500) }
    }

    #[test]
    fn every_request_that_is_due_is_answered_or_counted_as_failed() -> Result<()> {
        require_root!(Ok(()));
        let lab = Lab::builder().backends(1).build()?;
        let mut server = HttpServer::start(lab.backend(0), &[80])?;
        let to = SocketAddr::new(lab.backend(0).ipv4().into(), 80);
        let made = |load| run(lab.client(0), to, load, Instant::now());
        for kind in [Kind::Requests, Kind::Connections] {
            let paced = made(half_a_second(kind, Pace::PerSecond(400.0)))?;
            assert_eq!(paced.failures, [], "{kind:?}");
            // 200 are to be expected; the moments are the same each time.
            assert!((150..250).contains(&paced.answered), "{kind:?}: {}", paced.answered);
            assert_eq!(paced.latency.len(), paced.answered);
            assert!(made(half_a_second(kind, Pace::AsFastAsCanBe))?.answered > paced.answered, "{kind:?}");
        }
        let clients: BTreeSet<_> = server.requests().into_iter().map(|(client, _)| client.ip()).collect();
        assert_eq!(clients.len(), usize::from(SOURCES));

        server.set(Behaviour::Fail(503))?;
        let failed = made(half_a_second(Kind::Connections, Pace::PerSecond(400.0)))?;
        assert!(failed.answered == 0 && failed.failures.iter().all(|(_, why)| *why == Failure::BadAnswer));
        server.set(Behaviour::Refuse)?;
        let refused = made(half_a_second(Kind::Connections, Pace::PerSecond(400.0)))?;
        assert_eq!(refused.failures.len(), failed.failures.len());
        assert!(refused.failures.iter().all(|(_, why)| *why == Failure::Refused));
        server.set(Behaviour::Hang)?;
        let hung = made(half_a_second(Kind::Requests, Pace::PerSecond(400.0)))?;
        assert!(hung.answered == 0 && hung.failures.iter().all(|(_, why)| *why == Failure::TimedOut));
        Ok(())
    }
}

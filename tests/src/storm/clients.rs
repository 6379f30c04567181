//! The clients of a storm: from one node, on one thread, at a rate that waits for nobody.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use super::diary::Broken;
use super::fault::Load;
use super::judge::{Cause, Failure};
use super::ledger::Ledger;
use crate::bench::end_to_end::connection::{self, Connection};
use crate::lab::Node;

/// How much of what.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    /// Where requests with a connection of their own go to; each gets `web_rate` of them a second.
    pub(super) web: Vec<SocketAddr>,
    pub(super) web_rate: f64,
    /// Where long-lived connections lead to, and how many each.
    pub(super) live: Vec<SocketAddr>,
    pub(super) connections: u16,
    /// Between two requests on one of them.
    pub(super) heartbeat: Duration,
}

impl Demand {
    /// What is missing of the requests that were to be made in this time, if it is more than what failures and a busy machine take.
    pub(super) fn shortfall(&self, ledger: &Ledger, lasted: Duration) -> Option<String> {
        let web = self.web_rate * self.web.len() as f64;
        let live = f64::from(self.connections) * self.live.len() as f64 / self.heartbeat.as_secs_f64();
        let loads = [(Load::Web, web, 0.9), (Load::Live, live, 0.5)];
        loads.into_iter().find_map(|(load, rate, part)| {
            let (made, due) = (ledger.answered(load) + ledger.failed(load), rate * lasted.as_secs_f64());
            let missing = (made as f64) < part * due;
            missing.then(|| format!("{made} {load:?} requests were made where {due:.0} were due"))
        })
    }
}

/// When a client gives up. TCP sends a SYN again after 1 and 3 s, other segments after 0.2, 0.6, 1.4 and 3 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection is to live, ms.
const LIFE: (u64, u64) = (3_000, 30_000);
/// Before a client that lost its connection makes another.
const PAUSE: Duration = Duration::from_secs(1);
/// Addresses that requests come from; those of long-lived connections come after them.
const SOURCES: u16 = 1_024;

/// Clients at work, until [`Clients::stop`].
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
    thread: JoinHandle<Result<()>>,
}

impl Clients {
    /// Times in what they note are from `began`.
    /// `broken` is told of long-lived connections that were reset.
    pub(super) fn start(
        node: &Node,
        demand: Demand,
        began: Instant,
        seed: u64,
        broken: Sender<Broken>,
    ) -> Result<Self> {
        let (stop, ledger) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Ledger::new()?)));
        let (stopping, noted, node) = (stop.clone(), ledger.clone(), node.clone());
        let thread = node.clone().thread("clients", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let crowd = Rc::new(Crowd {
                node,
                demand,
                began,
                stop: stopping,
                ledger: noted,
                broken,
                random: RefCell::new(fastrand::Rng::with_seed(seed)),
            });
            LocalSet::new().block_on(&runtime.context("start a runtime")?, crowd.run())
        })?;
        Ok(Self { stop, ledger, thread })
    }

    /// What became of requests so far.
    pub(super) fn so_far(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many long-lived connections to a backend clients hold. The backend may know of more: of those that broke it is not told.
    pub(super) fn open(&self, backend: &str) -> u64 {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).open(backend)
    }

    /// Lets what is under way come to its end, and tells what became of all.
    pub(super) fn stop(self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the clients panicked"))??;
        Ok(self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

struct Crowd {
    node: Node,
    demand: Demand,
    began: Instant,
    stop: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
    broken: Sender<Broken>,
    random: RefCell<fastrand::Rng>,
}

/// The two ends of a connection, the client's first.
type Tuple = (SocketAddr, SocketAddr);

/// Why a request failed, and who had answered before.
struct Failed(Cause, Option<String>);

impl Crowd {
    async fn run(self: Rc<Self>) -> Result<()> {
        let mut tasks = JoinSet::new();
        for to in self.demand.web.clone() {
            tasks.spawn_local(self.clone().ask(to));
        }
        for to in self.demand.live.clone() {
            for number in 0..self.demand.connections {
                tasks.spawn_local(self.clone().keep(SOURCES + number, to));
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a client panicked")?;
        }
        Ok(())
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Requests at random moments (Poisson), each on a connection of its own.
    async fn ask(self: Rc<Self>, to: SocketAddr) {
        let mut requests = JoinSet::new();
        let mut due = Instant::now();
        while self.goes_on() {
            // The gap of a Poisson process; 1 - [0, 1) is never 0.
            let gap = -(1.0 - self.random.borrow_mut().f64()).ln() / self.demand.web_rate;
            due += Duration::from_secs_f64(gap);
            tokio::time::sleep_until(due.into()).await;
            while let Some(ended) = requests.try_join_next() {
                ended.expect("a request does not panic");
            }
            let source = self.random.borrow_mut().u16(0..SOURCES);
            requests.spawn_local(self.clone().request(source, to));
        }
        while let Some(ended) = requests.join_next().await {
            ended.expect("a request does not panic");
        }
    }

    async fn request(self: Rc<Self>, source: u16, to: SocketAddr) {
        let from = self.node.source_port(source, 0, to.ip());
        let asked = Instant::now();
        let answer = async { Connection::open(from, to).await?.ask(true).await };
        let outcome = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(outcome) => outcome.map_err(|failure| Failed(cause(failure), None)),
            Err(_) => Err(Failed(Cause::TimedOut, None)),
        };
        self.note(Load::Web, (from, to), asked, asked, outcome);
    }

    /// One long-lived connection after the other.
    async fn keep(self: Rc<Self>, source: u16, to: SocketAddr) {
        // Not all at once.
        let part = self.random.borrow_mut().f64();
        self.wait(self.demand.heartbeat.mul_f64(part)).await;
        while self.goes_on() {
            let life = Duration::from_millis(self.random.borrow_mut().u64(LIFE.0..=LIFE.1));
            if !self.live(self.node.source_port(source, 0, to.ip()), to, life).await {
                self.wait(PAUSE).await;
            }
        }
    }

    /// One connection and what is asked on it; returns whether it came to its end in peace.
    async fn live(&self, from: SocketAddr, to: SocketAddr, life: Duration) -> bool {
        self.lock().connections += 1;
        let ends = Instant::now() + life;
        let begun = Instant::now();
        let opened = async {
            let mut line = Line {
                stream: BufReader::new(connection::connect(from, to).await.map_err(cause)?),
                backend: None,
            };
            line.exchange("0").await?;
            Ok(line)
        };
        let opened = tokio::time::timeout(PATIENCE, opened).await.unwrap_or(Err(Cause::TimedOut));
        let mut line = match opened {
            Ok(line) => line,
            Err(cause) => return self.note(Load::Live, (from, to), begun, begun, Err(Failed(cause, None))),
        };
        self.note(Load::Live, (from, to), begun, begun, Ok(()));
        let from = line.stream.get_ref().local_addr().unwrap_or(from);
        let backend = line.backend.clone().unwrap_or_default();
        self.lock().hold(&backend);
        let in_peace = self.beat(&mut line, (from, to), begun, ends).await;
        self.lock().release(&backend);
        in_peace
    }

    /// Asks again and again until the connection is to end; returns whether it lived until then.
    async fn beat(&self, line: &mut Line, tuple: Tuple, begun: Instant, ends: Instant) -> bool {
        let mut number = 0_u64;
        while self.goes_on() && Instant::now() < ends {
            self.wait(self.demand.heartbeat).await;
            number += 1;
            let asked = Instant::now();
            let exchange = tokio::time::timeout(PATIENCE, line.exchange(&number.to_string())).await;
            let outcome = exchange.unwrap_or(Err(Cause::TimedOut));
            let outcome = outcome.map_err(|cause| Failed(cause, line.backend.clone()));
            if !self.note(Load::Live, tuple, begun, asked, outcome) {
                return false;
            }
        }
        true
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Returns whether it was answered.
    fn note(
        &self,
        load: Load,
        tuple: Tuple,
        opened: Instant,
        asked: Instant,
        outcome: Result<(), Failed>,
    ) -> bool {
        let mut ledger = self.lock();
        match outcome {
            Ok(()) => {
                ledger.answer(load, asked.elapsed());
                true
            }
            Err(Failed(cause, backend)) => {
                let [opened, asked, failed] =
                    [opened, asked, Instant::now()].map(|at| at.saturating_duration_since(self.began));
                if load == Load::Live && cause == Cause::Reset {
                    // Whoever is not there any more does not ask.
                    let _ = self.broken.send(Broken { at: Instant::now(), from: tuple.0, to: tuple.1 });
                }
                // The kernel has not chosen a port that is known here.
                let client = if tuple.0.port() == 0 { tuple.0.ip().to_string() } else { tuple.0.to_string() };
                ledger.failures.push(Failure { load, asked, failed, opened, cause, backend, client });
                false
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a server that answers each line with its name and that line.
struct Line {
    stream: BufReader<TcpStream>,
    /// Who answered first.
    backend: Option<String>,
}

impl Line {
    async fn exchange(&mut self, question: &str) -> Result<(), Cause> {
        let other = |error: std::io::Error| cause(error.into());
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes()).await.map_err(other)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer).await.map_err(other)? == 0 {
            return Err(Cause::Reset);
        }
        let (name, echoed) = answer.trim_end().split_once(' ').ok_or(Cause::WrongAnswer)?;
        let first = self.backend.get_or_insert_with(|| name.to_owned());
        if first != name || echoed != question { Err(Cause::WrongAnswer) } else { Ok(()) }
    }
}

fn cause(failure: connection::Failure) -> Cause {
    use connection::Failure;
    match failure {
        Failure::Refused => Cause::Refused,
        Failure::Reset => Cause::Reset,
        Failure::TimedOut => Cause::TimedOut,
        Failure::BadAnswer => Cause::WrongAnswer,
        Failure::NotTried | Failure::Other => Cause::NotAsked,
    }
}

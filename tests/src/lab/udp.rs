//! UDP servers that say who they are, and numbered traffic that shows what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;
use super::node::Node;
use super::stop::Stop;
use super::tcp::lock;
use super::wait::wait_until;

/// A slow moment of a thread must not look like a loss in the network.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Between the server's name and the payload that it sends back.
const SEPARATOR: u8 = b'|';
const LONGEST_DATAGRAM: usize = 65_536;
/// How long replies may take after the last packet was sent.
const SETTLE: Duration = Duration::from_secs(2);

/// Answers each datagram with `NAME|` and the datagram.
#[derive(Debug)]
pub struct UdpServer {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    clients: Arc<Mutex<BTreeMap<SocketAddr, u64>>>,
}

impl UdpServer {
    /// Serves on these ports of each address of `node`, under the node's name.
    pub fn start(node: &Node, ports: &[u16]) -> Result<Self> {
        let mut this = Self { stop: Stop::new()?, threads: Vec::new(), clients: Arc::default() };
        // One socket for each address, because a reply has to come from the address that was asked.
        for address in node.addresses() {
            for &port in ports {
                let local = SocketAddr::new(address, port);
                let socket = node
                    .enter(|| bind(local))
                    .with_context(|| format!("serve UDP on {local} in {}", node.namespace.name()))?;
                let (stop, clients, name) = (this.stop.clone(), this.clients.clone(), node.label());
                let thread = std::thread::Builder::new()
                    .name(format!("udp {local}"))
                    .spawn(move || answer(&socket, &stop, &name, &clients))?;
                this.threads.push(thread);
            }
        }
        Ok(this)
    }

    /// How many datagrams came from each client.
    #[must_use]
    pub fn clients(&self) -> BTreeMap<SocketAddr, u64> {
        lock(&self.clients).clone()
    }

    /// How many datagrams came.
    #[must_use]
    pub fn received(&self) -> u64 {
        lock(&self.clients).values().sum()
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Numbered datagrams at an even pace, to be answered by [`UdpServer`]s.
#[derive(Debug, Clone)]
pub struct UdpTraffic {
    sources: Vec<SocketAddr>,
    to: SocketAddr,
    rate: u32,
    size: usize,
}

impl UdpTraffic {
    /// From these addresses in turn: each is one flow.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = SocketAddr>, to: SocketAddr) -> Self {
        Self { sources: sources.into_iter().collect(), to, rate: 10_000, size: 64 }
    }

    /// Datagrams a second, over all flows (10,000).
    #[must_use]
    pub fn rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    /// Bytes of payload, at least 8 (64).
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Sends `count` datagrams and waits for the replies.
    pub fn run(&self, namespace: &Namespace, count: u64) -> Result<UdpReport> {
        self.begin(namespace, Some(count))?.finish()
    }

    /// Sends until [`UdpRun::finish`].
    pub fn start(&self, namespace: &Namespace) -> Result<UdpRun> {
        self.begin(namespace, None)
    }

    fn begin(&self, namespace: &Namespace, count: Option<u64>) -> Result<UdpRun> {
        ensure!(
            !self.sources.is_empty() && self.rate > 0 && self.size >= 8,
            "traffic that can't be: {self:?}"
        );
        let connect = || {
            let sockets = self.sources.iter().map(|&from| {
                let socket = bind(from)?;
                socket.connect(self.to)?;
                Ok::<_, anyhow::Error>(socket)
            });
            sockets.collect::<Result<Vec<_>>>()
        };
        let sockets = namespace
            .enter(connect)
            .with_context(|| format!("send UDP to {} from {}", self.to, namespace.name()))?;
        let (sockets, shared) = (Arc::new(sockets), Arc::new(Shared::default()));
        let (stop_sending, stop_receiving) = (Stop::new()?, Stop::new()?);
        let mut receivers = Vec::new();
        for flow in 0..sockets.len() {
            let (sockets, shared, stop) = (sockets.clone(), shared.clone(), stop_receiving.clone());
            let thread = std::thread::Builder::new().name(format!("udp flow {flow}"));
            receivers.push(thread.spawn(move || receive(&sockets, flow, &shared, &stop))?);
        }
        let sender = std::thread::Builder::new().name("udp sender".to_owned()).spawn({
            let (traffic, shared, stop) = (self.clone(), shared.clone(), stop_sending.clone());
            move || send(&traffic, &sockets, &shared, &stop, count)
        })?;
        let sender = Some(sender);
        Ok(UdpRun { shared, stop_sending, stop_receiving, sender, receivers, endless: count.is_none() })
    }
}

/// Traffic under way.
#[derive(Debug)]
pub struct UdpRun {
    shared: Arc<Shared>,
    stop_sending: Stop,
    stop_receiving: Stop,
    sender: Option<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
    endless: bool,
}

/// What became of the traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpReport {
    pub sent: u64,
    /// Datagrams that were answered.
    pub answered: u64,
    /// Replies beyond the first to the same datagram.
    pub duplicates: u64,
    /// Datagrams that the kernel refused to send, for instance because an ICMP error had come back. They count as
    /// sent.
    pub refused: u64,
    /// The numbers of the datagrams that were not answered; the first is 0.
    pub lost: Vec<u64>,
    /// Who answered how many.
    pub by_backend: BTreeMap<String, u64>,
    /// Who answered each flow, in the order of the sources.
    pub by_flow: Vec<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
    replies: Mutex<Replies>,
}

#[derive(Debug, Default)]
struct Replies {
    /// By number.
    seen: Vec<bool>,
    duplicates: u64,
    by_backend: BTreeMap<String, u64>,
    by_flow: BTreeMap<usize, BTreeSet<String>>,
}

impl UdpRun {
    /// How many datagrams were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// How many were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends an endless run, or waits for the end of a counted one; then waits for outstanding replies.
    pub fn finish(mut self) -> Result<UdpReport> {
        if self.endless {
            self.stop_sending.set();
        }
        if let Some(sender) = self.sender.take() {
            sender.join().ok().context("the sender panicked")?;
        }
        // Not an error: what is lost is lost, and the report says so.
        let _ = wait_until("every datagram is answered", SETTLE, || self.answered() >= self.sent());
        self.end();
        let replies = std::mem::take(&mut *lock(&self.shared.replies));
        let seen =
            |number: &u64| usize::try_from(*number).is_ok_and(|at| replies.seen.get(at) == Some(&true));
        let flows = replies.by_flow.keys().next_back().map_or(0, |last| last + 1);
        Ok(UdpReport {
            sent: self.sent(),
            answered: self.answered(),
            duplicates: replies.duplicates,
            refused: self.shared.refused.load(Ordering::Relaxed),
            lost: (0..self.sent()).filter(|number| !seen(number)).collect(),
            by_flow: (0..flows).map(|flow| replies.by_flow.get(&flow).cloned().unwrap_or_default()).collect(),
            by_backend: replies.by_backend,
        })
    }

    fn end(&mut self) {
        self.stop_sending.set();
        self.stop_receiving.set();
        for thread in self.sender.take().into_iter().chain(self.receivers.drain(..)) {
            let _ = thread.join();
        }
    }
}

impl Drop for UdpRun {
    fn drop(&mut self) {
        self.end();
    }
}

fn bind(local: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into()).with_context(|| format!("bind to {local}"))?;
    Ok(socket.into())
}

fn answer(socket: &UdpSocket, stop: &Stop, name: &str, clients: &Mutex<BTreeMap<SocketAddr, u64>>) {
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    let mut reply = Vec::new();
    while stop.wait_readable(socket.as_fd()).unwrap_or(false) {
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            *lock(clients).entry(client).or_default() += 1;
            reply.clear();
            reply.extend_from_slice(name.as_bytes());
            reply.push(SEPARATOR);
            reply.extend_from_slice(buffer.get(..length).unwrap_or_default());
            // A client that is gone is no concern of the server.
            let _ = socket.send_to(&reply, client);
        }
    }
}

fn send(traffic: &UdpTraffic, sockets: &[UdpSocket], shared: &Shared, stop: &Stop, count: Option<u64>) {
    let began = Instant::now();
    let mut datagram = vec![0; traffic.size];
    for (number, socket) in (0..count.unwrap_or(u64::MAX)).zip(sockets.iter().cycle()) {
        let due = began + Duration::from_secs_f64(number as f64 / f64::from(traffic.rate));
        if let Some(ahead) = due.checked_duration_since(Instant::now()) {
            // Only to keep the pace; a short one costs more than it gives.
            if ahead > Duration::from_micros(100) {
                std::thread::sleep(ahead);
            }
        }
        if stop.is_set() {
            return;
        }
        if let Some(start) = datagram.first_chunk_mut() {
            *start = number.to_be_bytes();
        }
        if !matches!(socket.send(&datagram), Ok(length) if length == datagram.len()) {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        shared.sent.fetch_add(1, Ordering::Relaxed);
    }
}

fn receive(sockets: &[UdpSocket], flow: usize, shared: &Shared, stop: &Stop) {
    let Some(socket) = sockets.get(flow) else { return };
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    while stop.wait_readable(socket.as_fd()).unwrap_or(false) {
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => note(shared, flow, buffer.get(..length).unwrap_or_default()),
                // An ICMP error that came for this socket: the sender counts its effect.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    }
}

fn note(shared: &Shared, flow: usize, reply: &[u8]) {
    let Some(at) = reply.iter().position(|byte| *byte == SEPARATOR) else { return };
    let (name, payload) = reply.split_at(at);
    let Some(number) = payload.get(1..).and_then(|payload| payload.first_chunk()) else { return };
    let Ok(number) = usize::try_from(u64::from_be_bytes(*number)) else { return };
    let name = String::from_utf8_lossy(name);
    let mut replies = lock(&shared.replies);
    if replies.seen.len() <= number {
        replies.seen.resize(number + 1, false);
    }
    let again = replies.seen.get_mut(number).is_some_and(|seen| std::mem::replace(seen, true));
    if again {
        replies.duplicates += 1;
    } else {
        shared.answered.fetch_add(1, Ordering::Relaxed);
        *replies.by_backend.entry(name.clone().into_owned()).or_default() += 1;
    }
    replies.by_flow.entry(flow).or_default().insert(name.into_owned());
}

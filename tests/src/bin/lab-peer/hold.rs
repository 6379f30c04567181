//! The clients' side: connections that know which backend answered first.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use lb_tests::lab::{Loss, NOBODY, Order, Report};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use crate::input::{INPUT, Input, say, say_ready};

/// Connections and questions that all processes of these clients have open at a time: less than any queue on the way.
const QUEUE: usize = 250;
/// How often connections are looked at for being overdue.
const ROUND: Duration = Duration::from_millis(100);

pub(crate) fn run(to: SocketAddr, first: IpAddr, addresses: u16, processes: usize) -> Result<()> {
    let mut holder = Holder::new(to, first, addresses, QUEUE / processes)?;
    say_ready()?;
    loop {
        while let Some(order) = holder.input.next::<Order>()? {
            holder.follow(order)?;
            say(&holder.report())?;
        }
        holder.step()?;
    }
}

struct Holder {
    epoll: Epoll,
    input: Input,
    to: SocketAddr,
    sources: Sources,
    /// Its place is its token. The place of one that is gone is used again.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections that wait for an answer (or to be established), and how many may.
    waiting: usize,
    window: usize,
    pace: Pace,
    visits: Pace,
    /// Whose turn it is.
    turn: usize,
    checked: Instant,
    report: Report,
}

struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    established: bool,
    /// Closed when it is answered.
    visits: bool,
    backend: Option<String>,
    asked: Option<Instant>,
    /// What the last question said, which nobody else asks.
    question: String,
    questions: u64,
    /// The beginning of an answer.
    received: Vec<u8>,
}

impl Connection {
    fn put_question(&mut self) -> io::Result<()> {
        self.questions += 1;
        self.question = format!("{} {}", self.client, self.questions);
        self.stream.write_all(format!("{}\n", self.question).as_bytes())
    }
}

impl Holder {
    fn new(to: SocketAddr, first: IpAddr, addresses: u16, window: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let input = Input::register(&epoll)?;
        Ok(Self {
            epoll,
            input,
            to,
            sources: Sources { first, addresses, next: 0 },
            connections: Vec::new(),
            free: Vec::new(),
            waiting: 0,
            window,
            pace: Pace::default(),
            visits: Pace::default(),
            turn: 0,
            checked: Instant::now(),
            report: Report::default(),
        })
    }

    fn follow(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Open { count } => {
                for _ in 0..count {
                    self.make_room()?;
                    self.open(false)?;
                }
                self.settle()
            }
            Order::Exchange => {
                for at in 0..self.connections.len() {
                    self.make_room()?;
                    self.ask(at);
                }
                self.settle()
            }
            Order::Pace { per_second } => {
                self.pace = Pace::new(per_second);
                Ok(())
            }
            Order::Visit { per_second } => {
                self.visits = Pace::new(per_second);
                Ok(())
            }
            Order::Close { backends } => {
                for at in 0..self.connections.len() {
                    let backend = self.connection(at).and_then(|connection| connection.backend.clone());
                    if backend.is_some_and(|backend| backends.contains(&backend)) {
                        self.close(at);
                    }
                }
                Ok(())
            }
            Order::Report => Ok(()),
        }
    }

    fn report(&self) -> Report {
        let mut report = self.report.clone();
        for connection in self.connections.iter().flatten() {
            let backend = connection.backend.as_deref();
            if let Some(backend) = backend.filter(|_| !connection.visits) {
                *report.open.entry(backend.to_owned()).or_default() += 1;
            }
            if let Some(asked) = connection.asked {
                *report.waiting.count.entry(backend.unwrap_or(NOBODY).to_owned()).or_default() += 1;
                let waited = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                report.waiting.longest = report.waiting.longest.max(waited);
            }
        }
        report
    }

    fn has_room(&self) -> bool {
        self.waiting < self.window
    }

    fn make_room(&mut self) -> Result<()> {
        while !self.has_room() {
            self.step()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        // With traffic at a pace there is always somebody waiting: then it is this moment's that have to be answered.
        let now = Instant::now();
        let due = |connection: &Connection| connection.asked.is_some_and(|asked| asked <= now);
        while self.waiting > 0 && self.connections.iter().flatten().any(due) {
            self.step()?;
        }
        Ok(())
    }

    /// Does what is due, and waits a moment for what happens.
    fn step(&mut self) -> Result<()> {
        // What there is no room for is never made up for: after a pause it would come as a flood.
        for _ in 0..self.visits.due() {
            if self.has_room() {
                self.open(true)?;
            }
        }
        for _ in 0..self.pace.due() {
            if self.has_room() {
                self.turn = (self.turn + 1) % self.connections.len().max(1);
                self.ask(self.turn);
            }
        }
        let mut events = [EpollEvent::empty(); 512];
        let idle = self.pace.is_idle() && self.visits.is_idle();
        let timeout: u16 = if idle { 50 } else { 1 };
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(timeout)) {
            Err(Errno::EINTR) => 0,
            other => other.context("wait for events")?,
        };
        for event in events.iter().take(count) {
            match event.data() {
                INPUT => self.input.read()?,
                token => self.happened(token as usize),
            }
        }
        if self.checked.elapsed() >= ROUND {
            self.checked = Instant::now();
            self.check();
        }
        Ok(())
    }

    fn open(&mut self, visits: bool) -> Result<()> {
        let client = self.sources.next();
        let stream = match connect(client, self.to) {
            Ok(stream) => stream,
            Err(error) => {
                self.note(client, None, &format!("can't connect: {error}"));
                return Ok(());
            }
        };
        let client = stream.local_addr().unwrap_or(client);
        let at = self.free.pop().unwrap_or(self.connections.len());
        if at == self.connections.len() {
            self.connections.push(None);
        }
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, at as u64))
            .context("watch a socket")?;
        let connection = Connection {
            stream,
            client,
            established: false,
            visits,
            backend: None,
            asked: Some(Instant::now()),
            question: String::new(),
            questions: 0,
            received: Vec::new(),
        };
        if let Some(place) = self.connections.get_mut(at) {
            *place = Some(connection);
        }
        self.waiting += 1;
        Ok(())
    }

    /// Unless it is gone, is being asked or is not established.
    fn ask(&mut self, at: usize) {
        let Some(connection) = self.connection(at) else { return };
        if connection.asked.is_some() || connection.visits {
            return;
        }
        connection.asked = Some(Instant::now());
        let sent = connection.put_question();
        self.waiting += 1;
        if let Err(error) = sent {
            self.lose(at, &error.to_string());
        }
    }

    fn happened(&mut self, at: usize) {
        let Some(connection) = self.connection(at) else { return };
        let result =
            if connection.established { read(connection) } else { establish(connection).map(|()| vec![]) };
        match result {
            Ok(lines) => {
                let watched = self.watch(at);
                for line in lines {
                    self.answered(at, &line);
                }
                if let Err(error) = watched {
                    self.lose(at, &error.to_string());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.lose(at, &error.to_string()),
        }
    }

    /// From when it is established on, it is reading that is waited for.
    fn watch(&mut self, at: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get(at).and_then(Option::as_ref) else { return Ok(()) };
        if connection.established && connection.backend.is_none() {
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
            self.epoll.modify(&connection.stream, &mut event)?;
        }
        Ok(())
    }

    fn answered(&mut self, at: usize, line: &str) {
        let Some(connection) = self.connection(at) else { return };
        let was_asked = connection.asked.take().is_some();
        let (name, question) = line.split_once(' ').unwrap_or((line, ""));
        let first = connection.backend.get_or_insert_with(|| name.to_owned());
        let wrong = if question != connection.question {
            Some(format!("answered what {question:?} asked"))
        } else {
            (*first != name).then(|| format!("answered by {name}"))
        };
        let visits = connection.visits;
        self.waiting -= usize::from(was_asked);
        if let Some(why) = wrong {
            return self.lose(at, &why);
        }
        self.report.exchanged += 1;
        if visits {
            *self.report.visits.entry(name.to_owned()).or_default() += 1;
            self.close(at);
        }
    }

    fn check(&mut self) {
        let overdue =
            |connection: &Connection| connection.asked.is_some_and(|asked| asked.elapsed() > Order::PATIENCE);
        let late: Vec<_> = self
            .connections
            .iter()
            .enumerate()
            .filter_map(|(at, connection)| connection.as_ref().is_some_and(overdue).then_some(at))
            .collect();
        for at in late {
            self.lose(at, "no answer");
        }
    }

    fn lose(&mut self, at: usize, why: &str) {
        let Some(connection) = self.close(at) else { return };
        let why = if connection.established { why.to_owned() } else { format!("can't connect: {why}") };
        self.note(connection.client, connection.backend, &why);
    }

    fn close(&mut self, at: usize) -> Option<Connection> {
        let connection = self.connections.get_mut(at)?.take()?;
        self.free.push(at);
        self.waiting -= usize::from(connection.asked.is_some());
        Some(connection)
    }

    fn note(&mut self, client: SocketAddr, backend: Option<String>, why: &str) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_millis()).unwrap_or_default();
        self.report.lost.push(Loss { client, backend, why: why.to_owned(), at });
    }

    fn connection(&mut self, at: usize) -> Option<&mut Connection> {
        self.connections.get_mut(at)?.as_mut()
    }
}

/// Addresses in turn.
struct Sources {
    first: IpAddr,
    addresses: u16,
    next: u16,
}

impl Sources {
    fn next(&mut self) -> SocketAddr {
        let number = self.next;
        self.next = (self.next + 1) % self.addresses;
        let address: IpAddr = match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + u32::from(number)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(number)).into(),
        };
        SocketAddr::new(address, 0)
    }
}

/// So many a second.
struct Pace {
    per_second: u32,
    began: Instant,
    done: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { per_second, began: Instant::now(), done: 0 }
    }

    /// How many are due now, which is taken for done.
    fn due(&mut self) -> u64 {
        let all = (self.began.elapsed().as_secs_f64() * f64::from(self.per_second)) as u64;
        let due = all.saturating_sub(self.done);
        self.done = all;
        due
    }

    fn is_idle(&self) -> bool {
        self.per_second == 0
    }
}

fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&from.into())?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn establish(connection: &mut Connection) -> io::Result<()> {
    if let Some(error) = connection.stream.take_error()? {
        return Err(error);
    }
    connection.established = true;
    connection.put_question()
}

/// The complete lines that came.
fn read(connection: &mut Connection) -> io::Result<Vec<String>> {
    let mut buffer = [0; 256];
    let length = connection.stream.read(&mut buffer)?;
    if length == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the backend"));
    }
    connection.received.extend_from_slice(buffer.get(..length).unwrap_or_default());
    let mut lines = Vec::new();
    while let Some(end) = connection.received.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = connection.received.drain(..=end).collect();
        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::Sources;

    #[test]
    fn addresses_take_turns() {
        let mut sources = Sources { first: [10, 100, 0, 255].into(), addresses: 2, next: 0 };
        let taken: Vec<_> = (0..3).map(|_| sources.next().ip().to_string()).collect();
        assert_eq!(taken, ["10.100.0.255", "10.100.1.0", "10.100.0.255"]);
    }
}

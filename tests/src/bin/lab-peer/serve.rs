//! The backends' side: whatever line comes, the answer is the backend's name and the line.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use lb_tests::lab::Served;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use crate::input::{INPUT, Input, say, say_ready};

const BACKLOG: i32 = 4096;

pub(crate) fn run(port: u16, backends: &[(&str, &str)]) -> Result<()> {
    let mut server = Server::new(port, backends)?;
    say_ready()?;
    loop {
        server.wait()?;
        while server.input.next::<()>()?.is_some() {
            say(&server.served())?;
        }
    }
}

struct Server {
    epoll: Epoll,
    input: Input,
    /// Its place is its token.
    backends: Vec<Backend>,
    /// By token; those of backends come first.
    connections: HashMap<u64, Connection>,
    next: u64,
}

struct Backend {
    name: String,
    listener: TcpListener,
    served: Served,
}

struct Connection {
    backend: usize,
    stream: TcpStream,
    has_asked: bool,
    /// The beginning of a line.
    received: Vec<u8>,
}

impl Server {
    fn new(port: u16, backends: &[(&str, &str)]) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let input = Input::register(&epoll)?;
        let mut all = Vec::new();
        for (token, (name, namespace)) in (0..).zip(backends) {
            let handle = File::open(namespace).with_context(|| format!("open {namespace}"))?;
            // A socket stays where it was made, wherever the thread goes.
            setns(handle, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {namespace}"))?;
            let listener = listen(port).with_context(|| format!("listen in {namespace}"))?;
            epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            all.push(Backend { name: (*name).to_owned(), listener, served: Served::default() });
        }
        let next = all.len() as u64;
        Ok(Self { epoll, input, backends: all, connections: HashMap::new(), next })
    }

    fn wait(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 512];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            other => other.context("wait for events")?,
        };
        for event in events.iter().take(count) {
            match event.data() {
                INPUT => self.input.read()?,
                token if token < self.backends.len() as u64 => self.accept(token as usize)?,
                token => self.serve(token),
            }
        }
        Ok(())
    }

    fn accept(&mut self, backend: usize) -> Result<()> {
        let Some(Backend { listener, .. }) = self.backends.get(backend) else { return Ok(()) };
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Its client gave up before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = self.next;
            self.next += 1;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            self.connections
                .insert(token, Connection { backend, stream, has_asked: false, received: Vec::new() });
        }
    }

    fn serve(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let Some(backend) = self.backends.get_mut(connection.backend) else { return };
        let open = answer(connection, backend);
        // What a client breaks off is for the client to report.
        if !matches!(open, Ok(true)) {
            backend.served.open -= u64::from(connection.has_asked);
            self.connections.remove(&token);
        }
    }

    fn served(&self) -> BTreeMap<&str, Served> {
        self.backends.iter().map(|backend| (backend.name.as_str(), backend.served)).collect()
    }
}

/// Whether the connection is still open.
fn answer(connection: &mut Connection, backend: &mut Backend) -> io::Result<bool> {
    let mut buffer = [0; 1024];
    let length = match connection.stream.read(&mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
        other => other?,
    };
    connection.received.extend_from_slice(buffer.get(..length).unwrap_or_default());
    let mut answers = Vec::new();
    while let Some(end) = connection.received.iter().position(|byte| *byte == b'\n') {
        answers.extend(backend.name.bytes().chain([b' ']));
        answers.extend(connection.received.drain(..=end));
    }
    if !answers.is_empty() && !connection.has_asked {
        connection.has_asked = true;
        backend.served.accepted += 1;
        backend.served.open += 1;
    }
    connection.stream.write_all(&answers)?;
    Ok(length > 0)
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

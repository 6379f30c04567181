//! TCP servers in a namespace: the accepting part, the echo server, and one that does what a test wants.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::namespace::Namespace;
use super::stop::Stop;

const BACKLOG: i32 = 4096;

/// What is done with an accepted connection and its client's address, on a thread of its own.
pub(super) type Handler = Arc<dyn Fn(TcpStream, SocketAddr) + Send + Sync>;

/// Accepts connections, both families, on all addresses. When it is stopped or dropped, the listeners and every
/// connection are closed.
pub(super) struct Acceptor {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    connections: Arc<Connections>,
}

#[derive(Default)]
struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Acceptor {
    pub(super) fn start(namespace: &Namespace, ports: &[u16], handler: &Handler) -> Result<Self> {
        let mut this = Self { stop: Stop::new()?, threads: Vec::new(), connections: Arc::default() };
        for &port in ports {
            let listener = namespace
                .enter(|| listen(port))
                .with_context(|| format!("listen on port {port} in {}", namespace.name()))?;
            let (stop, connections, handler) = (this.stop.clone(), this.connections.clone(), handler.clone());
            let thread = thread::Builder::new()
                .name(format!("accept {port}"))
                .spawn(move || accept(&listener, &stop, &connections, &handler))?;
            this.threads.push(thread);
        }
        Ok(this)
    }

    /// Closes the listeners first, so that a client which lost its connection can't get a new one.
    pub(super) fn stop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for (_, stream) in lock(&self.connections.open).drain() {
            // It may be closed by its client already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends back what it receives.
pub struct TcpServer {
    acceptor: Acceptor,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
}

impl TcpServer {
    /// Serves on these ports, both families, on every address of the namespace.
    pub fn start(namespace: &Namespace, ports: &[u16]) -> Result<Self> {
        let clients = Arc::new(Mutex::new(Vec::new()));
        let seen = clients.clone();
        let handler: Handler = Arc::new(move |stream, client| {
            lock(&seen).push(client);
            // What a client breaks off is for the client to report.
            let _ = echo(stream);
        });
        Ok(Self { acceptor: Acceptor::start(namespace, ports, &handler)?, clients })
    }

    /// The address of each client, in the order they connected.
    #[must_use]
    pub fn clients(&self) -> Vec<SocketAddr> {
        lock(&self.clients).clone()
    }

    /// Closes the listeners and every connection.
    pub fn stop(&mut self) {
        self.acceptor.stop();
    }
}

/// Does something of a test's own with each connection.
pub struct CustomServer {
    _acceptor: Acceptor,
}

impl CustomServer {
    /// Serves on these ports, both families, on every address of the namespace, until it is dropped. What a client breaks off
    /// is for the client to report.
    pub fn start(
        namespace: &Namespace,
        ports: &[u16],
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let handler: Handler = Arc::new(move |stream, _| drop(serve(stream)));
        Ok(Self { _acceptor: Acceptor::start(namespace, ports, &handler)? })
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // A server that comes back must not wait for its old connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, stop: &Stop, connections: &Arc<Connections>, handler: &Handler) {
    while stop.wait_readable(listener.as_fd()).unwrap_or(false) {
        let Ok((stream, client)) = listener.accept() else { continue };
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        if let Err(error) = serve(stream, client, connections, handler) {
            eprintln!("lab: serve {client}: {error:#}");
        }
    }
    hang_up(listener);
}

/// Ends listening whoever has the socket, too: a process that another thread is starting has a copy of it until it is another program,
/// and nobody else could listen on the port meanwhile.
fn hang_up(listener: &TcpListener) {
    // One that does not listen is no loss.
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
}

fn serve(
    stream: TcpStream,
    client: SocketAddr,
    connections: &Arc<Connections>,
    handler: &Handler,
) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let number = connections.next.fetch_add(1, Ordering::Relaxed);
    lock(&connections.open).insert(number, stream.try_clone()?);
    let (connections, handler) = (connections.clone(), handler.clone());
    thread::Builder::new().name(format!("serve {client}")).spawn(move || {
        handler(stream, client);
        lock(&connections.open).remove(&number);
    })?;
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..length).unwrap_or_default())?;
    }
}

/// A handler that panicked leaves whole values behind.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_again_although_somebody_has_a_copy_of_the_socket() -> Result<()> {
        let listener = listen(0)?;
        let port = listener.local_addr()?.port();
        let _copy = listener.try_clone()?;
        hang_up(&listener);
        drop(listener);
        listen(port).map(drop)
    }
}

//! TCP from a client's point of view.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;

/// Connects from inside `namespace`; `from` may be any address that is routed to it (see
/// [`Node::source_port`](super::Node::source_port)), `timeout` is for the connection and each later read or write.
pub fn connect(
    namespace: &Namespace,
    from: Option<SocketAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream> {
    namespace.enter(|| connect_here(from, to, timeout)).with_context(|| format!("in {}", namespace.name()))
}

/// [`connect`] in the namespace of the calling thread.
pub(super) fn connect_here(from: Option<SocketAddr>, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
    let open = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = from {
            // One port to several destinations, and again right after.
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&to.into(), timeout)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        socket.set_tcp_nodelay(true)?;
        Ok::<TcpStream, std::io::Error>(socket.into())
    };
    let from = from.map_or(String::new(), |from| format!(" from {from}"));
    open().with_context(|| format!("connect{from} to {to}"))
}

/// Sends `length` bytes to a [`TcpServer`](super::TcpServer) and checks that the same bytes come back and nothing more.
pub fn exchange(stream: &TcpStream, length: usize) -> Result<()> {
    // Where it begins depends on the connection, so that mixing two of them up does not go unnoticed.
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let seed = local.port() ^ peer.port() ^ last_word(peer.ip()).rotate_left(8);
    let data: Vec<u8> = pattern(seed).take(length).collect();
    let mut received = Vec::with_capacity(length);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&data).context("send")?;
            stream.shutdown(Shutdown::Write).context("close the sending half")
        });
        let mut stream = stream;
        let result = stream.read_to_end(&mut received);
        let result = result.with_context(|| format!("receive, after {} of {length} bytes", received.len()));
        sender.join().expect("sending does not panic").and(result)
    })?;
    ensure!(received.len() == length, "sent {length} bytes, got {} back", received.len());
    let wrong = received.iter().zip(&data).position(|(received, sent)| received != sent);
    ensure!(wrong.is_none(), "byte {} came back changed", wrong.unwrap_or_default());
    Ok(())
}

/// What tells addresses of one network apart.
fn last_word(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u16,
        IpAddr::V6(address) => address.to_bits() as u16,
    }
}

/// Bytes without a short period: xorshift.
fn pattern(seed: u16) -> impl Iterator<Item = u8> {
    let mut state = u32::from(seed) << 1 | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        Some((state >> 24) as u8)
    })
}

//! One client's connection.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Room for an answer; those of the benchmark's backends are less than half as long.
const ROOM: usize = 4096;
const KEEP: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
const HEADERS: usize = 32;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    Refused,
    /// Or closed before the answer was complete.
    Reset,
    TimedOut,
    /// Not 200, or no HTTP.
    BadAnswer,
    /// Too many are under way already.
    NotTried,
    /// Something on the client's side.
    Other,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Other,
        }
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8; ROOM]>,
}

impl Connection {
    pub(crate) async fn open(from: SocketAddr, to: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { stream: connect(from, to).await?, buffer: Box::new([0; ROOM]) })
    }

    /// Makes a request and reads the answer, to the end of the connection if it is the `last` one.
    pub(crate) async fn ask(&mut self, last: bool) -> Result<(), Failure> {
        self.stream.write_all(if last { CLOSE } else { KEEP }).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            filled += read;
            let answer = &self.buffer[..filled];
            match length(answer)? {
                Some(length) if filled > length => return Err(Failure::BadAnswer),
                // The end is the client's to see too: a balancer has to bring it.
                Some(length) if filled == length && (!last || read == 0) => return Ok(()),
                _ if read == 0 && filled == ROOM => return Err(Failure::BadAnswer),
                _ if read == 0 => return Err(Failure::Reset),
                _ => {}
            }
        }
    }
}

/// A connection for any purpose.
pub(crate) async fn connect(from: SocketAddr, to: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // The kernel chooses the port when it knows the other end, so that one port serves several.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(io::Error::from)?;
    socket.bind(&from.into())?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Of the whole answer, once its head is there.
fn length(answer: &[u8]) -> Result<Option<usize>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let status = parsed.parse(answer).map_err(|_| Failure::BadAnswer)?;
    let httparse::Status::Complete(head) = status else { return Ok(None) };
    if parsed.code != Some(200) {
        return Err(Failure::BadAnswer);
    }
    let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = header.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    Ok(Some(head + body.ok_or(Failure::BadAnswer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(length(answer), Ok(Some(answer.len())));
        assert_eq!(length(&answer[..30]), Ok(None));
        assert_eq!(length(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), Err(Failure::BadAnswer));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Failure::BadAnswer));
        assert_eq!(length(b"\x16\x03\x01"), Err(Failure::BadAnswer));
    }
}

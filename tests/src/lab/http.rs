//! A small HTTP server that says who it is and can be told to fail, and a client for it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::connect_here;
use super::namespace::Namespace;
use super::node::Node;
use super::tcp::{Acceptor, Handler, lock};

/// What an [`HttpServer`] does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 for everything, `/healthz` included.
    Serve,
    /// This status for `/healthz`, 200 for the rest.
    FailHealth(u16),
    /// This status for everything.
    Fail(u16),
    /// Accepts connections and requests and never answers.
    Hang,
    /// As if the process was killed: every connection closed, new ones refused.
    Refuse,
}

/// An HTTP/1.1 server. Each reply has the server's name as its body and as `X-Backend`, and the client's address, as the
/// server saw it, as `X-Client`.
pub struct HttpServer {
    node: Node,
    ports: Vec<u16>,
    shared: Arc<Shared>,
    acceptor: Option<Acceptor>,
}

struct Shared {
    name: String,
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<(SocketAddr, String)>>,
}

impl HttpServer {
    /// Serves on these ports of every address of `node`, under the node's name.
    pub fn start(node: &Node, ports: &[u16]) -> Result<Self> {
        let shared = Shared {
            name: node.label(),
            behaviour: Mutex::new(Behaviour::Refuse),
            requests: Mutex::default(),
        };
        let mut this =
            Self { node: node.clone(), ports: ports.to_vec(), shared: Arc::new(shared), acceptor: None };
        this.set(Behaviour::Serve)?;
        Ok(this)
    }

    /// From now on does this with requests, also with those on open connections.
    pub fn set(&mut self, behaviour: Behaviour) -> Result<()> {
        let before = std::mem::replace(&mut *lock(&self.shared.behaviour), behaviour);
        // A hanging request is never answered: leaving that behaviour closes its connection.
        if behaviour == Behaviour::Refuse || before == Behaviour::Hang {
            self.acceptor = None;
        }
        if behaviour != Behaviour::Refuse && self.acceptor.is_none() {
            let shared = self.shared.clone();
            let handler: Handler = Arc::new(move |stream, client| {
                // What a client breaks off is for the client to report.
                let _ = shared.serve(stream, client);
            });
            self.acceptor = Some(Acceptor::start(&self.node, &self.ports, &handler)?);
        }
        Ok(())
    }

    /// Every request so far: the client's address and the path.
    #[must_use]
    pub fn requests(&self) -> Vec<(SocketAddr, String)> {
        lock(&self.shared.requests).clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(Request { path, close }) = read_request(&mut reader)? {
            lock(&self.requests).push((client, path.clone()));
            let behaviour = *lock(&self.behaviour);
            let status = match behaviour {
                Behaviour::FailHealth(status) if path == "/healthz" => status,
                Behaviour::Fail(status) => status,
                Behaviour::Hang => return wait_for_end(&mut reader),
                Behaviour::Serve | Behaviour::FailHealth(_) => 200,
                Behaviour::Refuse => return Ok(()),
            };
            let reason = if status == 200 { "OK" } else { "As Told" };
            let connection = if close { "close" } else { "keep-alive" };
            let body = format!("{}\n", self.name);
            write!(
                stream,
                "HTTP/1.1 {status} {reason}\r\nX-Backend: {}\r\nX-Client: {client}\r\nContent-Type: text/plain\r\n\
                 Content-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
                self.name,
                body.len(),
            )?;
            if close {
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Request {
    path: String,
    close: bool,
}

/// `None` when the client has closed. Requests here have no bodies.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let path = first.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let mut close = first.trim_end().ends_with("HTTP/1.0");
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some(Request { path, close }));
        }
        close |= line == "connection: close";
    }
}

fn wait_for_end(reader: &mut impl Read) -> io::Result<()> {
    io::copy(reader, &mut io::sink()).map(drop)
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The name of the backend that answered; empty if it is not an [`HttpServer`].
    pub backend: String,
    /// The client's address as the backend saw it.
    pub client: Option<SocketAddr>,
    /// The header lines, without the status.
    pub head: String,
    pub body: String,
}

/// Makes one request on a connection of its own. `timeout` is for connecting and for each wait for bytes.
pub fn http_get(
    namespace: &Namespace,
    from: Option<SocketAddr>,
    to: SocketAddr,
    path: &str,
    timeout: Duration,
) -> Result<Reply> {
    namespace
        .enter(|| http_get_here(from, to, path, timeout))
        .with_context(|| format!("in {}", namespace.name()))
}

/// [`http_get`] in the namespace of the calling thread.
pub(super) fn http_get_here(
    from: Option<SocketAddr>,
    to: SocketAddr,
    path: &str,
    timeout: Duration,
) -> Result<Reply> {
    let mut stream = connect_here(from, to, timeout)?;
    let what = || format!("GET http://{to}{path}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").with_context(what)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).with_context(what)?;
    parse_reply(&reply).with_context(what)
}

fn parse_reply(reply: &str) -> Result<Reply> {
    let Some((head, body)) = reply.split_once("\r\n\r\n") else {
        bail!("cut short after {} bytes", reply.len())
    };
    let (first, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in {first:?}"))?;
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let value = |name| header(name).map(|(_, value)| value.trim());
    if let Some(length) = value("Content-Length").and_then(|length| length.parse::<usize>().ok())
        && length != body.len()
    {
        bail!("{} of {length} bytes of the body", body.len());
    }
    Ok(Reply {
        status,
        backend: value("X-Backend").unwrap_or_default().to_owned(),
        client: value("X-Client").and_then(|client| client.parse().ok()),
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

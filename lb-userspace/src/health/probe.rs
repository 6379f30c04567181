use std::{error::Error as _, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::domain::Probe;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed {
        detail: String,
    },
    Failed {
        detail: String,
    },
    /// The server answers, and is not what the service needs.
    Ineligible {
        detail: String,
    },
    /// The check could not be made, for reasons that say nothing about the backend.
    Skipped {
        detail: String,
    },
}

/// Asks the server at `target` once. `timeout` covers the whole check, connecting included.
pub async fn check(probe: &Probe, target: SocketAddr, timeout: Duration) -> Outcome {
    let asked = async {
        match probe {
            Probe::None => Ok("not checked".to_owned()),
            Probe::Tcp => connect(target).await.map(|_closed_when_dropped| "connected".to_owned()),
            Probe::Http { path, host } => http(path, host.as_deref(), target).await,
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(detail)) => Outcome::Passed { detail },
        Ok(Err(Trouble::Backend(detail))) => Outcome::Failed { detail },
        Ok(Err(Trouble::Ours(error))) => Outcome::Skipped { detail: error.to_string() },
        Err(_) => {
            let limit = humantime::format_duration(timeout);
            Outcome::Failed { detail: format!("timed out after {limit}") }
        }
    }
}

/// Why a check did not pass.
enum Trouble {
    Backend(String),
    /// This host ran out of something.
    Ours(io::Error),
}

async fn connect(target: SocketAddr) -> Result<TcpStream, Trouble> {
    TcpStream::connect(target).await.map_err(|error| {
        if is_ours(&error) { Trouble::Ours(error) } else { Trouble::Backend(describe(&error)) }
    })
}

/// `GET path`; the head of the answer is enough, a body is never read.
async fn http(path: &str, host: Option<&str>, target: SocketAddr) -> Result<String, Trouble> {
    let host = host.map_or_else(|| target.to_string(), str::to_owned);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("ballast/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::Backend(format!("the request can't be made: {error}")))?;

    let stream = TokioIo::new(connect(target).await?);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_RESPONSE_HEAD).max_headers(MAX_RESPONSE_HEADERS);
    let broken = |error: hyper::Error| Trouble::Backend(describe_http(&error));
    let (mut sender, connection) = builder.handshake(stream).await.map_err(broken)?;
    // The connection is driven here rather than in a task, so that it ends with the check.
    let response = tokio::select! {
        biased;
        response = sender.send_request(request) => response.map_err(broken)?,
        Err(error) = connection => return Err(broken(error)),
    };
    verdict(response.status())
}

fn verdict(status: StatusCode) -> Result<String, Trouble> {
    let detail = format!("HTTP {}", status.as_u16());
    if status.is_success() || status.is_redirection() { Ok(detail) } else { Err(Trouble::Backend(detail)) }
}

/// Whether a connection failed for want of descriptors, buffers, memory or local ports: that says nothing about the
/// backend.
fn is_ours(error: &io::Error) -> bool {
    let wanting = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| wanting.contains(&code))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        // The kernel gave up before the check's own limit.
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

fn describe_http(error: &hyper::Error) -> String {
    if let Some(source) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return describe(source);
    }
    if error.is_parse_too_large() {
        return format!("response header larger than {} KiB", MAX_RESPONSE_HEAD / 1024);
    }
    if error.is_parse() {
        return "not an HTTP response".to_owned();
    }
    if error.is_incomplete_message() || error.is_canceled() {
        return "closed without an answer".to_owned();
    }
    error.to_string()
}

/// Most bytes and fields of a response's head.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
const MAX_RESPONSE_HEADERS: usize = 256;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn http_probe() -> Probe {
        Probe::Http { path: "/healthz?full=1".into(), host: Some("web.example".into()) }
    }

    fn failed(detail: &str) -> Outcome {
        Outcome::Failed { detail: detail.into() }
    }

    /// A server that takes one connection, reads a request's head and answers with `answer`, then closes if told to.
    async fn server(answer: Vec<u8>, close: bool) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                let count = stream.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..count]);
            }
            // The client may close before it has everything.
            let _ = stream.write_all(&answer).await;
            if !close {
                let _ = stream.read(&mut [0; 1]).await;
            }
            String::from_utf8(request).unwrap()
        });
        (address, task)
    }

    async fn answered(answer: &[u8]) -> Outcome {
        let (address, _task) = server(answer.to_vec(), false).await;
        check(&http_probe(), address, TIMEOUT).await
    }

    #[tokio::test]
    async fn statuses_below_400_pass() {
        let ok = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nonly a part").await;
        assert_eq!(ok, Outcome::Passed { detail: "HTTP 200".into() });
        let moved = answered(b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n").await;
        assert_eq!(moved, Outcome::Passed { detail: "HTTP 302".into() });
        let after_interim = answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n").await;
        assert_eq!(after_interim, Outcome::Passed { detail: "HTTP 204".into() });
        assert_eq!(answered(b"HTTP/1.1 404 Not Found\r\n\r\n").await, failed("HTTP 404"));
        assert_eq!(answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await, failed("HTTP 503"));
    }

    #[tokio::test]
    async fn a_request_names_path_and_host() {
        let (address, task) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true).await;
        check(&http_probe(), address, TIMEOUT).await;
        let request = task.await.unwrap();
        assert!(request.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: web.example\r\n"), "{request}");

        let (address, task) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true).await;
        check(&Probe::Http { path: "/".into(), host: None }, address, TIMEOUT).await;
        assert!(task.await.unwrap().contains(&format!("host: {address}\r\n")));
    }

    #[tokio::test]
    async fn answers_that_are_none_fail() {
        assert_eq!(answered(b"SSH-2.0-OpenSSH_9.2\r\n").await, failed("not an HTTP response"));
        let (address, _task) = server(Vec::new(), true).await;
        assert_eq!(check(&http_probe(), address, TIMEOUT).await, failed("closed without an answer"));
        let (address, _task) = server(Vec::new(), false).await;
        assert_eq!(check(&http_probe(), address, TIMEOUT).await, failed("timed out after 500ms"));
        // A head that trickles in for ever is held to the same limit.
        let (address, _task) = server(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), false).await;
        assert_eq!(check(&http_probe(), address, TIMEOUT).await, failed("timed out after 500ms"));
    }

    #[tokio::test]
    async fn a_response_head_is_bounded() {
        let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        endless.resize(MAX_RESPONSE_HEAD + 1024, b'a');
        assert_eq!(answered(&endless).await, failed("response header larger than 64 KiB"));
    }

    #[tokio::test]
    async fn a_connection_is_all_that_tcp_asks_for() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Outcome::Passed { detail: "connected".into() };
        assert_eq!(check(&Probe::Tcp, address, TIMEOUT).await, passed);
        drop(listener);
        assert_eq!(check(&Probe::Tcp, address, TIMEOUT).await, failed("connection refused"));
        assert_eq!(check(&http_probe(), address, TIMEOUT).await, failed("connection refused"));
    }

    #[test]
    fn only_our_own_shortages_are_skipped() {
        let error = io::Error::from_raw_os_error;
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::EADDRNOTAVAIL] {
            assert!(is_ours(&error(code)), "{code}");
        }
        for code in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ETIMEDOUT] {
            assert!(!is_ours(&error(code)), "{code}");
        }
    }
}

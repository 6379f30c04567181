use std::{error::Error as _, io};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;

use super::{Target, Trouble, describe, stream};

/// `GET path`; the head of the answer is enough, a body is never read.
pub(super) async fn ask(path: &str, host: Option<&str>, target: &Target) -> Result<String, Trouble> {
    let host = host.map_or_else(|| target.address.to_string(), str::to_owned);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("ballast/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::Backend(format!("the request can't be made: {error}")))?;

    let stream = TokioIo::new(stream::connect(target).await?);
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
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        domain::Probe,
        health::probe::{
            Outcome, check,
            testing::{failed, of, passed},
        },
    };

    fn http_probe() -> Probe {
        Probe::Http { path: "/healthz?full=1".into(), host: Some("web.example".into()) }
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
        check(&of(http_probe()), address).await
    }

    #[tokio::test]
    async fn statuses_below_400_pass() {
        let ok = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nonly a part").await;
        assert_eq!(ok, passed("HTTP 200"));
        let moved = answered(b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n").await;
        assert_eq!(moved, passed("HTTP 302"));
        let after_interim = answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n").await;
        assert_eq!(after_interim, passed("HTTP 204"));
        assert_eq!(answered(b"HTTP/1.1 404 Not Found\r\n\r\n").await, failed("HTTP 404"));
        assert_eq!(answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await, failed("HTTP 503"));
    }

    #[tokio::test]
    async fn a_request_names_path_and_host() {
        let (address, task) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true).await;
        check(&of(http_probe()), address).await;
        let request = task.await.unwrap();
        assert!(request.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: web.example\r\n"), "{request}");

        let (address, task) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true).await;
        check(&of(Probe::Http { path: "/".into(), host: None }), address).await;
        assert!(task.await.unwrap().contains(&format!("host: {address}\r\n")));
    }

    #[tokio::test]
    async fn answers_that_are_none_fail() {
        assert_eq!(answered(b"SSH-2.0-OpenSSH_9.2\r\n").await, failed("not an HTTP response"));
        let (address, _task) = server(Vec::new(), true).await;
        assert_eq!(check(&of(http_probe()), address).await, failed("closed without an answer"));
        let (address, _task) = server(Vec::new(), false).await;
        assert_eq!(check(&of(http_probe()), address).await, failed("timed out after 500ms"));
        // A head that trickles in for ever is held to the same limit.
        let (address, _task) = server(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), false).await;
        assert_eq!(check(&of(http_probe()), address).await, failed("timed out after 500ms"));
    }

    #[tokio::test]
    async fn a_response_head_is_bounded() {
        let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        endless.resize(MAX_RESPONSE_HEAD + 1024, b'a');
        assert_eq!(answered(&endless).await, failed("response header larger than 64 KiB"));
    }
}

use std::{error::Error as _, io};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;

use super::{
    Target, Trouble, USER_AGENT, describe,
    stream::{self, Stream},
    tls,
};
use crate::domain::Http;

/// One request. The head of the answer is enough unless something is expected in the body.
pub(super) async fn ask(http: &Http, target: &Target) -> Result<String, Trouble> {
    let request = request(http, target)?;
    let mut stream: Stream = Box::new(stream::connect(target).await?);
    if let Some(settings) = &http.tls {
        let host = http.host.as_deref().map(without_port);
        stream = Box::new(tls::wrap(stream, settings, host, target, &[b"http/1.1"]).await?);
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_RESPONSE_HEAD).max_headers(MAX_RESPONSE_HEADERS);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        verdict(http, response).await
    };
    // The connection is driven here rather than in a task, so that it ends with the check.
    tokio::select! {
        biased;
        answer = exchange => answer,
        Err(error) = connection => Err(broken(&error)),
    }
}

fn request(http: &Http, target: &Target) -> Result<Request<Empty<Bytes>>, Trouble> {
    let host = http.host.clone().unwrap_or_else(|| target.address.to_string());
    let mut request = Request::builder()
        .method(http.method.as_str())
        .uri(&http.path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    let names = |name: &str| http.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    for (name, value) in [("user-agent", USER_AGENT), ("accept", "*/*")] {
        if !names(name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &http.headers {
        request = request.header(name, value);
    }
    request
        .body(Empty::new())
        .map_err(|error| Trouble::Backend(format!("the request can't be made: {error}")))
}

async fn verdict(http: &Http, response: Response<Incoming>) -> Result<String, Trouble> {
    let status = response.status().as_u16();
    let detail = format!("HTTP {status}");
    if !http.expect_status.iter().any(|range| range.contains(&status)) {
        return Err(Trouble::Backend(detail));
    }
    match &http.expect_body {
        Some(text) if !holds(response.into_body(), text.as_bytes()).await? => {
            Err(Trouble::Backend(format!("{detail} without the expected body")))
        }
        _ => Ok(detail),
    }
}

/// Whether `wanted` is in the first bytes of the body. Little more than `wanted` is kept of it at a time.
async fn holds(mut body: Incoming, wanted: &[u8]) -> Result<bool, Trouble> {
    let mut seen = Vec::new();
    let mut left = MAX_BODY;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        let data = data.get(..data.len().min(left)).unwrap_or_default();
        left -= data.len();
        seen.extend_from_slice(data);
        if seen.windows(wanted.len()).any(|part| part == wanted) {
            return Ok(true);
        }
        if left == 0 {
            return Ok(false);
        }
        // A match may begin in this part and end in the next.
        seen.drain(..seen.len().saturating_sub(wanted.len() - 1));
    }
    Ok(false)
}

/// `[2001:db8::1]:443` and `example.org:443` without the port and the brackets.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    }
}

fn broken(error: &hyper::Error) -> Trouble {
    Trouble::Backend(described(error))
}

fn described(error: &hyper::Error) -> String {
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
const MAX_RESPONSE_HEAD: usize = 16 * 1024;
const MAX_RESPONSE_HEADERS: usize = 100;
/// How far into a body the expected text may stand.
const MAX_BODY: usize = 1 << 20;

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
        Probe::Http(Http {
            path: "/healthz?full=1".into(),
            host: Some("web.example".into()),
            ..Http::default()
        })
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
        check(&of(Probe::Http(Http::default())), address).await;
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
        assert_eq!(answered(&endless).await, failed("response header larger than 16 KiB"));
    }
}

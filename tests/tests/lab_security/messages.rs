//! Messages to the control socket that nobody sends in good faith, and what a client does with each.

use std::fmt;

use fastrand::Rng;

use super::values;

/// Bytes to send, and how.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) manner: Manner,
}

/// What the client does when it has sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Reads the answer.
    Waits,
    /// Says that nothing more comes, and reads.
    ClosesHalf,
    /// Hangs up.
    Leaves,
    /// Sends the last KiB for as long as the server takes it.
    GoesOn,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} \"{}\"", self.manner, self.bytes.escape_ascii())
    }
}

impl Message {
    /// None of them changes anything if it is taken for what it looks like.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let (bytes, manner) = match rng.u8(0..25) {
            0..8 => (mutated(rng), Manner::Waits),
            8..11 => ((0..rng.usize(0..400)).map(|_| rng.u8(..)).collect(), Manner::ClosesHalf),
            11 => (huge_head(rng), Manner::Waits),
            12 => {
                (request("POST", "/v1/services", "transfer-encoding: chunked", &chunk(0x3f9)), Manner::GoesOn)
            }
            13 => (nested(rng), Manner::Waits),
            14 => (wrong_length(rng), Manner::ClosesHalf),
            15 => (pipelined(rng), Manner::Waits),
            16 => (cut(mutated(rng), rng), Manner::ClosesHalf),
            17 => (cut(valid(rng), rng), Manner::ClosesHalf),
            18 => (valid(rng), Manner::Leaves),
            19..21 => (strange_head(rng), Manner::ClosesHalf),
            _ => (values::wrong_one(rng), Manner::ClosesHalf),
        };
        Self { bytes, manner }
    }
}

/// What is asked, its path and its body: refused, or read and no more.
const REQUESTS: [(&str, &str, &str); 12] = [
    ("GET", "/v1/status", ""),
    ("GET", "/v1/services/web/backends/backend0", ""),
    ("DELETE", "/v1/services/nobody", ""),
    ("DELETE", "/v1/services/web/backends/nobody", ""),
    ("POST", "/v1/services", r#"{"name": "X", "address": "203.0.113.9:80", "backend": [{"name": "a"}]}"#),
    (
        "POST",
        "/v1/services",
        r#"{"name": "web", "address": "203.0.113", "health": {"type": "httq", "port": 81}}"#,
    ),
    ("PATCH", "/v1/services/web", r#"{"health": {"port": null, "interval": "1s"}, "allow": ["10.0.0.0/8"]}"#),
    ("POST", "/v1/services/nobody/backends", r#"{"name": "a", "address": "10.0.0.1:80", "weight": 1}"#),
    ("PATCH", "/v1/services/web/backends/nobody", r#"{"weight": 1}"#),
    ("PATCH", "/v1/services/nobody/backends/backend0", r#"{"admin": "draining"}"#),
    ("POST", "/v1/reload?dry_run=true", ""),
    ("POST", "/v1/plan", r#"{"files": [{"path": "a.toml", "text": "[daemon]\ninterfaces = [\"eth0\"]\n"}]}"#),
];

fn valid(rng: &mut Rng) -> Vec<u8> {
    let (method, path, body) = REQUESTS[rng.usize(..REQUESTS.len())];
    request(method, path, &format!("content-length: {}", body.len()), body.as_bytes())
}

pub(super) fn request(method: &str, path: &str, header: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: ballast\r\n{header}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn mutated(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = valid(rng);
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..bytes.len().max(1));
        match rng.u8(0..5) {
            _ if bytes.is_empty() => bytes.push(rng.u8(..)),
            0 => bytes[at] ^= 1 << rng.u8(0..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.insert(at, rng.u8(..)),
            3 => drop(bytes.remove(at)),
            _ => {
                let end = (at + rng.usize(0..40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

/// Methods, paths and headers that no request has here, or anywhere.
fn strange_head(rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng, all: &[&'static str]| all[rng.usize(..all.len())];
    let method = pick(
        rng,
        &["PUT", "TRACE", "CONNECT", "OPTIONS", "get", "", "G T", "GET\0", "DELETEDELETEDELETE", "PRI"],
    );
    let path = pick(
        rng,
        &[
            "/",
            "*",
            "",
            "/v1",
            "/v1/../v1/status",
            "//v1/status",
            "/v1/status/",
            "/v1/services/%00",
            "/v1/services/%ff",
            "/v1/services/a/backends/b/c",
            "/v1/status?%zz",
            "http://[::1/v1/status",
            "v1/status",
            "/v1/status#x y",
        ],
    );
    let header = pick(
        rng,
        &[
            "content-length: x",
            "content-length: ",
            "no colon",
            ": no name",
            " folded: x",
            "a\0b: c",
            "connection: upgrade\r\nupgrade: h2c",
            "transfer-encoding: chunked\r\n\r\nzz",
            "host: a\r\nhost: b",
            "expect: nothing",
            "x: \u{7f}",
            "content-type: \u{e4}",
        ],
    );
    let version = pick(rng, &["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1.1", "HTTQ/1.1", ""]);
    format!("{method} {path} {version}\r\n{header}\r\n\r\n").into_bytes()
}

fn huge_head(rng: &mut Rng) -> Vec<u8> {
    let header = match rng.bool() {
        true => format!("x: {}", "y".repeat(rng.usize(60_000..80_000))),
        false => "x: y\r\n".repeat(rng.usize(90..4_000)) + "x: y",
    };
    request("GET", "/v1/status", &header, b"")
}

fn chunk(length: usize) -> Vec<u8> {
    [format!("{length:x}\r\n").into_bytes(), vec![b' '; length], b"\r\n".to_vec()].concat()
}

fn nested(rng: &mut Rng) -> Vec<u8> {
    let depth = rng.usize(100..20_000);
    let body = match rng.u8(0..3) {
        0 => "[".repeat(depth),
        1 => "{\"health\":".repeat(depth / 4) + "1" + &"}".repeat(depth / 4),
        _ => format!("{{\"allow\": {}{}}}", "[".repeat(depth), "]".repeat(depth)),
    };
    let path = if rng.bool() { "/v1/services" } else { "/v1/plan" };
    request("POST", path, &format!("content-length: {}", body.len()), body.as_bytes())
}

fn wrong_length(rng: &mut Rng) -> Vec<u8> {
    let lengths = [
        "content-length: 99999999999999999999999",
        "content-length: 18446744073709551615",
        "content-length: -1",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip, chunked, identity",
        "content-length: 70000",
        "expect: 100-continue\r\ncontent-length: 9",
        "content-length: 3",
    ];
    request("POST", "/v1/services", lengths[rng.usize(..lengths.len())], b"ffffffffffffffff\r\n{}")
}

fn pipelined(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(2..20)).flat_map(|_| valid(rng)).collect()
}

fn cut(mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    bytes.truncate(rng.usize(..=bytes.len()));
    bytes
}

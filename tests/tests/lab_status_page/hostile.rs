//! A server that says markup wherever it can say something.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use lb_tests::lab::Node;

/// What its agent says.
pub(crate) const AGENT: &str = "down # <img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>";
pub(crate) const AGENT_PORT: u16 = 7000;
pub(crate) const HTTP_PORT: u16 = 7001;

/// Answers on both ports until it is dropped; as an agent, what it is told to.
pub(crate) struct Hostile(Arc<AtomicBool>);

impl Hostile {
    pub(crate) fn start(node: &Node, agent: &'static str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for port in [AGENT_PORT, HTTP_PORT] {
            let listener = node.enter(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A check that goes away is made again.
                    let _ = stream.and_then(|stream| answer(stream, port, agent));
                }
            });
        }
        Ok(Self(stop))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, port: u16, agent: &str) -> io::Result<()> {
    if port == AGENT_PORT {
        return writeln!(stream, "{agent}");
    }
    let _ = stream.read(&mut [0; 1024])?;
    write!(
        stream,
        "HTTP/1.1 503 <script>window.pwned=1</script>\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

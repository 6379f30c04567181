//! A server that says markup wherever it can say something.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Result;
use lb_tests::lab::{CustomServer, Node};

/// What its agent says.
pub(crate) const AGENT: &str = "down # <img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>";
pub(crate) const AGENT_PORT: u16 = 7000;
pub(crate) const HTTP_PORT: u16 = 7001;

/// Answers on both ports; as an agent, what it is told to.
pub(crate) fn serve(node: &Node, agent: &'static str) -> Result<CustomServer> {
    CustomServer::start(node, &[AGENT_PORT, HTTP_PORT], move |stream| answer(stream, agent))
}

fn answer(mut stream: TcpStream, agent: &str) -> io::Result<()> {
    if stream.local_addr()?.port() == AGENT_PORT {
        return writeln!(stream, "{agent}");
    }
    let _ = stream.read(&mut [0; 1024])?;
    write!(
        stream,
        "HTTP/1.1 503 <script>window.pwned=1</script>\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

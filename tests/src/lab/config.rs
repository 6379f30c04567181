//! Configuration text for tests. Deliberately text and no more: what is refused must be writable too.

use std::fmt::Write;
use std::net::SocketAddr;

use super::node::Node;

/// One `[[service]]` as TOML. Health checks are off unless told otherwise.
#[derive(Debug, Clone)]
pub struct Service {
    head: String,
    health: String,
    backends: String,
}

impl Service {
    /// A service over `tcp` or `udp`, forwarded by `l2-dsr`, `ipip` ...
    #[must_use]
    pub fn new(name: &str, address: SocketAddr, protocol: &str, forwarding: &str) -> Self {
        let head = format!(
            "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n\
             forwarding = \"{forwarding}\"\n"
        );
        Self { head, health: "type = \"none\"\n".to_owned(), backends: String::new() }
    }

    /// One more line of the service: `algorithm = "flow-hash"`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.head += line;
        self.head.push('\n');
        self
    }

    /// The lines of `[service.health]`.
    #[must_use]
    pub fn health(mut self, lines: &str) -> Self {
        self.health = format!("{}\n", lines.trim_end());
        self
    }

    /// A quick HTTP check of `/healthz`: rise 2, fall 3, every 300 ms, 300 ms to answer. A server that a busy machine
    /// lets wait for less than that three times is not a dead one.
    #[must_use]
    pub fn http_health(self) -> Self {
        self.health(
            "type = \"http\"\npath = \"/healthz\"\ninterval = \"300ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 3",
        )
    }

    /// One more backend.
    #[must_use]
    pub fn backend(self, name: &str, address: SocketAddr, weight: u32) -> Self {
        self.backend_lines(&format!("name = \"{name}\"\naddress = \"{address}\"\nweight = {weight}"))
    }

    /// One more backend for each of these nodes, under its name and with weight 1, at its address of the family and
    /// the port of `like`.
    #[must_use]
    pub fn nodes<'a>(self, nodes: impl IntoIterator<Item = &'a Node>, like: SocketAddr) -> Self {
        nodes.into_iter().fold(self, |service, node| {
            service.backend(&node.label(), SocketAddr::new(node.address(like.ip()), like.port()), 1)
        })
    }

    /// One more backend, from its lines.
    #[must_use]
    pub fn backend_lines(mut self, lines: &str) -> Self {
        // Writing to a String can't fail.
        let _ = write!(self.backends, "\n[[service.backend]]\n{}\n", lines.trim_end());
        self
    }

    /// The text.
    #[must_use]
    pub fn toml(&self) -> String {
        format!("{}\n[service.health]\n{}{}\n", self.head, self.health, self.backends)
    }
}

#[cfg(test)]
mod tests {
    use super::Service;

    #[test]
    fn a_service_reads_as_in_the_contract() {
        let service = Service::new("web", ([203, 0, 113, 10], 80).into(), "tcp", "ipip")
            .line("algorithm = \"flow-hash\"")
            .backend("web-1", ([10, 0, 0, 11], 80).into(), 3);
        assert_eq!(
            service.toml(),
            r#"[[service]]
name = "web"
address = "203.0.113.10:80"
protocol = "tcp"
forwarding = "ipip"
algorithm = "flow-hash"

[service.health]
type = "none"

[[service.backend]]
name = "web-1"
address = "10.0.0.11:80"
weight = 3

"#
        );
    }
}

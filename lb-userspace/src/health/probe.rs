mod agent;
mod database;
mod dns;
mod exec;
pub(crate) mod fields;
mod grpc;
mod http;
mod icmp;
mod stream;
mod talk;
#[cfg(test)]
mod testing;
mod tls;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use lb_common::abi::PROBE_SENT_TTL;
use socket2::SockRef;

use super::real_path::Way;
use crate::domain::{HealthCheck, Probe};

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

/// Checks the backend at `backend` once. The check's timeout covers everything, connecting included.
pub(super) async fn check(check: &HealthCheck, backend: SocketAddr) -> Outcome {
    check_by(check, backend, None).await.0
}

/// The same by the way of its traffic, if one is given; and whether nobody was heard, who could have said anything.
pub(super) async fn check_by(check: &HealthCheck, backend: SocketAddr, way: Option<&Way>) -> (Outcome, bool) {
    let vip = way.map_or(backend.ip(), |way| way.vip);
    let target = Target {
        address: check.target(vip, backend),
        source: check.source,
        way: way.copied(),
        heard: AtomicBool::new(false),
    };
    let asked = async {
        match &check.probe {
            Probe::None => Ok("not checked".to_owned()),
            Probe::Tcp => stream::connect(&target).await.map(|_closed_when_dropped| "connected".to_owned()),
            Probe::Tls(settings) => tls::ask(settings, &target).await,
            Probe::Http(http) => http::ask(http, &target).await,
            Probe::Grpc(grpc) => grpc::ask(grpc, &target).await,
            Probe::Dns(dns) => dns::ask(dns, &target).await,
            Probe::Icmp => icmp::ask(&target).await,
            Probe::Database(database) => database::ask(database, &target).await,
            Probe::Agent { send } => agent::ask(send.as_deref(), &target).await,
            Probe::Exec(command) => exec::ask(command, &target).await,
        }
    };
    let ended = tokio::time::timeout(check.timeout, asked).await;
    let silent = !target.heard.load(Relaxed) && matches!(ended, Err(_) | Ok(Err(Trouble::Silence(_))));
    let outcome = match ended {
        Ok(Ok(detail)) => Outcome::Passed { detail: presentable(&detail) },
        Ok(Err(Trouble::Backend(detail) | Trouble::Silence(detail))) => {
            Outcome::Failed { detail: presentable(&detail) }
        }
        Ok(Err(Trouble::Misfit(detail))) => Outcome::Ineligible { detail: presentable(&detail) },
        Ok(Err(Trouble::Ours(detail))) => Outcome::Skipped { detail },
        Err(_) => {
            let limit = humantime::format_duration(check.timeout);
            Outcome::Failed { detail: format!("timed out after {limit}") }
        }
    };
    (outcome, silent)
}

/// Where a check goes, and where it comes from.
struct Target {
    address: SocketAddr,
    /// `None`: whatever the kernel chooses.
    source: Option<IpAddr>,
    /// `None`: as anybody's packets go there.
    way: Option<Way>,
    /// Whether anything came back from there.
    heard: AtomicBool,
}

impl Target {
    /// Sets a socket up for the way that the check goes, before it sends anything.
    fn prepare(&self, socket: &SockRef<'_>) -> Result<(), Trouble> {
        let Some(way) = self.way else { return Ok(()) };
        let prepared = socket.set_mark(way.mark()).and_then(|()| match self.address {
            SocketAddr::V4(_) => socket.set_ttl_v4(PROBE_SENT_TTL.into()),
            SocketAddr::V6(_) => socket.set_unicast_hops_v6(PROBE_SENT_TTL.into()),
        });
        prepared.map_err(|error| Trouble::Ours(format!("a socket can't be marked: {error}")))
    }

    /// The same for one of TCP.
    fn prepare_tcp(&self, socket: &SockRef<'_>) -> Result<(), Trouble> {
        self.prepare(socket)?;
        if self.way.is_some_and(|way| way.tunnels) {
            let limited = socket.set_tcp_mss(TUNNEL_MSS);
            limited.map_err(|error| Trouble::Ours(format!("segments can't be kept short: {error}")))?;
        }
        Ok(())
    }
}

/// Why a check did not pass.
#[derive(Debug)]
enum Trouble {
    /// The backend's.
    Backend(String),
    /// The backend's, as far as anybody knows: nothing came back from it.
    Silence(String),
    /// Nobody's: the server is not what the service needs.
    Misfit(String),
    /// This host's, which says nothing about the backend.
    Ours(String),
}

impl Trouble {
    /// Of a system call about a connection.
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_ours(error) => Self::Ours(error.to_string()),
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut
            | io::ErrorKind::PermissionDenied => Self::Silence(describe(error)),
            _ => Self::Backend(describe(error)),
        }
    }
}

/// Does what may take its time on a thread of its own, so that it holds up nothing but the check.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Trouble::Ours(error.to_string()))?
}

/// Whether a connection failed for want of descriptors, buffers, memory, local ports or a local address.
fn is_ours(error: &io::Error) -> bool {
    let wanting = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| wanting.contains(&code))
}

/// What servers say may be long, and meant for a terminal.
fn presentable(detail: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = detail.chars().map(printable).take(MOST_TOLD).collect();
    if detail.chars().nth(MOST_TOLD).is_some() {
        short.push('…');
    }
    short
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed without an answer".to_owned(),
        // The kernel gave up before the check's own limit.
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Segments that fit a link of 1,280 bytes, the least that IPv6 works on: with an outer header around them they fit all
/// the others, and the socket's own route knows of no outer header.
const TUNNEL_MSS: u32 = 1220;
/// How a check tells who it is.
const USER_AGENT: &str = concat!("ballast/", env!("CARGO_PKG_VERSION"));
/// Characters of what a server says that are repeated.
const MOST_TOLD: usize = 200;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{
        testing::{TIMEOUT, failed, of, passed},
        *,
    };
    use crate::domain::Http;

    #[tokio::test]
    async fn a_connection_is_all_that_tcp_asks_for() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(check(&of(Probe::Tcp), address).await, passed("connected"));
        drop(listener);
        assert_eq!(check(&of(Probe::Tcp), address).await, failed("connection refused"));
    }

    #[tokio::test]
    async fn a_check_goes_to_the_address_and_port_it_names_from_its_source() {
        let listener = TcpListener::bind("127.0.0.9:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = HealthCheck {
            address: Some("127.0.0.9".parse().unwrap()),
            port: Some(port),
            source: Some("127.0.0.8".parse().unwrap()),
            ..of(Probe::Tcp)
        };
        let backend = "192.0.2.1:1".parse().unwrap();
        assert_eq!(check(&named, backend).await, passed("connected"));
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.8");

        // Not an address of this host, which is not the backend's fault.
        let foreign = HealthCheck { source: Some("192.0.2.7".parse().unwrap()), ..named };
        assert!(matches!(check(&foreign, backend).await, Outcome::Skipped { .. }));
    }

    #[tokio::test]
    async fn whoever_was_heard_is_not_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The connection is there, and then nothing comes.
        let http = of(Probe::Http(Http::default()));
        assert_eq!(check_by(&http, address, None).await, (failed("timed out after 500ms"), false));
        drop(listener);
        assert_eq!(check_by(&http, address, None).await, (failed("connection refused"), false));
        // A port of UDP at which nobody answers.
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = of(Probe::Dns(crate::domain::Dns {
            name: "example.org".to_owned(),
            record: crate::domain::RecordType::A,
            rcode: crate::domain::Rcode::NoError,
            answers: std::collections::BTreeSet::new(),
        }));
        let address = silent.local_addr().unwrap();
        assert_eq!(check_by(&dns, address, None).await, (failed("timed out after 500ms"), true));
        for code in [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ETIMEDOUT, libc::EPERM] {
            assert!(
                matches!(Trouble::of(&io::Error::from_raw_os_error(code)), Trouble::Silence(_)),
                "{code}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_outlasts_the_timeout() {
        // Nobody accepts: the connection is there, and no more.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let started = std::time::Instant::now();
        let http = of(Probe::Http(Http::default()));
        assert_eq!(check(&http, address).await, failed("timed out after 500ms"));
        assert!(started.elapsed() < 2 * TIMEOUT);
    }

    #[test]
    fn what_a_server_says_is_told_in_short_and_harms_no_terminal() {
        assert_eq!(presentable("a\x1b[2Jb\r\n"), "a [2Jb  ");
        assert_eq!(presentable(&"ä".repeat(200)), "ä".repeat(200));
        assert_eq!(presentable(&"ä".repeat(201)), "ä".repeat(200) + "…");
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

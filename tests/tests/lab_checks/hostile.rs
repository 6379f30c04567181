use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{CustomServer, Daemon, Lab, Node, require_root};

use super::{at, service, verdict};

/// fall × interval + timeout + 100 ms for a first verdict, the time to the first check, and what so many hostile
/// servers leave of two cores for looking. A check that they could hold up would never end.
const IN_TIME: Duration = Duration::from_millis(3 * 500 + 500 + 100 + 400 + 2_500);
const MOST_MEMORY: u64 = 16 << 20;

/// What a hostile server does with a connection.
#[derive(Clone, Copy, Debug)]
enum Malice {
    /// Says nothing.
    Silence,
    /// Says a byte of something each 50 ms, without end.
    Drip,
    /// A good beginning, then headers without end.
    Headers,
    /// A status line of 1 GB.
    StatusLine,
    /// Random bytes, without end.
    Garbage,
    /// The largest message that the protocols of databases can announce, and some of it.
    HugeMessage,
}

const ALL: [Malice; 6] = [
    Malice::Silence,
    Malice::Drip,
    Malice::Headers,
    Malice::StatusLine,
    Malice::Garbage,
    Malice::HugeMessage,
];

impl Malice {
    fn port(self) -> u16 {
        9000 + self as u16
    }

    fn treat(self, mut stream: TcpStream) -> std::io::Result<()> {
        let endless = |stream: &mut TcpStream, start: &[u8], part: &[u8]| {
            stream.write_all(start)?;
            let mut sent = 0;
            while sent < 1 << 30 {
                stream.write_all(part)?;
                sent += part.len();
            }
            Ok(())
        };
        match self {
            Self::Silence => stream.read_to_end(&mut Vec::new()).map(drop),
            Self::Drip => loop {
                stream.write_all(b"+")?;
                thread::sleep(Duration::from_millis(50));
            },
            Self::Headers => {
                endless(&mut stream, b"HTTP/1.1 200 OK\r\n", &b"x-more: and more\r\n".repeat(512))
            }
            Self::StatusLine => endless(&mut stream, b"HTTP/1.1 200 ", &[b'O'; 65_536]),
            Self::Garbage => {
                let mut random = fastrand::Rng::with_seed(7);
                let part: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(65_536).collect();
                endless(&mut stream, b"", &part)
            }
            // MySQL's three bytes of length, and the end of PostgreSQL's four.
            Self::HugeMessage => endless(&mut stream, b"R\xff\xff\xff\xff$2147483647\r\n", &[0; 65_536]),
        }
    }
}

/// Does all of it, on a port each.
fn villain(node: &Node) -> Result<CustomServer> {
    CustomServer::start(node, &ALL.map(Malice::port), |stream| {
        let port = stream.local_addr()?.port();
        ALL.into_iter()
            .filter(|malice| malice.port() == port)
            .try_for_each(|malice| malice.treat(stream.try_clone()?))
    })
}

#[test]
fn hostile_servers_get_a_verdict_in_time_and_no_memory() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let node = lab.backend(0);
    let _villain = villain(node)?;
    let kinds = [
        ("http", "expect_body = \"x\""),
        ("https", "verify = false"),
        ("tls", "verify = false"),
        ("grpc", ""),
        ("mysql", "user = \"ballast\"\nrole = \"primary\""),
        ("postgres", "user = \"ballast\"\nrole = \"primary\""),
        ("redis", "role = \"primary\""),
        ("agent", ""),
    ];
    let mut config = String::new();
    let mut names = Vec::new();
    for ((kind, rest), malice) in kinds.into_iter().flat_map(|kind| ALL.map(|malice| (kind, malice))) {
        let port = 7000 + names.len() as u16;
        let name = format!("{kind}-{malice:?}").to_lowercase();
        let check = format!("type = \"{kind}\"\nport = {}\n{rest}", malice.port());
        config += &at(service(&name, port, &check), node, port).toml();
        names.push(name);
    }
    let daemon = Daemon::start(&lab, 0, "")?;
    let before = resident(&daemon)?;
    daemon.write_config(&config)?;
    daemon.reload()?;
    let deadline = Instant::now() + IN_TIME;
    // The status of the daemon is asked once for all, because that takes time as well.
    let mut late = names.clone();
    let mut highest = 0;
    while !late.is_empty() && Instant::now() < deadline {
        let status = daemon.status_json()?;
        highest = highest.max(resident(&daemon)?);
        late.retain(|name| !status.to_string().contains("unhealthy") || !is_unhealthy(&status, name));
    }
    ensure!(late.is_empty(), "no verdict in time of {late:?}");
    // And it does not grow while they go on.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        highest = highest.max(resident(&daemon)?);
        thread::sleep(Duration::from_millis(20));
    }
    let grown = highest.saturating_sub(before);
    ensure!(grown <= MOST_MEMORY, "{} KiB more than before", grown >> 10);
    for name in &names {
        let (_, detail) = verdict(&daemon, name, "backend0")?;
        ensure!(detail.len() <= 300, "{name}: {detail}");
    }
    Ok(())
}

fn is_unhealthy(status: &serde_json::Value, service: &str) -> bool {
    let services = status.get("services").and_then(serde_json::Value::as_array);
    let one =
        services.and_then(|all| all.iter().find(|one| one.get("name").is_some_and(|name| name == service)));
    one.and_then(|one| one.pointer("/backends/0/health")).is_some_and(|health| health == "unhealthy")
}

/// Bytes of memory that the daemon has.
fn resident(daemon: &Daemon) -> Result<u64> {
    let id = daemon.process_id().context("the daemon runs")?;
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("look at the daemon")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("a line RssAnon")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

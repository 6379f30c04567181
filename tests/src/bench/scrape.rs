//! What it costs to look: the daemon's pages, with as many services and backends as it takes by default.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::changes::Line;
use super::stats::Summary;
use crate::lab::{Daemon, Lab, Service, VIP_V4, wait_until};

pub(super) const GROUP: &str = "scrape";

const SERVICES: u16 = 1000;
const BACKENDS: u16 = 10;
/// Unless told otherwise.
const ROUNDS: u32 = 21;
/// Milliseconds that a scrape may take.
const TARGET: f64 = 100.0;
/// Ways to ten thousand backends take their time to be looked up.
const PATIENCE: Duration = Duration::from_secs(120);
const PAGES: [(&str, Option<f64>); 3] =
    [("/metrics", Some(TARGET)), ("/status.json", Some(TARGET)), ("/", None)];

/// From connecting to the last byte, one after the other, on a machine that has nothing else to do.
pub(super) fn run(rounds: Option<u32>, ballast: &Path) -> Result<Vec<Line>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let lab = Lab::builder().backends(0).remote_backends(1).build()?;
    let host = lab.backend(0);
    let through = host.ipv4();
    host.ip("have the backends' addresses", ["route add local 10.3.64.0/18 dev lo"])?;
    lab.router().ip("lead to the backends", [format!("route add 10.3.64.0/18 via {through}")])?;
    let mut daemon = Daemon::with_binary(&lab, 0, &config(), ballast.to_owned())?;
    daemon.launch()?;
    daemon.wait_ready(PATIENCE)?;
    wait_until("the way to every backend is known", PATIENCE, || {
        ask(&daemon, "/metrics").is_ok_and(|(text, _)| {
            text.matches("\nballast_backend_reachable{").count() == usize::from(SERVICES * BACKENDS)
                && !text
                    .lines()
                    .any(|line| line.starts_with("ballast_backend_reachable{") && line.ends_with(" 0"))
        })
    })?;
    let mut lines = Vec::new();
    for (path, at_most) in PAGES {
        // An older daemon has no status page.
        if ask(&daemon, path).is_ok() {
            lines.extend(measure(rounds, path, at_most, || ask(&daemon, path))?);
        }
    }
    let socket = daemon.files().socket.clone();
    lines.extend(measure(rounds, "/v1/status", Some(TARGET), || ask_socket(&socket, "/v1/status"))?);
    Ok(lines)
}

fn measure(
    rounds: u32,
    path: &str,
    at_most: Option<f64>,
    mut ask: impl FnMut() -> Result<(String, Duration)>,
) -> Result<[Line; 2]> {
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (text, took) = ask().with_context(|| path.to_owned())?;
        // The first makes room that the others find.
        if round > 0 {
            times.push(took.as_secs_f64() * 1e3);
            sizes.push(text.len() as f64 / f64::from(1 << 20));
        }
    }
    let what = format!("{path} of {SERVICES} services with {BACKENDS} backends each");
    let summary = |values: &[f64]| Summary::of(values).context("no round");
    Ok([
        Line { group: GROUP, what: format!("{what}: ms"), value: summary(&times)?, at_most },
        Line { group: GROUP, what: format!("{what}: MiB"), value: summary(&sizes)?, at_most: None },
    ])
}

fn ask(daemon: &Daemon, path: &str) -> Result<(String, Duration)> {
    daemon.node().enter(|| {
        let begun = Instant::now();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9640)).context("connect to the daemon")?;
        answer(stream, path, begun)
    })
}

fn ask_socket(socket: &Path, path: &str) -> Result<(String, Duration)> {
    let begun = Instant::now();
    answer(UnixStream::connect(socket).context("connect to the control socket")?, path, begun)
}

fn answer(mut stream: impl Read + Write, path: &str, begun: Instant) -> Result<(String, Duration)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::with_capacity(1 << 24);
    stream.read_to_string(&mut answer)?;
    let took = begun.elapsed();
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {}", answer.lines().next().unwrap_or_default());
    Ok((answer, took))
}

/// Backends are not checked: ten thousand checks would be measured too.
fn config() -> String {
    let service = |number: u16| {
        let vip = SocketAddr::new(VIP_V4, number);
        let service =
            Service::new(&format!("service-{number}"), vip, "tcp", "ipip").line("table_size = 1024");
        let backend = |service: Service, backend: u16| {
            let [high, low] = (FIRST_HOST + (number - 1) * BACKENDS + backend).to_be_bytes();
            let address = IpAddr::from([10, 3, high, low]);
            service.backend(&format!("backend-{backend}"), SocketAddr::new(address, number), 1)
        };
        (0..BACKENDS).fold(service, backend).toml()
    };
    (1..=SERVICES).map(service).collect()
}

/// Beyond the lab's own nodes.
const FIRST_HOST: u16 = 0x4001;

//! HTTP requests in a steady stream, each with its start and its outcome.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::http::http_get_here;
use super::node::Node;
use super::stop::Stop;
use super::tcp::lock;

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    pub started: Instant,
    pub took: Duration,
    pub from: SocketAddr,
    /// Who answered with status 200, or what went wrong.
    pub outcome: Result<String, String>,
}

/// Requests from a client until stopped. Each has a connection of its own, and the sources take turns.
#[derive(Debug)]
pub struct HttpLoad {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

/// How a load is made.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many of the client's addresses take turns.
    pub sources: u16,
    /// How many requests may be under way at once.
    pub threads: u16,
    /// Pause of a thread between two requests.
    pub pause: Duration,
    /// When a request has failed.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let (pause, timeout) = (Duration::from_millis(2), Duration::from_secs(1));
        Self { sources: 64, threads: 4, pause, timeout }
    }
}

impl HttpLoad {
    /// Asks `to` for `/` from `client`.
    pub fn start(client: &Node, to: SocketAddr, settings: Settings) -> Result<Self> {
        let mut this = Self { stop: Stop::new()?, threads: Vec::new(), samples: Arc::default() };
        let turn = Arc::new(AtomicU16::new(0));
        for number in 0..settings.threads {
            let (stop, samples, turn, node) =
                (this.stop.clone(), this.samples.clone(), turn.clone(), client.clone());
            this.threads.push(client.thread(&format!("load {number}"), move || {
                while !stop.is_set() {
                    let source = turn.fetch_add(1, Ordering::Relaxed) % settings.sources.max(1);
                    let sample = request(node.source_port(source, 0, to.ip()), to, settings.timeout);
                    lock(&samples).push(sample);
                    std::thread::sleep(settings.pause);
                }
            })?);
        }
        Ok(this)
    }

    /// The requests that have ended so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Lets the requests under way end and returns all, in the order they ended.
    #[must_use]
    pub fn stop(mut self) -> Vec<Sample> {
        self.end();
        std::mem::take(&mut lock(&self.samples))
    }

    fn end(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for HttpLoad {
    fn drop(&mut self) {
        self.end();
    }
}

fn request(from: SocketAddr, to: SocketAddr, timeout: Duration) -> Sample {
    let started = Instant::now();
    let outcome = match http_get_here(Some(from), to, "/", timeout) {
        Ok(reply) if reply.status == 200 => Ok(reply.backend),
        Ok(reply) => Err(format!("status {}", reply.status)),
        Err(error) => Err(format!("{error:#}")),
    };
    Sample { started, took: started.elapsed(), from, outcome }
}

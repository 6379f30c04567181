//! What happened when: for those who look for the cause of a failure.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::Daemon;

/// Everybody who does something has one, and all write into the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Diary {
    entries: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Diary {
    pub(super) fn note(&self, text: impl Into<String>) {
        self.note_of(Instant::now(), text);
    }

    /// Notes what happened at that moment.
    pub(super) fn note_of(&self, at: Instant, text: impl Into<String>) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push((at, text.into()));
    }

    /// All of it in its order, in seconds from `began`; what was before that is negative.
    pub(super) fn json(&self, began: Instant) -> Value {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        entries.sort_by_key(|(at, _)| *at);
        let seconds = |at: Instant| match at.checked_duration_since(began) {
            Some(after) => milliseconds(after),
            None => -milliseconds(began.duration_since(at)),
        };
        entries.into_iter().map(|(at, text)| json!([seconds(at), text])).collect()
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// A connection that broke.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broken {
    pub(super) at: Instant,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// After so long load balancers may send it elsewhere than they did.
const LATE: Duration = Duration::from_secs(2);

/// Asks every load balancer, at once, where it sends a connection that has just broken. The thread ends with the sender.
pub(super) fn ask_about_broken(
    daemons: &[Daemon],
    diary: &Diary,
) -> Result<(Sender<Broken>, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let (daemons, diary) = (daemons.iter().map(Daemon::rival).collect::<Vec<_>>(), diary.clone());
    let witness = thread::Builder::new().name("witness".to_owned());
    let witness = witness.spawn(move || ask(&daemons, &diary, &receiver))?;
    Ok((sender, witness))
}

fn ask(daemons: &[Daemon], diary: &Diary, broken: &Receiver<Broken>) {
    for Broken { at, from, to } in broken {
        if at.elapsed() > LATE {
            diary.note_of(at, format!("{from} to {to} broke; too long ago by now to ask about it"));
            continue;
        }
        diary.note_of(at, format!("{from} to {to} broke"));
        let (from, to) = (&from.to_string(), &to.to_string());
        thread::scope(|scope| {
            for daemon in daemons {
                scope.spawn(move || {
                    let words = ["explain", "--from", from, "--to", to];
                    let said = match daemon.cli(words) {
                        Ok(output) => output.stdout + &output.stderr,
                        Err(error) => format!("{error:#}"),
                    };
                    diary.note(format!("{} about {from} to {to}: {said}", daemon.node().label()));
                });
            }
        });
    }
}

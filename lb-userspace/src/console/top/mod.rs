//! `ballast top`: looks at the daemon again and again, draws what it says, and takes keys.
//!
//! [`App`] is pure, [`draw`] puts it on a screen, and this brings them together with the clock, the socket and the terminal.

mod app;
mod dialog;
mod draw;
mod history;
mod keys;
mod list;
mod rows;
mod terminal;
#[cfg(test)]
mod tests;

use std::{
    future::pending,
    io,
    time::{Duration, Instant, SystemTime},
};

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use crate::{
    api::{
        client::{Client, ClientError},
        v1,
    },
    console::interrupt::Interrupt,
};
use app::{App, Ask};
use draw::{Palette, draw};
use terminal::Screen;

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon said no, or could not be asked the first time.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    #[error(transparent)]
    Terminal(#[from] io::Error),
}

/// Runs until the user has seen enough, or a signal says so.
///
/// # Errors
///
/// See [`Error`]. A daemon that goes away later is none: it is told, and asked again.
pub async fn run(client: &Client, interval: Duration, colour: bool) -> Result<(), Error> {
    let mut interrupt = Interrupt::listen()?;
    // Before the screen is taken, so that the reason is there to be read.
    let status = client.status().await?;
    let mut app = App::new(status, interval, Instant::now(), SystemTime::now());
    let mut screen = Screen::open()?;
    let mut keys = EventStream::new();
    let mut looks = Looks::new(client);
    // What became of it is told when it is known; one at a time.
    let mut changing = None;
    loop {
        screen.draw(|frame| draw(frame, &mut app, Palette { colour }, Instant::now()))?;
        let asked = tokio::select! {
            () = interrupt.wait() => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    app.key(key, Instant::now())
                }
                Some(Ok(_)) => None,
                Some(Err(error)) => return Err(error.into()),
                // Nobody can press a key any more.
                None => return Ok(()),
            },
            answer = looks.next(app.interval, app.paused) => {
                app.look(answer.map_err(|error| error.to_string()), Instant::now(), SystemTime::now());
                None
            }
            answer = answer(&mut changing) => {
                app.changed(answer.map_err(|error| error.to_string()));
                Some(Ask::Look)
            }
            // How long the daemon has been silent is shown in seconds.
            () = tokio::time::sleep(SECOND), if app.silence.is_some() => None,
        };
        match asked {
            None => {}
            Some(Ask::Quit) => return Ok(()),
            Some(Ask::Look) => looks.at_once = true,
            Some(Ask::Redraw) => screen.forget()?,
            Some(Ask::Set { .. }) if changing.is_some() => {
                app.changed(Err("the last change is not made yet: wait a moment".to_owned()));
            }
            Some(Ask::Set { service, backend, admin }) => {
                let settings = v1::BackendSettings {
                    admin: Some(admin.as_str().to_owned()),
                    ..v1::BackendSettings::default()
                };
                let client = client.clone();
                let change = async move { client.set_backend(&service, &backend, &settings).await };
                changing = Some(tokio::spawn(change));
            }
        }
    }
}

/// Looks at the daemon, one after the other. They go on while keys are pressed.
struct Looks<'a> {
    client: &'a Client,
    looking: Option<JoinHandle<Result<v1::Status, ClientError>>>,
    /// When the last look began, and how long it took.
    last: (tokio::time::Instant, Duration),
    /// Whether the next look is not to wait until it is time.
    at_once: bool,
}

impl<'a> Looks<'a> {
    fn new(client: &'a Client) -> Self {
        let last = (tokio::time::Instant::now(), Duration::ZERO);
        Self { client, looking: None, last, at_once: false }
    }

    /// The next look: an interval after the last one, and none while paused. A daemon that takes long to answer has as long
    /// to rest. Can be dropped and called again.
    async fn next(&mut self, interval: Duration, paused: bool) -> Result<v1::Status, ClientError> {
        if self.looking.is_none() {
            if paused && !self.at_once {
                return pending().await;
            }
            let (began, took) = self.last;
            if !self.at_once {
                tokio::time::sleep_until(began + interval.max(took * 2)).await;
            }
            self.at_once = false;
            self.last.0 = tokio::time::Instant::now();
            let client = self.client.clone();
            self.looking = Some(tokio::spawn(async move { client.status().await }));
        }
        let answer = answer(&mut self.looking).await;
        self.last.1 = self.last.0.elapsed();
        answer
    }
}

/// The answer to a question that is under way; never if none is. Can be dropped and called again.
async fn answer<T>(question: &mut Option<JoinHandle<Result<T, ClientError>>>) -> Result<T, ClientError> {
    let Some(asked) = question else { return pending().await };
    let answer = asked.await;
    *question = None;
    match answer {
        Ok(answer) => answer,
        // It was not aborted, so it panicked, and this is no place to go on in.
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

const SECOND: Duration = Duration::from_secs(1);

//! `--watch`: shows something again and again, with what passes in a second and with what is news.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Format,
    exit::Failure,
    output::{self, Style},
    redraw::{Redraw, Size},
};
use crate::{
    api::client::ClientError,
    console::{
        interrupt::Interrupt,
        news::Notice,
        units::{time, time_of_day},
    },
};

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Watch {
    /// Show it again and again, every 2s or as often as given (100ms to 1h), with rates and news, until Ctrl-C; with -o
    /// json a line for each time
    #[arg(
        long = "watch",
        value_name = "INTERVAL",
        value_parser = interval,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s"
    )]
    interval: Option<Duration>,
}

/// What can be watched.
pub(super) trait Watched: Serialize {
    /// As tables; in a watch (`watched`) with rates, from what it was `before` and how long ago that is.
    fn render(&self, before: Option<(&Self, Duration)>, watched: bool, style: Style) -> String;

    /// What changed since `before`.
    fn news(&self, before: &Self) -> Vec<Notice>;
}

/// Shows what `ask` brings: once, or until the user or a signal ends it, which is a success.
pub(super) async fn show<T: Watched>(
    watch: Watch,
    format: Format,
    mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<(), Failure> {
    let Some(interval) = watch.interval else {
        let found = ask().await?;
        return Ok(output::print(format, &found, |found, style| found.render(None, false, style))?);
    };
    let mut interrupt = Interrupt::listen()?;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut display = Display::new(format, interval);
    let looking = async {
        loop {
            ticks.tick().await;
            match ask().await {
                // Nothing was shown yet, or there is nothing to show any more.
                Err(error) if display.last.is_none() => return Err(error.into()),
                Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
                answer => display.show(answer, Instant::now())?,
            }
        }
    };
    tokio::select! {
        ended = looking => ended,
        () = interrupt.wait() => Ok(()),
    }
}

/// Every how long something is looked at.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if SHORTEST <= time && time <= LONGEST => Ok(time),
        Ok(_) => Err("from 100ms to 1h".to_owned()),
        Err(error) => Err(format!("{error}; 2s, for instance")),
    }
}

/// Where it is shown, and what was seen last.
struct Display<T> {
    format: Format,
    interval: Duration,
    redraw: Option<Redraw>,
    last: Option<(T, Instant)>,
    /// The last tables.
    shown: String,
    /// When the daemon stopped answering.
    silent_since: Option<Instant>,
    news: VecDeque<String>,
}

impl<T: Watched> Display<T> {
    fn new(format: Format, interval: Duration) -> Self {
        let in_place = format == Format::Table && io::stdout().is_terminal();
        let redraw = in_place.then(Redraw::default);
        Self {
            format,
            interval,
            redraw,
            last: None,
            shown: String::new(),
            silent_since: None,
            news: VecDeque::new(),
        }
    }

    fn show(&mut self, answer: Result<T, ClientError>, now: Instant) -> io::Result<()> {
        let found = match answer {
            Ok(found) => found,
            Err(error) => return self.tell_silence(&error, now),
        };
        self.silent_since = None;
        if self.format == Format::Json {
            let line = serde_json::to_string(&found)?;
            self.last = Some((found, now));
            return output::line(&line);
        }
        let style = Style::of_stdout();
        let before = self.last.as_ref().map(|(before, at)| (before, now - *at));
        self.shown = found.render(before, true, style);
        let clock = time_of_day(SystemTime::now());
        let news = before.map(|(before, _)| found.news(before)).unwrap_or_default();
        for notice in news {
            self.news.push_back(format!("{clock}  {}", notice.text));
        }
        while self.news.len() > NEWS {
            self.news.pop_front();
        }
        self.last = Some((found, now));
        let every = humantime::format_duration(self.interval);
        self.draw(&format!("{clock}, every {every}"))
    }

    /// It may be restarting: what was seen last stays.
    fn tell_silence(&mut self, error: &ClientError, now: Instant) -> io::Result<()> {
        let first = self.silent_since.is_none();
        let since = *self.silent_since.get_or_insert(now);
        match self.redraw {
            Some(_) => {
                let heading = format!("NO ANSWER for {}: {error}", time(now - since));
                self.draw(&output::loud(&heading, Style::of_stdout()))
            }
            None => {
                if first {
                    output::complain(&format!("warning: {error}; trying again"));
                }
                Ok(())
            }
        }
    }

    fn draw(&mut self, heading: &str) -> io::Result<()> {
        let mut text = format!("{heading}\n\n{}\n", self.shown.trim_end());
        if !self.news.is_empty() {
            text += "\nNEWS\n";
        }
        for line in &self.news {
            text += line;
            text.push('\n');
        }
        let Some(redraw) = &mut self.redraw else {
            // Told once where everything stays to be read.
            self.news.clear();
            output::line(&text)?;
            return output::line("");
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(redraw.frame(&text, Size::of_stdout()).as_bytes())?;
        stdout.flush()
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);
/// Lines of news that are kept in sight.
const NEWS: usize = 8;

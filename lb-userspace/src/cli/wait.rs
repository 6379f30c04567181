//! `--wait`: looks at the backend again and again until what was asked for has come about.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use clap::ValueEnum;

use super::{change::Target, exit::Failure, output};
use crate::api::{
    client::{Client, ClientError},
    v1,
};

/// Whether to wait, and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Patience {
    /// Wait until it has come about; with =quiet until the backend has had no packet for 10 s
    #[arg(long, value_enum, value_name = "quiet", num_args = 0..=1, require_equals = true, default_missing_value = "done")]
    wait: Option<For>,
    /// Give up waiting after this time, with exit code 5; what was changed stays
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    #[value(hide = true)]
    Done,
    Quiet,
}

/// When a change has come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// No flow is left on it, or none may stay any longer.
    Drained,
    /// It gets new flows, as far as it is meant to.
    InTable,
    /// With the reply.
    Over,
}

/// What one look at a backend says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Reached,
    /// With what is missing, in words.
    NotYet(String),
    /// It will not come about any more, and why.
    Never(String),
}

pub(super) async fn wait(client: &Client, target: &Target, goal: Goal) -> Result<(), Failure> {
    let Patience { wait: Some(what), timeout } = target.patience else { return Ok(()) };
    let quiet = what == For::Quiet && goal != Goal::InTable;
    if goal == Goal::Over && !quiet {
        return Ok(());
    }
    let begun = Instant::now();
    let mut silence = Silence::default();
    let mut told = String::new();
    loop {
        let backend = match client.backend(&target.service, &target.name).await {
            Ok(backend) => Some(backend),
            Err(ClientError::Refused { status: 404, .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let missing = match look(goal, backend.as_ref()) {
            Look::Reached if goal == Goal::Drained || !quiet => return Ok(()),
            Look::Never(why) => return Err(Failure::Failed(anyhow::anyhow!(why))),
            Look::NotYet(missing) => missing,
            Look::Reached => String::new(),
        };
        let missing = match &backend {
            Some(backend) if quiet => match silence.since(backend.packets, Instant::now()) {
                None => return Ok(()),
                Some(quiet_for) => format!("no packet for {} s", quiet_for.as_secs()),
            },
            None if quiet => return Ok(()),
            _ => missing,
        };
        if stderr().is_terminal() && missing != told {
            output::complain(&format!("waiting: {missing}"));
            told.clone_from(&missing);
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        if left == Some(Duration::ZERO) {
            return Err(Failure::TimedOut(missing));
        }
        tokio::time::sleep(POLL.min(left.unwrap_or(POLL))).await;
    }
}

/// Whether `goal` has come about.
pub(super) fn look(goal: Goal, backend: Option<&v1::Backend>) -> Look {
    let Some(backend) = backend else {
        return match goal {
            Goal::InTable => Look::Never("the backend was removed meanwhile".to_owned()),
            Goal::Drained | Goal::Over => Look::Reached,
        };
    };
    match goal {
        Goal::Over => Look::Reached,
        Goal::Drained if backend.drained || !backend.accepts_existing => Look::Reached,
        Goal::Drained if backend.admin != "draining" => Look::Never(format!(
            "the backend was set to {} meanwhile: it does not drain any more",
            backend.admin
        )),
        Goal::Drained => {
            let flows = backend.flows.map(|flows| format!("{flows} flows left, ")).unwrap_or_default();
            Look::NotYet(format!("{flows}{} s at most", backend.drain_seconds_left.unwrap_or_default()))
        }
        Goal::InTable if backend.share > 0.0 || backend.weight == 0 => Look::Reached,
        Goal::InTable if backend.admin != "active" => {
            Look::Never(format!("the backend was set to {} meanwhile", backend.admin))
        }
        Goal::InTable => {
            Look::NotYet(format!("not in the table yet: {} ({})", backend.health, backend.health_detail))
        }
    }
}

/// How long a counter has stood still.
#[derive(Debug, Default)]
pub(super) struct Silence {
    last: Option<(u64, Instant)>,
}

impl Silence {
    /// `None` once it has for long enough.
    pub(super) fn since(&mut self, packets: u64, now: Instant) -> Option<Duration> {
        match self.last {
            Some((known, since)) if known == packets => {
                let quiet_for = now.saturating_duration_since(since);
                (quiet_for < QUIET).then_some(quiet_for)
            }
            _ => {
                self.last = Some((packets, now));
                Some(Duration::ZERO)
            }
        }
    }
}

const QUIET: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);

//! `--wait`: looks at the backend again and again until what was asked for has come about.

use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::{change::Target, exit::Failure, progress::Progress};
use crate::api::{
    client::{Client, ClientError},
    v1,
};

/// Whether to wait, and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Patience {
    /// Wait until it has come about; with =quiet (not for `enable` and `reset`) until the backend has had no packet for 10 s
    #[arg(long, value_enum, value_name = "quiet", num_args = 0..=1, require_equals = true, default_missing_value = "done")]
    wait: Option<For>,
    /// Give up waiting after this time, with exit code 5 (3 if the daemon is unreachable); what was changed stays
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

impl Goal {
    /// What is waited for, in a word.
    fn verb(self) -> &'static str {
        match self {
            Self::Drained => "drain",
            Self::InTable => "enable",
            Self::Over => "silence of",
        }
    }
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

impl Patience {
    /// Whether `goal` is one that this can wait for.
    pub(super) fn check(self, goal: Goal) -> Result<(), Failure> {
        match (self.wait, goal) {
            (Some(For::Quiet), Goal::InTable) => Err(Failure::Usage(
                "--wait=quiet waits until a backend has no packets, and this is to give it some: use plain --wait"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

pub(super) async fn wait(client: &Client, target: &Target, goal: Goal) -> Result<(), Failure> {
    let Patience { wait: Some(what), timeout } = target.patience else { return Ok(()) };
    let quiet = what == For::Quiet;
    if goal == Goal::Over && !quiet {
        return Ok(());
    }
    let begun = Instant::now();
    let mut silence = Silence::default();
    let mut absence = Absence::default();
    let mut flows = None;
    let mut progress = Progress::new(format!("{} {}/{}", goal.verb(), target.service, target.name));
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        let missing = match ask(client, target, left).await {
            Err(error @ ClientError::Refused { .. }) => return Err(Failure::Unknown(error)),
            Err(error) => {
                // It may be restarting. Of what a backend did meanwhile nothing is known.
                silence = Silence::default();
                let now = Instant::now();
                if absence.is_over(now, timeout.map(|timeout| begun + timeout)) {
                    return Err(Failure::Unknown(error));
                }
                error.to_string()
            }
            Ok(backend) => {
                absence = Absence::default();
                let looked = look(goal, backend.as_ref());
                if goal == Goal::Drained
                    && looked == Look::Reached
                    && let Some(ended) = backend.as_ref().and_then(|backend| cut_off(backend, flows))
                {
                    progress.say(&ended);
                }
                flows = backend.as_ref().and_then(|backend| backend.flows);
                let missing = match looked {
                    Look::Reached if goal == Goal::Drained || !quiet => return Ok(()),
                    Look::Never(why) => return Err(Failure::Overtaken(why)),
                    Look::NotYet(missing) => missing,
                    Look::Reached => String::new(),
                };
                match &backend {
                    Some(backend) if quiet => match silence.since(backend.packets, Instant::now()) {
                        None => return Ok(()),
                        Some(quiet_for) => format!("no packet for {} s", quiet_for.as_secs()),
                    },
                    None if quiet => return Ok(()),
                    _ => missing,
                }
            }
        };
        let holding = flows.filter(|_| goal == Goal::Drained && absence.since.is_none());
        progress.update(holding, &missing, Instant::now());
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        if left == Some(Duration::ZERO) && absence.since.is_none() {
            return Err(Failure::TimedOut(missing));
        }
        tokio::time::sleep(POLL.min(left.unwrap_or(POLL))).await;
    }
}

/// How the backend is; `None` if there is none. Takes no longer than there is time left.
async fn ask(
    client: &Client,
    target: &Target,
    left: Option<Duration>,
) -> Result<Option<v1::Backend>, ClientError> {
    let asked = client.backend(&target.service, &target.name);
    let answer = match left.map(|left| left.max(POLL)) {
        None => asked.await,
        Some(limit) => tokio::time::timeout(limit, asked)
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { socket: client.socket().to_path_buf(), limit })),
    };
    match answer {
        Ok(backend) => Ok(Some(backend)),
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What to say of a drain that ended because its time was up; `before`: the flows a moment ago.
pub(super) fn cut_off(backend: &v1::Backend, before: Option<u64>) -> Option<String> {
    if backend.admin != "draining" || backend.drained || backend.accepts_existing {
        return None;
    }
    match before.or(backend.flows) {
        Some(0) => None,
        Some(flows) => Some(format!("the drain timeout is over; {flows} flows were ended")),
        None => Some("the drain timeout is over; flows that were left were ended".to_owned()),
    }
}

/// How long nobody has answered.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
}

impl Absence {
    pub(super) fn has_begun(&self) -> bool {
        self.since.is_some()
    }

    /// Whether that is long enough to give up: at the user's deadline, if there is one.
    pub(super) fn is_over(&mut self, now: Instant, deadline: Option<Instant>) -> bool {
        let since = *self.since.get_or_insert(now);
        now >= deadline.unwrap_or(since + ABSENCE)
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
/// How long a daemon may be away, as while it restarts, if the user has named no time.
const ABSENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

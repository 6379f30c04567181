//! The task: looks for what the agenda says, and hands what was found to the control task.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    task::{self, JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    DiscoveryStats,
    agenda::{Agenda, Job},
    file::{self, Looked},
    lookup::{Asked, Round},
    resolver::Resolver,
    watch::Watcher,
};
use crate::{
    config::DiscoveryConfig,
    control::{Applied, FoundBackends, Rejected, Snapshot},
};

/// What the task is started with.
pub struct Settings {
    pub config: DiscoveryConfig,
    /// Addresses of this host, which no name makes backends.
    pub own_addresses: fn() -> HashSet<IpAddr>,
    pub submit: Arc<Submit>,
}

/// Hands what was found to the control task.
pub type Submit = dyn Fn(Vec<FoundBackends>) -> BoxFuture<'static, Result<Applied, Rejected>> + Send + Sync;

/// Looks for the backends of every service from now on. Ends when the control task does.
pub fn spawn(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    settings: Settings,
    stats: Arc<DiscoveryStats>,
) -> JoinHandle<()> {
    let Settings { config, own_addresses, submit } = settings;
    let watcher = Watcher::new();
    if let Err(error) = &watcher {
        log::warn!("files of backends can't be watched, and are looked at now and then instead: {error}");
    }
    let task = Task {
        snapshots,
        resolver: Arc::new(Resolver::new(&config)),
        own_addresses,
        submit,
        agenda: Agenda::new(config, Arc::clone(&stats)),
        stats,
        watcher: watcher.ok(),
        jobs: JoinSet::new(),
        epoch: Instant::now(),
        news: false,
    };
    tokio::spawn(task.run())
}

struct Task {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    resolver: Arc<Resolver>,
    own_addresses: fn() -> HashSet<IpAddr>,
    submit: Arc<Submit>,
    agenda: Agenda,
    stats: Arc<DiscoveryStats>,
    watcher: Option<Watcher>,
    jobs: JoinSet<Ended>,
    /// Where the agenda's time starts.
    epoch: Instant,
    /// Whether there may be something that the control task doesn't know.
    news: bool,
}

enum Ended {
    Asked { host: Arc<str>, round: Round, own: HashSet<IpAddr> },
    Looked { path: Arc<PathBuf>, looked: Looked },
}

impl Task {
    async fn run(mut self) {
        let mut next_submit = Instant::now();
        self.follow();
        loop {
            self.start_due();
            let due = self.agenda.next_due().map(|due| self.epoch + due);
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow();
                }
                Some(ended) = self.jobs.join_next() => self.take(ended),
                directories = changed(&mut self.watcher) => {
                    self.agenda.changed(self.epoch.elapsed(), &directories);
                }
                () = tokio::time::sleep_until(due.unwrap_or(self.epoch)), if due.is_some() => {}
                // The first change goes at once, those of the following second together.
                () = tokio::time::sleep_until(next_submit), if self.news => {
                    while let Some(ended) = self.jobs.try_join_next() {
                        self.take(ended);
                    }
                    next_submit = Instant::now() + match self.submit().await {
                        Ok(false) => Duration::ZERO,
                        Ok(true) => SUBMIT_INTERVAL,
                        Err(Rejected::Stopping) => return,
                        Err(_) => RETRY_INTERVAL,
                    };
                }
            }
        }
    }

    fn start_due(&mut self) {
        // A directory that was not there may be by now.
        if let Some(watcher) = &mut self.watcher {
            watcher.watch(&self.agenda.directories());
        }
        while let Some(job) = self.agenda.start(self.epoch.elapsed()) {
            match job {
                Job::Ask { host, families } => {
                    let (resolver, own_addresses) = (Arc::clone(&self.resolver), self.own_addresses);
                    self.jobs.spawn(async move {
                        let of = Arc::clone(&host);
                        let round = tokio::spawn(async move { resolver.round(&of, families).await }).await;
                        let bug =
                            |error: task::JoinError| [Some(Asked::Failed(format!("a bug: {error}"))), None];
                        Ended::Asked { host, round: round.unwrap_or_else(bug), own: own_addresses() }
                    });
                }
                Job::Look { path, known } => {
                    self.jobs.spawn(async move {
                        let of = Arc::clone(&path);
                        let looked = task::spawn_blocking(move || file::look(&of, known)).await;
                        let bug = |error: task::JoinError| Looked::Failed(format!("a bug: {error}"));
                        Ended::Looked { path, looked: looked.unwrap_or_else(bug) }
                    });
                }
            }
        }
    }

    fn take(&mut self, ended: Result<Ended, task::JoinError>) {
        let now = self.epoch.elapsed();
        match ended {
            Ok(Ended::Asked { host, round, own }) => self.agenda.asked(now, &host, round, &own),
            Ok(Ended::Looked { path, looked }) => self.agenda.looked(now, &path, looked),
            Err(error) => log::error!("a bug: a look for backends panicked: {error}"),
        }
        self.news = true;
    }

    /// Looks for the backends of the latest snapshot, and no others.
    fn follow(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.agenda.follow(self.epoch.elapsed(), &snapshot.services);
        self.news = true;
    }

    /// Whether there was something to submit.
    ///
    /// # Errors
    ///
    /// The last refusal. Each source's is told with it.
    async fn submit(&mut self) -> Result<bool, Rejected> {
        // What was submitted last is in the latest snapshot.
        self.follow();
        let news = self.agenda.news();
        self.news = false;
        self.stats.nothing_refused_but(&news);
        if news.is_empty() {
            return Ok(false);
        }
        match (self.submit)(news.clone()).await {
            Ok(_) => {
                self.tell(&news, None);
                return Ok(true);
            }
            Err(Rejected::Stopping) => return Err(Rejected::Stopping),
            Err(error) if news.len() == 1 => {
                self.tell(&news, Some(&error));
                self.news = true;
                return Err(error);
            }
            Err(_) => {}
        }
        // One that is refused shall not stand in the way of the others.
        let mut outcome = Ok(true);
        for one in news {
            let one = vec![one];
            let submitted = (self.submit)(one.clone()).await;
            self.tell(&one, submitted.as_ref().err());
            if let Err(error) = submitted {
                self.news = true;
                outcome = Err(error);
            }
        }
        outcome
    }

    fn tell(&self, submitted: &[FoundBackends], refused: Option<&Rejected>) {
        for FoundBackends { service, source, .. } in submitted {
            self.stats.submitted(service, source, refused.map(ToString::to_string));
        }
    }
}

/// Waits for ever where nothing can be watched.
async fn changed(watcher: &mut Option<Watcher>) -> BTreeSet<PathBuf> {
    if let Some(of) = watcher {
        match of.changed().await {
            Ok(directories) => return directories,
            Err(error) => log::warn!("files of backends are looked at now and then from now on: {error}"),
        }
        *watcher = None;
    }
    std::future::pending().await
}

/// So often the table may change because of what was found.
const SUBMIT_INTERVAL: Duration = Duration::from_secs(1);
/// After what was found was refused.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

//! The task itself: one queue, one owner.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Applied, BackendView, Command, InterfaceView, Rejected, ServiceView, Snapshot, State};
use crate::{
    dataplane::{
        encode,
        reconcile::{Published, Reconciler},
        scan::Moment,
    },
    telemetry::PublishStats,
};

/// The way to the task, for everyone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    heartbeat: Arc<Heartbeat>,
}

#[derive(Debug)]
struct Request {
    command: Command,
    /// Only say what would change.
    dry_run: bool,
    reply: oneshot::Sender<Result<Applied, Rejected>>,
}

/// Starts the task on the current runtime. It ends when the last handle is gone.
pub fn start(reconciler: Reconciler, stats: Arc<PublishStats>) -> Handle {
    let revision = reconciler.revision().unwrap_or_default();
    let (requests, queue) = mpsc::channel(QUEUE);
    let (publisher, snapshots) = watch::channel(Arc::new(Snapshot { revision, ..Snapshot::default() }));
    let heartbeat = Arc::new(Heartbeat::new());
    let task = Task {
        state: State::default(),
        reconciler,
        published: Published::default(),
        revision,
        interfaces: Vec::new(),
        config_error: None,
        declared: false,
        publisher,
        stats,
    };
    tokio::spawn(task.run(queue, Arc::clone(&heartbeat)));
    Handle { requests, snapshots, heartbeat }
}

impl Handle {
    /// The state as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Tells of every new snapshot.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Applies a command. When this returns, it is live or refused.
    pub async fn submit(&self, command: Command) -> Result<Applied, Rejected> {
        self.request(command, false).await
    }

    /// What a command would change.
    pub async fn plan(&self, command: Command) -> Result<Applied, Rejected> {
        self.request(command, true).await
    }

    /// Time since the task last took a turn.
    pub fn heartbeat_age(&self) -> Duration {
        self.heartbeat.age()
    }

    async fn request(&self, command: Command, dry_run: bool) -> Result<Applied, Rejected> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command, dry_run, reply };
        self.requests.send(request).await.map_err(|_| Rejected::Stopping)?;
        answer.await.map_err(|_| Rejected::Stopping)?
    }
}

struct Task {
    state: State,
    reconciler: Reconciler,
    published: Published,
    revision: u64,
    interfaces: Vec<InterfaceView>,
    config_error: Option<String>,
    /// Whether this process has published a declared state.
    declared: bool,
    publisher: watch::Sender<Arc<Snapshot>>,
    stats: Arc<PublishStats>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>, heartbeat: Arc<Heartbeat>) {
        let mut tick = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                request = queue.recv() => {
                    let Some(Request { command, dry_run, reply }) = request else { return };
                    let outcome = if dry_run { self.plan(&command) } else { self.apply(command) };
                    // A client that has gone away has lost its answer, not its change.
                    let _ = reply.send(outcome);
                }
                _ = tick.tick() => self.tick(),
            }
            heartbeat.beat();
        }
    }

    /// What time brings.
    fn tick(&mut self) {
        match self.reconciler.tick(now(), &mut self.published) {
            Ok(false) => {}
            Ok(true) => {
                self.publisher.send_replace(Arc::new(self.snapshot()));
            }
            Err(error) => log::error!("{error}; trying again"),
        }
    }

    fn plan(&self, command: &Command) -> Result<Applied, Rejected> {
        let (next, changes) = self.state.apply(command, &self.reconciler.recorded())?;
        self.reconciler.check(&next.desired(), now())?;
        Ok(Applied { revision: self.revision, changes, warnings: Vec::new() })
    }

    fn apply(&mut self, command: Command) -> Result<Applied, Rejected> {
        let recorded = match &command {
            Command::Declare { .. } => self.reconciler.recorded(),
            _ => HashMap::new(),
        };
        let (next, changes) = self.state.apply(&command, &recorded)?;
        match command {
            Command::Interfaces(interfaces) => self.interfaces = interfaces,
            Command::ConfigRefused(reason) => self.config_error = Some(reason),
            command => {
                let declares = matches!(command, Command::Declare { .. });
                // Until something is declared there is nothing to publish but the end of what an earlier daemon left.
                if declares || self.declared {
                    // A change that no map shows, such as the weight of a backend that gets no traffic, counts too. What
                    // a start declares is a change only if the maps say so.
                    let counts = declares && self.declared && !changes.is_empty();
                    self.publish(&next, counts)?;
                }
                self.declared |= declares;
                if declares {
                    self.config_error = None;
                }
                self.state = next;
            }
        }
        for change in &changes {
            log::info!("{change}");
        }
        self.publisher.send_replace(Arc::new(self.snapshot()));
        Ok(Applied { revision: self.revision, changes, warnings: Vec::new() })
    }

    /// `counts`: it is another revision even if no map changes.
    fn publish(&mut self, next: &State, counts: bool) -> Result<(), Rejected> {
        let started = Instant::now();
        let published = self.reconciler.apply(&next.desired(), now())?;
        if published.changed || counts {
            self.reconciler.store_revision(self.revision + 1).map_err(Rejected::Dataplane)?;
            self.revision += 1;
            self.stats.observe(started.elapsed());
        }
        self.published = published;
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let attached =
            !self.interfaces.is_empty() && self.interfaces.iter().all(|interface| interface.attached);
        Snapshot {
            revision: self.revision,
            services: self.service_views(),
            interfaces: self.interfaces.clone(),
            ready: attached && self.declared,
            config_error: self.config_error.clone(),
        }
    }

    fn service_views(&self) -> Vec<ServiceView> {
        let mut views = Vec::new();
        for (service, observed, decision) in self.state.services() {
            let published = self.published.services.get(&encode::service_id(&service.name));
            let backends = service.backends.values().map(|backend| {
                let id = encode::backend_id(&service.name, &backend.name, backend.address);
                let live =
                    published.and_then(|service| service.backends.get(&id)).copied().unwrap_or_default();
                let observed = observed.get(&backend.name).cloned().unwrap_or_default();
                BackendView {
                    name: backend.name.clone(),
                    address: backend.address,
                    index: live.index,
                    health: observed.health,
                    health_detail: observed.detail,
                    share: live.share,
                    reachable: live.reachable,
                }
            });
            views.push(ServiceView {
                service: Arc::clone(service),
                id: published.map(|service| service.id).unwrap_or_default(),
                state: decision.state,
                fingerprint: published.map(|service| service.fingerprint).unwrap_or_default(),
                backends: backends.collect(),
            });
        }
        views
    }
}

#[derive(Debug)]
struct Heartbeat {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

impl Heartbeat {
    fn new() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(0) }
    }

    fn beat(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        Duration::from_millis(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Pinned maps live as long as the kernel, so their deadlines count by its clocks.
fn now() -> Moment {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    Moment { monotonic: read(ClockId::CLOCK_MONOTONIC), boot: read(ClockId::CLOCK_BOOTTIME) }
}

/// Requests that may wait. Senders wait for a place.
const QUEUE: usize = 64;

/// Turns taken when nothing else happens.
const HEARTBEAT: Duration = Duration::from_millis(100);

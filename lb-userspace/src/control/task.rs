//! The task itself: one queue, one owner.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lb_common::abi::MAX_OWN_MACS;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};

use super::{
    Applied, BackendView, Command, FlowTable, InterfaceView, OwnMacs, Rejected, ServiceView, Snapshot, State,
    alarm,
    store::{Loaded, Store},
    warnings::warnings,
};
use crate::{
    dataplane::{
        KeyFingerprint,
        desired::Desired,
        encode,
        reconcile::{Published, Reconciler, Ticked},
        scan::Moment,
    },
    domain::Kept,
    peers::Exchange,
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
///
/// `loaded` is what `store` had kept; it joins what is declared first.
pub fn start(
    reconciler: Reconciler,
    stats: Arc<PublishStats>,
    store: Box<dyn Store>,
    loaded: Loaded,
) -> Handle {
    let revision = reconciler.revision().unwrap_or_default();
    let (requests, queue) = mpsc::channel(QUEUE);
    let (publisher, snapshots) = watch::channel(Arc::new(Snapshot { revision, ..Snapshot::default() }));
    let heartbeat = Arc::new(Heartbeat::new());
    let task = Task {
        saved: loaded.kept.clone(),
        state: State::new(loaded.kept),
        store,
        state_error: loaded.error,
        reconciler,
        due: None,
        trouble: None,
        published: Published::default(),
        torn: false,
        next_publish: Instant::now(),
        revision,
        own_macs: None,
        interfaces: Vec::new(),
        hash_key: None,
        peers: None,
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
    /// What the store has of it; what was taken in and is not live yet may be missing.
    saved: Kept,
    store: Box<dyn Store>,
    /// Why the store had not kept what it should have.
    state_error: Option<String>,
    /// Boot-time seconds at which time alone changes something.
    due: Option<u64>,
    /// What the last turn of the clock ended with, so that it is logged once.
    trouble: Option<String>,
    reconciler: Reconciler,
    published: Published,
    /// A change failed half-way: what the maps hold is not what was published last.
    torn: bool,
    /// When what nobody asked for may be made live again: what is observed, and what time brings.
    next_publish: Instant,
    revision: u64,
    own_macs: OwnMacs,
    interfaces: Vec<InterfaceView>,
    hash_key: Option<KeyFingerprint>,
    peers: Option<Arc<Exchange>>,
    config_error: Option<String>,
    /// Whether this process has published a declared state.
    declared: bool,
    publisher: watch::Sender<Arc<Snapshot>>,
    stats: Arc<PublishStats>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>, heartbeat: Arc<Heartbeat>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut observed = Vec::new();
        loop {
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) if request.command.is_observed() => observed.push(request),
                    Some(request) => self.answer(request),
                    None => return,
                },
                () = tokio::time::sleep_until(self.next_publish.into()), if !observed.is_empty() => {
                    self.next_publish = Instant::now() + PUBLISH_INTERVAL;
                    self.observe(std::mem::take(&mut observed));
                }
                _ = tick.tick() => self.tick(now()),
            }
            heartbeat.beat();
        }
    }

    fn answer(&mut self, Request { command, dry_run, reply }: Request) {
        let outcome = if dry_run { self.plan(&command) } else { self.apply(command) };
        // A client that has gone away has lost its answer, not its change.
        let _ = reply.send(outcome);
    }

    /// Makes live what was observed meanwhile, all of it as one change.
    fn observe(&mut self, requests: Vec<Request>) {
        // What may be refused must not be taken in before it is known whether it is. Of such there is one at a time.
        let may_be_refused = |request: &Request| matches!(request.command, Command::Found { .. });
        let (mut others, mut requests): (Vec<_>, Vec<_>) = requests.into_iter().partition(may_be_refused);
        let Some(last) = others.pop().or_else(|| requests.pop()) else { return };
        others.into_iter().for_each(|request| self.answer(request));
        let take_in = |Request { command, reply, .. }| (self.take_in(&command), reply);
        let taken: Vec<_> = requests.into_iter().map(take_in).collect();
        let outcome = self.apply(last.command);
        if outcome.is_err() && !taken.is_empty() {
            // The others are known now, and the next turn of the clock makes them live.
            self.due = Some(now().boot_seconds());
        }
        // Whoever observes has no use for an answer when he is gone.
        let _ = last.reply.send(outcome);
        for (outcome, reply) in taken {
            let _ = reply.send(outcome);
        }
    }

    /// Takes in what was observed, for the next change to make live.
    fn take_in(&mut self, command: &Command) -> Result<Applied, Rejected> {
        let (next, changes) = self.state.apply(command, &HashMap::new(), begun_seconds(now()))?;
        warnings(command, &self.state, &next).iter().for_each(|warning| log::warn!("{warning}"));
        changes.iter().for_each(|change| log::info!("{change}"));
        self.state = next;
        Ok(Applied { revision: self.revision, changes, warnings: Vec::new(), impacts: Vec::new() })
    }

    /// What time brings.
    fn tick(&mut self, now: Moment) {
        let before = self.census_figures();
        let Ticked { mut changed, trouble } = self.reconciler.tick(now, &mut self.published);
        let mut trouble = trouble.map(|error| error.to_string());
        let boot = now.boot_seconds();
        let is_due = self.declared && self.due.is_some_and(|due| due <= boot);
        // What is observed meanwhile brings what is due along.
        if is_due && self.next_publish <= Instant::now() {
            self.next_publish = Instant::now() + PUBLISH_INTERVAL;
            let desired = self.state.clone();
            match self.mend(now).and_then(|()| self.publish(&desired, false, now)) {
                Ok(()) => changed = true,
                Err(error) => {
                    trouble = Some(error.to_string());
                    self.due = Some(boot + 1);
                }
            }
        }
        // Most ticks apply nothing, and say nothing of what could not be applied.
        if trouble != self.trouble && (trouble.is_some() || changed) {
            match &trouble {
                Some(error) => log::error!("what time has changed can't be applied, trying again: {error}"),
                None => log::info!("what time has changed is applied again"),
            }
            self.trouble = trouble;
        }
        if changed || before != self.census_figures() {
            self.publisher.send_replace(Arc::new(self.snapshot(now)));
        }
    }

    fn plan(&self, command: &Command) -> Result<Applied, Rejected> {
        let now = now();
        let (next, changes) = self.state.apply(command, &self.reconciler.recorded(), begun_seconds(now))?;
        let settled = next.once_settled(&self.state);
        let impacts = self.reconciler.preview(&settled.desired(now.boot_seconds()), now)?;
        // A service that is gone is named by what was before.
        let names: BTreeSet<_> =
            self.state.specs().chain(next.specs()).map(|service| &service.name).collect();
        let impacts = names.into_iter().filter_map(|name| {
            let impact = impacts.get(&encode::service_id(name)).filter(|impact| impact.is_felt())?;
            Some((name.clone(), *impact))
        });
        let impacts = impacts.collect();
        let warnings = warnings(command, &self.state, &next);
        Ok(Applied { revision: self.revision, changes, warnings, impacts })
    }

    fn apply(&mut self, command: Command) -> Result<Applied, Rejected> {
        let now = now();
        let (declares, edits) =
            (matches!(command, Command::Declare { .. }), matches!(command, Command::Edit { .. }));
        let rebuilds = declares || edits || matches!(command, Command::Found { .. });
        let recorded = if rebuilds { self.reconciler.recorded() } else { HashMap::new() };
        let (mut next, changes) = self.state.apply(&command, &recorded, begun_seconds(now))?;
        let warnings = warnings(&command, &self.state, &next);
        match command {
            Command::OwnMacs(macs) => {
                self.reconciler.publish_own_macs(&macs).map_err(Rejected::Dataplane)?;
                tell_own_macs(&macs);
                self.own_macs = macs;
            }
            Command::Interfaces(interfaces) => self.interfaces = interfaces,
            Command::Peers { exchange, is_new } => {
                self.reconciler.replicate_with(Arc::clone(&exchange), is_new);
                self.peers = Some(exchange);
            }
            Command::HashKey(fingerprint) => self.hash_key = Some(fingerprint),
            Command::ConfigRefused(reason) => self.config_error = Some(reason),
            _ => {
                // Until something is declared there is nothing to publish but the end of what an earlier daemon left.
                if declares || self.declared {
                    // A change that no map shows, such as the weight of a backend that gets no traffic, counts too. What
                    // a start declares is a change only if the maps say so.
                    let counts = rebuilds && self.declared && !changes.is_empty();
                    self.keep_and_publish(&next, counts, now)?;
                }
                self.declared |= declares;
                if declares {
                    self.config_error = None;
                }
                if rebuilds {
                    let leaving = self.published.services.values().flat_map(|service| &service.leaving);
                    next.forget_ways(&leaving.map(|backend| backend.address.ip()).collect());
                }
                self.state = next;
            }
        }
        for change in &changes {
            log::info!("{change}");
        }
        if !declares && !edits {
            // Nobody looks at the answer.
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
        let snapshot = self.snapshot(now);
        alarm::tell(&self.publisher.borrow(), &snapshot);
        self.publisher.send_replace(Arc::new(snapshot));
        Ok(Applied { revision: self.revision, changes, warnings, impacts: Vec::new() })
    }

    /// What has to survive a restart is written down before anybody sees it.
    fn keep_and_publish(&mut self, next: &State, counts: bool, now: Moment) -> Result<(), Rejected> {
        self.mend(now)?;
        if *next.kept() == self.saved {
            return self.publish(next, counts, now);
        }
        self.reconciler.check(&next.desired(now.boot_seconds()), now)?;
        if let Err(error) = self.store.save(next.kept()) {
            // It may be there and only not known to be safe. Where this fails too, the first error is the one to report.
            let _ = self.store.restore(&self.saved);
            return Err(error.into());
        }
        let published = self.publish(next, counts, now);
        if published.is_ok() {
            self.saved = next.kept().clone();
        } else if let Err(error) = self.store.restore(&self.saved) {
            log::error!("a change was refused, and is kept all the same until the next one: {error}");
        }
        published
    }

    /// `counts`: it is another revision even if no map changes. Where it fails half-way the next turn of the clock makes
    /// the maps what they were.
    fn publish(&mut self, next: &State, counts: bool, now: Moment) -> Result<(), Rejected> {
        let outcome = self.try_publish(next, counts, now);
        if let Err(Rejected::Dataplane(_)) = &outcome {
            // A first start that fails has nothing to go back to: what is there is an earlier daemon's.
            self.torn = self.declared;
            self.due = Some(now.boot_seconds());
        }
        outcome
    }

    /// Makes the maps again what they were before a change that failed half-way. If that was to replace a live service it may
    /// have done so, and going back is to replace it, too.
    fn mend(&mut self, now: Moment) -> Result<(), Rejected> {
        if self.torn {
            let before = Desired { disruptive: true, ..self.state.desired(now.boot_seconds()) };
            self.published = self.reconciler.apply(&before, now)?;
            self.torn = false;
        }
        Ok(())
    }

    fn try_publish(&mut self, next: &State, counts: bool, now: Moment) -> Result<(), Rejected> {
        let started = Instant::now();
        let published = self.reconciler.apply(&next.desired(now.boot_seconds()), now)?;
        if published.changed || counts {
            self.reconciler.store_revision(self.revision + 1).map_err(Rejected::Dataplane)?;
            self.revision += 1;
            self.stats.observe(started.elapsed());
        }
        self.published = published;
        self.due = next.next_change(now.boot_seconds());
        Ok(())
    }

    fn census_figures(&self) -> [u64; 4] {
        let census = self.reconciler.census();
        [census.entries, census.capacity, census.tracked_slots, census.nat_entries]
    }

    fn snapshot(&self, now: Moment) -> Snapshot {
        let attached =
            !self.interfaces.is_empty() && self.interfaces.iter().all(|interface| interface.attached);
        let census = self.reconciler.census();
        Snapshot {
            revision: self.revision,
            services: self.service_views(now.boot_seconds()),
            nat: self.state.nat().clone(),
            interfaces: self.interfaces.clone(),
            own_macs: self.own_macs.clone(),
            hash_key: self.hash_key,
            peers: self.peers.clone(),
            ready: attached && self.declared,
            config_error: self.config_error.clone(),
            state_error: self.state_error.clone(),
            nat_clashes: self.state.clashes(),
            flow_table: FlowTable { entries: census.entries, capacity: census.capacity },
            nat_table: FlowTable { entries: census.nat_entries, capacity: self.reconciler.nat_capacity() },
            tracked_slots: census.tracked_slots,
        }
    }

    fn service_views(&self, now: u64) -> Vec<ServiceView> {
        let mut views = Vec::new();
        for (service, observed, decision) in self.state.services(now) {
            let published = self.published.services.get(&encode::service_id(&service.name));
            let backends = service.backends.values().map(|backend| {
                let id = encode::backend_id(&service.name, &backend.name, backend.address);
                let live =
                    published.and_then(|service| service.backends.get(&id)).copied().unwrap_or_default();
                let observed = observed.get(&backend.name).cloned().unwrap_or_default();
                let verdict = decision.backends.get(&backend.name).copied().unwrap_or_default();
                BackendView {
                    name: backend.name.clone(),
                    address: backend.address,
                    index: live.index,
                    health: observed.standing.health,
                    health_detail: observed.detail,
                    share: live.share,
                    reachable: live.reachable,
                    accepts_existing: verdict.accepts_existing,
                    drain_deadline: observed.standing.drain_deadline,
                    drained: live.drained,
                    flows: live.flows,
                    overrides: self.state.overrides(&service.name, &backend.name),
                }
            });
            views.push(ServiceView {
                service: Arc::clone(service),
                id: published.map(|service| service.id).unwrap_or_default(),
                state: decision.state,
                fingerprint: published.map(|service| service.fingerprint).unwrap_or_default(),
                backends: backends.collect(),
                leaving: published.map(|service| service.leaving.clone()).unwrap_or_default(),
                sources: self.state.source_views(service),
                left_out: self.state.left_out_of(&service.name).to_vec(),
            });
        }
        views
    }
}

fn tell_own_macs(macs: &OwnMacs) {
    match macs {
        Some(macs) if macs.len() > MAX_OWN_MACS => log::warn!(
            "this host has {} MAC addresses on the attached interfaces, and only {MAX_OWN_MACS} can be told apart: frames \
             for any address are looked at",
            macs.len()
        ),
        Some(macs) => log::info!("frames for {} MAC addresses of this host are looked at", macs.len()),
        None => log::info!("frames for any MAC address are looked at"),
    }
}

/// Boot-time seconds, the one that has begun counted: what lasts from then on is not over before its time.
pub fn begun_seconds(now: Moment) -> u64 {
    now.boot_seconds() + u64::from(now.boot.subsec_nanos() > 0)
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
pub fn now() -> Moment {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    Moment { monotonic: read(ClockId::CLOCK_MONOTONIC), boot: read(ClockId::CLOCK_BOOTTIME) }
}

/// Requests that may wait. Senders wait for a place.
const QUEUE: usize = 64;

/// Between two changes that nobody asked for: at most ten a second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Turns taken when nothing else happens; the reconciler scans flows a step at a time.
const TICK: Duration = Duration::from_millis(100);

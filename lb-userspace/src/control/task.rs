//! The task itself: one queue, one owner.

mod handle;
mod publish;
mod view;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::abi::MAX_OWN_MACS;
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

pub use self::handle::Handle;
use self::handle::{Heartbeat, Request};
use super::{
    Applied, Command, InterfaceView, OwnMacs, Rejected, Snapshot, State, alarm,
    clock::now,
    store::{Loaded, Store},
    warnings::warnings,
};
use crate::{
    dataplane::{
        KeyFingerprint, encode,
        reconcile::{Published, Reconciler, Ticked},
        scan::Moment,
    },
    domain::Kept,
    peers::Exchange,
    telemetry::PublishStats,
};

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
        peers: None,
        next_exchange: Instant::now(),
        due: None,
        trouble: None,
        published: Published::default(),
        torn: false,
        next_publish: Instant::now(),
        revision,
        own_macs: None,
        interfaces: Vec::new(),
        hash_key: None,
        config_error: None,
        declared: false,
        publisher,
        stats,
    };
    tokio::spawn(task.run(queue, Arc::clone(&heartbeat)));
    Handle { requests, snapshots, heartbeat }
}

struct Task {
    state: State,
    /// What the store has of it; what was taken in and is not live yet may be missing.
    saved: Kept,
    store: Box<dyn Store>,
    /// Why the store had not kept what it should have.
    state_error: Option<String>,
    /// Boot time at which time alone changes something.
    due: Option<Duration>,
    /// What the last turn of the clock ended with, so that it is logged once.
    trouble: Option<String>,
    reconciler: Reconciler,
    peers: Option<Arc<Exchange>>,
    /// When there may be another exchange with them.
    next_exchange: Instant,
    published: Published,
    /// A change failed half-way: what the maps hold is not what was published last.
    torn: bool,
    /// When what nobody asked for may be made live again: what is observed, and what time brings.
    next_publish: Instant,
    revision: u64,
    own_macs: OwnMacs,
    interfaces: Vec<InterfaceView>,
    hash_key: Option<KeyFingerprint>,
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
                    Some(request) => {
                        self.answer(request);
                        // Whoever waits for it goes on before the work that it makes is done.
                        tokio::task::yield_now().await;
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(self.next_publish.into()), if !observed.is_empty() => {
                    self.next_publish = Instant::now() + PUBLISH_INTERVAL;
                    self.observe(std::mem::take(&mut observed));
                    tokio::task::yield_now().await;
                }
                () = wait_for_work(self.peers.as_deref(), self.next_exchange) => {
                    let began = Instant::now();
                    self.reconciler.replicate(now());
                    let rest = EXCHANGE_INTERVAL.max(3 * began.elapsed());
                    self.next_exchange = Instant::now() + rest;
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
            self.due = Some(now().boot);
        }
        // Whoever observes has no use for an answer when he is gone.
        let _ = last.reply.send(outcome);
        for (outcome, reply) in taken {
            let _ = reply.send(outcome);
        }
    }

    /// Takes in what was observed, for the next change to make live.
    fn take_in(&mut self, command: &Command) -> Result<Applied, Rejected> {
        let (next, changes) = self.state.apply(command, &HashMap::new(), now())?;
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
        let is_due = self.declared && self.due.is_some_and(|due| due <= now.boot);
        // What is observed meanwhile brings what is due along.
        if is_due && self.next_publish <= Instant::now() {
            self.next_publish = Instant::now() + PUBLISH_INTERVAL;
            let next = self.state.at(now);
            match self.mend(now).and_then(|()| self.publish(&next, false, now)) {
                Ok(()) => {
                    self.state = next;
                    changed = true;
                }
                Err(error) => {
                    trouble = Some(error.to_string());
                    self.due = Some(now.boot + Duration::from_secs(1));
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
            self.show(now);
        }
    }

    fn plan(&self, command: &Command) -> Result<Applied, Rejected> {
        let now = now();
        let (next, changes) = self.state.apply(command, &self.reconciler.recorded(), now)?;
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
        let (declares, edits) = (command.declares(), matches!(command, Command::Edit { .. }));
        let rebuilds = declares || edits || matches!(command, Command::Found { .. });
        let recorded = if rebuilds { self.reconciler.recorded() } else { HashMap::new() };
        let (mut next, changes) = self.state.apply(&command, &recorded, now)?;
        let warnings = warnings(&command, &self.state, &next);
        match command {
            Command::OwnMacs(macs) => {
                self.reconciler.publish_own_macs(&macs).map_err(Rejected::Dataplane)?;
                tell_own_macs(&macs);
                self.own_macs = macs;
            }
            Command::Interfaces(interfaces) => self.interfaces = interfaces,
            Command::Peers { exchange, is_new } => {
                self.peers = Some(Arc::clone(&exchange));
                self.reconciler.replicate_with(exchange, is_new);
            }
            Command::HashKey(fingerprint) => self.hash_key = Some(fingerprint),
            Command::ConfigRefused(reason) => self.config_error = Some(reason),
            Command::ConfigAccepted => self.config_error = None,
            command => {
                // Until something is declared there is nothing to publish but the end of what an earlier daemon left.
                if declares || self.declared {
                    // A change that no map shows, such as the weight of a backend that gets no traffic, counts too. What
                    // a start declares is a change only if the maps say so.
                    let counts = rebuilds && self.declared && !changes.is_empty();
                    self.keep_and_publish(&next, counts, now)?;
                }
                self.declared |= declares;
                if matches!(command, Command::Declare { .. }) {
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
        self.show(now);
        Ok(Applied { revision: self.revision, changes, warnings, impacts: Vec::new() })
    }

    /// To all readers, and what is news of it to the log.
    fn show(&self, now: Moment) {
        let snapshot = self.snapshot(now);
        alarm::tell(&self.publisher.borrow(), &snapshot);
        self.publisher.send_replace(Arc::new(snapshot));
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

/// Waits for peers to have work for us, and until `from` at least.
async fn wait_for_work(peers: Option<&Exchange>, from: Instant) {
    let Some(peers) = peers else { return std::future::pending().await };
    tokio::time::sleep_until(from.into()).await;
    peers.work().await;
}

/// Between two exchanges with peers outside the turns, at least: what comes meanwhile goes into one. Where they take long others
/// have three quarters of the time.
const EXCHANGE_INTERVAL: Duration = Duration::from_millis(2);

/// Requests that may wait. Senders wait for a place.
const QUEUE: usize = 64;

/// Between two changes that nobody asked for: at most ten a second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Turns taken when nothing else happens; the reconciler scans flows a step at a time.
const TICK: Duration = Duration::from_millis(100);

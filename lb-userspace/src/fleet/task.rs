//! The task: hears of every change in etcd and makes it live, and tells etcd that this member is alive.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{sync::watch, task::JoinHandle, time};

use super::{
    book::{Book, Declared, Event, Refused, Revision},
    etcd::{Client, Compare, EtcdError, Lease, Operation, Outcome, Watch, Watched},
    kept::KeptFleet,
    member::Record,
    view::{Link, View, Views},
};
use crate::{
    config::FleetConfig,
    control::{Applied, Handle, Rejected, Snapshot},
};

/// What the task is started with.
pub struct Settings {
    pub config: Arc<FleetConfig>,
    pub views: Views,
    pub kept: KeptFleet,
    /// What tells this member from another of its name.
    pub id: String,
    pub control: Handle,
    pub join: Arc<Join>,
}

/// Makes what the fleet has agreed on live.
pub type Join = dyn Fn(Declared) -> BoxFuture<'static, Result<Applied, Rejected>> + Send + Sync;

/// Makes live what was kept, and follows the fleet from then on. Ends when the control task does.
pub async fn start(settings: Settings) -> JoinHandle<()> {
    let Settings { config, views, kept, id, control, join } = settings;
    let mut task = Task {
        client: Client::new(Arc::clone(&config)),
        snapshots: control.watch(),
        config,
        views,
        kept,
        id,
        join,
        live: None,
        saved: None,
        refused: Vec::new(),
        lease: None,
        told: None,
        rival: false,
    };
    // Where nothing was kept, what an earlier daemon left in the maps goes on until etcd answers.
    if task.views.now().book.head_revision() > 0 {
        // The task finds out by itself that the daemon stops.
        let _ = task.make_live().await;
    }
    tokio::spawn(task.run())
}

struct Task {
    config: Arc<FleetConfig>,
    client: Client,
    views: Views,
    kept: KeptFleet,
    id: String,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    join: Arc<Join>,
    live: Option<Declared>,
    /// What is on disk.
    saved: Option<Book>,
    /// What was logged as refused.
    refused: Vec<Refused>,
    lease: Option<Lease>,
    /// What etcd was told of this member last, when, and at which revision.
    told: Option<(Record, Instant, Revision)>,
    /// Whether another member of this name is there.
    rival: bool,
}

/// Why a connection to etcd is over.
enum End {
    /// The daemon stops.
    Stopping,
    Failed(EtcdError),
}

impl From<EtcdError> for End {
    fn from(error: EtcdError) -> Self {
        Self::Failed(error)
    }
}

impl Task {
    async fn run(mut self) {
        // Failures since etcd was connected to last.
        let mut failures = 0;
        loop {
            let Err(End::Failed(error)) = self.follow().await else { return };
            if self.views.now().is_connected() {
                failures = 0;
            }
            self.cut_off(&error);
            self.client.turn();
            failures += 1;
            // Whoever else of the cluster is there is asked at once.
            if failures % self.client.endpoints() == 0 {
                let rounds = u32::try_from(failures / self.client.endpoints()).unwrap_or(u32::MAX);
                let pause =
                    (FIRST_PAUSE * 2_u32.saturating_pow(rounds.saturating_sub(1).min(8))).min(LONGEST_PAUSE);
                // Not all members come back at the same moment.
                time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
        }
    }

    /// Follows one member of etcd for as long as it answers.
    async fn follow(&mut self) -> Result<(), End> {
        let lease = self.lease().await?;
        let (views, rules) = (self.views.clone(), Arc::clone(&self.views.rules));
        let all = rules.keys.all();
        let listing = self.client.list(&all).await?;
        let mut watch = self.client.watch(&all, listing.revision).await?;
        views.change(|view| {
            view.list(&listing.entries, &rules);
            view.heard = Instant::now();
        });
        match time::timeout(BEGIN_TIMEOUT, watch.next()).await {
            Ok(Ok(Watched::Began)) => {}
            Ok(Ok(_)) | Err(_) => {
                let why = "a watch does not begin".to_owned();
                return Err(EtcdError::Broken { endpoint: self.client.endpoint().to_string(), why }.into());
            }
            Ok(Err(error)) => return Err(error.into()),
        }
        self.connected();
        self.make_live().await?;
        self.listen(watch, lease).await
    }

    async fn listen(&mut self, mut watch: Watch, lease: Lease) -> Result<(), End> {
        let mut renewal = time::interval(self.config.ttl / 3);
        renewal.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        renewal.tick().await;
        let mut retry = time::interval(RETRY);
        retry.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let next_word = self.next_word();
            tokio::select! {
                watched = watch.next() => match watched? {
                    Watched::Began => {}
                    Watched::Changes(events) => self.hear(events, &mut watch).await?,
                    Watched::Compacted => {
                        let why = "its history was compacted meanwhile; looking at everything again".to_owned();
                        return Err(EtcdError::Broken { endpoint: self.client.endpoint().to_string(), why }.into());
                    }
                },
                _ = renewal.tick() => {
                    if !self.client.renew(lease).await? {
                        self.lease = None;
                        let message = "the lease of this member is over".to_owned();
                        return Err(EtcdError::Refused { endpoint: self.client.endpoint().to_string(), message }.into());
                    }
                    self.views.change(|view| view.heard = Instant::now());
                }
                changed = self.snapshots.changed() => changed.map_err(|_| End::Stopping)?,
                () = time::sleep_until(next_word.unwrap_or_else(Instant::now).into()), if next_word.is_some() => {
                    self.speak(lease).await?;
                }
                // Why it was refused may be over: a route, a limit, another service.
                _ = retry.tick(), if self.views.now().trouble.is_some() => self.make_live().await?,
            }
        }
    }

    /// The one that this member has, or a new one.
    async fn lease(&mut self) -> Result<Lease, EtcdError> {
        if let Some(lease) = self.lease
            && self.client.renew(lease).await?
        {
            return Ok(lease);
        }
        self.told = None;
        let lease = self.client.grant(self.config.ttl).await?;
        self.lease = Some(lease);
        Ok(lease)
    }

    /// Takes changes in, with those that have come meanwhile, and makes them live.
    async fn hear(&mut self, mut events: Vec<Event>, watch: &mut Watch) -> Result<(), End> {
        while let Some(next) = watch.next().now_or_never() {
            match next? {
                Watched::Changes(more) => events.extend(more),
                Watched::Began => {}
                // The watch says so again, or nothing more.
                Watched::Compacted => break,
            }
        }
        let rules = Arc::clone(&self.views.rules);
        let mut services = false;
        self.views.change(|view| {
            services = view.follow(&events, &rules);
            view.heard = Instant::now();
        });
        if services { self.make_live().await } else { Ok(()) }
    }

    /// Makes live what etcd has. What is refused stays as it was, and is told.
    async fn make_live(&mut self) -> Result<(), End> {
        let view = self.views.now();
        self.tell_refused(&view);
        if let Err(why) = view.book.check(&self.views.rules.keys) {
            self.trouble(Some(why));
            return Ok(());
        }
        let declared = view.book.declared();
        let services = declared.services.len();
        if self.live.as_ref() != Some(&declared) {
            match (self.join)(declared.clone()).await {
                Ok(applied) => applied.warnings.iter().for_each(|warning| log::warn!("{warning}")),
                Err(Rejected::Stopping) => return Err(End::Stopping),
                Err(refused) => {
                    let revision = view.book.revision();
                    self.trouble(Some(format!("revision {revision} of etcd is refused here: {refused}")));
                    return Ok(());
                }
            }
            self.live = Some(declared);
        }
        self.keep(&view.book);
        self.views.change(|known| {
            known.live = view.book.revision();
            known.live_services = services;
        });
        self.trouble(None);
        Ok(())
    }

    fn keep(&mut self, book: &Book) {
        if self.saved.as_ref() == Some(book) {
            return;
        }
        match self.kept.save(book, &self.views.rules) {
            Ok(()) => self.saved = Some(book.clone()),
            Err(error) => log::error!("{error}"),
        }
    }

    /// Logs documents that make no sense, each once.
    fn tell_refused(&mut self, view: &View) {
        let refused = view.refused(&self.views.rules);
        for Refused { key, revision, why, goes_on } in
            refused.iter().filter(|one| !self.refused.contains(one))
        {
            let instead = if *goes_on {
                "what it said before goes on"
            } else {
                "it never made sense here, and nothing of it runs"
            };
            log::error!("fleet: {key} makes no sense since revision {revision} of etcd, {instead}: {why}");
        }
        self.refused = refused;
    }

    /// Notes why what etcd has is not live, and logs it when it is news.
    fn trouble(&self, trouble: Option<String>) {
        if self.views.now().trouble != trouble {
            match &trouble {
                Some(why) => log::error!("fleet: {why}; what ran before goes on"),
                None => log::info!("fleet: what etcd has is live"),
            }
            self.views.change(|view| view.trouble = trouble);
        }
    }

    fn connected(&self) {
        let endpoint = self.client.endpoint().to_string();
        log::info!("fleet: connected to etcd at {endpoint}");
        self.views.change(|view| view.link = Link::Connected { endpoint, since: Instant::now() });
    }

    fn cut_off(&self, error: &EtcdError) {
        let why = error.to_string();
        let mut is_news = false;
        self.views.change(|view| {
            let since = match &view.link {
                Link::CutOff { why, since } if !why.is_empty() => *since,
                _ => {
                    is_news = true;
                    Instant::now()
                }
            };
            view.link = Link::CutOff { why: why.clone(), since };
        });
        if is_news {
            log::warn!("fleet: cut off from etcd: {why}; what is live goes on");
        }
    }

    /// What etcd should know of this member.
    fn record(&self, view: &View, snapshot: &Snapshot) -> Record {
        let mut record = Record {
            id: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: view.live,
            ready: snapshot.ready,
            refused: view.refused(&self.views.rules).len(),
            trouble: view.trouble.clone(),
            ..Record::default()
        };
        record.set_tables(snapshot);
        record
    }

    /// When there is something to tell; `None`: nothing is new.
    fn next_word(&mut self) -> Option<Instant> {
        let view = self.views.now();
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let record = self.record(&view, &snapshot);
        match &self.told {
            Some((told, when, revision)) => {
                let known = view.members.get(&self.views.member);
                // Unless somebody else has written there, or taken it away. Of what was told a moment ago etcd has not said so yet.
                let is_there = known.is_some_and(|known| known.revision < *revision || known.record == *told);
                (*told != record || !is_there).then(|| *when + WORDS_APART)
            }
            None => Some(Instant::now()),
        }
    }

    /// Tells etcd of this member.
    async fn speak(&mut self, lease: Lease) -> Result<(), EtcdError> {
        let view = self.views.now();
        let member = self.views.member.clone();
        let key = self.views.rules.keys.member(&member);
        let known = view.members.get(&member);
        let rival = known.is_some_and(|known| known.record.id != self.id);
        if rival != self.rival {
            self.rival = rival;
            match rival {
                true => log::error!(
                    "fleet: another member is called {member}, too: `member` in [fleet] has to be another name on each; \
                     until then nobody hears of this one"
                ),
                false => log::info!("fleet: nobody else is called {member} any more"),
            }
        }
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let record = self.record(&view, &snapshot);
        let now = Instant::now();
        if rival {
            // Looked at again later, and then with other eyes.
            self.told = Some((record, now, 0));
            return Ok(());
        }
        let value = serde_json::to_string(&record).map_err(|error| EtcdError::Ours(error.to_string()))?;
        let told = self.told.as_ref().map_or(0, |(_, _, revision)| *revision);
        let revision = known.map_or(0, |known| known.revision).max(told);
        let compare = Compare { key: key.clone(), revision };
        let put = Operation::Put { key, value, lease: Some(lease) };
        self.told = Some(match self.client.transact(&[compare], &[put]).await? {
            Outcome::Done(revision) => (record, now, revision),
            // What has come in between is heard of in a moment.
            Outcome::Lost => (Record::default(), now, 0),
        });
        self.views.change(|view| view.heard = now);
        Ok(())
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A fleet is one again soon after etcd is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(5);
/// Backends that come and go by the hundred are no reason to write as often.
const WORDS_APART: Duration = Duration::from_millis(500);

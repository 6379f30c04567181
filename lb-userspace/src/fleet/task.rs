//! The task: hears of every change in etcd and makes it live, and tells etcd that this member is alive.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{sync::watch, task::JoinHandle, time};

use super::{
    alive::{Heard, keep_alive},
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
        client: Arc::new(Client::new(Arc::clone(&config))),
        snapshots: control.watch(),
        config,
        views,
        kept: Arc::new(kept),
        id,
        join,
        live: None,
        saved: None,
        refused: Vec::new(),
        lease: None,
        told: None,
        words_apart: WORDS_APART,
        heard: Heard::default(),
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
    client: Arc<Client>,
    views: Views,
    kept: Arc<KeptFleet>,
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
    /// Until etcd is told something again.
    words_apart: Duration,
    heard: Heard,
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
        // Failures since etcd was connected to for a while.
        let mut failures = 0;
        loop {
            let Err(End::Failed(error)) = self.follow().await else { return };
            let was_connected = match self.views.now().link {
                Link::Connected { since, .. } if since.elapsed() >= WHILE => {
                    failures = 0;
                    true
                }
                Link::Connected { .. } => true,
                Link::CutOff { .. } => false,
            };
            self.cut_off(&error);
            self.client.turn();
            failures += 1;
            // Whoever else of the cluster is there is asked at once; but no etcd in trouble is asked again and again.
            if was_connected || failures % self.client.endpoints() == 0 {
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
        self.heard.list(&listing.entries);
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
        // Beside all this: whatever takes its time here, the lease goes on.
        let alive = keep_alive(
            Arc::clone(&self.client),
            self.views.clone(),
            lease,
            self.config.ttl,
            self.heard.clone(),
        );
        let mut alive = AbortOnDrop(tokio::spawn(alive));
        let mut retry = time::interval(RETRY);
        retry.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let next_word = self.next_word();
            tokio::select! {
                watched = watch.next() => match watched? {
                    Watched::Began => {}
                    Watched::Changes(events) => self.hear(events, &mut watch).await?,
                    Watched::Compacted => return Err(self.compacted()),
                },
                wrong = &mut alive.0 => {
                    let wrong = wrong.unwrap_or_else(|error| EtcdError::Ours(error.to_string()));
                    if wrong.is_over() {
                        self.lease = None;
                    }
                    return Err(wrong.into());
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

    /// etcd says it once, and nothing more on that watch.
    fn compacted(&self) -> End {
        let why = "its history was compacted meanwhile; looking at everything again".to_owned();
        EtcdError::Broken { endpoint: self.client.endpoint().to_string(), why }.into()
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
    async fn hear(&mut self, events: Vec<Event>, watch: &mut Watch) -> Result<(), End> {
        let Gathered { events, end } = gather(events, || watch.next().now_or_never());
        let rules = Arc::clone(&self.views.rules);
        self.heard.hear(&events);
        let mut services = false;
        self.views.change(|view| services = view.follow(&events, &rules));
        if services {
            self.make_live().await?;
        }
        match end {
            None => Ok(()),
            Some(Ok(())) => Err(self.compacted()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Makes live what etcd has. What is refused stays as it was, and is told.
    async fn make_live(&mut self) -> Result<(), End> {
        let view = self.views.now();
        self.tell_refused(&view);
        let revision = view.book.revision();
        let declared = view.book.declared();
        let checked = view.book.check(&self.views.rules.keys, view.fleet.as_deref());
        if let Err(why) = checked.and_then(|()| not_all_gone(self.live.as_ref(), &declared)) {
            self.trouble(revision, Some(why));
            return Ok(());
        }
        let services = declared.services.len();
        if self.live.as_ref() != Some(&declared) {
            match (self.join)(declared.clone()).await {
                Ok(applied) => applied.warnings.iter().for_each(|warning| log::warn!("{warning}")),
                Err(Rejected::Stopping) => return Err(End::Stopping),
                Err(refused) => {
                    self.trouble(
                        revision,
                        Some(format!("revision {revision} of etcd is refused here: {refused}")),
                    );
                    return Ok(());
                }
            }
            self.live = Some(declared);
        }
        self.views.change(|known| {
            known.live = revision;
            known.live_services = services;
            known.fleet = view.book.id().map(str::to_owned);
        });
        self.trouble(revision, None);
        self.keep(&view.book).await;
        Ok(())
    }

    async fn keep(&mut self, book: &Book) {
        if self.saved.as_ref() == Some(book) {
            return;
        }
        let (kept, rules, saved) = (Arc::clone(&self.kept), Arc::clone(&self.views.rules), book.clone());
        let saving = tokio::task::spawn_blocking(move || kept.save(&saved, &rules)).await;
        match saving.unwrap_or_else(|error| Err(error.to_string())) {
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
    fn trouble(&self, revision: Revision, trouble: Option<String>) {
        if self.views.now().trouble != trouble {
            match &trouble {
                Some(why) => log::error!("fleet: {why}; what ran before goes on"),
                None => log::info!("fleet: what etcd has is live"),
            }
        }
        self.views.change(|view| (view.tried, view.trouble) = (revision, trouble));
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
            key: snapshot.hash_key.map(|key| key.to_string()),
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
                (*told != record || !is_there).then(|| *when + self.words_apart)
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
        let (told, apart) = match self.client.transact(&[compare], &[put]).await {
            Ok(Outcome::Done(revision)) => ((record, now, revision), WORDS_APART),
            // What has come in between is heard of in a moment.
            Ok(Outcome::Lost) => ((Record::default(), now, 0), WORDS_APART),
            // No reason not to listen: etcd has no room, perhaps, or this user may only read.
            Err(EtcdError::Refused { endpoint, message }) => {
                if self.words_apart == WORDS_APART {
                    log::warn!("fleet: nobody hears of this member: {endpoint}: {message}; trying again");
                }
                ((Record::default(), now, 0), (self.words_apart * 2).min(LONGEST_SILENCE))
            }
            Err(error) => return Err(error),
        };
        (self.told, self.words_apart) = (Some(told), apart);
        Ok(())
    }
}

/// Ends a task when nobody waits for it any more.
struct AbortOnDrop(JoinHandle<EtcdError>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Changes that belong together, and how the watch has ended after them, if it has: that it was compacted, or why.
struct Gathered {
    events: Vec<Event>,
    end: Option<Result<(), EtcdError>>,
}

/// Adds what has come meanwhile.
fn gather(mut events: Vec<Event>, mut next: impl FnMut() -> Option<Result<Watched, EtcdError>>) -> Gathered {
    let end = loop {
        match next() {
            None => break None,
            Some(Ok(Watched::Changes(more))) => events.extend(more),
            Some(Ok(Watched::Began)) => {}
            Some(Ok(Watched::Compacted)) => break Some(Ok(())),
            Some(Err(error)) => break Some(Err(error)),
        }
    };
    Gathered { events, end }
}

/// Several services of which none is left were lost, and not removed.
///
/// # Errors
///
/// They are.
fn not_all_gone(live: Option<&Declared>, declared: &Declared) -> Result<(), String> {
    let Some(live) = live.filter(|live| live.services.len() > 1) else { return Ok(()) };
    match declared.services.is_empty() {
        false => Ok(()),
        true => Err(format!(
            "all {} services are gone from etcd at once, which is taken for a loss: `ballast fleet import` brings them back, \
             and `ballast service remove` removes them one by one",
            live.services.len()
        )),
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A fleet is one again soon after etcd is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lasted for so long was a good one.
const WHILE: Duration = Duration::from_secs(10);
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(5);
/// Backends that come and go by the hundred are no reason to write as often.
const WORDS_APART: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{name, service};

    #[test]
    fn changes_are_taken_in_together_and_the_end_of_a_watch_is_not_lost_behind_them() {
        let gone = |key: &str| Event::Deleted { key: key.to_owned() };
        let gathered = |script: Vec<Result<Watched, EtcdError>>| {
            let mut script = script.into_iter();
            gather(vec![gone("a")], move || script.next())
        };
        let Gathered { events, end } = gathered(vec![Ok(Watched::Changes(vec![gone("b")]))]);
        assert_eq!((events, end), (vec![gone("a"), gone("b")], None));
        let Gathered { events, end } =
            gathered(vec![Ok(Watched::Compacted), Ok(Watched::Changes(vec![gone("b")]))]);
        assert_eq!((events, end), (vec![gone("a")], Some(Ok(()))));
        let error = EtcdError::Ours("why".to_owned());
        let Gathered { end, .. } = gathered(vec![Ok(Watched::Began), Err(error.clone())]);
        assert_eq!(end, Some(Err(error)));
    }

    #[test]
    fn services_go_one_by_one_or_are_lost() {
        let of = |names: &[&str]| Declared {
            services: names.iter().map(|one| (name(one), service(one, &[]))).collect(),
            ..Declared::default()
        };
        assert!(not_all_gone(Some(&of(&["a", "b"])), &of(&["a"])).is_ok());
        assert!(not_all_gone(Some(&of(&["a"])), &of(&[])).is_ok());
        assert!(not_all_gone(None, &of(&[])).is_ok());
        // Others took their places while this member was away.
        assert!(not_all_gone(Some(&of(&["a", "b"])), &of(&["c"])).is_ok());
        assert!(not_all_gone(Some(&of(&["a", "b"])), &of(&[])).is_err());
    }
}

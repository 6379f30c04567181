//! The task: hears of every change in etcd and makes it live, and tells etcd that this member is alive.

mod listen;
mod live;
mod permit;
mod read;
mod word;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinHandle, time};

use super::{
    alive::{Heard, bond},
    book::{Book, Declared, Refused, Revision, new_id},
    etcd::{Client, EtcdError, Lease, Watched},
    kept::KeptFleet,
    member::Record,
    permit::Wish,
    view::{Link, Views},
};
use crate::{
    config::FleetConfig,
    control::{Applied, Handle, Rejected, Snapshot},
};

use read::Reader;
use word::WORDS_APART;

/// What the task is started with.
pub struct Settings {
    pub config: Arc<FleetConfig>,
    pub views: Views,
    pub kept: KeptFleet,
    /// What was live before that which is to be made live first.
    pub before: Option<Book>,
    /// What tells this member from another of its name.
    pub id: String,
    pub control: Handle,
    pub join: Arc<Join>,
}

/// Makes what the fleet has agreed on live.
pub type Join = dyn Fn(Declared) -> BoxFuture<'static, Result<Applied, Rejected>> + Send + Sync;

/// Makes live what was kept, and follows the fleet from then on. Ends when the control task does.
pub async fn start(settings: Settings) -> JoinHandle<()> {
    let Settings { config, views, kept, before, id, control, join } = settings;
    let wishes = views.wishes();
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
        boot: new_id(),
        written: 0,
        wishes,
        deed_at: Instant::now(),
    };
    // Where nothing was kept, what an earlier daemon left in the maps goes on until etcd answers.
    if task.views.now().book.head_revision() > 0 {
        // The task finds out by itself that the daemon stops.
        let _ = task.make_live().await;
        if let Some(before) = before.filter(|_| task.live.is_none()) {
            task.views.change(|view| view.book = before);
            let _ = task.make_live().await;
        }
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
    /// What tells this daemon from another one with the same id.
    boot: String,
    /// Revision at which it wrote its sign of life last; 0: it has not.
    written: Revision,
    wishes: watch::Receiver<Wish>,
    /// Before then nothing is done about leave to be off the network.
    deed_at: Instant,
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
            // What was heard just before becomes live all the same.
            let view = self.views.now();
            if view.book.revision() != view.tried && self.make_live().await.is_err() {
                return;
            }
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
        // Whatever is done about what it tells, more is heard meanwhile.
        let endpoint = self.client.endpoint().to_string();
        let reader = Reader::start(watch, endpoint, views, self.heard.clone());
        // What it has is of use whether or not it takes anything.
        self.renew_lease().await?;
        self.connected();
        self.make_live().await?;
        self.listen(reader).await
    }

    /// Goes on with the lease that this member has, or with a new one, or with none where etcd gives none.
    async fn renew_lease(&mut self) -> Result<(), EtcdError> {
        let (asked, ttl) = (Instant::now(), self.config.ttl);
        if let Some(lease) = self.lease
            && self.client.renew(lease).await?
        {
            self.views.change(|view| view.bond = Some(bond(lease, asked, ttl)));
            return Ok(());
        }
        (self.told, self.lease) = (None, None);
        match self.client.grant(ttl).await {
            Ok(lease) => {
                self.lease = Some(lease);
                self.views.change(|view| view.bond = Some(bond(lease, asked, ttl)));
            }
            // It has no room, perhaps, or this user may only read.
            Err(EtcdError::Refused { endpoint, message }) => {
                self.views.change(|view| view.bond = None);
                self.unheard(Some(format!("{endpoint}: {message}")));
            }
            Err(error) => return Err(error),
        }
        Ok(())
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
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A fleet is one again soon after etcd is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lasted for so long was a good one.
const WHILE: Duration = Duration::from_secs(10);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(5);

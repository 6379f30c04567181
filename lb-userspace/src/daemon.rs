//! Wiring and shutdown, and nothing else: what the daemon does is in the rooms it connects.

mod attach;
#[cfg(test)]
mod damaged;
#[cfg(feature = "fleet")]
mod fleet;
pub(crate) mod host;
mod last;
mod manager;
mod peering;
mod privileges;
mod reload;
mod start;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    announce::{self, split_brain},
    api::{self, Api, Reloading},
    boards::Boards,
    capture::Captures,
    config::Config,
    control::{
        self, Command, Handle, InterfaceView,
        store::{FileStore, Store as _},
    },
    dataplane::{
        CaptureLoader, KeyFingerprint, Tracer,
        bpf::BpfDataplane,
        loader::{self, Attachments, Loaded},
        probe_filter::ProbeFilters,
        reconcile::Reconciler,
    },
    discovery::{self, DiscoveryStats},
    domain::DestinationMac,
    explain::Explainer,
    fleet::{Views, kept::KeptFleet},
    health::{self, Links, RealPath},
    neighbour::{self, Frames},
    telemetry::{self, HealthStats, PublishStats, Telemetry},
};

use attach::keep_attached;
use peering::{Introduced, Peering};
use privileges::Privileges;
use reload::Reloader;
use start::Start;

/// Runs the daemon until SIGTERM or SIGINT. Forwarding goes on after it.
pub fn run(config_path: PathBuf) -> anyhow::Result<()> {
    telemetry::logging::init();
    let privileges = Privileges::lay_aside()?;
    let start = Start::choose(&config_path)?;
    privileges.with_all(|| loader::provide_bpffs(&start.config.daemon.pin_dir))??;
    // Capabilities are a thread's own, so this comes before there are others.
    privileges.give_up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let outcome = runtime.block_on(serve(config_path, start));
    // A look at a file system that hangs ends with the process.
    runtime.shutdown_timeout(LAST_WORDS);
    outcome
}

async fn serve(config_path: PathBuf, start: Start) -> anyhow::Result<()> {
    let config = &start.config;
    let mut stop = StopSignals::new()?;
    let hang_up = signal(SignalKind::hangup())?;

    let options = loader_options(config)?;
    let fingerprint = KeyFingerprint::of(options.hash_key);
    let peering = Peering::open(config, options.hash_key)?;
    let Loaded { dataplane, interfaces, adopted, filters, attachments } = loader::start(&options)?;
    log::info!("{}", if adopted { "went on with the pinned maps" } else { "made new maps" });
    let views = attach::views(&interfaces, &attachments);
    let attachments = Arc::new(Mutex::new(attachments));
    let (capture, shared) = (CaptureLoader::new(&options), Arc::clone(&attachments));
    let loading = Loading { capture, attachments: shared, adopted };
    let before = Before { interfaces: views.clone(), fingerprint, peering };
    let wired = wire(config_path, &start, dataplane, filters, before, explainer(options), loading).await;
    let Wired { control, reloader, captures } = match wired {
        Ok(wired) => wired,
        Err(error) => {
            // What an earlier daemon left goes on forwarding; a first start leaves nothing behind.
            if !adopted && let Some(attachments) = Arc::into_inner(attachments) {
                let attachments = attachments.into_inner().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = attachments.abandon() {
                    log::error!("while giving up: {error}");
                }
            }
            return Err(error);
        }
    };
    loader::lock(&attachments).detach_unwanted()?;
    tokio::spawn(keep_attached(attachments, views, control.clone()));
    log::info!("ready");
    manager::ready(&control).await;
    manager::keep_informed(&control);
    tokio::spawn(reload_on(hang_up, reloader, control));

    let reason = stop.recv().await;
    log::info!("{reason}: stopping; forwarding goes on until `ballast detach`");
    manager::stopping().await;
    captures.stop().await;
    // The socket's file would outlive the process and make clients wonder.
    let _ = std::fs::remove_file(&config.daemon.socket);
    Ok(())
}

/// What there is of the data plane, for those who ask it.
struct Loading {
    capture: CaptureLoader,
    attachments: Arc<Mutex<Attachments>>,
    /// Whether its maps were there.
    adopted: bool,
}

/// What is said before anything is published.
struct Before {
    interfaces: Vec<InterfaceView>,
    fingerprint: KeyFingerprint,
    peering: Option<Peering>,
}

/// What runs, as far as it has to be told something later.
struct Wired {
    control: Handle,
    reloader: Arc<Reloader>,
    captures: Arc<Captures>,
}

/// Publishes the configuration and starts everything that lives by it.
async fn wire(
    config_path: PathBuf,
    start: &Start,
    dataplane: BpfDataplane,
    filters: ProbeFilters,
    before: Before,
    explainer: Explainer,
    loading: Loading,
) -> anyhow::Result<Wired> {
    let config = &start.config;
    let flow_news = dataplane.flow_news()?;
    let reconciler = Reconciler::restore(Box::new(dataplane)).context("reading the pinned maps")?;
    let counters = reconciler.counters();
    let (publishes, checks) = (Arc::new(PublishStats::new()), Arc::new(HealthStats::new()));
    let lookups = Arc::new(DiscoveryStats::default());
    let links = Arc::new(Links::new(&config.daemon.interfaces));
    let mut boards = Boards { links: Arc::clone(&links), ..Boards::default() };
    let explainer = Arc::new(explainer);
    let mut store = FileStore::new(&config.daemon.state_dir);
    let mut loaded = store.load().context("reading what the API had made and changed")?;
    if config.fleet.is_some() {
        let joins = !KeptFleet::new(&config.daemon.state_dir).path().exists();
        loaded = store.leave_to_fleet(loaded, joins).context("setting aside what is not the fleet's")?;
    }
    let control = control::start(reconciler, Arc::clone(&publishes), Box::new(store), loaded);

    let reloader = Arc::new(Reloader::new(config_path, config, control.clone()).await?);
    let Before { interfaces, fingerprint, peering } = before;
    control.submit(Command::HashKey(fingerprint)).await?;
    let introduced = match peering {
        Some(peering) => Some(peering.introduce(&control, !loading.adopted).await?),
        None => None,
    };
    boards.peers = introduced.as_ref().map(Introduced::exchange);
    control.submit(Command::Interfaces(interfaces)).await?;
    start.apply(&reloader, &control).await?;
    let edit = match join_fleet(config, &control, &reloader).await? {
        Some((views, edit)) => {
            boards.fleet = Some(views);
            edit
        }
        None => edit_here(&reloader),
    };
    introduced.map(|introduced| introduced.start(flow_news)).transpose()?;

    let listener = api::server::bind(&config.daemon.socket)?;
    let reload: Arc<api::server::Reload> = {
        let reloader = Arc::clone(&reloader);
        Arc::new(move |reloading| {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move { reloader.reload(reloading).await })
        })
    };
    let Loading { capture, attachments, adopted } = loading;
    let host = announce::Host::new(Arc::clone(&attachments), Arc::clone(&explainer), boards.peers.clone());
    let announced = start.announced.as_ref();
    announce::spawn(&control, reloader.announcing(), announced, adopted, host, &boards);
    split_brain::spawn(&control, Arc::clone(&boards.held));
    let captures = Captures::new(capture, attachments, control.clone(), boards.captures.clone());
    let captures = Arc::new(captures);
    let capture: Arc<api::server::Capture> = {
        let captures = Arc::clone(&captures);
        Arc::new(move |request, client| {
            let captures = Arc::clone(&captures);
            Box::pin(async move { captures.start(request, client).await })
        })
    };
    let api = Api {
        control: control.clone(),
        counters: Arc::clone(&counters),
        discovery: Arc::clone(&lookups),
        reload,
        edit,
        capture,
        boards: boards.clone(),
        explainer,
        turn: Arc::default(),
    };
    if let Some(address) = config.daemon.metrics {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("daemon.metrics: can't listen on {address}"))?;
        let telemetry = Telemetry::new(
            control.clone(),
            counters,
            Arc::clone(&checks),
            publishes,
            Arc::clone(&lookups),
            boards,
        );
        let hosts = telemetry::hosts::Hosts::new(&config.daemon.metrics_hosts);
        tokio::spawn(telemetry::server::serve(listener, Arc::new(telemetry), hosts));
    }
    // Dropping what these return does not end them.
    let real_path = RealPath::new(filters).context("asking for routes to VIPs")?;
    health::spawn(control.clone(), checks, real_path, links);
    discovery::spawn(control.watch(), discovery_settings(config, &reloader), lookups);
    let frames = match config.daemon.destination_mac {
        DestinationMac::Own => Frames::Own(config.daemon.interfaces.clone()),
        DestinationMac::Any => Frames::Any,
    };
    neighbour::spawn(control.clone(), frames).await.context("following routes and neighbours")?;
    tokio::spawn(api::server::serve(listener, api));
    Ok(Wired { control, reloader, captures })
}

/// What is known of the fleet, and how its services are changed; `None` where there is none.
#[cfg(feature = "fleet")]
async fn join_fleet(
    config: &Config,
    control: &Handle,
    reloader: &Arc<Reloader>,
) -> anyhow::Result<Option<(Views, Arc<api::server::MakeEdit>)>> {
    let Some(settings) = &config.fleet else { return Ok(None) };
    fleet::join(settings, &config.daemon.state_dir, control, reloader).await.map(Some)
}

/// Without the feature no configuration has a `[fleet]`.
#[cfg(not(feature = "fleet"))]
async fn join_fleet(
    _: &Config,
    _: &Handle,
    _: &Arc<Reloader>,
) -> anyhow::Result<Option<(Views, Arc<api::server::MakeEdit>)>> {
    Ok(None)
}

/// Changes services of this host.
fn edit_here(reloader: &Arc<Reloader>) -> Arc<api::server::MakeEdit> {
    let reloader = Arc::clone(reloader);
    Arc::new(move |edit| {
        let reloader = Arc::clone(&reloader);
        Box::pin(async move { reloader.edit(edit).await })
    })
}

fn discovery_settings(config: &Config, reloader: &Arc<Reloader>) -> discovery::Settings {
    let reloader = Arc::clone(reloader);
    let submit: Arc<discovery::Submit> = Arc::new(move |answers| {
        let reloader = Arc::clone(&reloader);
        Box::pin(async move { reloader.found(answers).await })
    });
    discovery::Settings { config: config.discovery.clone(), own_addresses: host::addresses, submit }
}

fn loader_options(config: &Config) -> anyhow::Result<loader::Options> {
    if config.daemon.interfaces.is_empty() {
        bail!("daemon.interfaces is empty: name the interfaces that clients' packets arrive on");
    }
    Ok(loader::Options {
        pin_dir: config.daemon.pin_dir.clone(),
        interfaces: config.daemon.interfaces.clone(),
        mode: config.daemon.xdp_mode,
        limits: config.limits,
        hash_key: loader::load_or_create_key(&config.flow_hash_key_file)?,
        side_effects: true,
        replicates: config.peers.is_some(),
    })
}

/// Asks the program as it was loaded, on the same maps.
fn explainer(loader::Options { pin_dir, limits, hash_key, .. }: loader::Options) -> Explainer {
    Explainer::new(move || Tracer::load(&pin_dir, limits, hash_key))
}

/// Reloads on each SIGHUP. Nobody waits for the answer, so it is logged.
async fn reload_on(mut hang_up: Signal, reloader: Arc<Reloader>, control: Handle) {
    while hang_up.recv().await.is_some() {
        manager::reloading().await;
        match reloader.reload(Reloading::default()).await {
            Ok(applied) => log::info!(
                "SIGHUP: reloaded, {} changes, revision {}",
                applied.changes.len(),
                applied.revision
            ),
            Err(error) => log::error!("SIGHUP: not reloaded, nothing changed: {error}"),
        }
        manager::ready(&control).await;
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What is under way on threads of its own has so long to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Probes, netlink and clients mostly wait.
const WORKERS: usize = 2;

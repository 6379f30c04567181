//! Looks at this host again and again, and makes the kernel's routes what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::MissedTickBehavior,
};

use super::{
    Board, Host, Reason, Report, VipReport,
    decide::{Decider, Decision, Holds, Standing, wanted},
    facts,
    plan::{OwnRoute, Step, route, steps},
    probe::Probed,
    rival::Rival,
    routes::{RouteError, Routes, device, losses},
};
use crate::{
    boards::Boards,
    config::{AnnounceConfig, RouteSettings},
    control::{Handle, Snapshot},
    explain::ExplainError,
    fleet::{Leave, Views, Wish},
};

/// Announces VIPs as the settings say, from the moment on at which the control task has its services, until it ends.
///
/// `earlier`: the settings that a daemon before this one had, whose routes may be there; `adopted`: its maps are, too.
pub fn spawn(
    control: &Handle,
    settings: watch::Receiver<Option<AnnounceConfig>>,
    earlier: Option<&AnnounceConfig>,
    adopted: bool,
    host: Host,
    boards: &Boards,
) -> JoinHandle<()> {
    let earlier = earlier.and_then(AnnounceConfig::routes).map(|routes| routes.protocol);
    let announcer = Announcer {
        host,
        board: Arc::clone(&boards.announce),
        fleet: boards.fleet.clone(),
        snapshots: control.watch(),
        settings,
        config: None,
        former: earlier.into_iter().collect(),
        adopted,
        routes: None,
        losses: None,
        there: None,
        stale: false,
        decider: None,
        probed: BTreeMap::new(),
        probing: None,
        probe_at: Instant::now(),
        unasked: None,
        refused: BTreeMap::new(),
        rival: Rival::default(),
    };
    tokio::spawn(announcer.run())
}

struct Announcer {
    host: Host,
    board: Arc<Board>,
    /// Who gives leave to be off the network for want of backends; `None`: nobody has to.
    fleet: Option<Views>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    settings: watch::Receiver<Option<AnnounceConfig>>,
    /// Those that hold.
    config: Option<AnnounceConfig>,
    /// Protocol numbers of settings that hold no more, whose routes are to go.
    former: BTreeSet<u8>,
    /// Whether the maps are an earlier daemon's.
    adopted: bool,
    routes: Option<Routes>,
    losses: Option<BoxStream<'static, ()>>,
    /// Own routes, and when they were read.
    there: Option<(BTreeSet<OwnRoute>, Instant)>,
    /// Some may have gone since.
    stale: bool,
    /// Since routes were read for these settings.
    decider: Option<Decider>,
    probed: BTreeMap<IpAddr, Probed>,
    probing: Option<JoinHandle<Outcomes>>,
    probe_at: Instant,
    /// Why the program could not be asked.
    unasked: Option<String>,
    /// VIPs whose route the kernel does not take, and when it is tried again; `None`: at once.
    refused: BTreeMap<IpAddr, (RouteError, Option<Instant>)>,
    rival: Rival,
}

type Outcomes = Result<BTreeMap<IpAddr, Result<(), String>>, ExplainError>;

impl Announcer {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look().await;
            tokio::select! {
                changed = self.snapshots.changed() => if changed.is_err() { return },
                changed = self.settings.changed() => if changed.is_err() { return },
                outcomes = finished(&mut self.probing) => self.note(outcomes),
                lost = next(&mut self.losses) => {
                    self.stale = true;
                    if lost.is_none() {
                        self.losses = None;
                    }
                }
                _ = tick.tick() => {}
            }
        }
    }

    /// Takes up settings that are others than before.
    fn follow_settings(&mut self) {
        let settings = self.settings.borrow_and_update().clone();
        if settings == self.config {
            return;
        }
        let before = std::mem::replace(&mut self.config, settings);
        self.former.extend(before.as_ref().and_then(AnnounceConfig::routes).map(|routes| routes.protocol));
        (self.there, self.losses) = (None, None);
        self.refused.clear();
        if self.config.is_none() {
            self.decider = None;
        }
    }

    /// One turn: what is so, what follows, and the kernel's routes made so.
    async fn look(&mut self) {
        self.follow_settings();
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let config = self.config.clone();
        let Some((config, settings)) = config.as_ref().and_then(|config| Some((config, config.routes()?)))
        else {
            self.board.set(None);
            self.wish(Wish::default());
            if let Err(error) = self.sweep().await {
                log::error!("routes of earlier settings can't be removed: {error}");
            }
            return;
        };
        // Nobody has said yet what the VIPs are: routes stay as an earlier daemon left them.
        if !snapshot.declared {
            self.report(settings, BTreeMap::new(), None);
            return;
        }
        self.probe(&snapshot);
        if let Err(error) = self.read(settings).await {
            self.routes = None;
            self.report(settings, BTreeMap::new(), Some(error.to_string()));
            return;
        }
        let there = self.there.as_ref().map(|(there, _)| there.clone()).unwrap_or_default();
        let holds = Holds { down: config.down_hold, up: config.up_hold };
        let host = self.host.clone();
        // Nothing is known of interfaces where looking at them ends badly.
        let interfaces = tokio::task::spawn_blocking(move || host.interfaces()).await.unwrap_or_default();
        let facts = facts::of(&snapshot, &interfaces, config.carrier, &self.probed, self.host.is_joining());
        // Routes of earlier settings count: VIPs are announced, however that is to be done from now on.
        // But what an earlier daemon announced was by its maps, and new ones have no backends yet.
        let announced = || there.iter().map(|route| route.prefix).filter(|_| self.adopted);
        let decider = self.decider.get_or_insert_with(|| Decider::new(holds, announced()));
        decider.hold(holds);
        let leave = self.fleet.as_ref().map_or(Leave::Granted, Views::leave);
        let Decision { standings, wish } = decider.decide(Instant::now(), &facts, &leave);
        let trouble = self.make(settings, &there, &wanted(&standings)).await;
        // Who is back first, gives up its place then. And what the kernel does not take nobody sees.
        let has_routes = self.there.as_ref().is_some_and(|(there, _)| !there.is_empty());
        self.wish(Wish { announces: wish.announces && (wish.withdrawn || has_routes), ..wish });
        self.report(settings, standings, trouble);
    }

    fn wish(&self, wish: Wish) {
        if let Some(fleet) = &self.fleet {
            fleet.wish(wish);
        }
    }

    /// Removes what settings of earlier times have left, where there are none any more.
    async fn sweep(&mut self) -> Result<(), RouteError> {
        if self.former.is_empty() {
            return Ok(());
        }
        let routes = Routes::new()?;
        for route in routes.list(&self.former).await? {
            routes.remove(route).await?;
            log::info!("the route for {} is removed: VIPs are announced no more", route.prefix);
        }
        self.former.clear();
        Ok(())
    }

    /// Begins to ask the program, if it is time.
    fn probe(&mut self, snapshot: &Arc<Snapshot>) {
        let is_vip = |vip: &IpAddr| snapshot.services.iter().any(|view| view.service.vip.address == *vip);
        self.probed.retain(|vip, _| is_vip(vip));
        let now = Instant::now();
        if self.probing.is_none() && now >= self.probe_at {
            self.probe_at = now + PROBE_INTERVAL;
            let (host, snapshot) = (self.host.clone(), Arc::clone(snapshot));
            self.probing = Some(tokio::task::spawn_blocking(move || host.probe(&snapshot)));
        }
    }

    fn note(&mut self, outcomes: Result<Outcomes, JoinError>) {
        self.probing = None;
        match outcomes {
            Ok(Ok(outcomes)) => {
                self.unasked = None;
                for (vip, outcome) in &outcomes {
                    self.probed.entry(*vip).or_default().note(outcome);
                }
            }
            // That nobody can be asked says nothing of packets.
            Ok(Err(error)) => {
                let error = error.to_string();
                if self.unasked.as_ref() != Some(&error) {
                    log::warn!(
                        "the program can't be asked about VIPs, so that none is announced anew: {error}"
                    );
                }
                self.unasked = Some(error);
            }
            Err(error) => log::error!("asking the program ended: {error}"),
        }
    }

    /// Reads the kernel's routes, if that is due.
    async fn read(&mut self, settings: &RouteSettings) -> Result<(), RouteError> {
        let pause = if self.stale { READ_PAUSE } else { READ_INTERVAL };
        if self.there.as_ref().is_some_and(|(_, at)| at.elapsed() < pause) && self.losses.is_some() {
            return Ok(());
        }
        self.stale = false;
        // Listening comes before asking, so that nothing falls between the two.
        if self.losses.is_none() {
            self.losses = Some(losses(settings.protocol)?);
        }
        let routes = match self.routes.take() {
            Some(routes) => routes,
            None => Routes::new()?,
        };
        let protocols = self.former.iter().copied().chain([settings.protocol]).collect();
        let there = routes.list(&protocols).await?;
        self.there = Some((there, Instant::now()));
        self.routes = Some(routes);
        Ok(())
    }

    /// Makes the routes those for `vips`, each by itself: one that can't be changed keeps no other. Returns what went wrong.
    async fn make(
        &mut self,
        settings: &RouteSettings,
        there: &BTreeSet<OwnRoute>,
        vips: &BTreeSet<IpAddr>,
    ) -> Option<String> {
        let steps = match device(settings.device.as_deref()) {
            Ok(device) => steps(there, &vips.iter().map(|vip| route(*vip, settings, device)).collect()),
            Err(error) => {
                // What is announced stays as it is, and what should not be goes all the same.
                let without = vips.iter().filter(|vip| !there.iter().any(|route| route.prefix == **vip));
                self.refused = without.map(|vip| (*vip, (error.clone(), None))).collect();
                let unwanted = there.iter().filter(|route| !vips.contains(&route.prefix));
                unwanted.copied().map(Step::Remove).collect()
            }
        };
        self.refused
            .retain(|vip, (_, again)| vips.contains(vip) && again.is_none_or(|again| Instant::now() < again));
        let Some(routes) = &self.routes else { return None };
        let Some((known, _)) = &mut self.there else { return None };
        let mut trouble = None;
        for step in steps {
            match step {
                Step::Remove(route) => match routes.remove(route).await {
                    Ok(()) => {
                        known.remove(&route);
                        self.rival.note(route, Instant::now());
                    }
                    Err(error) => trouble = Some(error.to_string()),
                },
                Step::Add(route) if self.refused.contains_key(&route.prefix) => {}
                Step::Add(route) => match routes.add(route).await {
                    Ok(()) => drop(known.insert(route)),
                    Err(error) => {
                        self.refused.insert(route.prefix, (error, Some(Instant::now() + RETRY)));
                    }
                },
            }
        }
        if trouble.is_none() && known.iter().all(|route| route.protocol == settings.protocol) {
            self.former.clear();
        }
        trouble.or_else(|| self.rival.told(Instant::now()))
    }

    fn report(
        &self,
        settings: &RouteSettings,
        standings: BTreeMap<IpAddr, Standing>,
        trouble: Option<String>,
    ) {
        let before = self.board.report();
        let known = self.there.as_ref().map(|(there, _)| there);
        // However it is made: a routing daemon may export it.
        let is_there = |vip| known.is_some_and(|known| known.iter().any(|route| route.prefix == vip));
        let refused = |vip: &IpAddr| self.refused.get(vip).map(|(error, _)| error);
        let vip = |(vip, standing): (IpAddr, Standing)| {
            let kept = match &standing {
                Standing::Kept(why) => Some(why.clone()),
                Standing::Announced | Standing::Not(..) => None,
            };
            let (reason, detail) = match standing {
                Standing::Not(reason, detail) => (Some(reason), detail),
                Standing::Announced | Standing::Kept(_) => match refused(&vip) {
                    Some(RouteError::Exists) => (
                        Some(Reason::ForeignRoute),
                        format!(
                            "somebody else has a route for it in table {} with metric {}, which is left alone",
                            settings.table, settings.metric
                        ),
                    ),
                    Some(error) => (Some(Reason::RouteRefused), error.to_string()),
                    None => (None, String::new()),
                },
            };
            let was = before.as_ref().and_then(|report| report.vips.get(&vip));
            let announced = is_there(vip);
            let since = was.filter(|was| was.announced == announced).map(|was| was.since);
            (vip, VipReport { announced, reason, detail, kept, since: since.unwrap_or_else(Instant::now) })
        };
        let vips = match (&trouble, &before) {
            // Of what can't be read the last that was known is said.
            (Some(_), Some(before)) if standings.is_empty() => before.vips.clone(),
            _ => standings.into_iter().map(vip).collect(),
        };
        self.board.set(Some(Report { routes: settings.clone(), vips, trouble }));
    }
}

/// The end of what may be under way.
async fn finished(probing: &mut Option<JoinHandle<Outcomes>>) -> Result<Outcomes, JoinError> {
    match probing {
        Some(probing) => probing.await,
        None => std::future::pending().await,
    }
}

async fn next(losses: &mut Option<BoxStream<'static, ()>>) -> Option<()> {
    match losses {
        Some(losses) => losses.next().await,
        None => std::future::pending().await,
    }
}

/// A quarter of the shortest hold that makes a difference.
const TICK: Duration = Duration::from_millis(250);
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Whatever happens to routes and links: a list may be long where a host has all of the Internet's.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// Losses are told; this is for those that are not.
const READ_INTERVAL: Duration = Duration::from_secs(60);
/// Before a route that was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

//! Looks at this host again and again, and makes the kernel's routes what follows from it.

mod kernel;
mod prober;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use super::{
    Board, Host,
    decide::{Decider, Decision, Holds, wanted},
    facts,
    plan::OwnRoute,
    rival::Rival,
    routes::{RouteError, Routes},
};
use crate::{
    boards::Boards,
    config::AnnounceConfig,
    control::{Handle, Snapshot},
    fleet::{Leave, Views, Wish},
};
use prober::Prober;

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
        prober: Prober::new(),
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
    prober: Prober,
    /// VIPs whose route the kernel does not take, and when it is tried again; `None`: at once.
    refused: BTreeMap<IpAddr, (RouteError, Option<Instant>)>,
    rival: Rival,
}

impl Announcer {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look().await;
            tokio::select! {
                changed = self.snapshots.changed() => if changed.is_err() { return },
                changed = self.settings.changed() => if changed.is_err() { return },
                outcomes = self.prober.finished() => self.prober.note(outcomes),
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
        self.prober.begin(&self.host, &snapshot);
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
        let mut facts =
            facts::of(&snapshot, &interfaces, config.carrier, self.prober.probed(), self.host.is_joining());
        if let Some(fleet) = &self.fleet {
            let view = fleet.now();
            facts.iter_mut().for_each(|(vip, facts)| facts.lone = view.is_lone(&fleet.member, *vip));
        }
        // Routes of earlier settings count: VIPs are announced, however that is to be done from now on.
        // But what an earlier daemon announced was by its maps, and new ones have no backends yet.
        let announced = || there.iter().map(|route| route.prefix).filter(|_| self.adopted);
        let mut decider = self.decider.take().unwrap_or_else(|| Decider::new(holds, announced()));
        decider.hold(holds);
        let leave = || self.fleet.as_ref().map_or(Leave::Granted, Views::leave);
        let decision = decider.decide_by(Instant::now(), &facts, leave, |decision| self.tell(decision));
        self.decider = Some(decider);
        let trouble = self.make(settings, &there, &wanted(&decision.standings)).await;
        // Who is back first, gives up its place then.
        self.tell(&decision);
        self.report(settings, decision.standings, trouble);
    }

    /// What the kernel does not take nobody sees.
    fn tell(&self, decision: &Decision) {
        let there = self.there.iter().flat_map(|(there, _)| there);
        let there: BTreeSet<_> = there.map(|route| route.prefix).collect();
        self.wish(decision.wish_with(|vip| there.contains(vip)));
    }

    fn wish(&self, wish: Wish) {
        if let Some(fleet) = &self.fleet {
            fleet.wish(wish);
        }
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

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use nix::net::if_::if_nametoindex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Error,
    netlink::{Effect, Netlink, Notifications},
    table::{NeighbourKey, Table, Told},
};
use crate::control::{self, Command, OwnMacs, Rejected, Snapshot};

/// Tells the control task the next hops of the snapshot's backends and the MAC addresses of this host's frames, and every
/// change of them. Ends when the control task does.
///
/// # Errors
///
/// When no netlink socket can be had; trouble that comes later is logged and tried again.
pub async fn spawn(handle: control::Handle, frames: Frames) -> Result<JoinHandle<()>, Error> {
    let follower = Follower::new(handle.watch(), frames)?;
    Ok(tokio::spawn(follower.run(move |command| {
        let handle = handle.clone();
        async move { handle.submit(command).await.map(drop) }
    })))
}

/// Which frames are looked at.
#[derive(Clone, Debug)]
pub enum Frames {
    /// Those for this host, by the interfaces of these names.
    Own(Vec<String>),
    Any,
}

/// The interfaces whose frames are looked at.
#[derive(Debug, Default)]
struct Attached(BTreeSet<u32>);

impl Attached {
    /// Frames for which MAC addresses are this host's; the outer is `None` while nothing is known of any interface.
    fn macs(&mut self, frames: &Frames, table: &Table) -> Option<OwnMacs> {
        let Frames::Own(names) = frames else { return Some(None) };
        if table.links.is_empty() {
            return None;
        }
        // By the kernel's own look-up, which knows alternative names, too. One that was given another name is still attached.
        self.0.extend(names.iter().filter_map(|name| if_nametoindex(name.as_str()).ok()));
        self.0.retain(|index| table.links.contains_key(index));
        Some(table.own_macs(&self.0))
    }
}

struct Follower {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    netlink: Netlink,
    notifications: Notifications,
    table: Table,
    told: Told,
    frames: Frames,
    attached: Attached,
    /// The outer is `None` before anybody was told.
    told_macs: Option<OwnMacs>,
    agenda: Agenda,
    backends: BTreeSet<IpAddr>,
}

impl Follower {
    fn new(snapshots: watch::Receiver<Arc<Snapshot>>, frames: Frames) -> Result<Self, Error> {
        // Listening comes before asking, so that nothing falls between the two.
        let notifications = Netlink::listen()?;
        let netlink = Netlink::new()?;
        Ok(Self {
            snapshots,
            netlink,
            notifications,
            table: Table::default(),
            told: Told::default(),
            frames,
            attached: Attached::default(),
            told_macs: None,
            agenda: Agenda::new(Instant::now()),
            backends: BTreeSet::new(),
        })
    }

    async fn run<F: Future<Output = Result<(), Rejected>>>(mut self, submit: impl Fn(Command) -> F) {
        let mut second = tokio::time::interval(SECOND);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_snapshot();
        loop {
            // Before routes are asked for, which may take a while.
            if !self.tell_macs(&submit).await {
                return;
            }
            if let Err(error) = self.catch_up().await {
                log::error!("next hops may be out of date: {error}");
                self.agenda.retry(Instant::now());
            }
            if !self.tell_macs(&submit).await {
                return;
            }
            let changes = self.told.changes(&self.table);
            if !changes.is_empty() {
                match submit(Command::NextHops(changes.clone())).await {
                    Ok(()) => self.told.accept(changes),
                    Err(Rejected::Stopping) => return,
                    // Still untold: the next turn, a second from now at the latest, tries again.
                    Err(error) => log::error!("{} next hops not applied: {error}", changes.len()),
                }
            }
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow_snapshot();
                }
                notification = self.notifications.next() => match notification {
                    Some(message) => {
                        let effect = self.table.apply(&message);
                        self.agenda.note(effect);
                    }
                    None => self.listen_again().await,
                },
                _ = second.tick() => {}
                () = tokio::time::sleep_until(self.agenda.next()) => {}
            }
            self.drain_notifications();
        }
    }

    /// Tells which frames are this host's, if that is another set than was told; `false` where nobody listens any more.
    async fn tell_macs<F: Future<Output = Result<(), Rejected>>>(
        &mut self,
        submit: &impl Fn(Command) -> F,
    ) -> bool {
        let Some(macs) = self.attached.macs(&self.frames, &self.table) else { return true };
        if self.told_macs.as_ref() == Some(&macs) {
            return true;
        }
        match submit(Command::OwnMacs(macs.clone())).await {
            Ok(()) => self.told_macs = Some(macs),
            Err(Rejected::Stopping) => return false,
            Err(error) => log::error!("MAC addresses of this host not applied: {error}"),
        }
        true
    }

    /// Does what is due: reads what may have changed, asks for what is unresolved or stale.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.agenda.take_resync(now) {
            // What is queued is older than what is read now.
            self.drain_notifications();
            let read = self.netlink.read(&self.backends).await?;
            let before = std::mem::replace(&mut self.table, read);
            self.table.succeed(before);
            self.agenda.routes = false;
        } else if self.agenda.take_routes(now) {
            self.netlink.read_routes(&mut self.table, &self.backends).await?;
        }
        for key in self.agenda.take_due_neighbours(now, &self.table) {
            if let Err(error) = self.netlink.solicit(key).await {
                // An interface that just went away, a table that is full: asked again in a second.
                log::debug!("neighbour {}: {error}", key.1);
            }
        }
        Ok(())
    }

    fn drain_notifications(&mut self) {
        while let Some(Some(message)) = self.notifications.next().now_or_never() {
            let effect = self.table.apply(&message);
            self.agenda.note(effect);
        }
    }

    fn follow_snapshot(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let backends = snapshot.services.iter().flat_map(|view| {
            let leaving = view.leaving.iter().map(|backend| backend.address);
            // They may be left out for the way there.
            let left_out = view.left_out.iter().map(|out| out.address);
            view.backends.iter().map(|backend| backend.address).chain(leaving).chain(left_out)
        });
        let backends = backends.map(|address| address.ip()).collect();
        if self.backends != backends {
            self.backends = backends;
            self.agenda.routes_at_once();
        }
    }

    async fn listen_again(&mut self) {
        log::error!("the netlink connection was lost, opening another");
        tokio::time::sleep(SECOND).await;
        match Netlink::listen().and_then(|notifications| Ok((notifications, Netlink::new()?))) {
            Ok((notifications, netlink)) => (self.notifications, self.netlink) = (notifications, netlink),
            Err(error) => log::error!("{error}"),
        }
        self.agenda.note(Effect { resync: true, routes: false });
    }
}

/// What is due when. Sans-I/O.
#[derive(Debug)]
struct Agenda {
    /// Everything is to be read anew, at this time at the latest.
    resync_at: Instant,
    /// Notifications were lost: what is read next is to be read once more soon after. The kernel reports a loss once,
    /// and goes on dropping silently until the socket's queue has been empty (`NETLINK_S_CONGESTED`).
    read_again: bool,
    /// Routes are to be asked for again, but not before `routes_not_before`.
    routes: bool,
    routes_not_before: Instant,
    /// Entries asked for and when, so that none is asked for more than once a second.
    solicited: Vec<(NeighbourKey, Instant)>,
    stale_at: Instant,
}

impl Agenda {
    fn new(now: Instant) -> Self {
        Self {
            resync_at: now,
            read_again: false,
            routes: false,
            routes_not_before: now,
            solicited: Vec::new(),
            stale_at: now + STALE_INTERVAL,
        }
    }

    fn note(&mut self, effect: Effect) {
        self.routes |= effect.routes;
        if effect.resync {
            self.resync_at = self.routes_not_before.min(self.resync_at);
            self.read_again = true;
        }
    }

    /// The backends changed: their routes can't wait for the pause after the last reading.
    fn routes_at_once(&mut self) {
        self.routes = true;
        self.routes_not_before = self.routes_not_before.min(Instant::now());
    }

    fn retry(&mut self, now: Instant) {
        self.resync_at = now + SECOND;
    }

    /// When to look at the agenda again; unresolved neighbours apart, which wait for the next second.
    fn next(&self) -> Instant {
        if self.routes { self.resync_at.min(self.routes_not_before) } else { self.resync_at }
    }

    fn take_resync(&mut self, now: Instant) -> bool {
        let due = now >= self.resync_at;
        if due {
            let again = std::mem::take(&mut self.read_again);
            self.resync_at = now + if again { READ_AGAIN_AFTER } else { RESYNC_INTERVAL };
            self.routes_not_before = now + ROUTES_PAUSE;
        }
        due
    }

    fn take_routes(&mut self, now: Instant) -> bool {
        let due = self.routes && now >= self.routes_not_before;
        if due {
            self.routes = false;
            self.routes_not_before = now + ROUTES_PAUSE;
        }
        due
    }

    /// The unresolved entries, each once a second and at once when it is new, and now and then the stale ones.
    fn take_due_neighbours(&mut self, now: Instant, table: &Table) -> Vec<NeighbourKey> {
        self.solicited.retain(|(_, asked)| now.saturating_duration_since(*asked) < SOLICIT_PAUSE);
        let recent: BTreeSet<_> = self.solicited.iter().map(|(key, _)| *key).collect();
        let mut due = table.unresolved();
        if now >= self.stale_at {
            self.stale_at = now + STALE_INTERVAL;
            due.extend(table.stale());
        }
        let due: Vec<_> = due.difference(&recent).copied().collect();
        self.solicited.extend(due.iter().map(|&key| (key, now)));
        due
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// A little less than the second in which the loop comes round.
const SOLICIT_PAUSE: Duration = Duration::from_millis(900);
/// Well under the 30 s after which the kernel takes an entry for stale and the 60 s after which it may forget it.
const STALE_INTERVAL: Duration = Duration::from_secs(15);
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);
/// More than it takes to empty the socket's queue.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A routing daemon changes many routes at a time; the backends' are looked up at most ten times a second.
const ROUTES_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::{
        super::table::{Link, Neighbour, Route},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table(neighbour: Option<Neighbour>) -> (Table, NeighbourKey) {
        let key = (1, ip("10.0.0.9"));
        let mut table = Table::default();
        table.links.insert(1, Link { mac: Some([2; 6]), mtu: 1500, up: true, ..Link::default() });
        table.routes.insert(key.1, Some(Route { interface: 1, gateway: None, source: None, mtu: None }));
        table.neighbours.extend(neighbour.map(|neighbour| (key, neighbour)));
        (table, key)
    }

    #[test]
    fn lost_notifications_mean_reading_everything_at_once_and_once_more() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        assert!(agenda.take_resync(start));
        assert!(!agenda.take_resync(start + Duration::from_secs(29)));
        assert!(agenda.take_resync(start + Duration::from_secs(30)));

        let later = start + Duration::from_secs(31);
        agenda.note(Effect { resync: true, routes: false });
        assert!(agenda.take_resync(later));
        assert!(!agenda.take_resync(later));
        // A socket that overruns all the time does not make for reading all the time.
        agenda.note(Effect { resync: true, routes: false });
        assert!(!agenda.take_resync(later + ROUTES_PAUSE / 2));
        assert!(agenda.take_resync(later + ROUTES_PAUSE));
        // What was lost silently after the report.
        let again = later + ROUTES_PAUSE + READ_AGAIN_AFTER;
        assert!(!agenda.take_resync(again - Duration::from_millis(1)));
        assert!(agenda.take_resync(again));
        assert!(!agenda.take_resync(again + Duration::from_secs(29)));
    }

    #[test]
    fn many_route_changes_are_one_question_in_a_while() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        let changed = Effect { routes: true, resync: false };
        assert!(!agenda.take_routes(start));
        agenda.note(changed);
        assert!(agenda.take_routes(start));
        agenda.note(changed);
        agenda.note(Effect::default());
        assert!(!agenda.take_routes(start + ROUTES_PAUSE / 2));
        assert!(agenda.take_routes(start + ROUTES_PAUSE));
        assert!(!agenda.take_routes(start + 2 * ROUTES_PAUSE));
    }

    #[test]
    fn unresolved_neighbours_are_asked_for_at_once_and_each_second() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        let failed = Neighbour { failed: true, ..Neighbour::default() };
        for (round, neighbour) in [None, Some(failed), None].into_iter().enumerate() {
            let now = start + round as u32 * SECOND;
            let (table, key) = table(neighbour);
            assert_eq!(agenda.take_due_neighbours(now, &table), [key]);
            assert_eq!(agenda.take_due_neighbours(now + SECOND / 2, &table), []);
        }
        let (table, _) = table(Some(Neighbour { mac: Some([2; 6]), ..Neighbour::default() }));
        assert_eq!(agenda.take_due_neighbours(start + 9 * SECOND, &table), []);
    }

    #[test]
    fn stale_neighbours_are_confirmed_now_and_then() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        let (table, key) = table(Some(Neighbour { mac: Some([2; 6]), stale: true, failed: false }));
        let asked: Vec<_> = (0..60u32)
            .filter(|&at| !agenda.take_due_neighbours(start + at * SECOND, &table).is_empty())
            .collect();
        assert_eq!(asked, [15, 30, 45]);
        assert_eq!(agenda.take_due_neighbours(start + 60 * SECOND, &table), [key]);
    }
}

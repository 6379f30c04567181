use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    DiscoveryStats,
    file::{Looked, SETTLING, Stamp},
    lookup::{Lookup, Round},
};
use crate::{
    config::{DiscoveryConfig, watched},
    control::{FoundBackends, ServiceView, SourceView},
    domain::{Admin, Backend, DnsName, Found, Name, Origin, Service, Source, name_of},
};

/// What is to be looked up for whom, when, and what that means for the services. Sans-I/O: time is whatever monotonic `now`
/// the caller passes.
pub(super) struct Agenda {
    rules: DiscoveryConfig,
    stats: Arc<DiscoveryStats>,
    names: BTreeMap<Arc<str>, NameState>,
    files: BTreeMap<Arc<PathBuf>, FileState>,
    members: Vec<Member>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Ask { host: Arc<str>, families: [bool; 2] },
    Look { path: Arc<PathBuf>, known: Option<Stamp> },
}

/// A source of a service.
struct Member {
    service: Name,
    source: Source,
    /// Families that a backend of the service may have: IPv4, IPv6.
    families: [bool; 2],
    /// What the control task knows.
    known: Found,
}

/// When something is to be looked at next.
#[derive(Clone, Copy)]
struct Turn {
    due: Duration,
    under_way: bool,
}

struct NameState {
    lookup: Lookup,
    families: [bool; 2],
    /// Whether there was an answer that is more than what the control task knows.
    answered: bool,
    turn: Turn,
}

struct FileState {
    stamp: Option<Stamp>,
    /// What it held when it was last right.
    backends: Option<Found>,
    /// Why it can't be read.
    unreadable: Option<String>,
    turn: Turn,
}

impl Agenda {
    pub(super) fn new(rules: DiscoveryConfig, stats: Arc<DiscoveryStats>) -> Self {
        Self { rules, stats, names: BTreeMap::new(), files: BTreeMap::new(), members: Vec::new() }
    }

    /// Makes the services these.
    pub(super) fn follow(&mut self, now: Duration, services: &[ServiceView]) {
        self.members.clear();
        for view in services {
            let service = &*view.service;
            let families = families(service);
            self.members.extend(view.sources.iter().map(|SourceView { source, backends }| Member {
                service: service.name.clone(),
                source: source.clone(),
                families,
                known: Arc::clone(backends),
            }));
        }
        self.stats.follow(self.members.iter().map(|of| (of.service.clone(), of.source.clone())));
        let mut names = std::mem::take(&mut self.names);
        let mut files = std::mem::take(&mut self.files);
        for member in &self.members {
            match &member.source {
                Source::File(path) => {
                    let state = files.remove(path).unwrap_or_else(|| FileState::new(now));
                    self.files.entry(Arc::clone(path)).or_insert(state);
                }
                Source::Dns(DnsName { host, .. }) => {
                    let state = names.remove(host).map(|state| NameState { families: [false; 2], ..state });
                    let new = || NameState::new(now, self.known(host), &self.rules);
                    if !self.names.contains_key(host) {
                        let state = state.unwrap_or_else(new);
                        self.names.insert(Arc::clone(host), state);
                    }
                    if let Some(state) = self.names.get_mut(host) {
                        let wanted = [0, 1].map(|family| state.families[family] || member.families[family]);
                        state.families = wanted;
                    }
                }
            }
        }
    }

    /// Directories of the files.
    pub(super) fn directories(&self) -> BTreeSet<PathBuf> {
        self.files.keys().filter_map(|path| path.parent()).map(PathBuf::from).collect()
    }

    /// Something happened in these directories.
    pub(super) fn changed(&mut self, now: Duration, directories: &BTreeSet<PathBuf>) {
        for (path, state) in &mut self.files {
            if path.parent().is_some_and(|parent| directories.contains(parent)) {
                state.turn.due = state.turn.due.min(now);
            }
        }
    }

    /// When there is something to do; `None` while nothing is to be done, or as much as may be is under way.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let names = next(self.names.values().map(|state| state.turn), MOST_QUESTIONS);
        let files = next(self.files.values().map(|state| state.turn), MOST_LOOKS);
        names.into_iter().chain(files).min()
    }

    /// Something that is due. It is under way until it is finished.
    pub(super) fn start(&mut self, now: Duration) -> Option<Job> {
        let is_due = |due: &Duration| *due <= now;
        let is_next = |turn: Turn, due: Duration| !turn.under_way && turn.due == due;
        if let Some(due) = next(self.names.values().map(|state| state.turn), MOST_QUESTIONS).filter(is_due) {
            let (host, state) = self.names.iter_mut().find(|(_, state)| is_next(state.turn, due))?;
            state.turn.under_way = true;
            return Some(Job::Ask { host: Arc::clone(host), families: state.families });
        }
        let due = next(self.files.values().map(|state| state.turn), MOST_LOOKS).filter(is_due)?;
        let (path, state) = self.files.iter_mut().find(|(_, state)| is_next(state.turn, due))?;
        // What happens to it from now on is another change.
        state.turn = Turn { due: Duration::MAX, under_way: true };
        Some(Job::Look { path: Arc::clone(path), known: state.stamp })
    }

    /// What the DNS said. `own`: addresses of this host.
    pub(super) fn asked(&mut self, now: Duration, host: &str, round: Round, own: &HashSet<IpAddr>) {
        let Some(state) = self.names.get_mut(host) else { return };
        let taken = state.lookup.take(round, own, &self.rules);
        state.answered |= taken.counts;
        state.turn = Turn { due: now + taken.wait, under_way: false };
        for member in &self.members {
            let Source::Dns(name) = &member.source else { continue };
            if *name.host != *host {
                continue;
            }
            let (service, source) = (&member.service, &member.source);
            match (&taken.trouble, state.backends(name, member.families).is_empty()) {
                (Some(trouble), _) if !taken.good => self.stats.failed(service, source, trouble.clone()),
                // Of several services that ask for it.
                (_, true) => self.stats.failed(service, source, NONE_FITS.to_owned()),
                (trouble, false) => self.stats.good(service, source, trouble.clone()),
            }
        }
    }

    /// What a look at a file showed.
    pub(super) fn looked(&mut self, now: Duration, path: &Arc<PathBuf>, looked: Looked) {
        let Some(state) = self.files.get_mut(path) else { return };
        let wait = if looked == Looked::Unsettled { SETTLING } else { LOOK_INTERVAL };
        state.turn = Turn { due: state.turn.due.min(now + wait), under_way: false };
        let outcome = match looked {
            Looked::Unsettled => return,
            Looked::Same => {
                state.unreadable = None;
                None
            }
            Looked::Failed(why) if state.unreadable.as_ref() == Some(&why) => return,
            Looked::Failed(why) => {
                // When it is back it is read, as it may be what it was.
                state.stamp = None;
                state.unreadable = Some(why.clone());
                Some(Err(why))
            }
            Looked::Text { stamp, text } => {
                (state.stamp, state.unreadable) = (Some(stamp), None);
                match watched::read(path, text, self.rules.max_backends) {
                    Ok(backends) => {
                        state.backends = Some(Arc::new(backends));
                        Some(Ok(()))
                    }
                    Err(diagnostics) => Some(Err(diagnostics.to_string())),
                }
            }
        };
        for Member { service, source, .. } in &self.members {
            if !matches!(source, Source::File(of) if of == path) {
                continue;
            }
            match &outcome {
                None => self.stats.still_good(service, source),
                Some(Ok(())) => self.stats.good(service, source, None),
                Some(Err(why)) => self.stats.failed(service, source, why.clone()),
            }
        }
    }

    /// What the control task doesn't know yet.
    pub(super) fn news(&self) -> Vec<FoundBackends> {
        let news = self.members.iter().filter_map(|member| {
            let backends = match &member.source {
                Source::File(path) => self.files.get(path)?.backends.clone()?,
                Source::Dns(name) => {
                    let state = self.names.get(&name.host).filter(|state| state.answered)?;
                    Arc::new(state.backends(name, member.families))
                }
            };
            let is_news = !backends.is_empty() && backends != member.known;
            let (service, source) = (member.service.clone(), member.source.clone());
            is_news.then_some(FoundBackends { service, source, backends })
        });
        news.collect()
    }

    /// What the control task knows of a name.
    fn known(&self, host: &str) -> BTreeSet<IpAddr> {
        let of =
            self.members.iter().filter(|of| matches!(&of.source, Source::Dns(name) if *name.host == *host));
        of.flat_map(|of| of.known.values()).map(|backend| backend.address.ip()).collect()
    }
}

/// When the next of these is due, unless `most` of them are under way.
fn next(turns: impl Iterator<Item = Turn>, most: usize) -> Option<Duration> {
    let (mut under_way, mut due) = (0, None);
    for turn in turns {
        match turn.under_way {
            true => under_way += 1,
            false => due = Some(due.map_or(turn.due, |known: Duration| known.min(turn.due))),
        }
    }
    due.filter(|_| under_way < most)
}

impl NameState {
    fn new(now: Duration, known: BTreeSet<IpAddr>, rules: &DiscoveryConfig) -> Self {
        let lookup = Lookup::knowing(known.into_iter(), rules);
        let turn = Turn { due: now, under_way: false };
        Self { lookup, families: [false; 2], answered: false, turn }
    }

    /// Backends of a service, whose weight and such are the configuration's to say.
    fn backends(&self, name: &DnsName, [v4, v6]: [bool; 2]) -> BTreeMap<Name, Backend> {
        let fit = self.lookup.addresses().filter(|address| if address.is_ipv4() { v4 } else { v6 });
        let backend = |address: IpAddr| {
            let address = SocketAddr::new(address, name.port);
            let origin = Origin::Dns(name.clone());
            let backend = Backend {
                name: name_of(address),
                address,
                weight: 1,
                backup: false,
                admin: Admin::Active,
                origin,
            };
            (backend.name.clone(), backend)
        };
        fit.map(backend).collect()
    }
}

impl FileState {
    fn new(now: Duration) -> Self {
        Self { stamp: None, backends: None, unreadable: None, turn: Turn { due: now, under_way: false } }
    }
}

/// Families of which packets of the service can be forwarded to a backend.
fn families(service: &Service) -> [bool; 2] {
    let of_vip = service.vip.address.is_ipv4();
    if service.forwarding.tunnels() { [true, true] } else { [of_vip, !of_vip] }
}

/// Names that are asked for at a time, each with a descriptor. Files are looked at whoever is waited for.
const MOST_QUESTIONS: usize = 8;
const MOST_LOOKS: usize = 4;
const NONE_FITS: &str = "it has no address of the service's family";
/// Between two looks at a file of which the kernel says nothing: not every file system tells, and a link may lead elsewhere.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;

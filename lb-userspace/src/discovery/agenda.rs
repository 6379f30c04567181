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
    /// Those of the latest question.
    asked: Option<[bool; 2]>,
    /// What its answer was.
    heard: Option<Heard>,
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
    heard: Option<Heard>,
    turn: Turn,
}

/// The latest answer of a source, for services that join those that have it.
struct Heard {
    at: Duration,
    good: bool,
    trouble: Option<String>,
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
        let new = self.stats.follow(self.members.iter().map(|of| (of.service.clone(), of.source.clone())));
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
        for state in self.names.values_mut().filter(|state| !state.has_asked(state.families)) {
            state.turn.due = state.turn.due.min(now);
        }
        for member in self.members.iter().filter(|of| new.contains(&(of.service.clone(), of.source.clone())))
        {
            match &member.source {
                Source::File(path) => self.tell_file(now, member, self.files.get(path)),
                Source::Dns(name) => self.tell_name(now, member, name, self.names.get(&name.host)),
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
            state.asked = Some(state.families);
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
        let wait = if state.has_asked(state.families) { taken.wait } else { Duration::ZERO };
        state.turn = Turn { due: now + wait, under_way: false };
        state.heard = Some(Heard { at: now, good: taken.good, trouble: taken.trouble });
        let state = self.names.get(host);
        for member in &self.members {
            match &member.source {
                Source::Dns(name) if *name.host == *host => self.tell_name(now, member, name, state),
                _ => {}
            }
        }
    }

    /// Tells how a name is doing for one of its services.
    fn tell_name(&self, now: Duration, member: &Member, name: &DnsName, state: Option<&NameState>) {
        // Of families that nobody asked for yet nothing is known.
        let Some(state) = state.filter(|state| state.has_asked(member.families)) else { return };
        let Some(heard) = &state.heard else { return };
        let (service, source) = (&member.service, &member.source);
        match (&heard.trouble, state.backends(name, member.families).is_empty()) {
            (Some(trouble), _) if !heard.good => self.stats.failed(service, source, trouble.clone()),
            // Of several services that ask for it.
            (_, true) => self.stats.failed(service, source, NONE_FITS.to_owned()),
            (trouble, false) => {
                self.stats.good(service, source, trouble.clone(), now.saturating_sub(heard.at))
            }
        }
    }

    fn tell_file(&self, now: Duration, Member { service, source, .. }: &Member, state: Option<&FileState>) {
        match state.and_then(|state| state.heard.as_ref()) {
            Some(Heard { trouble: Some(why), .. }) => self.stats.failed(service, source, why.clone()),
            Some(heard) => self.stats.good(service, source, None, now.saturating_sub(heard.at)),
            None => {}
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
                Some(Some(why))
            }
            Looked::Text { stamp, text } => {
                (state.stamp, state.unreadable) = (Some(stamp), None);
                match watched::read(path, text, self.rules.max_backends) {
                    Ok(backends) => {
                        state.backends = Some(Arc::new(backends));
                        Some(None)
                    }
                    Err(diagnostics) => Some(Some(diagnostics.to_string())),
                }
            }
        };
        let is_news = outcome.is_some();
        match (outcome, &mut state.heard) {
            (Some(trouble), heard) => *heard = Some(Heard { at: now, good: trouble.is_none(), trouble }),
            (None, Some(heard)) if heard.good => heard.at = now,
            (None, _) => {}
        }
        let state = self.files.get(path);
        for member in &self.members {
            match &member.source {
                Source::File(of) if of == path && is_news => self.tell_file(now, member, state),
                Source::File(of) if of == path => self.stats.still_good(&member.service, &member.source),
                _ => {}
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
        Self { lookup, families: [false; 2], asked: None, heard: None, answered: false, turn }
    }

    /// Whether the latest question, if there was any, was for these families.
    fn has_asked(&self, families: [bool; 2]) -> bool {
        let for_all =
            |asked: [bool; 2]| families.into_iter().zip(asked).all(|(wanted, asked)| asked || !wanted);
        self.asked.is_none_or(for_all)
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
        let turn = Turn { due: now, under_way: false };
        Self { stamp: None, backends: None, unreadable: None, heard: None, turn }
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

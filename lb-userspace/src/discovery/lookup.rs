//! What the answers of the DNS for one name do to the set of its addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use crate::{config::DiscoveryConfig, domain::unusable};

/// What the DNS said to one round of questions: for A records and for AAAA records, where they were asked.
pub(super) type Round = [Option<Asked>; 2];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Addresses {
        addresses: BTreeSet<IpAddr>,
        ttl: Duration,
    },
    /// There is no such name, or it has no address of the family.
    Nothing(&'static str),
    /// And why.
    Failed(String),
}

/// What a round meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whether everything that was asked was answered, and with an address.
    pub(super) good: bool,
    /// Whether there was an address at all.
    pub(super) counts: bool,
    pub(super) trouble: Option<String>,
    /// Until the next round.
    pub(super) wait: Duration,
}

/// The addresses of a name. One that an answer leaves out stays for some answers more: a server may hand out a part of what
/// it has at a time. One that comes back after it had gone stays longer the next time.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    present: BTreeMap<IpAddr, Presence>,
    gone: BTreeMap<IpAddr, Departed>,
    failures: u32,
    rounds: u64,
}

#[derive(Clone, Copy, Debug)]
struct Presence {
    /// Answers in a row without it.
    misses: u32,
    /// With so many it goes.
    patience: u32,
    /// Answers in a row with it.
    hits: u32,
}

#[derive(Clone, Copy, Debug)]
struct Departed {
    patience: u32,
    round: u64,
}

impl Lookup {
    /// With what an earlier process had found.
    pub(super) fn knowing(addresses: impl Iterator<Item = IpAddr>, rules: &DiscoveryConfig) -> Self {
        let present = addresses.map(|address| (address, Presence::new(rules.forget_after))).collect();
        Self { present, ..Self::default() }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.present.keys().copied()
    }

    /// `own`: addresses of this host.
    pub(super) fn take(&mut self, round: Round, own: &HashSet<IpAddr>, rules: &DiscoveryConfig) -> Taken {
        let mut said = Said::default();
        let [v4, v6] = round.map(|asked| said.read(asked, own));
        let count = [&v4, &v6].into_iter().flatten().map(BTreeSet::len).sum::<usize>();
        if count > rules.max_backends as usize {
            let limit = rules.max_backends;
            return self
                .fail(format!("it has {count} addresses, and `discovery.max_backends` is {limit}"), rules);
        }
        if count == 0 {
            return self.fail(said.trouble().unwrap_or_default(), rules);
        }
        self.rounds += 1;
        for (seen, of_v4) in [(v4, true), (v6, false)] {
            if let Some(seen) = seen {
                self.see(&seen, of_v4, rules);
            }
        }
        self.make_room(rules);
        if said.failed {
            return Taken { counts: true, ..self.fail(said.trouble().unwrap_or_default(), rules) };
        }
        self.failures = 0;
        let wait = said.ttl.unwrap_or(rules.min_ttl).clamp(rules.min_ttl, rules.max_ttl);
        Taken { good: true, counts: true, trouble: said.refused(), wait }
    }

    fn fail(&mut self, trouble: String, rules: &DiscoveryConfig) -> Taken {
        let doubled = rules.min_ttl.saturating_mul(1 << self.failures.min(10));
        self.failures += 1;
        let longest = rules.max_ttl.min(LONGEST_RETRY).max(rules.min_ttl);
        Taken { good: false, counts: false, trouble: Some(trouble), wait: doubled.min(longest) }
    }

    /// An answer for one family.
    fn see(&mut self, seen: &BTreeSet<IpAddr>, of_v4: bool, rules: &DiscoveryConfig) {
        for &address in seen {
            let gone = self.gone.remove(&address);
            let patience = gone.map_or(rules.forget_after, |gone| {
                gone.patience.saturating_mul(2).min(rules.forget_after.saturating_mul(MOST_PATIENCE))
            });
            self.present.entry(address).or_insert(Presence::new(patience)).hit(rules.forget_after);
        }
        let missed = self.present.iter_mut().filter(|(address, _)| address.is_ipv4() == of_v4);
        for (_, presence) in missed.filter(|(address, _)| !seen.contains(address)) {
            presence.misses += 1;
            presence.hits = 0;
        }
        let tired = self.present.iter().filter(|(_, of)| of.misses >= of.patience);
        for address in tired.map(|(address, _)| *address).collect::<Vec<_>>() {
            self.let_go(address);
        }
    }

    /// Those that were not seen for the longest go first.
    fn make_room(&mut self, rules: &DiscoveryConfig) {
        let over = self.present.len().saturating_sub(rules.max_backends as usize);
        let mut missed: Vec<_> = self.present.iter().map(|(address, of)| (of.misses, *address)).collect();
        missed.sort_unstable_by(|a, b| b.cmp(a));
        for (_, address) in missed.into_iter().take(over) {
            self.let_go(address);
        }
        while self.gone.len() > MOST_GONE * rules.max_backends as usize {
            let oldest = self.gone.iter().min_by_key(|(_, of)| of.round).map(|(address, _)| *address);
            oldest.and_then(|address| self.gone.remove(&address));
        }
    }

    fn let_go(&mut self, address: IpAddr) {
        if let Some(Presence { patience, .. }) = self.present.remove(&address) {
            self.gone.insert(address, Departed { patience, round: self.rounds });
        }
    }
}

impl Presence {
    fn new(patience: u32) -> Self {
        Self { misses: 0, patience, hits: 0 }
    }

    /// One that is there each time needs no more patience than any other.
    fn hit(&mut self, least: u32) {
        self.misses = 0;
        self.hits += 1;
        if self.hits >= self.patience.saturating_mul(STEADY) {
            self.hits = 0;
            self.patience = (self.patience / 2).max(least);
        }
    }
}

/// What there is to say of a round.
#[derive(Default)]
struct Said {
    ttl: Option<Duration>,
    failed: bool,
    troubles: Vec<String>,
    /// Addresses that can't be backends.
    unfit: Vec<String>,
}

impl Said {
    /// The addresses that can be backends; `None` where there was no answer.
    fn read(&mut self, asked: Option<Asked>, own: &HashSet<IpAddr>) -> Option<BTreeSet<IpAddr>> {
        match asked? {
            Asked::Addresses { addresses, ttl } => {
                self.ttl = Some(self.ttl.map_or(ttl, |known| known.min(ttl)));
                let mut fit = addresses;
                fit.retain(|address| match unfit(*address, own) {
                    None => true,
                    Some(why) => {
                        self.unfit.push(format!("{address} can't be a backend: {why}"));
                        false
                    }
                });
                Some(fit)
            }
            Asked::Nothing(why) => {
                self.troubles.push(why.to_owned());
                Some(BTreeSet::new())
            }
            Asked::Failed(why) => {
                self.failed = true;
                self.troubles.push(why);
                None
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        let mut all = self.troubles.clone();
        all.dedup();
        all.extend(self.refused());
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Of many only the first few.
    fn refused(&self) -> Option<String> {
        let (shown, more) = self.unfit.split_at(self.unfit.len().min(MOST_TOLD));
        let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
        (!shown.is_empty()).then(|| format!("{}{more}", shown.join("; ")))
    }
}

fn unfit(address: IpAddr, own: &HashSet<IpAddr>) -> Option<&'static str> {
    unusable(address).or_else(|| own.contains(&address).then_some("it is an address of this host"))
}

/// Of `forget_after`.
const MOST_PATIENCE: u32 = 64;
/// Times its patience in a row, and an address needs half of it.
const STEADY: u32 = 8;
/// Addresses remembered that have gone, of as many as may be there.
const MOST_GONE: usize = 4;
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const MOST_TOLD: usize = 3;

#[cfg(test)]
mod tests;

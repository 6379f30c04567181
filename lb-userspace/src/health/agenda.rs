use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    Outcome,
    machine::{Machine, Transition, next_check},
    real_path::Way,
};
use crate::{
    control::HealthReport,
    domain::{Health, HealthCheck, Name, Probe},
};

/// Which backend a verdict is for. Another address is another backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) service: Name,
    pub(super) backend: Name,
    pub(super) address: SocketAddr,
}

/// A backend that is to be checked.
pub(super) struct Wanted {
    pub(super) key: Key,
    /// What the control task knows of it.
    pub(super) health: Health,
    pub(super) check: HealthCheck,
    /// Of a check over the real path.
    pub(super) way: Option<Way>,
}

/// What one check asks, and whom, and by which way. Backends of several services with the same subject share its checks;
/// a way is one service's alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) address: SocketAddr,
    pub(super) check: HealthCheck,
    pub(super) way: Option<Way>,
}

/// Number of a check while it is wanted; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CheckId(u64);

/// Who is checked, how and when. Sans-I/O: time is whatever monotonic `now` the caller passes.
pub(super) struct Agenda {
    members: HashMap<Key, Member>,
    checks: HashMap<CheckId, Check>,
    by_subject: HashMap<Arc<Subject>, CheckId>,
    /// The checks that are not under way, by when they are due.
    due: BTreeSet<(Duration, CheckId)>,
    next_id: u64,
    /// How many of the checks have not been made once.
    first_checks: usize,
    random: fastrand::Rng,
}

/// A backend of a service.
struct Member {
    /// `None`: not checked.
    check: Option<CheckId>,
    machine: Machine,
    /// The last verdict that was told of it.
    last: Option<HealthReport>,
    /// Checks in a row that could not be made.
    skipped: u32,
    /// Why not, once it was told.
    excuse: Option<String>,
}

impl Member {
    fn new(health: Health, rise: u32, fall: u32) -> Self {
        let machine = Machine::new(health, rise, fall);
        Self { check: None, machine, last: None, skipped: 0, excuse: None }
    }
}

struct Check {
    subject: Arc<Subject>,
    members: Vec<Key>,
    /// When it is due, or was if it is under way.
    due: Duration,
    under_way: bool,
    /// It has been made once.
    made: bool,
    /// It was under way when it was to be made anew, and has not ended since.
    void: bool,
}

impl Agenda {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self {
            members: HashMap::new(),
            checks: HashMap::new(),
            by_subject: HashMap::new(),
            due: BTreeSet::new(),
            next_id: 0,
            first_checks: 0,
            random,
        }
    }

    /// Makes the backends those of `wanted`, and returns what there is to say of them already. What was observed of
    /// a backend stays when its check changes.
    pub(super) fn follow(&mut self, now: Duration, wanted: Vec<Wanted>) -> Vec<HealthReport> {
        let mut reports = Vec::new();
        let mut new = Vec::new();
        let mut previous = std::mem::take(&mut self.members);
        for check in self.checks.values_mut() {
            check.members.clear();
        }
        for Wanted { key, health, check, way } in wanted {
            let (rise, fall) = (check.rise, check.fall);
            let known = previous.remove(&key).filter(|member| member.check.is_some());
            let checked = check.probe != Probe::None;
            let is_new = known.is_none();
            let mut member = match known {
                Some(known) if checked => known,
                _ => Member::new(health, rise, fall),
            };
            if checked {
                member.machine.set_thresholds(rise, fall);
                let id = self.check(Subject { address: key.address, check, way }, now, &mut new);
                if is_new {
                    self.hurry(id, &mut new);
                }
                member.check = Some(id);
                if let Some(check) = self.checks.get_mut(&id) {
                    check.members.push(key.clone());
                }
                // The backend was taken away and given back between two snapshots, say: what is known of it still
                // holds, and no new transition would tell.
                reports.extend(member.last.clone().filter(|last| last.health != health));
            } else if health != Health::Healthy {
                let to = Transition { to: Health::Healthy, detail: "not checked".to_owned() };
                reports.push(report(&key, to));
            }
            self.members.insert(key, member);
        }
        self.drop_unwanted();
        self.spread(now, &new);
        reports
    }

    /// Whether the backend is one to check.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.members.contains_key(key)
    }

    /// Service and name of every backend.
    pub(super) fn names(&self) -> HashSet<(&Name, &Name)> {
        self.members.keys().map(|key| (&key.service, &key.backend)).collect()
    }

    /// Whether some of the checks have not been made once.
    pub(super) fn awaits_first_checks(&self) -> bool {
        self.first_checks > 0
    }

    /// Makes the next checks of backends without a verdict those of new ones: what kept them from one is over. Returns
    /// those that were under way, and are made anew: how they end is nobody's business any more. One that takes longer than
    /// from one such moment to the next ends all the same.
    pub(super) fn hurry_unknown(&mut self, now: Duration) -> HashSet<CheckId> {
        let unknown =
            |key: &Key| self.members.get(key).is_some_and(|of| of.machine.health() == Health::Unknown);
        // A service's are made one after the other, for its first table does not wait for those of other services.
        let new: BTreeSet<_> = self
            .checks
            .iter()
            .filter(|(_, check)| check.members.iter().any(unknown))
            .filter_map(|(&id, check)| Some((check.members.first()?.service.clone(), id)))
            .collect();
        let mut new: Vec<_> = new.into_iter().map(|(_, id)| id).collect();
        let mut void = HashSet::new();
        new.retain(|id| {
            let Some(check) = self.checks.get_mut(id) else { return false };
            self.first_checks += usize::from(std::mem::replace(&mut check.made, false));
            if self.due.remove(&(check.due, *id)) {
                return true;
            }
            if std::mem::replace(&mut check.void, true) {
                return false;
            }
            check.under_way = false;
            void.insert(*id)
        });
        self.spread(now, &new);
        void
    }

    /// When the next check is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Takes the check that has been due the longest. It is under way until [`Self::finished`].
    pub(super) fn start(&mut self, now: Duration) -> Option<(CheckId, Arc<Subject>)> {
        let &(due, id) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, id));
        let check = self.checks.get_mut(&id)?;
        check.under_way = true;
        Some((id, Arc::clone(&check.subject)))
    }

    /// Whether the check is one of those that are wanted still.
    pub(super) fn wants(&self, id: CheckId) -> bool {
        self.checks.contains_key(&id)
    }

    /// Takes the outcome of a check that ended at `now` and sets the time of the next. Returns the transitions of the
    /// backends it was made for.
    pub(super) fn finished(&mut self, id: CheckId, now: Duration, outcome: &Outcome) -> Vec<HealthReport> {
        self.ended(id, now, outcome, true)
    }

    /// The same, but nobody has a first verdict by it.
    pub(super) fn finished_early(
        &mut self,
        id: CheckId,
        now: Duration,
        outcome: &Outcome,
    ) -> Vec<HealthReport> {
        self.ended(id, now, outcome, false)
    }

    fn ended(
        &mut self,
        id: CheckId,
        now: Duration,
        outcome: &Outcome,
        with_first: bool,
    ) -> Vec<HealthReport> {
        let Some(check) = self.checks.get_mut(&id) else { return Vec::new() };
        if !std::mem::replace(&mut check.made, true) {
            self.first_checks -= 1;
        }
        let mut reports = Vec::new();
        let mut interval = Duration::MAX;
        for key in &check.members {
            let Some(member) = self.members.get_mut(key) else { continue };
            let is_told = with_first || member.machine.health() != Health::Unknown;
            let transition = is_told.then(|| member.machine.observe(now, outcome.clone())).flatten();
            if let Some(transition) = transition {
                let report = report(key, transition);
                member.excuse = None;
                member.last = Some(report.clone());
                reports.push(report);
            }
            interval = interval.min(check.subject.check.interval_at(member.machine.pace()));
        }
        // Counted from when the check was due, so that waiting for a socket or a slow answer lengthens no interval.
        check.due = (check.due + next_check(interval, self.random.f64())).max(now);
        (check.under_way, check.void) = (false, false);
        self.due.insert((check.due, id));
        reports
    }

    /// What there is to say of backends whose verdict stays: that checks of them can't be made, after as many in a row as
    /// would make a verdict; and what the first found that could, and spoke for the verdict.
    pub(super) fn remarks(&mut self, id: CheckId, outcome: &Outcome) -> Vec<HealthReport> {
        let Some(check) = self.checks.get(&id) else { return Vec::new() };
        let fall = check.subject.check.fall;
        let mut remarks = Vec::new();
        for key in &check.members {
            let Some(member) = self.members.get_mut(key) else { continue };
            let detail = match (outcome, member.machine.health()) {
                (Outcome::Skipped { detail }, _) => {
                    member.skipped = member.skipped.saturating_add(1);
                    if member.skipped < fall || member.excuse.as_ref() == Some(detail) {
                        continue;
                    }
                    member.excuse = Some(detail.clone());
                    format!("can't be checked: {detail}")
                }
                (Outcome::Passed { detail }, Health::Healthy)
                | (Outcome::Failed { detail }, Health::Unhealthy)
                | (Outcome::Ineligible { detail }, Health::Ineligible) => {
                    member.skipped = 0;
                    if member.excuse.take().is_none() {
                        continue;
                    }
                    detail.clone()
                }
                _ => {
                    member.skipped = 0;
                    continue;
                }
            };
            remarks.push(report(key, Transition { to: member.machine.health(), detail }));
        }
        remarks
    }

    /// The check of `subject`, made if there is none.
    fn check(&mut self, subject: Subject, now: Duration, new: &mut Vec<CheckId>) -> CheckId {
        if let Some(&id) = self.by_subject.get(&subject) {
            return id;
        }
        let id = CheckId(self.next_id);
        self.next_id += 1;
        let subject = Arc::new(subject);
        self.by_subject.insert(Arc::clone(&subject), id);
        self.checks.insert(
            id,
            Check { subject, members: Vec::new(), due: now, under_way: false, made: false, void: false },
        );
        self.first_checks += 1;
        new.push(id);
        id
    }

    /// Makes the next time of a check like that of a new one: whoever joins it has no verdict to wait with.
    fn hurry(&mut self, id: CheckId, new: &mut Vec<CheckId>) {
        let Some(check) = self.checks.get(&id) else { return };
        // One that is under way ends soon, and the time of a new one is set with the others'.
        if self.due.remove(&(check.due, id)) {
            new.push(id);
        }
    }

    fn drop_unwanted(&mut self) {
        let (by_subject, due, first_checks) = (&mut self.by_subject, &mut self.due, &mut self.first_checks);
        self.checks.retain(|&id, check| {
            if check.members.is_empty() {
                by_subject.remove(&check.subject);
                due.remove(&(check.due, id));
                *first_checks -= usize::from(!check.made);
            }
            !check.members.is_empty()
        });
    }

    /// Sets the first time of new checks: soon, but evenly over the shortest time in which each comes once, so that
    /// thousands of backends make no burst, neither now nor when the second checks begin.
    fn spread(&mut self, now: Duration, new: &[CheckId]) {
        for (position, id) in (0u32..).zip(new) {
            let Some(check) = self.checks.get_mut(id) else { continue };
            let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
            check.due = now + check.subject.check.first_checks_gap(count) * position;
            self.due.insert((check.due, *id));
        }
    }
}

fn report(key: &Key, transition: Transition) -> HealthReport {
    let Key { service, backend, address } = key.clone();
    HealthReport { service, backend, address, health: transition.to, detail: transition.detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str, backend: &str, number: u16) -> Key {
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from(([10, 0, high, low], 80));
        Key { service: service.parse().unwrap(), backend: backend.parse().unwrap(), address }
    }

    fn wanted(key: &Key, health: Health, check: &HealthCheck) -> Wanted {
        Wanted { key: key.clone(), health, check: check.clone(), way: None }
    }

    fn agenda() -> Agenda {
        Agenda::new(fastrand::Rng::with_seed(7))
    }

    fn passed() -> Outcome {
        Outcome::Passed { detail: "connected".into() }
    }

    fn failed() -> Outcome {
        Outcome::Failed { detail: "refused".into() }
    }

    /// Runs until `end`, each check taking `takes` and ending as `outcome` says; the times at which they began.
    fn run(
        agenda: &mut Agenda,
        mut now: Duration,
        end: Duration,
        takes: Duration,
        outcome: impl Fn(SocketAddr, Duration) -> Outcome,
    ) -> Vec<(Duration, Vec<HealthReport>)> {
        let mut under_way: BTreeSet<(Duration, CheckId)> = BTreeSet::new();
        let mut of = HashMap::new();
        let mut starts = Vec::new();
        loop {
            let ends = under_way.first().map(|&(at, _)| at);
            let Some(next) = agenda.next_due().into_iter().chain(ends).min() else { return starts };
            now = now.max(next);
            if now > end {
                return starts;
            }
            if let Some(&(at, id)) = under_way.first().filter(|(at, _)| *at <= now) {
                under_way.remove(&(at, id));
                let reports = agenda.finished(id, now, &outcome(of[&id], now));
                starts.push((now.saturating_sub(takes), reports));
            } else if let Some((id, subject)) = agenda.start(now) {
                under_way.insert((now + takes, id));
                of.insert(id, subject.address);
            }
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_checks_of_two_thousand_backends_from_cold_make_no_burst() {
        for fails in [false, true] {
            let check = HealthCheck::default();
            let mut agenda = agenda();
            let backends = (0..2_000).map(|number| key("web", &format!("b{number}"), number));
            let all = backends.map(|key| wanted(&key, Health::Unknown, &check)).collect();
            assert_eq!(agenda.follow(Duration::ZERO, all), []);
            let answer = |_, _| if fails { failed() } else { passed() };
            let starts = run(&mut agenda, Duration::ZERO, 20 * SECOND, Duration::from_millis(3), answer);
            let mut windows = [0u32; 200];
            for (at, _) in &starts {
                windows[usize::try_from(at.as_millis() / 100).unwrap().min(199)] += 1;
            }
            let mean = starts.len() as f64 / 200.0;
            let most = windows.iter().max().copied().unwrap();
            assert!(f64::from(most) <= 2.0 * mean, "{most} in 100 ms, {mean} on average: {windows:?}");
            // Each was checked within the first interval.
            assert!(windows[..20].iter().sum::<u32>() >= 2_000);
        }
    }

    #[test]
    fn a_backend_that_joins_a_check_does_not_wait_for_its_next_turn() {
        let check = HealthCheck { interval: 600 * SECOND, ..HealthCheck::default() };
        let of = |service| wanted(&key(service, "x", 1), Health::Unknown, &check);
        let mut agenda = agenda();
        agenda.follow(Duration::ZERO, vec![of("a")]);
        let starts = |agenda: &mut Agenda, from: Duration| {
            run(agenda, from, from + SECOND, Duration::ZERO, |_, _| passed()).len()
        };
        assert_eq!(starts(&mut agenda, Duration::ZERO), 1);
        agenda.follow(10 * SECOND, vec![of("a"), of("b")]);
        assert_eq!(starts(&mut agenda, 10 * SECOND), 1);
        agenda.follow(20 * SECOND, vec![of("a"), of("b")]);
        assert_eq!(starts(&mut agenda, 20 * SECOND), 0, "nobody is new");
    }

    #[test]
    fn who_has_no_verdict_is_checked_at_once_when_that_may_help() {
        let check = HealthCheck { interval: 600 * SECOND, ..HealthCheck::default() };
        let of = |name, number, health| wanted(&key("web", name, number), health, &check);
        let mut agenda = agenda();
        let all = vec![of("a", 1, Health::Unknown), of("b", 2, Health::Healthy), of("c", 3, Health::Unknown)];
        agenda.follow(Duration::ZERO, all);
        let starts = |agenda: &mut Agenda, now: Duration| {
            let started: Vec<_> = std::iter::from_fn(|| agenda.start(now)).collect();
            let skipped = Outcome::Skipped { detail: "no link".into() };
            for (id, _) in &started {
                agenda.finished(*id, now, &skipped);
            }
            started.into_iter().map(|(_, subject)| subject.address.ip().to_string()).collect::<BTreeSet<_>>()
        };
        assert_eq!(starts(&mut agenda, SECOND).len(), 3);
        assert_eq!(starts(&mut agenda, 300 * SECOND).len(), 0);
        agenda.hurry_unknown(300 * SECOND);
        let unknown = ["10.0.0.1", "10.0.0.3"].map(str::to_owned);
        assert_eq!(starts(&mut agenda, 301 * SECOND), unknown.into());
    }

    /// All backends of several services, whose checks were made once, said nothing, and come in any order from now on.
    fn held_once(services: &[&str], backends: u16) -> (Agenda, Duration) {
        let check = HealthCheck { interval: 10 * SECOND, ..HealthCheck::default() };
        let mut agenda = agenda();
        let all = (0u16..).zip(services).flat_map(|(service, name)| {
            (0..backends).map(move |number| key(name, &format!("b{number}"), service * backends + number))
        });
        agenda.follow(Duration::ZERO, all.map(|key| wanted(&key, Health::Unknown, &check)).collect());
        let skipped = |_, _| Outcome::Skipped { detail: "no link".into() };
        let starts = run(&mut agenda, Duration::ZERO, 6 * SECOND, Duration::ZERO, skipped);
        assert_eq!(starts.len(), services.len() * usize::from(backends));
        (agenda, 6 * SECOND)
    }

    #[test]
    fn who_is_checked_at_once_is_checked_beside_the_others_of_its_service_and_told_with_them() {
        let (mut agenda, now) = held_once(&["a", "b", "c", "d"], 20);
        assert!(!agenda.awaits_first_checks());
        assert_eq!(agenda.hurry_unknown(now), HashSet::new());
        assert!(agenda.awaits_first_checks());
        let starts = run(&mut agenda, now, now + 2 * SECOND, Duration::ZERO, |_, _| passed());
        let told = starts.iter().flat_map(|(_, reports)| reports);
        let mut services: Vec<_> = told.map(|report| report.service.as_str()).collect();
        assert_eq!(services.len(), 80);
        services.dedup();
        assert_eq!(services, ["a", "b", "c", "d"]);
        assert!(!agenda.awaits_first_checks());
    }

    #[test]
    fn a_check_that_is_early_says_nothing_of_whom_there_is_no_verdict() {
        let check = HealthCheck { rise: 1, ..HealthCheck::default() };
        let mut agenda = agenda();
        let all = [("a", Health::Unknown), ("b", Health::Unhealthy)];
        let all = all.map(|(service, health)| wanted(&key(service, "x", 1), health, &check));
        agenda.follow(Duration::ZERO, all.into());
        let (id, _) = agenda.start(SECOND).unwrap();
        let services = |reports: Vec<HealthReport>| {
            reports.into_iter().map(|report| report.service.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(services(agenda.finished_early(id, SECOND, &passed())), ["b"]);
        agenda.hurry_unknown(2 * SECOND);
        let (id, _) = agenda.start(2 * SECOND).unwrap();
        assert_eq!(services(agenda.finished(id, 2 * SECOND, &passed())), ["a"]);
    }

    #[test]
    fn a_check_under_way_is_made_anew_when_it_may_help() {
        let (mut agenda, now) = held_once(&["a"], 2);
        let (id, _) = agenda.start(20 * SECOND).unwrap();
        assert_eq!(agenda.hurry_unknown(now), [id].into());
        let starts = run(&mut agenda, now, now + SECOND, Duration::ZERO, |_, _| passed());
        assert_eq!(starts.len(), 2);
        assert!(!agenda.awaits_first_checks());
    }

    #[test]
    fn a_check_that_takes_longer_than_the_link_stays_comes_to_its_end() {
        let (mut agenda, now) = held_once(&["a"], 1);
        let (id, _) = agenda.start(20 * SECOND).unwrap();
        assert_eq!(agenda.hurry_unknown(now), [id].into());
        assert_eq!(agenda.start(now + SECOND).unwrap().0, id);
        assert_eq!(agenda.hurry_unknown(now + SECOND), HashSet::new());
        assert_eq!((agenda.next_due(), agenda.awaits_first_checks()), (None, true));
        assert_eq!(agenda.finished(id, now + 2 * SECOND, &passed()).len(), 1);
        assert!(!agenda.awaits_first_checks());
    }

    /// Whenever a backend dies, and however long its checks take to fail.
    #[test]
    fn a_dead_backend_is_told_after_at_most_fall_intervals_and_a_timeout() {
        for seed in 0..200 {
            let fast_interval = (seed % 2 == 0).then(|| Duration::from_millis(300));
            let check = HealthCheck { fast_interval, ..HealthCheck::default() };
            let mut agenda = Agenda::new(fastrand::Rng::with_seed(seed));
            let backend = key("web", "a", 1);
            agenda.follow(Duration::ZERO, vec![wanted(&backend, Health::Healthy, &check)]);
            let dies = SECOND + Duration::from_millis(17 * seed);
            let takes = check.timeout;
            let answer = |_, now: Duration| if now - takes >= dies { failed() } else { passed() };
            let starts = run(&mut agenda, Duration::ZERO, 30 * SECOND, takes, answer);
            let told = starts.iter().find(|(_, reports)| !reports.is_empty()).unwrap().0 + takes;
            let limit = check.interval * check.fall + check.timeout;
            assert!(told - dies <= limit, "{:?} of {limit:?}", told - dies);
            if let Some(fast) = fast_interval {
                // The first failure comes after at most an interval; from then on a check ends each timeout.
                assert!(told - dies <= check.interval + check.timeout * check.fall.max(1) + fast);
            }
        }
    }

    #[test]
    fn the_interval_follows_the_verdict() {
        let check = HealthCheck {
            interval: 10 * SECOND,
            fast_interval: Some(SECOND),
            down_interval: Some(60 * SECOND),
            ..HealthCheck::default()
        };
        let mut agenda = agenda();
        agenda.follow(Duration::ZERO, vec![wanted(&key("web", "a", 1), Health::Healthy, &check)]);
        let mut now = Duration::ZERO;
        let mut step = |outcome: Outcome| {
            let (id, _) = agenda.start(now).unwrap();
            agenda.finished(id, now, &outcome);
            let waits = agenda.next_due().unwrap() - now;
            now = agenda.next_due().unwrap();
            waits.as_secs_f64()
        };
        let is = |waits: f64, interval: f64| assert!((0.8 * interval..=interval).contains(&waits), "{waits}");
        is(step(passed()), 10.0);
        is(step(failed()), 1.0);
        is(step(failed()), 1.0);
        is(step(failed()), 60.0);
        is(step(passed()), 1.0);
        is(step(passed()), 10.0);
        is(step(Outcome::Ineligible { detail: String::new() }), 10.0);
        is(step(passed()), 1.0);
    }

    #[test]
    fn one_check_serves_the_same_backend_in_many_services() {
        let check = HealthCheck::default();
        let other = HealthCheck { port: Some(81), ..check.clone() };
        let (a, b, c) = (key("web", "a", 1), key("api", "x", 1), key("admin", "y", 1));
        let mut agenda = agenda();
        let all = vec![
            wanted(&a, Health::Unknown, &check),
            wanted(&b, Health::Healthy, &check),
            wanted(&c, Health::Unknown, &other),
        ];
        agenda.follow(Duration::ZERO, all);
        let (first, _) = agenda.start(SECOND).unwrap();
        let (second, _) = agenda.start(SECOND).unwrap();
        assert!(agenda.start(SECOND).is_none());
        // Each backend has a verdict of its own all the same.
        let reports = agenda.finished(first, SECOND, &passed());
        assert_eq!(reports.iter().map(|report| report.service.as_str()).collect::<Vec<_>>(), ["web"]);
        // What is no longer wanted is forgotten, under way or not.
        agenda.follow(SECOND, vec![wanted(&b, Health::Healthy, &check)]);
        assert!(agenda.wants(first) && !agenda.wants(second));
        assert_eq!(agenda.finished(second, SECOND, &failed()), []);
        assert_eq!((agenda.knows(&a), agenda.knows(&b)), (false, true));
    }

    #[test]
    fn checks_by_the_way_of_traffic_are_each_services_own() {
        let check = HealthCheck::default();
        let (a, b) = (key("web", "a", 1), key("api", "a", 1));
        let way = |index| Some(Way { vip: "203.0.113.10".parse().unwrap(), index, tunnels: false });
        let mut agenda = agenda();
        let all = [(&a, way(7)), (&b, way(8))]
            .map(|(key, way)| Wanted { way, ..wanted(key, Health::Unknown, &check) });
        agenda.follow(Duration::ZERO, all.into());
        let ways: Vec<_> =
            std::iter::from_fn(|| agenda.start(SECOND)).map(|(_, subject)| subject.way).collect();
        assert_eq!(ways, [way(7), way(8)]);
    }

    #[test]
    fn a_backend_that_can_not_be_checked_says_why_until_it_can() {
        let check = HealthCheck { fall: 3, ..HealthCheck::default() };
        let mut agenda = agenda();
        agenda.follow(Duration::ZERO, vec![wanted(&key("web", "a", 1), Health::Healthy, &check)]);
        let (id, _) = agenda.start(SECOND).unwrap();
        let mut said = |outcome: &Outcome| {
            let remarks = agenda.remarks(id, outcome);
            assert_eq!(agenda.finished(id, SECOND, outcome), [], "no verdict changes");
            remarks.into_iter().map(|remark| (remark.health, remark.detail)).collect::<Vec<_>>()
        };
        let skipped = |why: &str| Outcome::Skipped { detail: why.into() };
        // One for want of a descriptor is nothing to talk about.
        assert_eq!(said(&skipped("no route")), []);
        assert_eq!(said(&passed()), []);
        for _ in 0..2 {
            assert_eq!(said(&skipped("no route")), []);
        }
        let told = |detail: &str| vec![(Health::Healthy, detail.to_owned())];
        assert_eq!(said(&skipped("no route")), told("can't be checked: no route"));
        assert_eq!(said(&skipped("no route")), []);
        assert_eq!(said(&skipped("no filter")), told("can't be checked: no filter"));
        assert_eq!(said(&failed()), [], "one failure says nothing yet");
        assert_eq!(said(&passed()), told("connected"));
        assert_eq!(said(&passed()), []);
    }

    #[test]
    fn first_checks_are_awaited_until_each_was_made_or_is_wanted_no_more() {
        let check = HealthCheck::default();
        let (a, b) = (key("web", "a", 1), key("web", "b", 2));
        let mut agenda = agenda();
        assert!(!agenda.awaits_first_checks());
        let both = || vec![wanted(&a, Health::Unknown, &check), wanted(&b, Health::Unknown, &check)];
        agenda.follow(Duration::ZERO, both());
        let (id, _) = agenda.start(SECOND).unwrap();
        assert!(agenda.awaits_first_checks());
        agenda.finished(id, SECOND, &passed());
        assert!(agenda.awaits_first_checks());
        agenda.follow(SECOND, vec![wanted(&a, Health::Healthy, &check)]);
        assert!(!agenda.awaits_first_checks());
        agenda.follow(SECOND, both());
        let (id, _) = agenda.start(2 * SECOND).unwrap();
        agenda.finished(id, 2 * SECOND, &failed());
        let (id, _) = agenda.start(10 * SECOND).unwrap();
        agenda.finished(id, 10 * SECOND, &passed());
        assert!(!agenda.awaits_first_checks());
    }

    #[test]
    fn what_was_observed_outlives_a_changed_check() {
        let check = HealthCheck { fall: 3, ..HealthCheck::default() };
        let a = key("web", "a", 1);
        let mut agenda = agenda();
        agenda.follow(Duration::ZERO, vec![wanted(&a, Health::Healthy, &check)]);
        for second in [0, 10] {
            let (id, _) = agenda.start(SECOND * second).unwrap();
            assert_eq!(agenda.finished(id, SECOND * second, &failed()), []);
        }
        let changed = HealthCheck { port: Some(81), ..check };
        agenda.follow(11 * SECOND, vec![wanted(&a, Health::Healthy, &changed)]);
        let (id, _) = agenda.start(11 * SECOND).unwrap();
        assert_eq!(agenda.finished(id, 11 * SECOND, &failed()).len(), 1);
    }
}

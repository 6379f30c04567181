//! When which fault strikes what: made from a seed, by rules about what may happen at once. Pure.
//!
//! 1. One load balancer at a time is struck, until all is as it was: the others carry the traffic. (While a daemon does
//!    not run, nobody takes over what the others know of flows.)
//! 2. Two backends at a time, at the most, are out, so that most are not.
//! 3. Nothing is struck twice at a time.
//! 4. When a backend dies, is taken out of service or comes back, every daemon runs: one that does not sees no death, and
//!    can't be told.
//! 5. When services are changed etcd has a majority: without one it is tried, and has to be refused.

use std::time::Duration;

use super::fault::{Fault, Kind, Place, Target};

/// Kinds of faults, each as often as it is there, that happen in random order before any happens again.
#[derive(Debug, Clone)]
pub(super) struct Deck {
    kinds: Vec<Kind>,
    /// Of these one is in each deck, each in turn.
    deaths: Vec<Kind>,
    /// Mean time between the begins of two faults.
    every: Duration,
}

/// How many there are to be struck.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) balancers: u16,
    /// Declared ones.
    pub(super) backends: u16,
}

/// Out at a time.
const OUT: usize = 2;
/// Before the first fault.
const CALM: Duration = Duration::from_secs(3);
/// After a change or a death, what it needs is there for so long; and has been there before it.
const MOMENT: Duration = Duration::from_secs(3);
/// How exactly a fault that does not fit yet is put off.
const STEP: Duration = Duration::from_millis(250);
/// A fault that does not fit for so long is left out.
const PATIENCE: Duration = Duration::from_secs(60);

const DEATHS: [Kind; 4] = [Kind::WebKilled, Kind::BackendUnplugged, Kind::LiveKilled, Kind::WebHangs];

impl Deck {
    /// Twenty-four faults, one of them a backend's death, in three minutes.
    pub(super) fn steady() -> Self {
        let counts = [
            (Kind::DaemonKilled, 2),
            (Kind::DaemonStopped, 1),
            (Kind::BirdKilled, 1),
            (Kind::BalancerCut, 2),
            (Kind::BalancerFlaps, 2),
            (Kind::BalancerServiced, 1),
            (Kind::BackendFlaps, 2),
            (Kind::BackendServiced, 1),
            (Kind::BackendAdded, 1),
            (Kind::BackendRemoved, 2),
            (Kind::Weight, 2),
            (Kind::Reload, 2),
            (Kind::EtcdKilled, 1),
            (Kind::EtcdLeaderKilled, 1),
            (Kind::EtcdMajorityKilled, 1),
            (Kind::BalancerAlone, 1),
        ];
        let kinds = counts.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
        Self { kinds: kinds.collect(), deaths: DEATHS.to_vec(), every: Duration::from_millis(7_800) }
    }

    fn shuffled(&self, number: usize, random: &mut fastrand::Rng) -> Vec<Kind> {
        let mut kinds = self.kinds.clone();
        random.shuffle(&mut kinds);
        // A death takes its time, and a short storm is to have it, too.
        if let Some(death) = self.deaths.get(number % self.deaths.len().max(1)) {
            kinds.insert(random.usize(..kinds.len() / 2), *death);
        }
        kinds
    }
}

/// The plan for a storm of this length: the same from the same seed.
pub(super) fn generate(seed: u64, length: Duration, mut deck: Deck, size: Size) -> Vec<Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    random.shuffle(&mut deck.deaths);
    let mut faults: Vec<Fault> = Vec::new();
    let mut due = CALM;
    for number in 0.. {
        for kind in deck.shuffled(number, &mut random) {
            if due >= length {
                faults.sort_by_key(|fault| fault.begins);
                return faults;
            }
            faults.extend(place(kind, due, length, size, &faults, &mut random));
            // Half to one and a half of the mean.
            due += deck.every.mul_f64(0.5 + random.f64());
        }
    }
    faults
}

/// At the first moment at which it fits.
fn place(
    kind: Kind,
    due: Duration,
    length: Duration,
    size: Size,
    faults: &[Fault],
    random: &mut fastrand::Rng,
) -> Option<Fault> {
    let nature = kind.nature();
    let mut targets: Vec<_> = match nature.place {
        Place::Balancer => (0..size.balancers).map(Target::Balancer).collect(),
        Place::Backend => (0..size.backends).map(Target::Backend).collect(),
        Place::Spare => vec![Target::Spare],
        Place::Etcd => vec![Target::Etcd],
        Place::Balancers => vec![Target::Balancers],
    };
    random.shuffle(&mut targets);
    let lasts = Duration::from_millis(random.u64(nature.lasts.0..=nature.lasts.1));
    let mut begins = due;
    while begins < due + PATIENCE {
        let ends = begins + lasts;
        let settled = ends + Duration::from_millis(nature.settles);
        let at = |target: &Target| Fault { kind, target: *target, begins, ends, settled };
        // At the end all has to be as it was, too.
        let mut candidates = targets.iter().map(at).filter(|fault| fault.settled <= length);
        if let Some(fault) = candidates.find(|fault| fits(fault, faults)) {
            return Some(fault);
        }
        begins += STEP;
    }
    None
}

/// Whether the rules allow a fault beside the others.
fn fits(new: &Fault, others: &[Fault]) -> bool {
    let nature = new.kind.nature();
    let beside: Vec<_> = others
        .iter()
        .filter(|other| overlap((new.begins, new.settled), (other.begins, other.settled)))
        .collect();
    let one_balancer = nature.place != Place::Balancer
        || beside.iter().all(|other| other.kind.nature().place != Place::Balancer);
    let once = beside.iter().all(|other| other.target != new.target);
    let out = beside.iter().filter(|other| other.kind.nature().takes_out).count();
    let few_out = !nature.takes_out || out < OUT;
    let there = beside.iter().all(|other| {
        [(new, *other), (*other, new)].into_iter().all(|(needing, taking)| {
            let (needs, takes) = (needing.kind.nature(), taking.kind.nature());
            let is_in_the_way =
                needs.needs_daemons && takes.stops_daemon || needs.changes && takes.no_majority;
            !(is_in_the_way && meet(needing, taking))
        })
    });
    one_balancer && once && few_out && there
}

/// Whether what the first fault needs when it begins and ends may be away then by the second one.
fn meet(needing: &Fault, taking: &Fault) -> bool {
    [needing.begins, needing.ends, needing.settled].into_iter().any(|moment| {
        overlap((moment.saturating_sub(MOMENT), moment + MOMENT), (taking.begins, taking.settled))
    })
}

fn overlap(one: (Duration, Duration), other: (Duration, Duration)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: Size = Size { balancers: 3, backends: 8 };
    const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

    fn plan(seed: u64) -> Vec<Fault> {
        generate(seed, HALF_AN_HOUR, Deck::steady(), SIZE)
    }

    #[test]
    fn the_same_seed_makes_the_same_plan_and_another_one_another() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    /// Looks at every tenth of a second, as one would who watches.
    #[test]
    fn no_moment_has_more_faults_than_the_rules_allow() {
        for seed in 0..20 {
            let faults = plan(seed);
            for tenths in 0..18_000 {
                let now = Duration::from_millis(tenths * 100);
                let current: Vec<_> =
                    faults.iter().filter(|fault| fault.begins <= now && now <= fault.settled).collect();
                let count = |is: &dyn Fn(&Fault) -> bool| current.iter().filter(|fault| is(fault)).count();
                assert!(
                    count(&|fault| fault.kind.nature().place == Place::Balancer) <= 1,
                    "{seed}: {current:?}"
                );
                assert!(count(&|fault| fault.kind.nature().takes_out) <= OUT, "{seed}: {current:?}");
                let targets: BTreeSet<_> = current.iter().map(|fault| fault.target).collect();
                assert_eq!(targets.len(), current.len(), "{seed}: {current:?}");
                let near = |moment: Duration| moment.abs_diff(now) < Duration::from_millis(100);
                let is_now = |fault: &Fault| [fault.begins, fault.ends, fault.settled].into_iter().any(near);
                let told = count(&|fault| fault.kind.nature().needs_daemons && is_now(fault));
                let away = count(&|fault| fault.kind.nature().stops_daemon);
                assert!(told == 0 || away == 0, "{seed}: {current:?}");
                let changes = count(&|fault| fault.kind.nature().changes && is_now(fault));
                let no_majority = count(&|fault| fault.kind.nature().no_majority);
                assert!(changes == 0 || no_majority == 0, "{seed}: {current:?}");
            }
            assert!(faults.iter().all(|fault| fault.settled <= HALF_AN_HOUR));
        }
    }

    #[test]
    fn half_an_hour_has_some_220_faults_and_some_ten_deaths_of_backends() {
        for seed in 0..20 {
            let faults = plan(seed);
            assert!((180..=240).contains(&faults.len()), "{seed}: {} faults", faults.len());
            let deaths = faults.iter().filter(|fault| DEATHS.contains(&fault.kind)).count();
            assert!((8..=11).contains(&deaths), "{seed}: {deaths} deaths");
            for death in DEATHS {
                assert!(faults.iter().any(|fault| fault.kind == death), "{seed}: no {death:?}");
            }
        }
    }

    #[test]
    fn three_minutes_have_most_kinds_of_faults_and_a_death() {
        for seed in 0..100 {
            let faults = generate(seed, Duration::from_secs(180), Deck::steady(), SIZE);
            let kinds: BTreeSet<_> = faults.iter().map(|fault| fault.kind).collect();
            assert!(kinds.len() >= 7, "{seed}: {kinds:?}");
            assert!(DEATHS.iter().any(|death| kinds.contains(death)), "{seed}: {kinds:?}");
        }
    }
}

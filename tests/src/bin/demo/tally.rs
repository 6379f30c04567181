//! Who answered whom, and how often. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use lb_tests::lab::Sample;

/// The backend that answered each client.
pub(crate) type Clients = BTreeMap<IpAddr, String>;

/// How many clients each backend answered.
pub(crate) struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub(crate) fn of<'a>(backends: impl IntoIterator<Item = &'a String>) -> Self {
        let mut tally = BTreeMap::new();
        for backend in backends {
            *tally.entry(backend.clone()).or_default() += 1;
        }
        Self(tally)
    }

    /// A line for each backend; `weights` are those of backend 0, 1, ….
    pub(crate) fn table(&self, weights: &[u32]) -> String {
        let mut table = String::new();
        for (backend, clients, share, expected) in self.shares(weights) {
            let bar = "#".repeat((share * 40.0).round() as usize);
            // Writing to a String can't fail.
            let _ = writeln!(
                table,
                "  {backend:<9} answered {clients:>5} clients  {:>5.1} %  (weight: {:>4.1} %)  {bar}",
                share * 100.0,
                expected * 100.0
            );
        }
        table
    }

    /// Whether every share is as near to its weight as `tolerance`.
    pub(crate) fn check(&self, weights: &[u32], tolerance: f64) -> Result<()> {
        for (backend, _, share, expected) in self.shares(weights) {
            ensure!(
                (share - expected).abs() <= tolerance,
                "{backend} answered {:.1} % of the clients; its weight is {:.1} %",
                share * 100.0,
                expected * 100.0
            );
        }
        let known = self.0.keys().filter(|name| (0..weights.len()).any(|number| **name == label(number)));
        ensure!(known.count() == self.0.len(), "somebody else answered: {:?}", self.0.keys());
        Ok(())
    }

    fn shares(&self, weights: &[u32]) -> Vec<(String, usize, f64, f64)> {
        let all: usize = self.0.values().sum();
        let sum: u32 = weights.iter().sum();
        let share = |(number, weight): (usize, &u32)| {
            let clients = self.0.get(&label(number)).copied().unwrap_or(0);
            let expected = f64::from(*weight) / f64::from(sum.max(1));
            (label(number), clients, clients as f64 / all.max(1) as f64, expected)
        };
        weights.iter().enumerate().map(share).collect()
    }
}

/// How many clients have another backend than before.
pub(crate) fn moved(before: &Clients, after: &Clients) -> usize {
    before.iter().filter(|(client, backend)| after.get(client) != Some(backend)).count()
}

pub(crate) fn failures(samples: &[&Sample]) -> usize {
    samples.iter().filter(|sample| sample.outcome.is_err()).count()
}

/// Who was answered by whom, last.
pub(crate) fn answers(samples: &[&Sample]) -> Clients {
    let answers = samples.iter().filter_map(|sample| Some((sample.from.ip(), sample.outcome.clone().ok()?)));
    answers.collect()
}

fn label(number: usize) -> String {
    format!("backend{number}")
}

#[cfg(test)]
mod tests {
    use super::{Clients, Tally, moved};
    use std::net::{IpAddr, Ipv4Addr};

    fn clients(backends: &[&str]) -> Clients {
        let address = |number| IpAddr::from(Ipv4Addr::from_bits(number));
        (0..).map(address).zip(backends.iter().map(|&name| name.to_owned())).collect()
    }

    #[test]
    fn shares_are_held_against_weights() {
        let clients = clients(&["backend0", "backend1", "backend0", "backend2"]);
        let tally = Tally::of(clients.values());
        tally.check(&[2, 1, 1], 0.0).expect("exactly by weight");
        assert!(tally.check(&[1, 1, 1], 0.1).is_err());
        assert!(tally.check(&[2, 2], 0.5).is_err(), "backend2 is not one of two");
    }

    #[test]
    fn a_client_that_got_no_answer_has_moved() {
        let before = clients(&["backend0", "backend1", "backend2"]);
        assert_eq!(moved(&before, &before), 0);
        assert_eq!(moved(&before, &clients(&["backend0", "backend0"])), 2);
    }
}

//! The program is asked about a packet for each service, the way `ballast explain` asks: it runs on the live maps, counts
//! nothing and sends nothing. Where the packet would go does not matter here, backends being no fact about this host; that it
//! is taken for the service's does.

use std::{collections::BTreeMap, net::IpAddr};

use super::decide::Fact;
use crate::{
    control::Snapshot,
    explain::{ExplainError, Explainer},
};

/// What became of probes of one VIP.
#[derive(Clone, Debug, Default)]
pub(super) struct Probed {
    failures: u32,
    fact: Fact,
}

impl Probed {
    /// Takes the outcome of another probe.
    pub(super) fn note(&mut self, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => *self = Self { failures: 0, fact: Fact::Good },
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FALL {
                    self.fact = Fact::Bad(why.clone());
                }
            }
        }
    }

    pub(super) fn fact(&self) -> Fact {
        self.fact.clone()
    }
}

/// Asks about all services.
pub(super) fn ask(
    explainer: &Explainer,
    snapshot: &Snapshot,
) -> Result<BTreeMap<IpAddr, Result<(), String>>, ExplainError> {
    let unknown = explainer.services_not_known(snapshot)?;
    let mut outcomes = BTreeMap::new();
    for view in &snapshot.services {
        let service = &view.service;
        let outcome = outcomes.entry(service.vip.address).or_insert(Ok(()));
        if unknown.contains(&service.name) {
            *outcome = Err(format!(
                "the program on the interfaces does not take a packet to {} for service {}'s",
                service.vip, service.name
            ));
        }
    }
    Ok(outcomes)
}

/// In a row. A single one may have met a change half-way.
const FALL: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_in_a_row_are_believed_and_one_success_is() {
        let mut probed = Probed::default();
        let failed = Err("not known".to_owned());
        assert_eq!(probed.fact(), Fact::Unknown);
        for _ in 1..FALL {
            probed.note(&failed);
            assert_eq!(probed.fact(), Fact::Unknown);
        }
        probed.note(&failed);
        assert_eq!(probed.fact(), Fact::Bad("not known".to_owned()));
        probed.note(&Ok(()));
        probed.note(&failed);
        assert_eq!(probed.fact(), Fact::Good);
    }
}

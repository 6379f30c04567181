//! Counters beside what they are of.

use lb_common::abi::TrafficCounters;

use crate::{
    control::ServiceView,
    dataplane::{CounterReader, Error},
};

/// A service with what it has forwarded.
#[derive(Debug)]
pub struct Counted<'a> {
    pub view: &'a ServiceView,
    pub traffic: TrafficCounters,
    /// In the order of `view.backends`.
    pub backends: Vec<TrafficCounters>,
}

/// Reads the counters of these services and of all their backends, now.
///
/// # Errors
///
/// If the kernel refuses.
pub fn count<'a>(views: &'a [ServiceView], counters: &dyn CounterReader) -> Result<Vec<Counted<'a>>, Error> {
    let numbers: Vec<_> = views.iter().map(|view| view.id).collect();
    let indexes = views.iter().flat_map(|view| view.backends.iter().map(|backend| backend.index));
    let mut backends = counters.backends(&indexes.collect::<Vec<_>>())?.into_iter();
    let services = counters.services(&numbers)?;
    let counted = views.iter().zip(services).map(|(view, traffic)| Counted {
        view,
        traffic,
        backends: backends.by_ref().take(view.backends.len()).collect(),
    });
    Ok(counted.collect())
}

/// The same of one service.
///
/// # Errors
///
/// If the kernel refuses.
pub fn count_one<'a>(view: &'a ServiceView, counters: &dyn CounterReader) -> Result<Counted<'a>, Error> {
    let indexes: Vec<_> = view.backends.iter().map(|backend| backend.index).collect();
    Ok(Counted { view, traffic: counters.service(view.id)?, backends: counters.backends(&indexes)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::tests::{Numbered, snapshot};

    #[test]
    fn everybody_has_the_counters_of_its_own_number() {
        let snapshot = snapshot();
        let counted = count(&snapshot.services, &Numbered).unwrap();
        for (one, view) in counted.iter().zip(&snapshot.services) {
            assert_eq!(one.traffic, Numbered.service(view.id).unwrap());
            let backends: Vec<_> =
                view.backends.iter().map(|backend| Numbered.backend(backend.index).unwrap()).collect();
            assert_eq!(one.backends, backends);
        }
        assert_eq!(counted.len(), 2);
    }
}

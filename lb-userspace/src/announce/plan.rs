//! From the routes there are and the VIPs that are wanted to what is to be done. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use crate::config::RouteSettings;

/// A route of this daemon's protocol number, to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnRoute {
    pub(super) prefix: IpAddr,
    pub(super) protocol: u8,
    pub(super) table: u32,
    pub(super) metric: u32,
    /// Where it leads to; `None`: it is a blackhole route.
    pub(super) device: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Add(OwnRoute),
    Remove(OwnRoute),
}

/// The route for a VIP. `device`: what [`RouteSettings::device`] is to the kernel.
pub(super) fn route(vip: IpAddr, settings: &RouteSettings, device: Option<u32>) -> OwnRoute {
    let RouteSettings { protocol, table, metric, .. } = *settings;
    OwnRoute { prefix: vip, protocol, table, metric, device }
}

/// What makes `there` into `wanted`. A route that is to be another comes before the one that it replaces goes, where the
/// kernel has room for both: in another table, or with another metric.
pub(super) fn steps(there: &BTreeSet<OwnRoute>, wanted: &BTreeSet<OwnRoute>) -> Vec<Step> {
    let place = |route: &OwnRoute| (route.prefix, route.table, route.metric);
    let places: BTreeSet<_> = wanted.difference(there).map(place).collect();
    let (in_the_way, others): (Vec<_>, Vec<_>) =
        there.difference(wanted).copied().partition(|route| places.contains(&place(route)));
    let added = wanted.difference(there).copied().map(Step::Add);
    in_the_way
        .into_iter()
        .map(Step::Remove)
        .chain(added)
        .chain(others.into_iter().map(Step::Remove))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(last: u8, metric: u32, device: Option<u32>) -> OwnRoute {
        let settings = RouteSettings { metric, ..RouteSettings::default() };
        route(IpAddr::from([203, 0, 113, last]), &settings, device)
    }

    #[test]
    fn a_route_that_stays_is_not_touched() {
        let both = BTreeSet::from([own(1, 5, None), own(2, 5, None)]);
        assert_eq!(steps(&both, &both), []);
        assert_eq!(steps(&both, &[own(1, 5, None)].into()), [Step::Remove(own(2, 5, None))]);
    }

    #[test]
    fn another_metric_comes_before_the_old_one_goes_and_another_device_after() {
        let (old, new) = (own(1, 5, None), own(1, 6, None));
        assert_eq!(steps(&[old].into(), &[new].into()), [Step::Add(new), Step::Remove(old)]);
        let by_device = own(1, 5, Some(3));
        assert_eq!(steps(&[old].into(), &[by_device].into()), [Step::Remove(old), Step::Add(by_device)]);
    }

    fn routes() -> impl Strategy<Value = BTreeSet<OwnRoute>> {
        prop::collection::btree_set(
            (0_u8..3, 1_u32..3, prop::option::of(1_u32..3))
                .prop_map(|(last, metric, device)| own(last, metric, device)),
            0..6,
        )
    }

    proptest! {
        /// The kernel has one route in a place, and refuses another one there.
        #[test]
        fn the_kernel_takes_every_step_and_ends_with_what_is_wanted(there in routes(), wanted in routes()) {
            let place = |route: &OwnRoute| (route.prefix, route.table, route.metric);
            let unique = |routes: BTreeSet<OwnRoute>| {
                let mut places = BTreeSet::new();
                routes.into_iter().filter(|route| places.insert(place(route))).collect::<BTreeSet<_>>()
            };
            let (mut kernel, wanted) = (unique(there), unique(wanted));
            for step in steps(&kernel.clone(), &wanted) {
                match step {
                    Step::Add(route) => {
                        prop_assert!(!kernel.iter().any(|known| place(known) == place(&route)));
                        kernel.insert(route);
                    }
                    Step::Remove(route) => prop_assert!(kernel.remove(&route)),
                }
            }
            prop_assert_eq!(kernel, wanted);
        }
    }
}

//! What is known of this host and its services, as facts about each VIP. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    decide::{Fact, VipFacts},
    probe::Probed,
};
use crate::{
    config::Carrier,
    control::{BackendView, ServiceView, Snapshot},
    dataplane::loader::Standing,
    domain::{Admin, Health},
};

/// One entry for each VIP of a service. `is_joining`: peers have not told yet which flows there are.
pub(super) fn of(
    snapshot: &Snapshot,
    interfaces: &[Standing],
    carrier: Carrier,
    probed: &BTreeMap<IpAddr, Probed>,
    is_joining: bool,
) -> BTreeMap<IpAddr, VipFacts> {
    let (carrier, attached) = (self::carrier(interfaces, carrier), self::attached(interfaces));
    let mut all: BTreeMap<IpAddr, VipFacts> = BTreeMap::new();
    for view in &snapshot.services {
        let vip = view.service.vip.address;
        let facts = all.entry(vip).or_insert_with(|| VipFacts {
            off: snapshot.announce_off.covers(vip),
            attached: attached.clone(),
            carrier: carrier.clone(),
            probe: probed.get(&vip).map(Probed::fact).unwrap_or_default(),
            backends: Fact::Good,
            verdicts: true,
            flows: !is_joining,
            lone: false,
        });
        facts.verdicts &= has_verdicts(view);
        facts.backends = worse(std::mem::take(&mut facts.backends), backends(view));
    }
    all
}

/// Packets arrive wherever there is a link; there the program has to be.
fn attached(interfaces: &[Standing]) -> Fact {
    let mut wrong = Vec::new();
    let mut unknown = false;
    for interface in interfaces {
        match (interface.carrier, &interface.attached) {
            (Some(true), Some(Err(why))) => wrong.push(why.clone()),
            (Some(false), _) | (_, Some(Ok(()))) => {}
            _ => unknown = true,
        }
    }
    match wrong.as_slice() {
        [] if unknown => Fact::Unknown,
        [] => Fact::Good,
        all => Fact::Bad(all.join("; ")),
    }
}

fn carrier(interfaces: &[Standing], needed: Carrier) -> Fact {
    let with = |carrier| interfaces.iter().filter(move |interface| interface.carrier == carrier);
    let enough = match needed {
        Carrier::Any => with(Some(true)).next().is_some(),
        Carrier::All => with(Some(true)).count() == interfaces.len(),
    };
    let hopeless = match needed {
        Carrier::Any => with(Some(false)).count() == interfaces.len(),
        Carrier::All => with(Some(false)).next().is_some(),
    };
    let without: Vec<_> = with(Some(false)).map(|interface| interface.name.as_str()).collect();
    match without.as_slice() {
        _ if enough => Fact::Good,
        _ if !hopeless => Fact::Unknown,
        [one] => Fact::Bad(format!("{one} has no link")),
        several => Fact::Bad(format!("{} have no link", several.join(", "))),
    }
}

/// Whether as many backends are healthy as the service asks for. One without a verdict may yet be.
fn backends(view: &ServiceView) -> Fact {
    let needed = view.service.withdraw_below as usize;
    let with = |health| active(view).filter(|backend| backend.health == health).count();
    let healthy = with(Health::Healthy);
    if healthy >= needed {
        return Fact::Good;
    }
    if healthy + with(Health::Unknown) >= needed {
        return Fact::Unknown;
    }
    Fact::Bad(format!(
        "{healthy} backends of service {} are healthy and active, and it asks for {needed}",
        view.service.name
    ))
}

/// Whether nobody who may get traffic is still to be judged, or to be found.
fn has_verdicts(view: &ServiceView) -> bool {
    !view.gathers && active(view).all(|backend| backend.health != Health::Unknown)
}

fn active(view: &ServiceView) -> impl Iterator<Item = &BackendView> {
    let is_active =
        |name| view.service.backends.get(name).is_some_and(|backend| backend.admin == Admin::Active);
    view.backends.iter().filter(move |backend| is_active(&backend.name))
}

fn worse(one: Fact, other: Fact) -> Fact {
    match (one, other) {
        (Fact::Bad(one), Fact::Bad(other)) => Fact::Bad(format!("{one}; {other}")),
        (bad @ Fact::Bad(_), _) | (_, bad @ Fact::Bad(_)) => bad,
        (Fact::Unknown, _) | (_, Fact::Unknown) => Fact::Unknown,
        (Fact::Good, Fact::Good) => Fact::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::testing::{backend_view, service_view},
        domain::{
            AnnounceOff,
            policy::ServiceState,
            testing::{name, service},
        },
    };

    fn interface(name: &str, attached: bool, carrier: bool) -> Standing {
        let attached = if attached { Ok(()) } else { Err(format!("not on {name}")) };
        Standing { name: name.to_owned(), attached: Some(attached), carrier: Some(carrier) }
    }

    /// A service with backends of these healths.
    fn view(title: &str, withdraw_below: u32, healths: &[Health]) -> ServiceView {
        let backends: Vec<_> = (0..healths.len()).map(|number| format!("b{number}")).collect();
        let declared: Vec<_> = backends.iter().map(|backend| (backend.as_str(), 1)).collect();
        let mut service = service(title, &declared);
        service.withdraw_below = withdraw_below;
        let address = "10.0.0.1:80".parse().expect("an address");
        let views = backends.iter().zip(healths);
        let views: Vec<_> =
            views.map(|(backend, health)| backend_view(name(backend), address, *health)).collect();
        service_view(service, ServiceState::Healthy, views)
    }

    #[test]
    fn one_link_will_do_unless_all_are_asked_for_and_a_program_is_needed_where_one_is() {
        let pair = |one, other| [interface("eth0", one, true), interface("eth1", true, other)];
        assert_eq!(carrier(&pair(true, false), Carrier::Any), Fact::Good);
        assert_eq!(carrier(&pair(true, false), Carrier::All), Fact::Bad("eth1 has no link".into()));
        let dark = [interface("eth0", false, false), interface("eth1", false, false)];
        assert_eq!(carrier(&dark, Carrier::Any), Fact::Bad("eth0, eth1 have no link".into()));
        assert_eq!(attached(&pair(true, true)), Fact::Good);
        assert_eq!(attached(&pair(false, true)), Fact::Bad("not on eth0".into()));
        // Nothing arrives there.
        assert_eq!(attached(&dark), Fact::Good);
    }

    #[test]
    fn what_could_not_be_looked_at_is_nothing_wrong() {
        let unseen = Standing { name: "eth1".to_owned(), attached: None, carrier: None };
        let with = |one| [one, unseen.clone()];
        let (well, bare, dark) =
            (interface("eth0", true, true), interface("eth0", false, true), interface("eth0", true, false));
        assert_eq!(attached(&with(well.clone())), Fact::Unknown);
        assert_eq!(attached(&with(bare)), Fact::Bad("not on eth0".into()));
        assert_eq!(carrier(&with(well.clone()), Carrier::Any), Fact::Good);
        assert_eq!(carrier(&with(well), Carrier::All), Fact::Unknown);
        assert_eq!(carrier(&with(dark.clone()), Carrier::Any), Fact::Unknown);
        assert_eq!(carrier(&with(dark), Carrier::All), Fact::Bad("eth0 has no link".into()));
    }

    #[test]
    fn backends_matter_where_a_service_says_so_and_with_a_verdict() {
        use Health::{Healthy, Unhealthy, Unknown};
        assert_eq!(backends(&view("web", 0, &[Unhealthy])), Fact::Good);
        assert_eq!(backends(&view("web", 1, &[Healthy, Unhealthy])), Fact::Good);
        assert_eq!(backends(&view("web", 2, &[Healthy, Unknown])), Fact::Unknown);
        let told = "1 backends of service web are healthy and active, and it asks for 2";
        assert_eq!(backends(&view("web", 2, &[Healthy, Unhealthy])), Fact::Bad(told.into()));
        let mut drained = view("web", 1, &[Healthy]);
        let service = std::sync::Arc::make_mut(&mut drained.service);
        service.backends.values_mut().for_each(|backend| backend.admin = Admin::Draining);
        assert!(matches!(backends(&drained), Fact::Bad(_)));
    }

    #[test]
    fn services_of_a_vip_share_its_lot() {
        let services = vec![view("web", 0, &[Health::Healthy]), view("api", 1, &[Health::Unhealthy])];
        let vip = services[0].service.vip.address;
        let mut snapshot = Snapshot { services, ..Snapshot::default() };
        let seen = [interface("eth0", true, true)];
        let facts = |snapshot: &Snapshot| of(snapshot, &seen, Carrier::Any, &BTreeMap::new(), false);
        let all = facts(&snapshot);
        assert_eq!(all.len(), 1);
        assert!(matches!(all[&vip].backends, Fact::Bad(_)) && !all[&vip].off);
        assert_eq!(all[&vip].probe, Fact::Unknown);
        assert!(all[&vip].verdicts && all[&vip].flows);
        assert!(!of(&snapshot, &seen, Carrier::Any, &BTreeMap::new(), true)[&vip].flows);
        snapshot.announce_off = AnnounceOff { all: false, vips: [vip].into() };
        assert!(facts(&snapshot)[&vip].off);
    }
}

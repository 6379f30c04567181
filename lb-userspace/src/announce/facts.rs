//! What is known of this host and its services, as facts about each VIP. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    decide::{Fact, VipFacts},
    probe::Probed,
};
use crate::{
    config::Carrier,
    control::{ServiceView, Snapshot},
    dataplane::loader::Standing,
    domain::{Admin, Health},
};

/// One entry for each VIP of a service.
pub(super) fn of(
    snapshot: &Snapshot,
    interfaces: &[Standing],
    carrier: Carrier,
    probed: &BTreeMap<IpAddr, Probed>,
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
        });
        facts.backends = worse(std::mem::take(&mut facts.backends), backends(view));
    }
    all
}

/// Packets arrive wherever there is a link; there the program has to be.
fn attached(interfaces: &[Standing]) -> Fact {
    let wrong = interfaces.iter().filter(|interface| interface.carrier);
    let wrong = wrong.filter_map(|interface| interface.attached.as_ref().err());
    match wrong.cloned().collect::<Vec<_>>().as_slice() {
        [] => Fact::Good,
        all => Fact::Bad(all.join("; ")),
    }
}

fn carrier(interfaces: &[Standing], needed: Carrier) -> Fact {
    let without = interfaces.iter().filter(|interface| !interface.carrier);
    let without: Vec<_> = without.map(|interface| interface.name.as_str()).collect();
    let enough = match needed {
        Carrier::Any => without.len() < interfaces.len(),
        Carrier::All => without.is_empty(),
    };
    match without.as_slice() {
        _ if enough => Fact::Good,
        [one] => Fact::Bad(format!("{one} has no link")),
        several => Fact::Bad(format!("{} have no link", several.join(", "))),
    }
}

/// Whether as many backends are healthy as the service asks for. One without a verdict may yet be.
fn backends(view: &ServiceView) -> Fact {
    let needed = view.service.withdraw_below as usize;
    let is_active =
        |name| view.service.backends.get(name).is_some_and(|backend| backend.admin == Admin::Active);
    let with = |health| {
        let backends = view.backends.iter().filter(|backend| backend.health == health);
        backends.filter(|backend| is_active(&backend.name)).count()
    };
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
        Standing { name: name.to_owned(), attached, carrier }
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
        let facts = |snapshot: &Snapshot| {
            of(snapshot, &[interface("eth0", true, true)], Carrier::Any, &BTreeMap::new())
        };
        let all = facts(&snapshot);
        assert_eq!(all.len(), 1);
        assert!(matches!(all[&vip].backends, Fact::Bad(_)) && !all[&vip].off);
        assert_eq!(all[&vip].probe, Fact::Unknown);
        snapshot.announce_off = AnnounceOff { all: false, vips: [vip].into() };
        assert!(facts(&snapshot)[&vip].off);
    }
}

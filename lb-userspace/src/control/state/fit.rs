//! Whether services fit the network that they are in: what no file can know.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use super::{RecordedBackends, State};
use crate::{
    control::{Change, Rejected},
    dataplane::encode,
    domain::{Backend, Forwarding, Name, Origin, Service, Vip},
};

/// What a change is judged against. The kernel's news is nobody's change: what it made wrong keeps neither other changes
/// out nor a daemon from starting.
pub(super) struct Past<'a> {
    pub(super) state: &'a State,
    pub(super) recorded: &'a RecordedBackends,
}

impl Past<'_> {
    /// Whether a daemon starts that has not said anything yet, and an earlier one had this backend.
    fn had(&self, service: &Service, backend: &Backend) -> bool {
        let id = encode::backend_id(&service.name, &backend.name, backend.address);
        self.state.services.is_empty() && self.recorded.contains_key(&id)
    }

    /// Names and places of the services that clashed already.
    fn clashing(&self) -> HashSet<(&Name, Vip)> {
        self.state.clashing().map(|service| (&service.name, service.vip)).collect()
    }
}

impl State {
    /// `by_file`: the file is what is new, so in a conflict it is at fault.
    pub(super) fn check_fit(
        &self,
        services: &BTreeMap<Name, Service>,
        past: &Past<'_>,
        by_file: bool,
    ) -> Result<(), Rejected> {
        let egress = self.egress_addresses(services.values());
        // Looked up when there is a clash, which is rare.
        let known = LazyCell::new(|| past.clashing());
        for service in services.values() {
            self.check_ways(service, past)?;
            let is_news = || {
                let by_kernel = self.nat.clashes_on_egress(service.vip, &egress);
                let was_there = service.backends.values().any(|backend| past.had(service, backend));
                !(known.contains(&(&service.name, service.vip)) || by_kernel && was_there)
            };
            if self.has_clash(service, &egress) && is_news() {
                let field = match service.origin {
                    Origin::Cli if by_file => "nat".to_owned(),
                    _ => format!("service.{}", service.name),
                };
                return Err(Rejected::Invalid { field, message: self.clash(service) });
            }
        }
        Ok(())
    }

    /// Services whose packets a reply through NAT would be taken for, each in words.
    pub fn clashes(&self) -> BTreeMap<Name, String> {
        self.clashing().map(|service| (service.name.clone(), self.clash(service))).collect()
    }

    fn clashing(&self) -> impl Iterator<Item = &Service> {
        let egress = self.egress_addresses(self.specs());
        self.specs().filter(move |service| self.has_clash(service, &egress))
    }

    /// Addresses with which the host reaches the backends of `nat`, as far as the kernel has said.
    fn egress_addresses<'a>(&self, services: impl Iterator<Item = &'a Service>) -> HashSet<IpAddr> {
        let translating = services.filter(|service| service.forwarding == Forwarding::Nat);
        let backends = translating.flat_map(|service| service.backends.values());
        let hops = backends.filter_map(|backend| self.ways.get(&backend.address.ip())?.hop.as_ref());
        hops.map(|hop| hop.source).collect()
    }

    /// A reply to the address and port of a service is for the service.
    fn has_clash(&self, service: &Service, egress: &HashSet<IpAddr>) -> bool {
        self.nat.clashes_with(service.vip) || self.nat.clashes_on_egress(service.vip, egress)
    }

    fn clash(&self, service: &Service) -> String {
        let whose = match self.nat.has_family(service.vip.address) {
            true => "",
            false => " (it is the address with which the host reaches backends of `nat`)",
        };
        format!(
            "service {} on {} ({}) can't share the address{whose} and ports that [nat] has for replies: {}; \
             give [nat] other `addresses` or `ports`, or the service another port",
            service.name, service.vip, service.origin, self.nat
        )
    }

    /// Whether a service that is to be added has its VIP at a backend of another one. What was only found makes room, as it does for
    /// a service that is declared.
    pub(super) fn check_vip(&self, service: &Service) -> Result<(), Rejected> {
        let at = |known: &&Backend| known.address.ip() == service.vip.address && !known.origin.is_found();
        let taken = self
            .specs()
            .filter(|known| known.name != service.name)
            .find_map(|known| known.backends.values().find(at).map(|backend| (known, backend)));
        match taken {
            None => Ok(()),
            Some((other, backend)) => Err(Rejected::Invalid {
                field: format!("service.{}", service.name),
                message: format!(
                    "{} is the address of backend {} of service {} ({}), and can't be a VIP as well; \
                     give the service another address, or take that backend away first",
                    service.vip.address, backend.name, other.name, backend.origin
                ),
            }),
        }
    }

    /// The gateway that is in the way of a backend that would join the service at this address. One that is there already
    /// stays, unreachable for as long as its way leads elsewhere: a link that goes down must not empty a service.
    pub(super) fn gateway(&self, service: &Service, address: IpAddr) -> Option<IpAddr> {
        let gateway = self.ways.get(&address)?.gateway?;
        let known = self.services.get(&service.name).map(|entry| &entry.spec);
        let is_there = known.is_some_and(|known| {
            known.forwarding == Forwarding::L2Dsr
                && known.backends.values().any(|backend| backend.address.ip() == address)
        });
        (service.forwarding == Forwarding::L2Dsr && !is_there).then_some(gateway)
    }

    /// Lets backends in that were found and left out, where the way leads through no gateway any more.
    pub(super) fn judge_found(&mut self, before: &Self) -> Vec<Change> {
        let gateway = |state: &Self, address| state.ways.get(&address).and_then(|way| way.gateway);
        let found = self.kept.found.values().flat_map(BTreeMap::values).flat_map(|found| found.values());
        let moved = |backend: &Backend| {
            let address = backend.address.ip();
            gateway(self, address) != gateway(before, address)
        };
        if !found.into_iter().any(moved) {
            return Vec::new();
        }
        let mut next = self.clone();
        // What can't be for other reasons is not for the kernel's news to refuse.
        match next.rebuild(self, &RecordedBackends::new(), false) {
            Ok(changes) => {
                *self = next;
                changes
            }
            Err(_) => Vec::new(),
        }
    }

    /// A gateway would route a VIP's packet straight back here.
    fn check_ways(&self, service: &Service, past: &Past<'_>) -> Result<(), Rejected> {
        for backend in service.backends.values().filter(|backend| !past.had(service, backend)) {
            if let Some(gateway) = self.gateway(service, backend.address.ip()) {
                return Err(Rejected::Invalid {
                    field: format!("service.{}.backend.{}.address", service.name, backend.name),
                    message: format!(
                        "backend {} of service {} at {} is behind the gateway {gateway}: l2-dsr needs its backends on \
                         a network of the load balancer; use forwarding = \"ipip\", \"gue\", \"dnat\" or \"nat\", or an address \
                         on that network",
                        backend.name,
                        service.name,
                        backend.address.ip(),
                    ),
                });
            }
        }
        Ok(())
    }
}

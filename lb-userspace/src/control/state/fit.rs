//! Whether services fit the network that they are in: what no file can know.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use super::State;
use crate::{
    control::Rejected,
    domain::{Forwarding, Name, Origin, Service},
};

impl State {
    /// `by_file`: the file is what is new, so in a conflict it is at fault.
    pub(super) fn check_fit(
        &self,
        services: &BTreeMap<Name, Service>,
        by_file: bool,
    ) -> Result<(), Rejected> {
        let egress = self.egress_addresses(services.values());
        for service in services.values() {
            self.check_ways(service)?;
            if self.has_clash(service, &egress) {
                let field = match service.origin {
                    Origin::Cli if by_file => "nat".to_owned(),
                    _ => format!("service.{}", service.name),
                };
                return Err(Rejected::Invalid { field, message: self.clash(service) });
            }
        }
        Ok(())
    }

    /// Services whose packets a reply through NAT would be taken for, in words.
    pub fn clashes(&self) -> Vec<String> {
        let egress = self.egress_addresses(self.specs());
        let clashing = self.specs().filter(|service| self.has_clash(service, &egress));
        clashing.map(|service| self.clash(service)).collect()
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

    /// A gateway would route a VIP's packet straight back here.
    fn check_ways(&self, service: &Service) -> Result<(), Rejected> {
        if service.forwarding != Forwarding::L2Dsr {
            return Ok(());
        }
        for backend in service.backends.values() {
            let gateway = self.ways.get(&backend.address.ip()).and_then(|way| way.gateway);
            if let Some(gateway) = gateway {
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

//! Checks over the real path: to the VIP, and carried to one backend as its traffic is.
//!
//! The check's socket bears a mark that names the backend. The host sends its packets where it would send anything for the
//! VIP; on the interface where that is, the egress program takes those with the mark, and carries them to the backend by
//! the same record and the same steps as clients' packets. The backend answers the host, from the VIP.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use lb_common::abi::probe_mark;

use super::probe::{self, Outcome};
use crate::{
    dataplane::probe_filter::ProbeFilters,
    domain::HealthCheck,
    interfaces,
    neighbour::{self, HostRoute, VipRoutes},
    sysctl,
};

/// What a check over the real path has to know of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) vip: IpAddr,
    /// Index of the backend in the maps.
    pub(super) index: u32,
    /// Whether packets travel inside others, and so have to be smaller.
    pub(super) tunnels: bool,
}

impl Way {
    pub(super) fn mark(&self) -> u32 {
        probe_mark(self.index)
    }
}

/// This host's part of the path.
pub struct RealPath {
    routes: VipRoutes,
    filters: Arc<ProbeFilters>,
    /// When answers came last, by the interfaces that questions leave by and answers are expected on.
    answered: Mutex<HashMap<(u32, u32), Instant>>,
}

/// Where the host sends to a VIP.
struct Exit {
    interface: u32,
    next_hop: IpAddr,
}

impl RealPath {
    /// # Errors
    ///
    /// When no netlink socket can be had.
    pub fn new(filters: ProbeFilters) -> Result<Self, neighbour::Error> {
        Ok(Self { routes: VipRoutes::new()?, filters: Arc::new(filters), answered: Mutex::default() })
    }

    /// Checks the backend at `backend` once. What this host does not carry is skipped: it is no fault of the backend.
    pub(super) async fn check(&self, check: &HealthCheck, backend: SocketAddr, way: &Way) -> Outcome {
        if way.index == 0 {
            return Outcome::Skipped { detail: "it has no place in the maps yet".to_owned() };
        }
        let started = Instant::now();
        let exit = match self.exit(check, way).await {
            Ok(exit) => exit,
            Err(detail) => return Outcome::Skipped { detail },
        };
        let met_before = self.filters.last_met(way.index);
        let (outcome, silent) = probe::check_by(check, backend, Some(way)).await;
        let was_met = self.filters.last_met(way.index) != met_before;
        let told =
            |detail| Outcome::Failed { detail: format!("{detail}, via {}", check.target(way.vip, backend)) };
        match outcome {
            Outcome::Skipped { .. } => outcome,
            // Whoever answers it is somebody else.
            _ if !was_met => {
                let detail = self.unsent(way, &exit).await.unwrap_or_else(|| taken_away(way, &exit));
                Outcome::Skipped { detail }
            }
            // Whoever answers was reached, whatever he says.
            Outcome::Failed { detail } if silent => {
                // By others' answers, too, this host is known to get some.
                let since = started.checked_sub(check.interval).unwrap_or(started);
                let fault = match self.unsent(way, &exit).await {
                    None => self.unheard(backend, way, &exit, since).await,
                    fault => fault,
                };
                fault.map_or_else(|| told(detail), |detail| Outcome::Skipped { detail })
            }
            Outcome::Failed { detail } => told(detail),
            outcome => {
                if matches!(outcome, Outcome::Passed { .. }) {
                    self.note_answer(backend, &exit).await;
                }
                outcome
            }
        }
    }

    /// Where the host sends to the VIP, with the egress program on that interface.
    async fn exit(&self, check: &HealthCheck, way: &Way) -> Result<Exit, String> {
        let vip = way.vip;
        let route = self.routes.route(vip, check.source, way.mark()).await;
        let exit = match route.map_err(|error| error.to_string())? {
            HostRoute::Leaves { interface, next_hop } => Exit { interface, next_hop },
            HostRoute::Missing => {
                let from = check.source.map(|source| format!(" from {source}")).unwrap_or_default();
                return Err(format!("this host has no route to {vip}{from}, which checks via the VIP need"));
            }
            HostRoute::Local => {
                return Err(format!(
                    "{vip} is an address of this host, so checks via the VIP would not leave it; it has to be routed \
                     here instead"
                ));
            }
        };
        if !self.filters.is_fresh(exit.interface) {
            self.ensure_filter(exit.interface).await?;
        }
        Ok(exit)
    }

    /// Whether the egress program was there already.
    async fn ensure_filter(&self, interface: u32) -> Result<bool, String> {
        let filters = Arc::clone(&self.filters);
        let ensured = tokio::task::spawn_blocking(move || filters.ensure(interface)).await;
        ensured.map_err(|error| error.to_string())?.map_err(|error| format!("checks via the VIP: {error}"))
    }

    /// Why a check may not have left this host, or not the way it should.
    async fn unsent(&self, way: &Way, exit: &Exit) -> Option<String> {
        match self.ensure_filter(exit.interface).await {
            Ok(true) => {}
            Ok(false) => {
                return Some("somebody had removed the filter that carries checks via the VIP".to_owned());
            }
            Err(error) => return Some(error),
        }
        // A question that can't be answered is no excuse for the backend.
        if let Ok(false) = self.routes.is_resolved(exit.interface, exit.next_hop).await {
            return Some(format!(
                "{}, the next hop of this host's route to {}, has no MAC address, so checks via the VIP don't leave",
                exit.next_hop, way.vip
            ));
        }
        None
    }

    /// Why this host may not have got an answer. `since`: one that came later, by the same way, shows that answers come.
    async fn unheard(&self, backend: SocketAddr, way: &Way, exit: &Exit, since: Instant) -> Option<String> {
        let vip = way.vip;
        let back = self.way_back(backend).await?;
        let gets_answers = self.answers().get(&(exit.interface, back)).is_some_and(|at| *at > since);
        if vip.is_ipv4()
            && back != exit.interface
            && !gets_answers
            && sysctl::filters_strictly(&interfaces::name(back))
        {
            let name = interfaces::name(back);
            return Some(format!(
                "answers from {vip} on {name} are dropped by net/ipv4/conf/{name}/rp_filter=1 (or conf/all); checks via \
                 the VIP need 2 or 0"
            ));
        }
        None
    }

    /// Where a backend's answers come in, as far as the host's own routes tell.
    async fn way_back(&self, backend: SocketAddr) -> Option<u32> {
        match self.routes.route(backend.ip(), None, 0).await {
            Ok(HostRoute::Leaves { interface, .. }) => Some(interface),
            _ => None,
        }
    }

    async fn note_answer(&self, backend: SocketAddr, exit: &Exit) {
        if let Some(back) = self.way_back(backend).await {
            self.answers().insert((exit.interface, back), Instant::now());
        }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<(u32, u32), Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Said of a check of which nothing came to the egress program, although it is where it should be.
fn taken_away(way: &Way, exit: &Exit) -> String {
    format!(
        "checks via {} leave by {} and don't come to the filter that carries them: another filter of tc in front of it, or a \
         rule that drops them or changes their mark, takes them first",
        way.vip,
        interfaces::name(exit.interface)
    )
}

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Probe, Role};

/// What probes observed of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet: a new backend gets no traffic before its first passed check.
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
    /// It answers, and says that it is not what the service needs: a database of the wrong role, say.
    Ineligible,
}

impl Health {
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Unhealthy, Self::Ineligible];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ineligible => "ineligible",
        }
    }
}

/// Which of a check's intervals is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The verdict stands.
    Steady,
    /// There is none yet, or the last check spoke against it.
    Changing,
    /// Unhealthy, and nothing speaks against it.
    Down,
}

/// How a check gets to its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Via {
    /// As anybody's packets: to the backend's own address.
    #[default]
    Address,
    /// As its traffic: to the VIP, and carried by the service's forwarding mode.
    Vip,
}

impl Via {
    pub const ALL: [Self; 2] = [Self::Address, Self::Vip];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Vip => "vip",
        }
    }
}

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    pub probe: Probe,
    /// Time between the starts of two checks; each is shortened by a random 0 to 20 %.
    pub interval: Duration,
    /// Instead of `interval` while a verdict is changing; at most as long.
    pub fast_interval: Option<Duration>,
    /// Instead of `interval` while the backend is unhealthy.
    pub down_interval: Option<Duration>,
    /// Limit for a whole check, connecting included.
    pub timeout: Duration,
    /// Passed checks in a row that make an unhealthy backend healthy. An unknown one needs one.
    pub rise: u32,
    /// Failed checks in a row that make a healthy backend unhealthy.
    pub fall: u32,
    /// Port to check instead of the backend's own.
    pub port: Option<u16>,
    pub via: Via,
    /// Address to check instead of the backend's own; not over the VIP.
    pub address: Option<IpAddr>,
    /// Address of this host to check from.
    pub source: Option<IpAddr>,
}

impl HealthCheck {
    /// Whether checks go to the backend's own port.
    pub fn uses_own_port(&self) -> bool {
        !matches!(self.probe, Probe::None | Probe::Icmp | Probe::Exec(_)) && self.port.is_none()
    }

    /// Whether backends have roles, of which the service needs one.
    pub fn has_role(&self) -> bool {
        matches!(&self.probe, Probe::Database(database) if database.role != Role::Any)
    }

    /// Where a check of the backend at `backend` goes, in a service on `vip`.
    pub fn target(&self, vip: IpAddr, backend: SocketAddr) -> SocketAddr {
        let address = match self.via {
            Via::Vip => vip,
            Via::Address => self.address.unwrap_or(backend.ip()),
        };
        SocketAddr::new(address, self.port.unwrap_or(backend.port()))
    }

    /// Time between the first checks of two of so many new backends: each has its own within the shortest interval.
    pub fn first_checks_gap(&self, backends: u32) -> Duration {
        (self.interval * 4 / 5 / backends.max(1)).min(FIRST_CHECKS_GAP)
    }

    /// Longest time between the starts of two checks.
    pub fn interval_at(&self, pace: Pace) -> Duration {
        match pace {
            Pace::Steady => None,
            Pace::Changing => self.fast_interval,
            Pace::Down => self.down_interval,
        }
        .unwrap_or(self.interval)
    }
}

/// Longest time between the first checks of two new backends.
const FIRST_CHECKS_GAP: Duration = Duration::from_millis(10);

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
            fast_interval: None,
            down_interval: None,
            via: Via::Address,
            address: None,
            source: None,
        }
    }
}

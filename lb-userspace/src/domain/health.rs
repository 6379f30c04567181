use std::time::Duration;

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

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    pub probe: Probe,
    /// Time between the starts of two checks; each is shortened by a random 0 to 20 %.
    pub interval: Duration,
    /// Limit for a whole check, connecting included.
    pub timeout: Duration,
    /// Passed checks in a row that make an unhealthy backend healthy. An unknown one needs one.
    pub rise: u32,
    /// Failed checks in a row that make a healthy backend unhealthy.
    pub fall: u32,
    /// Port to check instead of the backend's own.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// No checks: a backend counts as healthy.
    None,
    /// A connection is accepted.
    Tcp,
    /// `GET path` is answered with a 2xx or 3xx status.
    Http {
        path: String,
        /// `Host` header; the backend's address where there is none.
        host: Option<String>,
    },
}

impl HealthCheck {
    /// Whether checks go to the backend's own port.
    pub fn uses_own_port(&self) -> bool {
        self.probe != Probe::None && self.port.is_none()
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        }
    }
}

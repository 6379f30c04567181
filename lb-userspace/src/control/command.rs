use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Edit, InterfaceView, store::StoreError};
use crate::{
    dataplane::{
        KeyFingerprint,
        reconcile::{ApplyError, Impact},
    },
    domain::{Found, Health, Name, NatPool, Override, Service, Source},
    peers::Exchange,
};

/// Everything that can change the state. The file, the command line, probes and the kernel's neighbour table all come
/// this way; there is no second writer.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the declared part of the state equal to these services.
    Declare {
        services: Vec<Service>,
        nat: NatPool,
        /// What the kernel says of the ways to their backends, as far as it does.
        ways: Vec<NextHopUpdate>,
        /// Whether live services may be replaced where they can't become what is declared, which ends their flows.
        disruptive: bool,
    },
    /// Make the declared part of the state equal to what the fleet has agreed on.
    Fleet {
        services: Vec<Service>,
        /// What is set over backends, by service; whatever else was set over any is forgotten.
        overrides: BTreeMap<Name, BTreeMap<Name, Override>>,
        /// This host's own, as the file has it.
        nat: NatPool,
        /// As in `Declare`.
        ways: Vec<NextHopUpdate>,
    },
    /// A change made over the API.
    Edit {
        edit: Edit,
        /// As in `Declare`.
        ways: Vec<NextHopUpdate>,
    },
    /// What backends are looked up in has other answers.
    Found {
        answers: Vec<FoundBackends>,
        /// As in `Declare`.
        ways: Vec<NextHopUpdate>,
    },
    /// A backend's health changed.
    Health(Vec<HealthReport>),
    /// How to reach backends changed.
    NextHops(Vec<NextHopUpdate>),
    /// Frames for which MAC addresses are this host's to forward.
    OwnMacs(OwnMacs),
    /// What the program is attached to.
    Interfaces(Vec<InterfaceView>),
    /// Whom to replicate flows with; whether the maps have just been made.
    Peers { exchange: Arc<Exchange>, is_new: bool },
    /// Which hash key the tables are used with.
    HashKey(KeyFingerprint),
    /// The configuration file could not be applied, for this reason; the state goes on as it is.
    ConfigRefused(String),
    /// The configuration file is right, and what it says of services is the fleet's to say.
    ConfigAccepted,
}

impl Command {
    /// Whether it says what is declared.
    pub(super) fn declares(&self) -> bool {
        matches!(self, Self::Declare { .. } | Self::Fleet { .. })
    }

    /// Whether it tells what was observed, and nobody asks for it: such changes come by the thousand, and have to wait for
    /// each other.
    pub(super) fn is_observed(&self) -> bool {
        matches!(self, Self::Health(_) | Self::NextHops(_) | Self::Found { .. })
    }
}

/// The good answer of a source of a service. Ignored where the service has no such source, and where it names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBackends {
    pub service: Name,
    pub source: Source,
    pub backends: Found,
}

/// A transition observed by probes. Ignored where that backend no longer has that address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    pub service: Name,
    pub backend: Name,
    pub address: SocketAddr,
    pub health: Health,
    /// Outcome of the check that decided it, in words, such as `HTTP 503` or `connection refused`.
    pub detail: String,
}

/// The way to one backend address, from the kernel's routes and neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHopUpdate {
    pub backend: IpAddr,
    /// `None`: no route, or a neighbour without a MAC address.
    pub hop: Option<Hop>,
    /// Whether the route goes through a gateway, which `l2-dsr` can't use.
    pub gateway: Option<IpAddr>,
}

/// MAC addresses; `None` for any.
pub type OwnMacs = Option<BTreeSet<[u8; 6]>>;

/// What a frame to a backend needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    pub mac: [u8; 6],
    pub ifindex: u32,
    pub source_mac: [u8; 6],
    pub mtu: u32,
    /// Source address of outer headers, of the backend's family.
    pub source: IpAddr,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The revision that is live now; unchanged if there was nothing to do.
    pub revision: u64,
    pub changes: Vec<Change>,
    pub warnings: Vec<String>,
    /// Of a plan: services whose clients would notice.
    pub impacts: Vec<(Name, Impact)>,
}

/// One difference between two states, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `add`, `change` or `remove`.
    pub action: &'static str,
    /// `service web` or `backend web/web-1`.
    pub object: String,
    /// What differs, empty where the object is new or gone.
    pub detail: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.object)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl Change {
    pub fn added(object: String) -> Self {
        Self { action: "add", object, detail: String::new() }
    }

    pub fn changed(object: String, detail: String) -> Self {
        Self { action: "change", object, detail }
    }

    pub fn removed(object: String) -> Self {
        Self { action: "remove", object, detail: String::new() }
    }
}

/// Why a command was refused; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// The request's fault. `field` names the object at fault, as `Config::refuse` finds its place in the file.
    #[error("{message}")]
    Invalid { field: String, message: String },
    /// A limit of the maps: a key of `[limits]`.
    #[error("{message}")]
    Limit {
        limit: &'static str,
        /// What does not fit, named as in `Invalid`.
        field: Option<String>,
        message: String,
    },
    /// It belongs to the configuration file.
    #[error("{message}")]
    Owned { field: &'static str, message: String },
    /// There is another one already.
    #[error("{message}")]
    Exists { field: &'static str, message: String },
    #[error("{what} \"{name}\" does not exist")]
    Missing { what: &'static str, name: Name },
    /// It was changed by somebody else since the request was made from it.
    #[error("{what} was changed by somebody else at the same moment; look at it and try again")]
    Outdated { what: String },
    /// Services are the fleet's to change, and etcd can't be asked.
    #[error("nothing changed: the services are the fleet's, and this member is {0}")]
    CutOff(String),
    /// It is changed for the fleet and not for this member.
    #[error(
        "the fleet has the change (revision {revision} of etcd), and it is not live on this member: {why}"
    )]
    NotLive { revision: i64, why: String },
    /// etcd was asked to change it and did not say whether it did.
    #[error("whether the fleet has the change is not known, it may yet come: {0}")]
    Uncertain(String),
    /// What has to survive a restart could not be written down.
    #[error("the change can't be kept: {0}")]
    Store(#[from] StoreError),
    /// The environment's fault.
    #[error("the data plane refused the change: {0}")]
    Dataplane(crate::dataplane::Error),
    #[error("the daemon is stopping")]
    Stopping,
}

impl From<ApplyError> for Rejected {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::Exhausted { service, limit } => {
                let part = if limit.limit() == "limits.source_prefixes" { ".admission" } else { "" };
                let field = service.map(|service| format!("service.{service}{part}"));
                Self::Limit { limit: limit.limit(), field, message }
            }
            ApplyError::Egress => Self::Limit { limit: "egress", field: None, message },
            ApplyError::Disruptive { service } => {
                Self::Invalid { field: format!("service.{service}"), message }
            }
            ApplyError::Dataplane(error) => Self::Dataplane(error),
        }
    }
}

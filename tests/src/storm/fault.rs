//! What can happen in a storm: one list.
//!
//! A further kind of fault is a variant here, its [`Kind::nature`], a place in a [deck](super::plan::Deck), and what is
//! done for it in `strike.rs`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::judge::Cause;

/// A kind of fault. Whatever is taken away comes back when the fault ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The daemon of a load balancer is killed (SIGKILL).
    DaemonKilled,
    /// It is stopped (SIGSTOP), and goes on.
    DaemonStopped,
    /// BIRD on a load balancer is killed.
    BirdKilled,
    /// A load balancer's link is down, for longer than BFD takes to see it.
    BalancerCut,
    /// As above, for about as long as that.
    BalancerFlaps,
    /// A load balancer is withdrawn, stopped, unplugged, and comes back.
    BalancerServiced,
    /// The web server of a backend is killed.
    WebKilled,
    /// The server of long-lived connections of a backend is killed.
    LiveKilled,
    /// A backend's link is down.
    BackendUnplugged,
    /// The web server of a backend is stopped: connections are made, and nothing is answered.
    WebHangs,
    /// A backend's link is down for a moment.
    BackendFlaps,
    /// A backend is drained, then its servers are restarted, then it is enabled.
    BackendServiced,
    /// A new backend is added by the command line; later it is drained and removed.
    BackendAdded,
    /// A backend that has connections is removed by the command line, and later added again.
    BackendRemoved,
    /// A backend gets another weight by the command line, and its own back.
    Weight,
    /// Load balancers are to reload a file that makes no sense, which they refuse, and another one.
    Reload,
    /// A member of etcd that does not lead is killed (SIGKILL).
    EtcdKilled,
    /// The member of etcd that leads is killed.
    EtcdLeaderKilled,
    /// Two of the three members of etcd are killed: nothing can be changed.
    EtcdMajorityKilled,
    /// A load balancer can't reach etcd: on this one nothing can be changed.
    BalancerAlone,
}

/// What a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    Balancer(u16),
    /// A declared backend.
    Backend(u16),
    /// The one backend that is not declared.
    Spare,
    Etcd,
    /// Every load balancer that nothing else strikes.
    Balancers,
}

/// Where a kind of fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Balancer,
    Backend,
    Spare,
    Etcd,
    Balancers,
}

/// What requests a kind of fault may cost, until it is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    Nothing,
    /// Requests of this kind, or of both, to the backend.
    OfBackend(Option<Load>),
    /// Any.
    OfBalancer,
}

/// Two kinds of clients, with a service for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// A connection, a request, an answer.
    Web,
    /// Connections that live for a while, with a request every now and then.
    Live,
}

/// What the plan has to know of a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    pub(super) place: Place,
    /// Shortest and longest time from begin to end, ms.
    pub(super) lasts: (u64, u64),
    /// From its end until all is as it was, ms.
    pub(super) settles: u64,
    /// The backend gets no new clients meanwhile, or can't serve them.
    pub(super) takes_out: bool,
    /// The daemon on the load balancer does not run for a part of it.
    pub(super) stops_daemon: bool,
    /// When it begins and ends, every daemon has to be there, to see it or to be told.
    pub(super) needs_daemons: bool,
    /// When it begins and ends, services are changed: etcd has to have a majority.
    pub(super) changes: bool,
    /// etcd has none for a part of it.
    pub(super) no_majority: bool,
    pub(super) cost: Cost,
    /// How requests fail that it costs.
    pub(super) causes: &'static [Cause],
}

impl Kind {
    pub(super) fn nature(self) -> Nature {
        use Cause::{Refused, Reset, TimedOut};
        let balancer = Nature {
            place: Place::Balancer,
            lasts: (1_000, 5_000),
            settles: 4_000,
            takes_out: false,
            stops_daemon: false,
            needs_daemons: false,
            changes: false,
            no_majority: false,
            cost: Cost::Nothing,
            causes: &[],
        };
        let backend = Nature { place: Place::Backend, needs_daemons: true, ..balancer };
        // A daemon that does not run hears of it later.
        let change = Nature { place: Place::Backend, changes: true, ..balancer };
        let etcd = Nature { place: Place::Etcd, lasts: (4_000, 10_000), ..change };
        // Long enough for a client to give up, and for a backend that was held down to be taken back.
        let death = Nature { lasts: (6_000, 15_000), settles: 12_000, takes_out: true, ..backend };
        // A load balancer that has lost its link is announced again after `up_hold`; then there is BGP.
        let returns = 15_000;
        match self {
            Self::DaemonKilled => Nature { stops_daemon: true, ..balancer },
            Self::DaemonStopped => Nature { stops_daemon: true, lasts: (1_000, 8_000), ..balancer },
            Self::BirdKilled => Nature { settles: 7_000, ..balancer },
            Self::BalancerCut => Nature {
                lasts: (2_000, 8_000),
                settles: returns,
                cost: Cost::OfBalancer,
                causes: &[TimedOut],
                ..balancer
            },
            Self::BalancerFlaps => Nature {
                lasts: (50, 900),
                settles: 8_000,
                cost: Cost::OfBalancer,
                causes: &[TimedOut],
                ..balancer
            },
            Self::BalancerServiced => {
                Nature { lasts: (5_000, 8_000), settles: returns + 5_000, stops_daemon: true, ..balancer }
            }
            Self::WebKilled => {
                Nature { cost: Cost::OfBackend(Some(Load::Web)), causes: &[Refused, Reset], ..death }
            }
            Self::LiveKilled => {
                Nature { cost: Cost::OfBackend(Some(Load::Live)), causes: &[Refused, Reset], ..death }
            }
            Self::BackendUnplugged => Nature { cost: Cost::OfBackend(None), causes: &[TimedOut], ..death },
            Self::WebHangs => Nature { cost: Cost::OfBackend(Some(Load::Web)), causes: &[TimedOut], ..death },
            Self::BackendFlaps => Nature {
                lasts: (50, 300),
                settles: 4_000,
                takes_out: true,
                cost: Cost::OfBackend(None),
                causes: &[TimedOut],
                ..backend
            },
            // Until the last of the connections has ended by itself.
            Self::BackendServiced => Nature {
                lasts: (30_000, 40_000),
                settles: 12_000,
                takes_out: true,
                needs_daemons: true,
                ..change
            },
            Self::BackendAdded => {
                Nature { place: Place::Spare, lasts: (5_000, 15_000), settles: 35_000, ..change }
            }
            Self::BackendRemoved => Nature { lasts: (3_000, 20_000), takes_out: true, ..change },
            Self::Weight => Nature { lasts: (2_000, 15_000), settles: 1_000, ..change },
            Self::Reload => {
                Nature { place: Place::Balancers, lasts: (1_000, 1_000), settles: 1_000, ..balancer }
            }
            Self::EtcdKilled | Self::EtcdLeaderKilled => etcd,
            Self::EtcdMajorityKilled => Nature { changes: false, no_majority: true, ..etcd },
            Self::BalancerAlone => Nature { place: Place::Balancer, settles: 6_000, ..etcd },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DaemonKilled => "daemon killed",
            Self::DaemonStopped => "daemon stopped",
            Self::BirdKilled => "BIRD killed",
            Self::BalancerCut => "load balancer cut off",
            Self::BalancerFlaps => "load balancer's link flaps",
            Self::BalancerServiced => "load balancer serviced",
            Self::WebKilled => "web server killed",
            Self::LiveKilled => "server of long-lived connections killed",
            Self::BackendUnplugged => "backend unplugged",
            Self::WebHangs => "web server hangs",
            Self::BackendFlaps => "backend's link flaps",
            Self::BackendServiced => "backend drained and restarted",
            Self::BackendAdded => "backend added, drained, removed",
            Self::BackendRemoved => "backend removed and added again",
            Self::Weight => "weight changed",
            Self::Reload => "file reloaded",
            Self::EtcdKilled => "etcd member killed",
            Self::EtcdLeaderKilled => "etcd leader killed",
            Self::EtcdMajorityKilled => "etcd majority killed",
            Self::BalancerAlone => "load balancer without etcd",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Balancer(number) => write!(f, "lb{number}"),
            Self::Backend(number) => write!(f, "backend{number}"),
            Self::Spare => f.write_str("the spare"),
            Self::Etcd => f.write_str("etcd"),
            Self::Balancers => f.write_str("load balancers"),
        }
    }
}

/// A fault of a plan. Times are from the storm's begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) target: Target,
    #[serde(serialize_with = "seconds")]
    pub(super) begins: Duration,
    #[serde(serialize_with = "seconds")]
    pub(super) ends: Duration,
    /// All is as it was.
    #[serde(serialize_with = "seconds")]
    pub(super) settled: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasts = (self.ends - self.begins).as_secs_f64();
        write!(f, "{}: {}, for {lasts:.1} s", self.target, self.kind)
    }
}

pub(super) fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

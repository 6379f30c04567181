//! `GET /v1/fleet`, and `fleet` in a status.

use serde::{Deserialize, Serialize};

/// The fleet as this member knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// What this member is called.
    pub member: String,
    /// Whether etcd can be asked. If not, what is live goes on and nothing can be changed.
    pub connected: bool,
    /// The member of etcd that is asked; `null` while there is none.
    pub endpoint: Option<String>,
    /// Since it is connected, or is not.
    pub since_seconds: u64,
    /// Since etcd answered last.
    pub silence_seconds: u64,
    /// What the keys in etcd begin with.
    pub prefix: String,
    /// Revision of etcd at the last change of services, as far as it is known here.
    pub revision: i64,
    /// The same of what is live here.
    pub live_revision: i64,
    /// Why etcd can't be asked, or why what it has is not live here; `null` if all is well.
    pub trouble: Option<String>,
    /// Why the others don't hear of this member, though etcd answers; `null` if they do.
    pub unheard: Option<String>,
    /// Documents that make no sense.
    pub refused: Vec<RefusedDocument>,
    pub withdrawals: FleetWithdrawals,
    /// By name.
    pub members: Vec<FleetMember>,
}

/// Who is off the network for want of backends (`withdraw_below`), by leave of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetWithdrawals {
    /// How many may be at once: one in five of the members that announce VIPs, and one at the least.
    pub limit: usize,
    /// Members that have leave.
    pub members: Vec<String>,
    /// This one would withdraw, or has.
    pub wanted: bool,
    /// Why it has no leave; `null` where it has, or wants none.
    pub refused: Option<String>,
}

/// A document in etcd that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedDocument {
    pub key: String,
    /// Revision of etcd since which it is so.
    pub revision: i64,
    /// What is wrong, and where.
    pub why: String,
    /// Whether what it said before goes on.
    pub goes_on: bool,
}

/// A member as it says of itself in etcd. One that is not heard of for `ttl` is gone from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetMember {
    pub name: String,
    /// Ballast's.
    pub version: String,
    /// Revision of etcd that is live there.
    pub revision: i64,
    /// Over all its lookup tables: equal where clients are mapped alike.
    pub tables: String,
    /// Fingerprint of its flow hash key; `null` where it does not say.
    pub key: Option<String>,
    pub ready: bool,
    /// A VIP is announced there, or would be but for want of backends.
    pub announces: bool,
    /// Why what etcd has is not live there.
    pub trouble: Option<String>,
    /// What is not as it should be: `behind`, `tables`, `key`, `not_ready`, `refuses`.
    pub marks: Vec<String>,
    /// The same for people; empty if all is well.
    pub remark: String,
}

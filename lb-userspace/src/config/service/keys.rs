//! What a `[[service]]` and a `[[service.backend]]` take.

use std::{net::SocketAddr, time::Duration};

use crate::{
    config::{
        discovery::BACKENDS_FILE,
        key::{Boolean, Integer, Key, List, OneOf, PowerOfTwo, Seconds, Special, Text},
        reference::Section,
        values,
    },
    domain::{Algorithm, Forwarding, Name, OnAllDown, OnPanic, Protocol, TableSize, Tracking, Vip},
};

pub(in crate::config) const SERVICE: Section = Section {
    heading: "## `[[service]]`",
    says: "",
    keys: &[
        &NAME,
        &ADDRESS,
        &PROTOCOL,
        &FORWARDING,
        &ALGORITHM,
        &TABLE_SIZE,
        &PANIC_THRESHOLD,
        &ON_PANIC,
        &ON_ALL_DOWN,
        &SLOW_START,
        &WITHDRAW_BELOW,
        &TRACKING,
        &FLOW_IDLE_TIMEOUT,
        &UNHEALTHY_GRACE,
        &DRAIN_TIMEOUT,
        &ALLOW,
        &DENY,
        &BACKENDS_FILE,
        &NEW_FLOW_RATE,
    ],
};

pub(in crate::config) const NAME: Key<Text<Name>> = Key {
    name: "name",
    takes: Text("`[a-z0-9][a-z0-9.-]{0,62}`", values::name),
    default: "required",
    means: "unique among all services",
};
pub(in crate::config) const ADDRESS: Key<Text<Vip>> = Key {
    name: "address",
    takes: Text("address and port", values::vip),
    default: "required",
    means: "the VIP: `\"203.0.113.10:80\"`, `\"[2001:db8::10]:443\"`; port `*` or 0 is every port of it. A service on an \
            exact port goes before one on every port",
};
pub(in crate::config) const PROTOCOL: Key<OneOf<Protocol>> = Key {
    name: "protocol",
    takes: OneOf(&Protocol::ALL, Protocol::as_str),
    default: "`\"tcp\"`",
    means: "of the packets that are for it",
};
pub(in crate::config) const FORWARDING: Key<OneOf<Forwarding>> = Key {
    name: "forwarding",
    takes: OneOf(&Forwarding::ALL, Forwarding::as_str),
    default: "`\"l2-dsr\"`",
    means: "how packets get to backends, see [forwarding modes](forwarding-modes.md)",
};
pub(in crate::config) const ALGORITHM: Key<OneOf<Algorithm>> = Key {
    name: "algorithm",
    takes: OneOf(&Algorithm::ALL, Algorithm::as_str),
    default: "`\"source-hash\"`",
    means: "`\"source-hash\"`: by the client's address, so a client keeps its backend; `\"flow-hash\"`: by the 5-tuple, \
            so the connections of one client are spread; `\"round-robin\"`: each new flow to the next backend, in \
            proportion to the weights; `\"least-connections\"`: each new flow to the one of two candidates that has \
            fewer live flows for its weight",
};
pub(in crate::config) const TABLE_SIZE: Key<PowerOfTwo> = Key {
    name: "table_size",
    takes: PowerOfTwo(TableSize::MIN, TableSize::MAX),
    default: "16384",
    means: "slots of the lookup table. More than a hundredth as many backends make shares coarse, which is a warning",
};
pub(in crate::config) const PANIC_THRESHOLD: Key<Special> = Key {
    name: "panic_threshold",
    takes: Special("number, 0 to 1 with up to three digits"),
    default: "0",
    means: "smallest healthy part of the backends that will do; 0 is off: one healthy backend is enough. See \
            [failures.md](failures.md)",
};
pub(in crate::config) const ON_PANIC: Key<OneOf<OnPanic>> = Key {
    name: "on_panic",
    takes: OneOf(&OnPanic::ALL, OnPanic::as_str),
    default: "`\"fail-open\"`",
    means: "when fewer are healthy: `\"fail-open\"` sends to all active backends with a verdict, `\"healthy-only\"` to \
            the healthy ones, whatever that does to them",
};
pub(in crate::config) const ON_ALL_DOWN: Key<OneOf<OnAllDown>> = Key {
    name: "on_all_down",
    takes: OneOf(&OnAllDown::ALL, OnAllDown::as_str),
    default: "`\"fail-open\"`; `\"reject\"` if the health check has a `role`",
    means: "when none is healthy and some are unhealthy: `\"fail-open\"` sends to them all the same, `\"drop\"` drops \
            and counts, `\"reject\"` tells who comes, by an RST or ICMP \"port unreachable\"",
};
pub(in crate::config) const SLOW_START: Key<Seconds> = Key {
    name: "slow_start",
    takes: Seconds(Duration::ZERO, MAX_SERVICE_TIME),
    default: "`\"0s\"`",
    means: "a backend that comes (back) gets a tenth of its part of new flows first, and all of it after this time. \
            See [failures.md](failures.md#slow-start)",
};
pub(in crate::config) const WITHDRAW_BELOW: Key<Integer> = Key {
    name: "withdraw_below",
    // More backends than a service has in a table of the largest size.
    takes: Integer(0, 1 << 16),
    default: "0",
    means: "with fewer healthy and active backends this host does not \
            [announce](high-availability.md#when-a-vip-is-announced-and-when-it-is-withdrawn) the VIP, of all services \
            on it, in a fleet [by leave](high-availability.md#how-many-at-once); 0 is whatever becomes of backends",
};
pub(in crate::config) const TRACKING: Key<OneOf<Tracking>> = Key {
    name: "tracking",
    takes: OneOf(&Tracking::ALL, Tracking::as_str),
    default: "`\"auto\"`",
    means: "which flows have entries in the flow table. `\"auto\"`: TCP by a hash only while a change ages out, \
            everything else always; `\"always\"`; `\"never\"`: a flow moves with its slot, for one-shot protocols. Not \
            `\"never\"` with `\"round-robin\"` or `\"least-connections\"`. `dnat` and `nat` keep every flow in tables of \
            their own: for them it is always, and never `\"never\"`",
};
pub(in crate::config) const FLOW_IDLE_TIMEOUT: Key<Seconds> = Key {
    name: "flow_idle_timeout",
    takes: Seconds(Duration::from_secs(1), MAX_SERVICE_TIME),
    default: "`\"15m\"`; `\"1m\"` for udp; `\"1h\"` for round-robin, least-connections and NAT",
    means: "a tracked flow that is silent for longer is forgotten",
};
pub(in crate::config) const UNHEALTHY_GRACE: Key<Seconds> = Key {
    name: "unhealthy_grace",
    takes: Seconds(Duration::ZERO, MAX_SERVICE_TIME),
    default: "`\"30s\"`",
    means: "how long existing TCP flows stay with a backend that became unhealthy, from when it left the table. UDP \
            moves at once",
};
pub(in crate::config) const DRAIN_TIMEOUT: Key<Seconds> = Key {
    name: "drain_timeout",
    takes: Seconds(Duration::ZERO, Duration::from_secs(24 * 3600)),
    default: "`\"5m\"`",
    means: "how long existing flows stay with a backend that drains. A drain that has begun keeps its time",
};
pub(in crate::config) const ALLOW: Key<List> = Key {
    name: "allow",
    takes: List("prefixes of the VIP's family"),
    default: "`[]`",
    means: "sources that may come, such as `[\"198.51.100.0/24\", \"192.0.2.7\"]`. Where there are any, packets from \
            elsewhere are dropped as `source_denied`",
};
pub(in crate::config) const DENY: Key<List> = Key {
    name: "deny",
    takes: List("prefixes of the VIP's family"),
    default: "`[]`",
    means: "sources whose packets are dropped as `source_denied`. Of both lists the longest prefix that covers the \
            client decides; one in both is refused",
};
pub(in crate::config) const NEW_FLOW_RATE: Key<Integer> = Key {
    name: "new_flow_rate",
    takes: Integer(0, u32::MAX),
    default: "0",
    means: "new flows let in each second, the others are dropped as `new_flow_limit`; 0 is any number. TCP SYNs count, \
            retransmitted ones too, and UDP datagrams of flows not known; so not for udp with `tracking = \"never\"`",
};

pub(in crate::config) const BACKEND: Section = Section {
    heading: "## `[[service.backend]]`",
    says: "",
    keys: &[&BACKEND_NAME, &BACKEND_ADDRESS, &WEIGHT, &BACKUP],
};

pub(in crate::config) const BACKEND_NAME: Key<Text<Name>> = Key {
    name: "name",
    takes: Text("`[a-z0-9][a-z0-9.-]{0,62}`", values::name),
    default: "required",
    means: "unique in the service. Tables are seeded with it: a backend that comes back under its name gets its old \
            clients back",
};
pub(in crate::config) const BACKEND_ADDRESS: Key<Text<SocketAddr>> = Key {
    name: "address",
    takes: Text("address and port", values::backend_address),
    default: "required",
    means: "of the VIP's family, or with `ipip` and `gue` of either. The port is the service's; with `dnat` and `nat` \
            it is any, and packets are sent to it. Of a service on every port it is for checks alone",
};
pub(in crate::config) const WEIGHT: Key<Integer> = Key {
    name: "weight",
    takes: Integer(0, u16::MAX as u32),
    default: "1",
    means: "share of clients relative to the others; 0 is no new clients, those that are there stay",
};
pub(in crate::config) const BACKUP: Key<Boolean> = Key {
    name: "backup",
    takes: Boolean,
    default: "false",
    means: "gets traffic only while the others are [too few](failures.md)",
};

/// Of `flow_idle_timeout` less than half of what an epoch can tell apart.
pub(in crate::config) const MAX_SERVICE_TIME: Duration = Duration::from_secs(3600);

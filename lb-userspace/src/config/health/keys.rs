//! What every `[service.health]` takes.

use std::{net::IpAddr, time::Duration};

use super::probe::ProbeType;
use crate::{
    config::{
        key::{Integer, Key, OneOf, Text, Time},
        reference::Section,
        values,
    },
    domain::Via,
};

pub(in crate::config) const HEALTH: Section = Section {
    heading: "## `[service.health]`",
    says: "What only some types of checks take is described with them in [health-checks.md](health-checks.md#what-type).",
    keys: &[
        &TYPE,
        &PORT,
        &ADDRESS,
        &SOURCE,
        &VIA,
        &INTERVAL,
        &FAST_INTERVAL,
        &DOWN_INTERVAL,
        &TIMEOUT,
        &RISE,
        &FALL,
    ],
};

pub(in crate::config) const WHEN: Section = Section {
    heading: "## When",
    says: "",
    keys: &[&INTERVAL, &FAST_INTERVAL, &DOWN_INTERVAL, &TIMEOUT, &RISE, &FALL],
};

pub(in crate::config) const WHERE: Section =
    Section { heading: "## Where", says: "", keys: &[&PORT, &ADDRESS, &SOURCE, &VIA] };

pub(super) const TYPE: Key<OneOf<ProbeType>> = Key {
    name: "type",
    takes: OneOf(&ProbeType::ALL, ProbeType::as_str),
    default: "`\"tcp\"`; `\"none\"` for a udp service",
    means: "[what is asked](health-checks.md#what-type)",
};
pub(super) const PORT: Key<Integer> = Key {
    name: "port",
    takes: Integer(1, u16::MAX as u32),
    default: "the backend's",
    means: "what to check instead; required to check a udp service by anything but `dns`, `icmp` and `exec`, or one on \
            every port whose backends name none",
};
pub(super) const ADDRESS: Key<Text<IpAddr>> = Key {
    name: "address",
    takes: Text("address", values::peer_address),
    default: "the backend's",
    means: "another address to check instead, the same for all backends",
};
pub(super) const SOURCE: Key<Text<IpAddr>> = Key {
    name: "source",
    takes: Text("address", values::peer_address),
    default: "the kernel's choice",
    means: "address of this host that checks come from",
};
pub(super) const VIA: Key<OneOf<Via>> = Key {
    name: "via",
    takes: OneOf(&Via::ALL, Via::as_str),
    default: "`\"address\"`",
    means: "`\"vip\"`: checks go [the way of the service's traffic](health-checks.md#via-the-vip), so that a missing VIP \
            or a broken tunnel shows; not with `dnat` and `nat`",
};
pub(super) const INTERVAL: Key<Time> = Key {
    name: "interval",
    takes: Time(MIN_INTERVAL, MAX_INTERVAL),
    default: "`\"2s\"`",
    means: "between the starts of two checks, each shortened by a random 0 to 20 % so that load balancers don't fall into \
            step",
};
/// At most `interval`.
pub(super) const FAST_INTERVAL: Key<Time> = Key {
    name: "fast_interval",
    takes: Time(MIN_INTERVAL, MAX_INTERVAL),
    default: "`interval`",
    means: "instead of it while a verdict is changing: none yet, or the last check spoke against it; at most `interval`",
};
pub(super) const DOWN_INTERVAL: Key<Time> = Key {
    name: "down_interval",
    takes: Time(MIN_INTERVAL, MAX_INTERVAL),
    default: "`interval`",
    means: "instead of it while the backend is unhealthy",
};
/// At most `interval`.
pub(super) const TIMEOUT: Key<Time> = Key {
    name: "timeout",
    takes: Time(MIN_TIMEOUT, MAX_INTERVAL),
    default: "`\"1s\"`",
    means: "for a whole check, from connecting to the last byte that matters: a server that answers a byte at a time \
            gains nothing; at most `interval`",
};
pub(super) const RISE: Key<Integer> = Key {
    name: "rise",
    takes: Integer(1, MAX_STREAK),
    default: "2",
    means: "passed checks in a row that reinstate an unhealthy or ineligible backend (a new one needs one)",
};
pub(super) const FALL: Key<Integer> = Key {
    name: "fall",
    takes: Integer(1, MAX_STREAK),
    default: "3",
    means: "failed checks in a row that make it unhealthy",
};

pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(100);
pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(3600);
pub(super) const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_STREAK: u32 = 100;

//! Differences between two states, in words.

use std::collections::BTreeSet;

use humantime::format_duration;

use super::command::Change;
use crate::domain::{AnnounceOff, Backend, Kept, NatPool, Origin, Prefix, Service};

/// Adds the differences between two versions of a service.
pub(super) fn describe(old: Option<&Service>, new: &Service, changes: &mut Vec<Change>) {
    let Some(old) = old else {
        changes.push(Change::added(format!("service {}", new.name)));
        changes.extend(new.backends.keys().map(|name| Change::added(format!("backend {}/{name}", new.name))));
        return;
    };
    let mut detail = Vec::new();
    let mut note = |what: &str, old: &dyn std::fmt::Display, new: &dyn std::fmt::Display| {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            detail.push(format!("{what} {old} -> {new}"));
        }
    };
    note("address", &old.vip, &new.vip);
    note("protocol", &old.protocol.as_str(), &new.protocol.as_str());
    note("forwarding", &old.forwarding.as_str(), &new.forwarding.as_str());
    note("algorithm", &old.algorithm.as_str(), &new.algorithm.as_str());
    note("table_size", &old.table_size.slots(), &new.table_size.slots());
    note("panic_threshold", &old.panic.threshold, &new.panic.threshold);
    note("on_panic", &old.panic.action.as_str(), &new.panic.action.as_str());
    note("on_all_down", &old.on_all_down.as_str(), &new.on_all_down.as_str());
    note("tracking", &old.tracking.as_str(), &new.tracking.as_str());
    for (what, old, new) in [
        ("flow_idle_timeout", old.flow_idle_timeout, new.flow_idle_timeout),
        ("unhealthy_grace", old.unhealthy_grace, new.unhealthy_grace),
        ("drain_timeout", old.drain_timeout, new.drain_timeout),
        ("slow_start", old.slow_start, new.slow_start),
    ] {
        note(what, &format_duration(old), &format_duration(new));
    }
    note("withdraw_below", &old.withdraw_below, &new.withdraw_below);
    note("new_flow_rate", &old.admission.new_flow_rate, &new.admission.new_flow_rate);
    for (what, old, new) in [
        ("allow", &old.admission.allow, &new.admission.allow),
        ("deny", &old.admission.deny, &new.admission.deny),
    ] {
        detail.extend(describe_prefixes(what, old, new));
    }
    if (old.origin == Origin::Cli) != (new.origin == Origin::Cli) {
        detail.push(format!("now belongs to {}", new.origin));
    }
    if old.discovery != new.discovery {
        detail.push("what backends are looked up in".to_owned());
    }
    if old.health != new.health {
        detail.push("health check".to_owned());
    }
    if !detail.is_empty() {
        changes.push(Change::changed(format!("service {}", new.name), detail.join(", ")));
    }
    for backend in new.backends.values() {
        let object = format!("backend {}/{}", new.name, backend.name);
        match old.backends.get(&backend.name) {
            None => changes.push(Change::added(object)),
            Some(known) => describe_backend(known, backend, object, changes),
        }
    }
    let gone = old.backends.keys().filter(|name| !new.backends.contains_key(*name));
    changes.extend(gone.map(|name| Change::removed(format!("backend {}/{name}", new.name))));
}

/// The difference between two versions of `[nat]`.
pub(super) fn describe_nat(old: &NatPool, new: &NatPool) -> Option<Change> {
    (old != new).then(|| Change::changed("nat".to_owned(), format!("{old} -> {new}")))
}

/// VIPs that were taken off the network, and put on it again.
pub(super) fn describe_announced(old: &AnnounceOff, new: &AnnounceOff) -> Vec<Change> {
    let change = |what: String, on: bool| {
        Change::changed(format!("announcing {what}"), if on { "on" } else { "off" }.to_owned())
    };
    let all = (old.all != new.all).then(|| change("all VIPs".to_owned(), !new.all));
    let gone = old.vips.difference(&new.vips).map(|vip| change(vip.to_string(), true));
    let come = new.vips.difference(&old.vips).map(|vip| change(vip.to_string(), false));
    all.into_iter().chain(gone).chain(come).collect()
}

/// `allow +198.51.100.0/24 -192.0.2.0/24`; of many only how many they are.
fn describe_prefixes(what: &str, old: &BTreeSet<Prefix>, new: &BTreeSet<Prefix>) -> Option<String> {
    let text = |sign: char, prefixes: Vec<&Prefix>| match prefixes.as_slice() {
        [] => String::new(),
        many if many.len() > MAX_PREFIXES_TOLD => format!(" {sign}{} prefixes", many.len()),
        few => few.iter().map(|prefix| format!(" {sign}{prefix}")).collect(),
    };
    let (added, gone) = (new.difference(old).collect(), old.difference(new).collect());
    (old != new).then(|| format!("{what}{}{}", text('+', added), text('-', gone)))
}

/// A service that is gone takes its backends with it, also those that somebody else added.
pub(super) fn describe_removed(old: &Service, changes: &mut Vec<Change>) {
    changes.push(Change::removed(format!("service {}", old.name)));
    changes.extend(old.backends.keys().map(|name| Change::removed(format!("backend {}/{name}", old.name))));
}

/// What was set over objects that are gone.
pub(super) fn forgotten(old: &Kept, new: &Kept) -> Vec<Change> {
    let mut changes = Vec::new();
    for (service, overrides) in &old.overrides {
        let kept = |backend| new.overrides.get(service).is_some_and(|of| of.contains_key(backend));
        changes.extend(overrides.iter().filter(|(backend, _)| !kept(*backend)).map(|(backend, over)| {
            Change {
                action: "remove",
                object: format!("overrides of {service}/{backend}"),
                detail: over.names().join(", "),
            }
        }));
    }
    changes
}

fn describe_backend(old: &Backend, new: &Backend, object: String, changes: &mut Vec<Change>) {
    let mut detail = Vec::new();
    if old.address != new.address {
        detail.push(format!("address {} -> {}", old.address, new.address));
    }
    if old.weight != new.weight {
        detail.push(format!("weight {} -> {}", old.weight, new.weight));
    }
    if old.backup != new.backup {
        detail.push(if new.backup { "now a backup" } else { "no backup any more" }.to_owned());
    }
    if old.admin != new.admin {
        detail.push(format!("{} -> {}", old.admin.as_str(), new.admin.as_str()));
    }
    let owner = |origin: &Origin| (*origin == Origin::Cli, origin.is_found());
    if owner(&old.origin) != owner(&new.origin) {
        detail.push(format!("now belongs to {}", new.origin));
    }
    if !detail.is_empty() {
        changes.push(Change::changed(object, detail.join(", ")));
    }
}

const MAX_PREFIXES_TOLD: usize = 4;

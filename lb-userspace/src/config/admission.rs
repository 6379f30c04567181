//! `allow`, `deny` and `new_flow_rate` of a service.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    key::{self, Key},
    report::{At, Place, Report, Wrong},
    service::keys,
    table::Table,
    values,
};
use crate::domain::{Admission, Forwarding, Prefix, Protocol, Tracking, Vip};

/// What the other settings of the service are, as far as they are right.
pub(super) struct Of {
    pub(super) vip: Option<At<Vip>>,
    pub(super) protocol: Option<At<Protocol>>,
    pub(super) forwarding: Option<At<Forwarding>>,
    pub(super) tracking: Option<At<Tracking>>,
}

/// `None` if anything was wrong, which is reported. The place is that of the longer list.
pub(super) fn read(table: &mut Table<'_>, of: &Of, report: &mut Report<'_>) -> Option<At<Admission>> {
    let allow = read_list(&keys::ALLOW, table, of, report);
    let deny = read_list(&keys::DENY, table, of, report);
    let new_flow_rate = read_rate(table, of, report);
    let (allow, deny) = (allow?, deny?);
    let mut fits = true;
    for (prefix, place) in &deny.prefixes {
        if let Some(allowed) = allow.prefixes.get(prefix) {
            let wrong = Wrong::new(format!("{prefix} is in `allow` and in `deny`"), "one of them is needed")
                .help(format!("it is allowed at {}", report.locate(*allowed)));
            report.error(*place, wrong);
            fits = false;
        }
    }
    let place = if allow.prefixes.len() >= deny.prefixes.len() { allow.place } else { deny.place };
    let names = |list: List| list.prefixes.into_keys().collect::<BTreeSet<_>>();
    let admission = Admission { allow: names(allow), deny: names(deny), new_flow_rate: new_flow_rate?.value };
    fits.then(|| At::new(admission, place))
}

struct List {
    place: Place,
    prefixes: BTreeMap<Prefix, Place>,
}

fn read_list(
    key: &'static Key<key::List>,
    table: &mut Table<'_>,
    of: &Of,
    report: &mut Report<'_>,
) -> Option<List> {
    let mut list = List { place: table.place(), prefixes: BTreeMap::new() };
    let Some(item) = table.get(key) else { return Some(list) };
    list.place = item.place;
    let mut right = item.is_array();
    for element in item.array("such as [\"198.51.100.0/24\"]", report) {
        let Some(prefix) = element.parse(report, values::prefix) else {
            right = false;
            continue;
        };
        match of.vip {
            Some(vip) if vip.value.address.is_ipv4() != prefix.value.is_ipv4() => {
                let family = |v4| if v4 { "IPv4" } else { "IPv6" };
                let message = format!("`{}` can't hold {}", key.name, prefix.value);
                let needed = family(vip.value.address.is_ipv4());
                report.error(
                    prefix.place,
                    Wrong::new(message, format!("the clients of this service are {needed}")),
                );
                right = false;
            }
            _ => {
                list.prefixes.insert(prefix.value, prefix.place);
            }
        }
    }
    right.then_some(list)
}

fn read_rate(table: &mut Table<'_>, of: &Of, report: &mut Report<'_>) -> Option<At<u32>> {
    let rate = table.read_or(&keys::NEW_FLOW_RATE, 0, report)?;
    let udp = of.protocol.is_some_and(|protocol| protocol.value == Protocol::Udp);
    let never = of.tracking.is_some_and(|tracking| tracking.value == Tracking::Never);
    let translates = of.forwarding.is_none_or(|mode| mode.value.translates());
    if rate.value > 0 && udp && never && !translates {
        let message = "`new_flow_rate` means nothing to a udp service with tracking = \"never\"";
        report.error(rate.place, Wrong::new(message, "nobody knows which of its packets are new flows"));
        return None;
    }
    Some(rate)
}

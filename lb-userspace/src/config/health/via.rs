//! `via`: whether checks go to backends' addresses, or the way of their traffic.

use std::net::IpAddr;

use super::{
    keys,
    probe::{ProbeType, http::PATH},
};
use crate::{
    config::{
        report::{At, Report, Wrong},
        table::Table,
    },
    domain::{Forwarding, Via},
};

/// `None` if it was wrong, which is reported.
pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<At<Via>> {
    let is_given = table.has(&keys::VIA);
    let via = table.read_or(&keys::VIA, Via::Address, report);
    // Says the same: a path of a URL begins with a "/".
    let Some(alias) = table.take(&PATH, Via::Vip.as_str()) else { return via };
    if is_given && via?.value == Via::Address {
        let wrong = Wrong::new("`path` can't be \"vip\" with via = \"address\"", "one of the two");
        report.error(alias.place, wrong);
        return None;
    }
    Some(At::new(Via::Vip, alias.place))
}

/// Whether checks of the type and the forwarding mode can take the way of traffic. `None` if not, which is reported.
pub(super) fn check(
    via: At<Via>,
    probe_type: At<ProbeType>,
    address: Option<At<IpAddr>>,
    forwarding: Option<At<Forwarding>>,
    report: &mut Report<'_>,
) -> Option<()> {
    if via.value == Via::Address {
        return Some(());
    }
    let kind = probe_type.value;
    if matches!(kind, ProbeType::None | ProbeType::Exec) {
        let message = format!("a check of type \"{}\" can't go via the VIP", kind.as_str());
        report.error(via.place, Wrong::new(message, "this type of check sends nothing of its own"));
        return None;
    }
    if let Some(address) = address {
        let message = "a check via the VIP has no other `address`";
        report.error(address.place, Wrong::new(message, "it goes to the service's own"));
        return None;
    }
    let translating = forwarding.map(|mode| mode.value).filter(|mode| mode.translates());
    if let Some(mode) = translating {
        let message = format!("a check can't go via the VIP with forwarding = \"{}\"", mode.as_str());
        let label = "its backends don't have the VIP: their own addresses are where their traffic goes";
        report.error(via.place, Wrong::new(message, label));
        return None;
    }
    Some(())
}

//! `[service.health]`: what every check has. What only some types have is read by [`probe`].

pub(super) mod keys;
pub(super) mod probe;
pub(super) mod shape;
#[cfg(test)]
mod tests;
mod text;
mod via;

use super::{
    report::{At, Place, Report, Wrong},
    table::{Item, Table},
    values,
};
use crate::domain::{Forwarding, HealthCheck, Probe, Protocol};

use probe::ProbeType;

/// The check of a service; `item` is its `health`, and `service` where the service stands. `None` if anything was
/// wrong, which is reported.
pub(super) fn read(
    item: Option<Item<'_>>,
    service: Place,
    protocol: Option<At<Protocol>>,
    forwarding: Option<At<Forwarding>>,
    report: &mut Report<'_>,
) -> Option<At<HealthCheck>> {
    let udp = protocol.is_some_and(|protocol| protocol.value == Protocol::Udp);
    let Some(item) = item else {
        let probe = if udp { Probe::None } else { Probe::Tcp };
        return Some(At::new(HealthCheck { probe, ..HealthCheck::default() }, service));
    };
    let mut table = item.table("[service.health]", report)?;
    let check = read_table(&mut table, udp, forwarding, report);
    let place = table.place();
    table.finish(report);
    Some(At::new(check?, place))
}

fn read_table(
    table: &mut Table<'_>,
    udp: bool,
    forwarding: Option<At<Forwarding>>,
    report: &mut Report<'_>,
) -> Option<HealthCheck> {
    let defaults = HealthCheck::default();
    let default_type = if udp { ProbeType::None } else { ProbeType::Tcp };
    let probe_type = table.read_or(&keys::TYPE, default_type, report);
    // Before the type's own keys: one of its ways to be written is under one of those.
    let via = via::read(table, report);
    let probe = probe::read(table, probe_type, report);

    let port = table.read(&keys::PORT, report);
    let port = port.map(|port| port.and_then(|port| u16::try_from(port.value).ok()));
    let address = table.read(&keys::ADDRESS, report);
    let source = table.read(&keys::SOURCE, report);
    let interval = table.read_or(&keys::INTERVAL, defaults.interval, report);
    // A check that outlives its interval would delay the next one, and with it the verdict. Where only the interval
    // is given, the default must not stand in its way.
    let longest = interval.map_or(keys::MAX_INTERVAL, |interval| interval.value);
    let timeout = match table.get(&keys::TIMEOUT) {
        Some(item) => item.parse(report, values::time(keys::MIN_TIMEOUT, longest)).map(|time| time.value),
        None => Some(defaults.timeout.min(longest)),
    };
    let fast_interval = match table.get(&keys::FAST_INTERVAL) {
        Some(item) => {
            item.parse(report, values::time(keys::MIN_INTERVAL, longest)).map(|time| Some(time.value))
        }
        None => Some(None),
    };
    let down_interval = table.read(&keys::DOWN_INTERVAL, report);
    let rise = table.read_or(&keys::RISE, defaults.rise, report);
    let fall = table.read_or(&keys::FALL, defaults.fall, report);

    let probe_type = probe_type?;
    if udp && probe_type.value.is_for_tcp() && port == Some(None) {
        let kind = probe_type.value.as_str();
        let message = format!("a udp service's own port can't be checked by \"{kind}\"");
        let label = "needs `port`, a TCP port of the backends, or type = \"none\"";
        report.error(probe_type.place, Wrong::new(message, label));
    }
    let (address, source) = (address?, source?);
    if let (Some(address), Some(source)) = (address, source)
        && address.value.is_ipv4() != source.value.is_ipv4()
    {
        let message = format!("{} can't be checked from {}", address.value, source.value);
        report.error(source.place, Wrong::new(message, "both have to be of one family"));
    }
    let via = via?;
    via::check(via, probe_type, address, forwarding, report)?;
    Some(HealthCheck {
        probe: probe?,
        via: via.value,
        interval: interval?.value,
        fast_interval: fast_interval?,
        down_interval: down_interval?.map(|time| time.value),
        timeout: timeout?,
        rise: rise?.value,
        fall: fall?.value,
        port: port?,
        address: address.map(|address| address.value),
        source: source.map(|source| source.value),
    })
}

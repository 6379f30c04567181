//! `[service.health]`: what every check has. What only some types have is read by [`probe`].

mod probe;
pub(super) mod shape;
#[cfg(test)]
mod tests;
mod text;
mod via;

use std::{net::IpAddr, time::Duration};

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
    let types = values::choice(&ProbeType::ALL, ProbeType::as_str);
    let default_type = if udp { ProbeType::None } else { ProbeType::Tcp };
    let probe_type = table.text_or("type", default_type, report, types);
    // Before the type's own keys: one of its ways to be written is under one of those.
    let via = via::read(table, report);
    let probe = probe::read(table, probe_type, report);

    let port = match table.get("port") {
        Some(item) => item.integer(1, u32::from(u16::MAX), report).map(|port| u16::try_from(port.value).ok()),
        None => Some(None),
    };
    let address = read_address("address", table, report);
    let source = read_address("source", table, report);
    let interval =
        table.text_or("interval", defaults.interval, report, values::time(MIN_INTERVAL, MAX_INTERVAL));
    // A check that outlives its interval would delay the next one, and with it the verdict. Where only the interval
    // is given, the default must not stand in its way.
    let longest = interval.map_or(MAX_INTERVAL, |interval| interval.value);
    let timeout =
        table.text_or("timeout", defaults.timeout.min(longest), report, values::time(MIN_TIMEOUT, longest));
    let fast_interval = read_interval("fast_interval", longest, table, report);
    let down_interval = read_interval("down_interval", MAX_INTERVAL, table, report);
    let rise = table.integer_or("rise", defaults.rise, (1, MAX_STREAK), report);
    let fall = table.integer_or("fall", defaults.fall, (1, MAX_STREAK), report);

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
        down_interval: down_interval?,
        timeout: timeout?.value,
        rise: rise?.value,
        fall: fall?.value,
        port: port?,
        address: address.map(|address| address.value),
        source: source.map(|source| source.value),
    })
}

fn read_address(
    key: &'static str,
    table: &mut Table<'_>,
    report: &mut Report<'_>,
) -> Option<Option<At<IpAddr>>> {
    match table.get(key) {
        Some(item) => item.parse(report, values::peer_address).map(Some),
        None => Some(None),
    }
}

fn read_interval(
    key: &'static str,
    longest: Duration,
    table: &mut Table<'_>,
    report: &mut Report<'_>,
) -> Option<Option<Duration>> {
    match table.get(key) {
        Some(item) => item.parse(report, values::time(MIN_INTERVAL, longest)).map(|time| Some(time.value)),
        None => Some(None),
    }
}

const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_STREAK: u32 = 100;

use std::{collections::BTreeMap, net::IpAddr};

use super::v1;
use crate::{
    announce::{
        Board, VipReport,
        split_brain::{self, HeldVips},
    },
    config::RouteSettings,
    control::Snapshot,
    dataplane::{CounterReader, Error},
};

/// What is announced, with the traffic that it brings.
pub(in crate::api) fn announce(
    snapshot: &Snapshot,
    counters: &dyn CounterReader,
    board: &Board,
) -> Result<Option<v1::Announce>, Error> {
    let Some(report) = board.report() else { return Ok(None) };
    let numbers: Vec<_> = snapshot.services.iter().map(|view| view.id).collect();
    let mut traffic: BTreeMap<IpAddr, (Vec<String>, u64)> = BTreeMap::new();
    for (view, counted) in snapshot.services.iter().zip(counters.services(&numbers)?) {
        let (services, packets) = traffic.entry(view.service.vip.address).or_default();
        services.push(view.service.name.to_string());
        *packets += counted.packets;
    }
    let vip = |(vip, is): (&IpAddr, &VipReport)| {
        let (services, packets) = traffic.remove(vip).unwrap_or_default();
        v1::AnnouncedVip {
            vip: vip.to_string(),
            announced: is.announced,
            reason: is.reason.map(|reason| reason.as_str().to_owned()),
            detail: is.detail.clone(),
            kept: is.kept.clone(),
            seconds: is.since.elapsed().as_secs(),
            services,
            packets,
        }
    };
    let vips = report.vips.iter().map(vip).collect();
    let RouteSettings { protocol, table, metric, device } = report.routes.clone();
    let off = snapshot.announce_off.all;
    Ok(Some(v1::Announce { protocol, table, metric, device, off, vips, trouble: report.trouble.clone() }))
}

pub(in crate::api) fn held_vips(held: &HeldVips) -> Vec<v1::HeldVip> {
    let vip = |(vip, held): (IpAddr, split_brain::Held)| v1::HeldVip {
        vip: vip.to_string(),
        interface: held.interface,
        rival: held.rival.map(split_brain::text),
    };
    held.all().into_iter().map(vip).collect()
}

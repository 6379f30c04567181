//! Metrics of what the network is told of VIPs.

use super::text::Page;
use crate::announce::{Board, Reason, split_brain::HeldVips};

pub(super) fn render(page: &mut Page, board: &Board, held: &HeldVips) {
    let report = board.report();
    let vips: Vec<_> =
        report.iter().flat_map(|report| &report.vips).map(|(vip, is)| (vip.to_string(), is)).collect();
    let mut active =
        page.gauge("ballast_announce_active", "Whether the route that announces the VIP is in the kernel.");
    for (vip, is) in &vips {
        active.sample(&[("vip", vip)], u8::from(is.announced));
    }
    let mut withdrawn = page.gauge(
        "ballast_announce_withdrawn",
        "1 for the reason why the VIP is not announced, 0 for the others.",
    );
    for (vip, is) in &vips {
        for reason in Reason::ALL {
            withdrawn.sample(
                &[("vip", vip), ("reason", reason.as_str())],
                u8::from(!is.announced && is.reason == Some(reason)),
            );
        }
    }
    let mut kept = page.gauge(
        "ballast_announce_kept",
        "Whether the VIP is announced although a service asks for more healthy backends, for the fleet gives no leave to withdraw it.",
    );
    for (vip, is) in &vips {
        kept.sample(&[("vip", vip)], u8::from(is.kept.is_some()));
    }
    let mut trouble = page.gauge(
        "ballast_announce_trouble",
        "Whether the kernel's routes can't be read or changed, so that what is announced may not be what should be.",
    );
    if let Some(report) = &report {
        trouble.sample(&[], u8::from(report.trouble.is_some()));
    }
    let held = held.all();
    let mut rivals = page.gauge(
        "ballast_split_brain",
        "Of a VIP that is an address of this host: whether another host says that it has it, too.",
    );
    for (vip, held) in &held {
        rivals.sample(&[("vip", &vip.to_string())], u8::from(held.rival.is_some()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        announce::{Report, VipReport},
        config::RouteSettings,
    };

    #[test]
    fn every_vip_is_told_with_every_reason() {
        let vip = |vip: &str, reason: Option<Reason>| {
            (
                vip.parse().expect("an address"),
                VipReport {
                    announced: reason.is_none(),
                    reason,
                    detail: String::new(),
                    kept: None,
                    since: Instant::now(),
                },
            )
        };
        let vips = [vip("203.0.113.10", None), vip("2001:db8::10", Some(Reason::ProbeFailed))];
        let report = Report { routes: RouteSettings::default(), vips: vips.into(), trouble: None };
        let mut page = Page::default();
        render(&mut page, &Board::of(report), &HeldVips::of("192.0.2.9", Some([2; 6])));
        let text = page.into_string();
        for line in [
            "ballast_announce_active{vip=\"203.0.113.10\"} 1",
            "ballast_announce_active{vip=\"2001:db8::10\"} 0",
            "ballast_announce_withdrawn{vip=\"2001:db8::10\",reason=\"probe_failed\"} 1",
            "ballast_announce_withdrawn{vip=\"2001:db8::10\",reason=\"administrator\"} 0",
            "ballast_announce_withdrawn{vip=\"203.0.113.10\",reason=\"probe_failed\"} 0",
            "ballast_announce_kept{vip=\"203.0.113.10\"} 0",
            "ballast_announce_trouble 0",
            "ballast_split_brain{vip=\"192.0.2.9\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}

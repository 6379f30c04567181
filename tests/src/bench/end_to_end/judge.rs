//! What a contender takes over another, and whether that is little enough.

use super::super::stats::Summary;
use super::super::targets::{Bound, Judged};
use super::contender::{CONTENDERS, DIRECT, HAPROXY, position};
use super::load::Kind;
use super::measure::{Line, Measured, Turn};
use super::results::group;

/// A fifth of what HAProxy takes.
const AT_MOST: Bound = Bound::AtMost(0.2);

/// Ballast against HAProxy, over plain forwarding (as it is asked) and over no balancer at all (which is stricter).
pub(super) fn judge(of_kind: &Measured) -> Vec<Judged> {
    let proxy = CONTENDERS.iter().find(|contender| contender.name == HAPROXY);
    let proxy_over = proxy.and_then(|proxy| proxy.over);
    let asked = of_kind.kind == Kind::Connections;
    let mut judged = Vec::new();
    for contender in CONTENDERS.iter().filter(|contender| asked && contender.is_ballast()) {
        let bases = [("plain forwarding", contender.over, proxy_over), (DIRECT, Some(DIRECT), Some(DIRECT))];
        for (over, base, proxy_base) in bases {
            let (Some(base), Some(proxy_base)) = (base, proxy_base) else { continue };
            let taken = over_base(of_kind, contender.name, base);
            let by_proxy = over_base(of_kind, HAPROXY, proxy_base);
            let ratio = Summary::of_ratios(&taken, &by_proxy).zip(Summary::of(&by_proxy));
            let Some((measured, by_proxy)) = ratio else { continue };
            judged.push(Judged {
                group: group(of_kind.kind).into(),
                what: format!("CPU of {} / {HAPROXY}, over {over}", contender.name),
                bound: AT_MOST.to_string(),
                measured,
                // A proxy that seems to take nothing was not measured.
                met: by_proxy.median > 0.0 && AT_MOST.is_met(measured.median),
            });
        }
    }
    judged
}

/// CPU seconds per million, round by round: what disturbs a round disturbs both of its values.
pub(super) fn over_base(of_kind: &Measured, name: &str, base: &str) -> Vec<f64> {
    let busy = |name| {
        let line = position(name).and_then(|at| of_kind.lines.get(at));
        line.map(|line| values(line, |turn| turn.busy)).unwrap_or_default()
    };
    busy(name).iter().zip(busy(base)).map(|(value, base)| value - base).collect()
}

pub(super) fn values(line: &Line, value: impl Fn(&Turn) -> f64) -> Vec<f64> {
    line.turns.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds in which everything takes a known time, and the second is slower for all.
    fn measured(kind: Kind, busy: impl Fn(&str) -> f64) -> Measured {
        let turn =
            |busy| Turn { busy, sampled: busy, stolen: 0.0, others: 0.0, p50: 1.0, p99: 2.0, failed: 0 };
        let lines = CONTENDERS.iter().map(|contender| {
            let turns = [0.0, 100.0, 0.0].map(|more| turn(busy(contender.name) + more)).to_vec();
            Line { saturation: 1.0, turns }
        });
        Measured { kind, rate: 1.0, lines: lines.collect() }
    }

    fn busy(name: &str) -> f64 {
        match name {
            DIRECT => 200.0,
            HAPROXY => 320.0,
            "ballast l2-dsr" => 212.0,
            "ballast ipip" => 240.0,
            _ => 220.0,
        }
    }

    #[test]
    fn what_disturbs_a_round_is_not_what_a_contender_takes() {
        let of_kind = measured(Kind::Connections, busy);
        assert_eq!(over_base(&of_kind, HAPROXY, DIRECT), [120.0; 3]);
    }

    #[test]
    fn ballast_is_judged_by_both_bases_and_each_mode_alone() {
        let judged = judge(&measured(Kind::Connections, busy));
        let found: Vec<_> = judged.iter().map(|it| (it.what.as_str(), it.measured.median, it.met)).collect();
        assert_eq!(
            found,
            [
                // Less than the kernel itself takes: (212 - 220) / (320 - 220).
                ("CPU of ballast l2-dsr / haproxy, tcp, over plain forwarding", -0.08, true),
                ("CPU of ballast l2-dsr / haproxy, tcp, over no balancer", 0.1, true),
                ("CPU of ballast ipip / haproxy, tcp, over plain forwarding", 0.2, true),
                ("CPU of ballast ipip / haproxy, tcp, over no balancer", 1.0 / 3.0, false),
                ("CPU of ballast gue / haproxy, tcp, over plain forwarding", 0.0, true),
                ("CPU of ballast gue / haproxy, tcp, over no balancer", 1.0 / 6.0, true),
                ("CPU of ballast dnat / haproxy, tcp, over plain forwarding", 0.0, true),
                ("CPU of ballast dnat / haproxy, tcp, over no balancer", 1.0 / 6.0, true),
                ("CPU of ballast nat / haproxy, tcp, over plain forwarding", 0.0, true),
                ("CPU of ballast nat / haproxy, tcp, over no balancer", 1.0 / 6.0, true),
            ]
        );
    }

    #[test]
    fn nothing_is_asked_of_requests() {
        assert!(judge(&measured(Kind::Requests, busy)).is_empty());
    }

    #[test]
    fn a_proxy_that_seems_to_take_nothing_proves_nothing() {
        let judged = judge(&measured(Kind::Connections, |_| 220.0));
        assert!(judged.iter().all(|it| !it.met), "{judged:?}");
        let judged =
            judge(&measured(Kind::Connections, |name| if name == HAPROXY { 210.0 } else { busy(name) }));
        assert!(judged.iter().all(|it| !it.met), "{judged:?}");
    }
}

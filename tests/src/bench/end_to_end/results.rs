//! Results as tables, as JSON, and beside what is asked.

use comfy_table::Table;
use serde_json::{Value, json};

use super::super::report::{right, shown, summary, table};
use super::super::stats::Summary;
use super::super::targets::Judged;
use super::bed::Death;
use super::contender::{CONTENDERS, Contender, DIRECT};
use super::judge::{judge, over_base, values};
use super::load::Kind;
use super::machine::ClockCheck;
use super::measure::{Line, Measured, Turn};
use super::{CONNECTIONS, REQUESTS, death};

#[derive(Debug)]
pub(in crate::bench) struct Results {
    /// Where loads are measured.
    pub(super) clock: Option<ClockCheck>,
    pub(super) loads: Vec<Measured>,
    pub(super) deaths: Vec<death::Line>,
}

impl Results {
    /// Tables with their titles.
    pub(in crate::bench) fn text(&self) -> Vec<String> {
        let mut parts: Vec<_> = self
            .loads
            .iter()
            .map(|of_kind| {
                let (what, rate) = (noun(of_kind.kind), of_kind.rate);
                let title = format!("End to end, {rate} {what} a second: median (10 % to 90 % of rounds)");
                format!("{title}\n{}", costs(of_kind))
            })
            .collect();
        if !self.deaths.is_empty() {
            parts.push(format!("A backend dies: median (10 % to 90 % of deaths)\n{}", deaths(&self.deaths)));
        }
        parts.extend(self.clock.map(|ClockCheck { idle_clock, samples }| format!(
            "Of a known load in bursts of 100 µs, the idle clock (used above) sees {:.0} %, the kernel's samples {:.0} %{}",
            idle_clock * 100.0,
            samples * 100.0,
            self.others()
        )));
        parts
    }

    /// How far to trust the figures.
    fn others(&self) -> String {
        let lines = self.loads.iter().flat_map(|of_kind| &of_kind.lines);
        let parts: Vec<_> = lines.flat_map(|line| values(line, |turn| turn.others * 100.0)).collect();
        Summary::of(&parts).map_or_else(String::new, |it| {
            format!(
                "; of the machine's time other processes took {:.1} % (10 % to 90 % of turns: {:.1} % to {:.1} %), \
                 which is taken off and disturbs all the same",
                it.median, it.low, it.high
            )
        })
    }

    pub(in crate::bench) fn json(&self) -> Value {
        let loads: Vec<_> = self.loads.iter().map(load).collect();
        let deaths: Vec<_> = self.deaths.iter().map(dying).collect();
        let clock =
            self.clock.map(|clock| json!({ "idle_clock": clock.idle_clock, "samples": clock.samples }));
        json!({ "clock_check": clock, "loads": loads, "deaths": deaths })
    }

    pub(in crate::bench) fn judged(&self) -> Vec<Judged> {
        self.loads.iter().flat_map(judge).collect()
    }
}

fn costs(of_kind: &Measured) -> Table {
    let header = [
        "",
        "at most, a second",
        "CPU s a million, whole machine",
        "over plain forwarding",
        "over no balancer",
        "p50 µs",
        "p99 µs",
        "failed",
    ];
    let mut table = table(&header.map(str::to_owned));
    for (contender, line) in CONTENDERS.iter().zip(&of_kind.lines) {
        let of = |value: fn(&Turn) -> f64| cell(&values(line, value));
        let over = |base: Option<&str>| {
            base.filter(|base| *base != contender.name)
                .map_or_else(String::new, |base| cell(&over_base(of_kind, contender.name, base)))
        };
        let failed: u64 = line.turns.iter().map(|turn| turn.failed).sum();
        table.add_row([
            contender.name.to_owned(),
            format!("{:.0}", line.saturation),
            of(|turn| turn.busy),
            over(contender.over),
            over(Some(DIRECT)),
            of(|turn| turn.p50),
            of(|turn| turn.p99),
            failed.to_string(),
        ]);
    }
    right(table)
}

fn deaths(lines: &[death::Line]) -> Table {
    let header = ["", "its end", "failed requests", "of", "seconds until the last", "p99 ms of the others"];
    let mut table = table(&header.map(str::to_owned));
    for line in lines {
        let of = |value: fn(&death::Seen) -> f64| cell(&line.seen.iter().map(value).collect::<Vec<_>>());
        table.add_row([
            line.contender.to_owned(),
            end(line.death).to_owned(),
            of(|seen| seen.failed as f64),
            of(|seen| seen.requests as f64),
            of(|seen| seen.lasted),
            of(|seen| seen.p99),
        ]);
    }
    right(table)
}

fn cell(values: &[f64]) -> String {
    Summary::of(values).map_or_else(String::new, shown)
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Requests => "requests on kept connections",
        Kind::Connections => "connections with a request each",
    }
}

pub(super) fn group(kind: Kind) -> &'static str {
    match kind {
        Kind::Requests => REQUESTS,
        Kind::Connections => CONNECTIONS,
    }
}

fn end(death: Death) -> &'static str {
    match death {
        Death::Killed => "killed",
        Death::Unplugged => "unplugged",
    }
}

fn load(of_kind: &Measured) -> Value {
    let line = |(contender, line): (&Contender, &Line)| {
        let of = |value: fn(&Turn) -> f64| {
            let rounds = values(line, value);
            json!({ "summary": Summary::of(&rounds).map(summary), "rounds": rounds })
        };
        let over = |base: &str| {
            let rounds = over_base(of_kind, contender.name, base);
            json!({ "summary": Summary::of(&rounds).map(summary), "rounds": rounds })
        };
        json!({
            "contender": contender.name,
            "saturation_per_second": line.saturation,
            "cpu_seconds_per_million": of(|turn| turn.busy),
            "cpu_seconds_per_million_over_plain_forwarding": contender.over.map(over),
            "cpu_seconds_per_million_over_no_balancer": over(DIRECT),
            "cpu_seconds_per_million_by_samples": of(|turn| turn.sampled),
            "stolen_part": of(|turn| turn.stolen),
            "others_part": of(|turn| turn.others),
            "p50_us": of(|turn| turn.p50),
            "p99_us": of(|turn| turn.p99),
            "failed": of(|turn| turn.failed as f64),
        })
    };
    let lines: Vec<_> = CONTENDERS.iter().zip(&of_kind.lines).map(line).collect();
    json!({ "load": group(of_kind.kind), "per_second": of_kind.rate, "contenders": lines })
}

fn dying(line: &death::Line) -> Value {
    let seen = |seen: &death::Seen| {
        json!({
            "requests": seen.requests,
            "failed": seen.failed,
            "seconds_until_the_last": seen.lasted,
            "p99_ms": seen.p99,
        })
    };
    let deaths: Vec<_> = line.seen.iter().map(seen).collect();
    json!({ "contender": line.contender, "end": end(line.death), "deaths": deaths })
}

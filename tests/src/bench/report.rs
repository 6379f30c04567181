//! Results as tables, and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::changes;
use super::end_to_end;
use super::live;
use super::packets::{FLOWS, Line, Measured, Size};
use super::scenario::Family;
use super::stats::Summary;
use super::targets::{self, Judged};

#[derive(Debug, Default)]
pub(super) struct Report {
    packets: Vec<Measured>,
    sizes: Vec<Size>,
    changes: Vec<changes::Line>,
    live: Vec<live::Line>,
    end_to_end: Option<end_to_end::Results>,
}

impl Report {
    pub(super) fn add(&mut self, measured: Measured, sizes: Vec<Size>) {
        self.packets.push(measured);
        for size in sizes {
            if !self.sizes.iter().any(|known| known.program == size.program) {
                self.sizes.push(size);
            }
        }
    }

    pub(super) fn add_changes(&mut self, lines: Vec<changes::Line>) {
        self.changes.extend(lines);
    }

    pub(super) fn add_live(&mut self, lines: Vec<live::Line>) {
        self.live.extend(lines);
    }

    pub(super) fn add_end_to_end(&mut self, results: Option<end_to_end::Results>) {
        self.end_to_end = results;
    }

    pub(super) fn is_empty(&self) -> bool {
        let is_measured = !self.packets.is_empty() || !self.changes.is_empty() || !self.live.is_empty();
        !is_measured && self.end_to_end.is_none()
    }

    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        for family in [Family::V4, Family::V6] {
            let groups: Vec<_> = self.packets.iter().filter(|group| group.group.family == family).collect();
            if !groups.is_empty() {
                let title = format!("ns per packet, IP{}: median (10 % to 90 % of rounds)", family.name());
                let nanoseconds = |_: &Measured, line: &Line| Summary::of(&line.nanoseconds);
                parts.push(format!("{title}\n{}", across(&groups, nanoseconds)));
                let title = format!("of the same packets under the program as it ships, IP{}", family.name());
                parts.push(format!("{title}\n{}", across(&groups, Measured::ratio)));
            }
        }
        if !self.sizes.is_empty() {
            parts.push(format!("Programs\n{}", sizes(&self.sizes)));
        }
        if !self.changes.is_empty() {
            parts.push(format!(
                "Changes and looks: median (10 % to 90 % of rounds)\n{}",
                changed(&self.changes)
            ));
        }
        if !self.live.is_empty() {
            let title = "Live frames over veth, one CPU: median (10 % to 90 % of rounds)";
            parts.push(format!("{title}\n{}", live(&self.live)));
        }
        parts.extend(self.end_to_end.iter().flat_map(end_to_end::Results::text));
        parts.push(format!("Targets\n{}", judged(&self.judged())));
        parts.join("\n\n")
    }

    pub(super) fn json(&self) -> Value {
        let packets: Vec<_> = self.packets.iter().flat_map(lines).collect();
        let sizes: Vec<_> = self.sizes.iter().map(size).collect();
        let targets: Vec<_> = self.judged().iter().map(target).collect();
        let changes: Vec<_> = self.changes.iter().map(change).collect();
        let end_to_end = self.end_to_end.as_ref().map(end_to_end::Results::json);
        json!({
            "packets": packets,
            "programs": sizes,
            "changes": changes,
            "live": self.live.iter().map(live_line).collect::<Vec<_>>(),
            "end_to_end": end_to_end,
            "targets": targets,
        })
    }

    fn judged(&self) -> Vec<Judged> {
        let packets = self.packets.iter().flat_map(targets::judge);
        let changes = self.changes.iter().filter_map(targets::judge_change);
        packets.chain(changes).chain(self.end_to_end.iter().flat_map(end_to_end::Results::judged)).collect()
    }
}

/// Scenarios that have a value down, numbers of flows across.
fn across(groups: &[&Measured], value: impl Fn(&Measured, &Line) -> Option<Summary>) -> Table {
    let mut table = table(&["flows"].map(str::to_owned));
    let flows: Vec<_> =
        FLOWS.iter().filter_map(|flows| groups.iter().find(|group| group.group.flows == *flows)).collect();
    let header = flows.iter().map(|group| group.group.flows.to_string());
    table.set_header(std::iter::once("flows".to_owned()).chain(header));
    let scenarios = groups.first().map(|group| group.lines.as_slice()).unwrap_or_default();
    for name in scenarios.iter().map(|line| line.scenario.name) {
        let cells: Vec<_> = flows.iter().map(|group| value(group, group.line(name)?).map(shown)).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            table.add_row(std::iter::once(name.to_owned()).chain(cells));
        }
    }
    right(table)
}

fn sizes(sizes: &[Size]) -> Table {
    let mut table =
        table(&["program", "instructions", "bytes of machine code", "verified"].map(str::to_owned));
    for size in sizes {
        let numbers = [size.instructions, size.machine_code, size.verified].map(|number| number.to_string());
        table.add_row(std::iter::once(size.program.clone()).chain(numbers));
    }
    right(table)
}

fn changed(lines: &[changes::Line]) -> Table {
    let mut table = table(&["", "measured"].map(str::to_owned));
    for line in lines {
        table.add_row([line.what.clone(), shown(line.value)]);
    }
    right(table)
}

/// What is not the floor's is the program's.
fn live(lines: &[live::Line]) -> Table {
    let header = ["", "million packets a second", "of the floor", "ns a packet over the floor"];
    let mut table = table(&header.map(str::to_owned));
    for line in lines {
        let floor = lines.iter().find(|other| other.family == line.family && other.name == live::FLOOR);
        let floor = floor.filter(|floor| floor.name != line.name);
        let part = floor.and_then(|floor| Summary::of_ratios(&line.rates, &floor.rates));
        let more = floor.and_then(|floor| {
            let pairs = line.nanoseconds().into_iter().zip(floor.nanoseconds());
            Summary::of(&pairs.map(|(value, floor)| value - floor).collect::<Vec<_>>())
        });
        let shown = |summary: Option<Summary>| summary.map_or_else(String::new, shown);
        let name = format!("{}, IP{}", line.name, line.family.name());
        table.add_row([name, shown(Summary::of(&line.rates)), shown(part), shown(more)]);
    }
    right(table)
}

/// Two decimals for what is small.
pub(super) fn shown(it: Summary) -> String {
    if it.median < 10.0 {
        format!("{:.2} ({:.2} to {:.2})", it.median, it.low, it.high)
    } else {
        format!("{:.1} ({:.1} to {:.1})", it.median, it.low, it.high)
    }
}

fn judged(judged: &[Judged]) -> Table {
    let mut table = table(&["group", "what", "measured", "target", ""].map(str::to_owned));
    for it in judged {
        let measured = shown(it.measured);
        let met = if it.met { "met" } else { "NOT MET" };
        table.add_row([&it.group, &it.what, &measured, &it.bound, met]);
    }
    table
}

pub(super) fn table(header: &[String]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    table
}

/// All columns but the first are numbers.
pub(super) fn right(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn lines(measured: &Measured) -> Vec<Value> {
    let line = |line: &super::packets::Line| {
        json!({
            "family": measured.group.family.name(),
            "flows": measured.group.flows,
            "scenario": line.scenario.name,
            "ns": Summary::of(&line.nanoseconds).map(summary),
            "ns_by_kernel": Summary::of(&line.by_kernel).map(summary),
            "of_the_program_as_it_ships": measured.ratio(line).map(summary),
            "rounds": line.nanoseconds,
        })
    };
    measured.lines.iter().map(line).collect()
}

fn size(size: &Size) -> Value {
    json!({
        "program": size.program,
        "instructions": size.instructions,
        "machine_code_bytes": size.machine_code,
        "verified_instructions": size.verified,
    })
}

fn change(line: &changes::Line) -> Value {
    json!({ "what": line.what, "measured": summary(line.value) })
}

fn live_line(line: &live::Line) -> Value {
    json!({
        "family": line.family.name(),
        "program": line.name,
        "million_packets_per_second": Summary::of(&line.rates).map(summary),
        "rounds": line.rates,
    })
}

fn target(judged: &Judged) -> Value {
    json!({
        "group": judged.group,
        "what": judged.what,
        "target": judged.bound,
        "measured": summary(judged.measured),
        "met": judged.met,
    })
}

pub(super) fn summary(summary: Summary) -> Value {
    json!({ "median": summary.median, "p10": summary.low, "p90": summary.high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_missed_says_so() {
        let measured = Summary { median: 1.5, low: 1.25, high: 12.0 };
        let it = |met| Judged {
            group: "packets/v4/1".into(),
            what: "a / b".into(),
            bound: "≤ 1.4".into(),
            measured,
            met,
        };
        let text = judged(&[it(true), it(false)]).to_string();
        let rows: Vec<_> = text.lines().skip(2).collect();
        assert!(rows[0].contains("1.50 (1.25 to 12.00)") && rows[0].contains("| met"), "{text}");
        assert!(rows[1].contains("NOT MET"), "{text}");
        assert_eq!(shown(Summary { median: 123.46, ..measured }), "123.5 (1.2 to 12.0)");
    }
}

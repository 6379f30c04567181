use std::fmt::Write;

use super::{
    Format, backend,
    exit::Failure,
    output::{self, Grid, Rating, Style, cell, plain, rated},
    service,
};
use crate::api::{client::Client, v1};

pub(super) async fn status(client: &Client, ready: bool, format: Format) -> Result<(), Failure> {
    let status = client.status().await?;
    output::print(format, &status, render)?;
    if ready && !status.ready {
        return Err(Failure::NotReady(why_not_ready(&status)));
    }
    Ok(())
}

pub(super) fn render(status: &v1::Status, style: Style) -> String {
    let ready =
        if status.ready { "ready".to_owned() } else { format!("NOT READY: {}", why_not_ready(status)) };
    let mut text = format!("revision {}, {ready}\n", status.revision);
    // First, because everything below is about something else than the file.
    if let Some(error) = &status.config_error {
        alarm(&mut text, "THE CONFIGURATION IS NOT WHAT RUNS", error, style);
    }
    if let Some(error) = &status.state_error {
        alarm(&mut text, "WHAT WAS MADE OVER THE COMMAND LINE IS NOT ALL THERE", error, style);
    }
    for clash in &status.nat_clashes {
        alarm(&mut text, "REPLIES THROUGH NAT MAY GET LOST", clash, style);
    }
    for (service, of) in status.services.iter().flat_map(|of| of.discovery.iter().map(move |one| (of, one))) {
        if let Some(trouble) = &of.trouble {
            let what = format!(
                "{} {} OF SERVICE {} DOES NOT ANSWER AS IT SHOULD",
                of.kind.to_uppercase(),
                plain(&of.source),
                service.name
            );
            alarm(&mut text, &what, trouble, style);
        }
    }
    let v1::Verdicts { tx, redirect, pass, drop } = status.verdicts;
    // Writing to a string does not fail.
    let _ =
        writeln!(text, "{} packets: {tx} tx, {redirect} redirect, {pass} pass, {drop} drop", status.packets);
    let v1::FlowTable { entries, capacity } = status.flow_table;
    let _ =
        writeln!(text, "{entries} of {capacity} flow entries in use, {} slots tracked", status.tracked_slots);
    let v1::FlowTable { entries, capacity } = status.nat_table;
    if status.services.iter().any(|service| service.reply_packets.is_some()) || entries > 0 {
        let _ = writeln!(text, "{entries} of {capacity} NAT flows in use");
    }

    let mut interfaces = Grid::new(style, &["INTERFACE", "MODE", "ATTACHED"]);
    for interface in &status.interfaces {
        let attached = match interface.attached {
            true => rated("yes", Rating::Good),
            false => rated("no", Rating::Bad),
        };
        interfaces.row([cell(&interface.name), cell(&interface.mode), attached]);
    }
    let _ = write!(text, "\n{}", interfaces.render());

    if status.services.is_empty() {
        text.push_str("\nno services\n");
    } else {
        let _ = write!(text, "\n{}", services(&status.services, style));
    }

    let dropped: Vec<_> = status.drops.iter().filter(|(_, count)| **count > 0).collect();
    if !dropped.is_empty() {
        let mut drops = Grid::new(style, &["DROPPED", ">PACKETS"]);
        for (reason, count) in dropped {
            drops.row([cell(reason), cell(count)]);
        }
        let _ = write!(text, "\n{}", drops.render());
    }
    text
}

fn alarm(text: &mut String, what: &str, why: &str, style: Style) {
    let lines: Vec<_> = why.lines().map(plain).collect();
    let _ = writeln!(text, "\n{}:\n{}\n", output::loud(what, style), lines.join("\n"));
}

fn services(services: &[v1::Service], style: Style) -> String {
    let mut headings = vec![
        "SERVICE",
        "ADDRESS",
        "ADMIN",
        "STATE",
        ">WEIGHT",
        ">SHARE",
        ">FLOWS",
        ">PACKETS",
        ">BYTES",
        ">NEW FLOWS",
    ];
    let in_line = backend::owners_fit(style);
    headings.extend(in_line.then_some("ORIGIN"));
    let mut below = Grid::new(style, &backend::OWNERS);
    let mut grid = Grid::new(style, &headings);
    for service in services {
        let mut row = vec![
            cell(&service.name),
            cell(service::endpoint(service)),
            cell(""),
            rated(&service.state, Rating::of(&service.state)),
            cell(""),
            cell(""),
            cell(""),
            cell(service.packets),
            cell(service.bytes),
            cell(backend::count(service.new_flows)),
        ];
        row.extend(in_line.then(|| cell(backend::owners(&service.origin, &service.overrides))));
        grid.row(row);
        below.row(backend::owners_row(&service.name, &service.origin, &service.overrides));
        for backend in &service.backends {
            let name = format!("- {}", backend.name);
            let mut row = vec![
                cell(&name),
                cell(&backend.address),
                backend::admin(backend),
                backend::health(backend),
                cell(backend::weight(backend)),
                cell(backend::share(backend)),
                cell(backend::count(backend.flows)),
                cell(backend.packets),
                cell(backend.bytes),
                cell(backend::count(backend.new_flows)),
            ];
            row.extend(in_line.then(|| cell(backend::owners(&backend.origin, &backend.overrides))));
            grid.row(row);
            below.row(backend::owners_row(&name, &backend.origin, &backend.overrides));
        }
        for backend in &service.leaving {
            let mut row = vec![cell(format!("- {}", backend::name_of(backend))), cell(&backend.address)];
            row.extend([backend::leaving_until(backend), cell(""), cell(""), cell(""), cell(backend.flows)]);
            row.extend([cell(""), cell(""), cell("")]);
            row.extend(in_line.then(|| cell("")));
            grid.row(row);
        }
    }
    match in_line {
        true => grid.render(),
        false => format!("{}\n{}", grid.render(), below.render()),
    }
}

fn why_not_ready(status: &v1::Status) -> String {
    let detached = status.interfaces.iter().filter(|interface| !interface.attached);
    let names: Vec<_> = detached.map(|interface| plain(&interface.name)).collect();
    match names.is_empty() {
        true => "the last change is not published yet".to_owned(),
        false => format!("not attached to {}", names.join(", ")),
    }
}

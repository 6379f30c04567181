use std::{fmt::Write, path::Path, time::Duration};

use anyhow::Context as _;

use super::{
    Format, announce, backend,
    exit::Failure,
    output::{self, Grid, Rating, Style, cell, plain, rated},
    peers, service, traffic,
    watch::{self, Watch, Watched},
};
use crate::{
    api::{
        client::{Client, ClientError},
        v1,
    },
    console::{
        alarms,
        news::{self, Notice},
        rates::{self, ServiceRates, StatusRates},
        units,
    },
    dataplane::inspect,
};

pub(super) async fn status(
    client: &Client,
    ready: bool,
    pinned: Option<&Path>,
    watch: Watch,
    format: Format,
) -> Result<(), Failure> {
    if !ready {
        return watch::show(watch, format, async || client.status().await).await;
    }
    let asked = async {
        let Some(_) = pinned else { return client.status().await };
        let late = |_| Err(ClientError::Timeout { socket: client.socket().to_path_buf(), limit: SOON });
        tokio::time::timeout(SOON, client.status()).await.unwrap_or_else(late)
    };
    let status = match (asked.await, pinned) {
        (Err(error @ (ClientError::Unreachable { .. } | ClientError::Timeout { .. })), Some(pin_dir)) => {
            return without_daemon(pin_dir, error);
        }
        (status, _) => status?,
    };
    output::print(format, &status, |status, style| render(status, None, style))?;
    if !status.ready {
        return Err(Failure::NotReady(why_not_ready(&status)));
    }
    Ok(())
}

/// Whether packets are forwarded although no daemon answers.
fn without_daemon(pin_dir: &Path, error: ClientError) -> Result<(), Failure> {
    let context = || format!("can't look at what is pinned at {}", pin_dir.display());
    let pinned = inspect::pinned(pin_dir).with_context(context).map_err(Failure::Failed)?;
    let programs = &pinned.programs;
    if programs.is_empty() || programs.iter().any(|program| program.ifindex == 0) {
        return Err(Failure::Daemon(error));
    }
    output::complain(&format!("warning: {error}; the program that is pinned goes on forwarding"));
    Ok(())
}

impl Watched for v1::Status {
    fn render(&self, before: Option<(&Self, Duration)>, watched: bool, style: Style) -> String {
        let rates = before.map(|(before, elapsed)| rates::of_status(before, self, elapsed));
        render(self, watched.then(|| rates.unwrap_or_default()).as_ref(), style)
    }

    fn news(&self, before: &Self) -> Vec<Notice> {
        news::of_status(before, self)
    }
}

/// With `rates` in a watch.
pub(super) fn render(status: &v1::Status, rates: Option<&StatusRates>, style: Style) -> String {
    let ready =
        if status.ready { "ready".to_owned() } else { format!("NOT READY: {}", why_not_ready(status)) };
    let mut text = format!("revision {}, {ready}\n", status.revision);
    if let Some(fingerprint) = &status.hash_key_fingerprint {
        // Writing to a string does not fail.
        let _ = writeln!(text, "hash key {}", plain(fingerprint));
    }
    for (what, why) in alarms::of_status(status) {
        alarm(&mut text, &what, why, style);
    }
    let v1::Verdicts { tx, redirect, pass, drop } = status.verdicts;
    let _ =
        writeln!(text, "{} packets: {tx} tx, {redirect} redirect, {pass} pass, {drop} drop", status.packets);
    if let Some(rates) = rates {
        let _ = writeln!(text, "{}", per_second(rates));
    }
    let v1::FlowTable { entries, capacity } = status.flow_table;
    let _ =
        writeln!(text, "{entries} of {capacity} flow entries in use, {} slots tracked", status.tracked_slots);
    let v1::FlowTable { entries, capacity } = status.nat_table;
    if status.services.iter().any(|service| service.reply_packets.is_some()) || entries > 0 {
        let _ = writeln!(text, "{entries} of {capacity} NAT flows in use");
    }
    if let Some(capture) = &status.capture {
        let _ = writeln!(text, "{}", captures(capture));
    }

    if let Some(of) = &status.peers {
        text.push_str(&peers::render(of, style));
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

    if let Some(announced) = status.announce.as_ref().filter(|announce| !announce.vips.is_empty()) {
        let _ = write!(text, "\n{}", announce::grid(announced, style));
    }
    if status.services.is_empty() {
        text.push_str("\nno services\n");
    } else {
        let _ = write!(text, "\n{}", services(&status.services, rates.map(|rates| &*rates.services), style));
    }

    let dropped: Vec<_> = status.drops.iter().filter(|(_, count)| **count > 0).collect();
    if !dropped.is_empty() {
        let mut headings = vec!["DROPPED", ">PACKETS"];
        headings.extend(rates.map(|_| ">PACKETS/S"));
        let mut drops = Grid::new(style, &headings);
        for (reason, count) in dropped {
            let mut row = vec![cell(reason), cell(count)];
            row.extend(rates.map(|rates| cell(shown(rates.drops.get(reason).copied().flatten()))));
            drops.row(row);
        }
        let _ = write!(text, "\n{}", drops.render());
    }
    text
}

/// `capturing for 12s: service web; 120 packets, 3 missed; user 0, process 4711`
fn captures(capture: &v1::RunningCapture) -> String {
    let v1::RunningCapture { user, process, seconds, filter, packets, missed } = capture;
    let time = units::time(Duration::from_secs(*seconds));
    let process = process.map(|process| format!(", process {process}")).unwrap_or_default();
    let filter = plain(filter);
    format!("capturing for {time}: {filter}; {packets} packets, {missed} missed; user {user}{process}")
}

fn alarm(text: &mut String, what: &str, why: &str, style: Style) {
    let lines: Vec<_> = why.lines().map(plain).collect();
    let _ = writeln!(text, "\n{}:\n{}\n", output::loud(what, style), lines.join("\n"));
}

/// `1.2M packets/s: 1.1M tx, 0 redirect, 40 pass, 3 drop`.
fn per_second(rates: &StatusRates) -> String {
    let verdicts = rates.verdicts;
    let [tx, redirect, pass, drop] = [
        verdicts.map(|verdicts| verdicts.tx),
        verdicts.map(|verdicts| verdicts.redirect),
        verdicts.map(|verdicts| verdicts.pass),
        verdicts.map(|verdicts| verdicts.drop),
    ]
    .map(shown);
    format!("{} packets/s: {tx} tx, {redirect} redirect, {pass} pass, {drop} drop", shown(rates.received))
}

fn shown(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), units::rate)
}

fn services(services: &[v1::Service], rates: Option<&[ServiceRates]>, style: Style) -> String {
    let mut headings = vec!["SERVICE", "ADDRESS", "ADMIN", "~STATE", ">WEIGHT", ">SHARE", ">FLOWS"];
    headings.extend(traffic::headings(rates.is_some()));
    let in_line = backend::owners_fit(style);
    headings.extend(in_line.then_some("ORIGIN"));
    let mut below = Grid::new(style, &backend::OWNERS);
    let mut grid = Grid::new(style, &headings).expendable(&backend::EXPENDABLE);
    for (at, service) in services.iter().enumerate() {
        let rates = rates.map(|rates| rates.get(at));
        let v1::Service { packets, bytes, new_flows, .. } = service;
        let mut row = vec![
            cell(&service.name),
            cell(service::endpoint(service)),
            cell(""),
            rated(&service.state, Rating::of(&service.state)),
            cell(""),
            cell(""),
            cell(""),
        ];
        let rate = rates.map(|rates| rates.and_then(|rates| rates.rate));
        row.extend(traffic::cells(*packets, *bytes, *new_flows, rate));
        row.extend(in_line.then(|| cell(backend::owners(&service.origin, &service.overrides))));
        grid.row(row);
        below.row(backend::owners_row(&service.name, &service.origin, &service.overrides));
        for (at, backend) in service.backends.iter().enumerate() {
            let v1::Backend { packets, bytes, new_flows, .. } = backend;
            let name = format!("- {}", backend.name);
            let mut row = vec![
                cell(&name),
                cell(&backend.address),
                backend::admin(backend),
                backend::health(backend),
                cell(backend::weight(backend)),
                cell(backend::share(backend)),
                cell(backend::count(backend.flows)),
            ];
            let rate = rates.map(|rates| rates.and_then(|rates| rates.backends.get(at).copied().flatten()));
            row.extend(traffic::cells(*packets, *bytes, *new_flows, rate));
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
    // Who owns what does not change while one watches, and the lines are needed.
    match in_line || rates.is_some() {
        true => grid.render(),
        false => format!("{}\n{}", grid.render(), below.render()),
    }
}

fn why_not_ready(status: &v1::Status) -> String {
    plain(status.not_ready.as_deref().unwrap_or("the daemon does not say why")).to_string()
}

/// Where somebody else can say it as well, nobody waits for a daemon that hangs.
const SOON: Duration = Duration::from_secs(1);

use std::{path::Path, time::Duration};

use super::{
    Format,
    exit::Failure,
    output::{Cell, Grid, Rating, Style, cell, rated},
    service, traffic,
    watch::{self, Watch, Watched},
};
use crate::{
    api::{
        client::{Client, ClientError},
        v1,
    },
    console::{
        news::{self, Notice},
        rates::{self, Rate},
    },
    domain::Name,
};

pub(super) async fn list(
    client: &Client,
    service: &Name,
    watch: Watch,
    format: Format,
) -> Result<(), Failure> {
    let ask = async || {
        let backends = client.backends(service).await?;
        Ok::<_, ClientError>(Backends { service, backends })
    };
    watch::show(watch, format, ask).await
}

/// The backends of a service; in JSON an array of them.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Backends<'a> {
    #[serde(skip)]
    service: &'a Name,
    backends: Vec<v1::Backend>,
}

impl Watched for Backends<'_> {
    fn render(&self, before: Option<(&Self, Duration)>, watched: bool, style: Style) -> String {
        let rates =
            before.map(|(before, elapsed)| rates::of_backends(&before.backends, &self.backends, elapsed));
        render(&self.backends, &[], watched.then(|| rates.as_deref().unwrap_or_default()), style)
    }

    fn news(&self, before: &Self) -> Vec<Notice> {
        news::of_backends(self.service.as_str(), &before.backends, &self.backends)
    }
}

/// Backends, and after them those that are gone and keep their flows for a while; with the rates of the backends in a watch.
pub(super) fn render(
    backends: &[v1::Backend],
    leaving: &[v1::Leaving],
    rates: Option<&[Option<Rate>]>,
    style: Style,
) -> String {
    if backends.is_empty() && leaving.is_empty() {
        return "no backends".to_owned();
    }
    let mut headings = vec!["BACKEND", "ADDRESS", "ADMIN", "~HEALTH", ">WEIGHT", ">SHARE", ">FLOWS"];
    headings.extend(traffic::headings(rates.is_some()));
    let replies = rates.is_none() && backends.iter().any(|backend| backend.reply_packets.is_some());
    headings.extend(replies.then_some(">REPLIES"));
    let in_line = owners_fit(style);
    headings.extend(in_line.then_some("ORIGIN"));
    let mut grid = Grid::new(style, &headings).expendable(&EXPENDABLE);
    for (at, backend) in backends.iter().enumerate() {
        let v1::Backend { packets, bytes, new_flows, .. } = backend;
        let mut row = vec![
            cell(&backend.name),
            cell(&backend.address),
            admin(backend),
            health(backend),
            cell(weight(backend)),
            cell(share(backend)),
            cell(count(backend.flows)),
        ];
        let rate = rates.map(|rates| rates.get(at).copied().flatten());
        row.extend(traffic::cells(*packets, *bytes, *new_flows, rate));
        row.extend(replies.then(|| cell(count(backend.reply_packets))));
        row.extend(in_line.then(|| cell(owners(&backend.origin, &backend.overrides))));
        grid.row(row);
    }
    for backend in leaving {
        let mut row = vec![cell(name_of(backend)), cell(&backend.address), leaving_until(backend), cell("")];
        row.extend([cell(""), cell(""), cell(backend.flows), cell(""), cell(""), cell("")]);
        row.extend(replies.then(|| cell("")));
        row.extend(in_line.then(|| cell("")));
        grid.row(row);
    }
    if in_line || backends.is_empty() || rates.is_some() {
        return grid.render();
    }
    let mut below = Grid::new(style, &OWNERS);
    for backend in backends {
        below.row(owners_row(&backend.name, &backend.origin, &backend.overrides));
    }
    format!("{}\n{}", grid.render(), below.render())
}

/// Whether a line has room for [`owners`]; else they stand in a table below.
pub(super) fn owners_fit(style: Style) -> bool {
    style.width.is_none_or(|width| width >= 140)
}

/// A row under [`OWNERS`].
pub(super) fn owners_row(name: &str, origin: &v1::Origin, overrides: &[String]) -> [Cell; 3] {
    [cell(name), cell(service::origin(origin)), cell(overrides.join(", "))]
}

/// What the administrator wants of it, and how long a drain takes.
pub(super) fn admin(backend: &v1::Backend) -> Cell {
    let text = match (backend.drained, backend.drain_seconds_left) {
        (_, None) if backend.backup => format!("{}, backup", backend.admin),
        (_, None) => backend.admin.clone(),
        (true, _) => format!("{}, done", backend.admin),
        (false, Some(0)) if !backend.accepts_existing => format!("{}, time is up", backend.admin),
        (false, Some(left)) => format!("{}, {left} s", backend.admin),
    };
    match Rating::of_admin(&backend.admin) {
        None => cell(text),
        Some(rating) => rated(text, rating),
    }
}

/// With a star where it was set over what is declared.
pub(super) fn weight(backend: &v1::Backend) -> String {
    let over = backend.overrides.iter().any(|name| name == "weight");
    format!("{}{}", backend.weight, if over { "*" } else { "" })
}

/// Who made it and, after a plus, what was set over that from here: `config.toml:14 + weight`.
pub(super) fn owners(origin: &v1::Origin, overrides: &[String]) -> String {
    let origin = match origin {
        // The whole path would take most of a line; `service show` and JSON have it.
        v1::Origin::File { file, line } | v1::Origin::Watched { file, line } => {
            let name = Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
            format!("{name}:{line}")
        }
        v1::Origin::Cli => "cli".to_owned(),
        v1::Origin::Fleet => "fleet".to_owned(),
        v1::Origin::Dns { name } => format!("dns {name}"),
    };
    match overrides {
        [] => origin,
        overrides => format!("{origin} + {}", overrides.join(", ")),
    }
}

pub(super) fn name_of(backend: &v1::Leaving) -> &str {
    backend.name.as_deref().unwrap_or("?")
}

pub(super) fn leaving_until(backend: &v1::Leaving) -> Cell {
    rated(format!("leaving, {} s", backend.drain_seconds_left), Rating::Doubtful)
}

/// Health in a word, with the reason where it isn't good.
pub(super) fn health(backend: &v1::Backend) -> Cell {
    let mut text = backend.health.clone();
    if backend.health != "healthy" && !backend.health_detail.is_empty() {
        text = format!("{text}: {}", backend.health_detail);
    }
    if backend.reachable {
        return rated(text, Rating::of(&backend.health));
    }
    rated(format!("{text}; next hop unresolved"), Rating::Bad)
}

pub(super) fn share(backend: &v1::Backend) -> String {
    percent(backend.share)
}

/// A part, 0 to 1.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// A number, or `-` where it can't be known.
pub(super) fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// What a narrow terminal does without, the first first.
pub(super) const EXPENDABLE: [&str; 9] =
    ["REPLIES", "NEW FLOWS", "NEW FLOWS/S", "BYTES", "BITS/S", "WEIGHT", "FLOWS", "PACKETS", "PACKETS/S"];

/// Headings of the table of owners.
pub(super) const OWNERS: [&str; 3] = ["NAME", "ORIGIN", "SET OVER IT"];

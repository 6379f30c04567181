use comfy_table::Cell;

use super::{
    Format,
    exit::Failure,
    output::{self, Grid, Rating, Style, cell, rated},
};
use crate::{
    api::{client::Client, v1},
    domain::Name,
};

pub(super) async fn list(client: &Client, service: &Name, format: Format) -> Result<(), Failure> {
    let backends = client.backends(service).await?;
    Ok(output::print(format, &backends, |backends, style| render(backends, style))?)
}

pub(super) fn render(backends: &[v1::Backend], style: Style) -> String {
    if backends.is_empty() {
        return "no backends".to_owned();
    }
    let headings =
        ["BACKEND", "ADDRESS", "ADMIN", "HEALTH", ">WEIGHT", ">SHARE", ">PACKETS", ">BYTES", ">NEW FLOWS"];
    let mut grid = Grid::new(style, &headings);
    for backend in backends {
        grid.row([
            cell(&backend.name),
            cell(&backend.address),
            cell(&backend.admin),
            health(backend),
            cell(backend.weight),
            cell(share(backend)),
            cell(backend.packets),
            cell(backend.bytes),
            cell(count(backend.new_flows)),
        ]);
    }
    grid.render()
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
    format!("{:.1} %", backend.share * 100.0)
}

/// A number, or `-` where it can't be known.
pub(super) fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

use std::path::Path;

use super::{
    Format, backend, change,
    exit::Failure,
    output::{self, Grid, Style, cell},
};
use crate::{
    api::{client::Client, v1},
    config,
};

pub(super) async fn reload(
    client: &Client,
    dry_run: bool,
    disruptive: bool,
    format: Format,
) -> Result<(), Failure> {
    print(&client.reload(dry_run, disruptive).await?, format)
}

/// The files are read here, with the caller's rights.
pub(super) async fn plan(
    client: &Client,
    path: &Path,
    disruptive: bool,
    format: Format,
) -> Result<(), Failure> {
    let files = config::read(path).map_err(Failure::Config)?;
    let file =
        |(path, text): (std::path::PathBuf, String)| v1::File { path: path.display().to_string(), text };
    let plan = v1::Plan { files: files.into_iter().map(file).collect() };
    print(&client.plan(&plan, disruptive).await?, format)
}

fn print(reload: &v1::Reload, format: Format) -> Result<(), Failure> {
    for warning in &reload.warnings {
        match warning.starts_with("warning:") {
            true => output::complain(warning),
            false => output::complain(&format!("warning: {warning}")),
        }
    }
    Ok(output::print(format, reload, render)?)
}

pub(super) fn render(reload: &v1::Reload, style: Style) -> String {
    let outcome = match (reload.changes.is_empty(), reload.dry_run) {
        (true, _) => format!("nothing to change; revision {} is live", reload.revision),
        (false, true) => format!("nothing changed yet; revision {} is live", reload.revision),
        (false, false) => format!("revision {} is live", reload.revision),
    };
    let changes = change::list(&reload.changes);
    match reload.services.as_slice() {
        [] if reload.dry_run && !reload.changes.is_empty() => {
            format!("{changes}\nno client would move to another backend\n\n{outcome}")
        }
        [] => changes + &outcome,
        services => format!("{changes}\n{}\n{outcome}", impacts(services, style)),
    }
}

fn impacts(services: &[v1::Impact], style: Style) -> String {
    let mut grid = Grid::new(style, &["SERVICE", ">MOVED", ">SLOTS", ">FLOWS ENDING", ">FLOWS DRAINING"]);
    let known = |flows: Option<u64>| flows.map_or("unknown".to_owned(), |flows| flows.to_string());
    for impact in services {
        grid.row([
            cell(&impact.service),
            cell(backend::percent(impact.moved)),
            cell(format!("{} of {}", impact.moved_slots, impact.slots)),
            cell(known(impact.flows_ending)),
            cell(known(impact.flows_draining)),
        ]);
    }
    grid.render()
}

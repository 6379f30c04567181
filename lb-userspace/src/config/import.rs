//! Parts of a configuration, whatever else is in it: for commands that move services into a fleet.

use std::path::Path;

use super::{
    check,
    diagnostic::Diagnostics,
    fleet::{self, FleetConfig},
    read_file,
    report::{Report, Source},
    service,
    shape::UNLIMITED,
    table::Table,
};
use crate::domain::Service;

/// Every `[[service]]` of a file.
///
/// # Errors
///
/// Everything found wrong with them.
pub fn services_of(path: &Path) -> Result<Vec<Service>, Diagnostics> {
    with(path, |table, report| {
        let services = service::read_all(table, report);
        check::services(&services, UNLIMITED, report);
        services
    })
    .map(|(services, sources)| {
        services.into_iter().filter_map(|service| service.into_domain(&sources)).collect()
    })
}

/// The `[fleet]` of a file, if it has one.
///
/// # Errors
///
/// Everything found wrong with it.
pub fn fleet_of(path: &Path) -> Result<Option<FleetConfig>, Diagnostics> {
    with(path, fleet::read).map(|(fleet, _)| fleet)
}

/// What `reader` reads in a file. What it does not ask for is not looked at.
fn with<T>(
    path: &Path,
    reader: impl FnOnce(&mut Table<'_>, &mut Report<'_>) -> T,
) -> Result<(T, [Source; 1]), Diagnostics> {
    let text = read_file(path).map_err(|diagnostic| Diagnostics::from(*diagnostic))?;
    let sources = [Source::new(path.to_path_buf(), text)];
    let mut report = Report::new(&sources);
    let read = {
        let (document, errors) = toml::de::DeTable::parse_recoverable(sources[0].text());
        for error in errors {
            report.syntax(0, &error);
        }
        report.stop_at_errors()?;
        reader(&mut Table::document(0, &document), &mut report)
    };
    report.finish()?;
    Ok((read, sources))
}

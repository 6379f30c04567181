use std::fmt::Write;

use super::{
    Format,
    exit::Failure,
    output::{self, Style, plain},
};
use crate::api::{client::Client, v1};

pub(super) async fn reload(client: &Client, dry_run: bool, format: Format) -> Result<(), Failure> {
    let reload = client.reload(dry_run).await?;
    for warning in &reload.warnings {
        match warning.starts_with("warning:") {
            true => output::complain(warning),
            false => output::complain(&format!("warning: {warning}")),
        }
    }
    Ok(output::print(format, &reload, render)?)
}

pub(super) fn render(reload: &v1::Reload, _: Style) -> String {
    let mut text = String::new();
    for v1::Change { action, object, detail } in &reload.changes {
        let separator = if detail.is_empty() { "" } else { ": " };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{action} {object}{separator}{}", plain(detail));
    }
    let outcome = match (reload.changes.is_empty(), reload.dry_run) {
        (true, _) => format!("nothing to change; revision {} is live", reload.revision),
        (false, true) => format!("nothing changed yet; revision {} is live", reload.revision),
        (false, false) => format!("revision {} is live", reload.revision),
    };
    text + &outcome
}

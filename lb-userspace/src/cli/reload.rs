use super::{
    Format, change,
    exit::Failure,
    output::{self, Style},
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
    let outcome = match (reload.changes.is_empty(), reload.dry_run) {
        (true, _) => format!("nothing to change; revision {} is live", reload.revision),
        (false, true) => format!("nothing changed yet; revision {} is live", reload.revision),
        (false, false) => format!("revision {} is live", reload.revision),
    };
    change::list(&reload.changes) + &outcome
}

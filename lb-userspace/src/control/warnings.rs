//! What is allowed but likely not meant, beyond what is said of a file when it is read.

use super::{Command, State, found};
use crate::domain::Service;

/// Of the change from `before` to `after` by `command`.
pub(super) fn warnings(command: &Command, before: &State, after: &State) -> Vec<String> {
    let mut warnings = match command {
        Command::Declare { services, .. } => crowded(after)
            .filter(|service| {
                !services.iter().any(|declared| declared.name == service.name && is_crowded(declared))
            })
            .map(crowding)
            .collect(),
        Command::Edit { .. } => {
            let mut warnings = emptied(before, after);
            warnings.extend(newly_crowded(before, after));
            warnings
        }
        Command::Found { .. } | Command::Fleet { .. } => newly_crowded(before, after),
        _ => Vec::new(),
    };
    warnings.extend(found::warnings(command, before, after));
    warnings
}

/// Only what this change brings about.
fn newly_crowded(before: &State, after: &State) -> Vec<String> {
    let known = |service: &&Service| {
        let known = before.service(&service.name);
        known.is_some_and(|known| is_crowded(known) && known.backends.len() >= service.backends.len())
    };
    crowded(after).filter(|service| !known(service)).map(crowding).collect()
}

fn is_crowded(service: &Service) -> bool {
    service.backends.len() > service.table_size.advisable_backends()
}

fn crowded(state: &State) -> impl Iterator<Item = &Service> {
    state.specs().filter(|service| is_crowded(service))
}

fn crowding(service: &Service) -> String {
    format!(
        "{} backends of service {} share a table of {} slots: shares are uneven with more than {}; a larger table_size helps",
        service.backends.len(),
        service.name,
        service.table_size.slots(),
        service.table_size.advisable_backends(),
    )
}

/// Which services lose their last backend by the change from `before` to `after`, in words.
fn emptied(before: &State, after: &State) -> Vec<String> {
    let were = before.without_backends();
    let are = after.without_backends().into_iter();
    are.filter(|name| !were.contains(name) && before.has(name))
        .map(|name| {
            format!("service {name} has no backend left that gets new flows: their packets go nowhere")
        })
        .collect()
}

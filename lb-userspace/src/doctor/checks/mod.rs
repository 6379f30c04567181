//! The checks: what a value means is said by functions of values, and each has a few lines beside it that get the values.

pub(super) mod backend;
pub(super) mod daemon;
pub(super) mod host;
pub(super) mod interface;
pub(super) mod nat;
pub(super) mod path;
pub(super) mod places;
pub(super) mod rights;
pub(super) mod sysctls;
#[cfg(test)]
mod testing;
pub(super) mod vip;

/// The commands of a finding's fix.
#[cfg(test)]
fn commands(finding: &super::finding::Finding) -> Vec<&str> {
    finding.fix.iter().flat_map(|fix| fix.commands.iter().map(String::as_str)).collect()
}

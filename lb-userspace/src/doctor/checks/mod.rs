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

use std::fs;

/// A setting under `/proc/sys`, by its path there; `None` where this kernel, or this network namespace, has none.
fn sysctl(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

/// A number under `/proc/sys`.
fn number(path: &str) -> Option<u64> {
    sysctl(path)?.parse().ok()
}

/// The commands of a finding's fix.
#[cfg(test)]
fn commands(finding: &super::finding::Finding) -> Vec<&str> {
    finding.fix.iter().flat_map(|fix| fix.commands.iter().map(String::as_str)).collect()
}

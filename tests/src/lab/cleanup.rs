//! What a lab takes up on the host, and how it is given back: by the lab itself, or by a later run if it could not.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::namespace::NETNS_DIR;
use super::privilege::BPFFS;
use super::process;
use super::wait::wait_for;

/// Everything a lab makes on the host has a name that begins with this.
const PREFIX: &str = "bl-";
const RUN: &str = "/run";
const OWNER: &str = "owner.json";

/// A lab's name and directories: all that is needed to remove it.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
    directory: PathBuf,
    pins: PathBuf,
}

impl Place {
    /// Takes a name that no other lab has, and makes its directories.
    pub(super) fn claim() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let place = Self::of(format!("{PREFIX}{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&place.directory).with_context(|| format!("make {}", place.directory.display()))?;
        // The control socket's directory must not be open to everybody.
        fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o750))
            .context("set a directory's mode")?;
        place.write_owner(false)?;
        fs::create_dir(&place.pins).with_context(|| format!("make {}", place.pins.display()))?;
        Ok(place)
    }

    /// The place of an existing lab.
    pub(super) fn named(name: &str) -> Result<Self> {
        if lab_of(name).as_deref() != Some(name) {
            bail!("{name} is not the name of a lab ({PREFIX}PID-NUMBER)");
        }
        Ok(Self::of(name.to_owned()))
    }

    fn of(name: String) -> Self {
        let (directory, pins) = (Path::new(RUN).join(&name), Path::new(BPFFS).join(&name));
        Self { name, directory, pins }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn pins(&self) -> &Path {
        &self.pins
    }

    /// No later run shall take it for stale.
    pub(super) fn mark_kept(&self) -> Result<()> {
        self.write_owner(true)
    }

    /// Removes everything. Goes on after an error, so that as little as possible stays; the first one is returned.
    pub(super) fn tear_down(&self) -> Result<()> {
        let namespaces = namespaces_of(&self.name)?;
        let mut results: Vec<Result<()>> = Vec::new();
        results.extend(namespaces.iter().map(|namespace| end_processes(namespace)));
        // Pins first: a program that is still attached there would outlive its maps' names.
        results.push(remove_directory(&self.pins));
        results.extend(namespaces.iter().map(|namespace| delete_namespace(namespace)));
        // Last, because it is what a sweep finds the rest by.
        results.push(remove_directory(&self.directory));
        results.into_iter().collect::<Result<Vec<()>>>().map(drop)
    }

    fn write_owner(&self, kept: bool) -> Result<()> {
        let pid = std::process::id();
        let owner = json!({ "pid": pid, "start_time": start_time(pid), "kept": kept });
        let path = self.directory.join(OWNER);
        fs::write(&path, owner.to_string()).with_context(|| format!("write {}", path.display()))
    }

    /// Whether nobody is left who will remove it.
    fn is_stale(&self) -> bool {
        let Some(pid) = self.name.split('-').nth(1).and_then(|pid| pid.parse().ok()) else { return false };
        let owner = fs::read_to_string(self.directory.join(OWNER)).ok();
        let owner: Value = owner.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        if owner.get("kept") == Some(&Value::Bool(true)) {
            return false;
        }
        let Some(running) = start_time(pid) else { return true };
        // The number may be in use again. A process that has not written down its own yet is just beginning.
        owner.get("start_time").and_then(Value::as_u64).is_some_and(|written| written != running)
    }
}

/// Removes the labs whose process is gone.
pub(super) fn sweep_stale() -> Result<()> {
    let mut labs = BTreeSet::new();
    for directory in [RUN, NETNS_DIR, BPFFS] {
        labs.extend(entries(Path::new(directory))?.iter().filter_map(|name| lab_of(name)));
    }
    let mut stale = labs.into_iter().map(Place::of).filter(Place::is_stale);
    stale.try_for_each(|place| {
        place.tear_down().with_context(|| format!("remove the stale lab {}", place.name))
    })
}

/// `bl-12-0-client0` → `bl-12-0`
fn lab_of(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, number) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    Some(format!("{PREFIX}{pid}-{number}"))
}

fn namespaces_of(lab: &str) -> Result<Vec<String>> {
    let names = entries(Path::new(NETNS_DIR))?;
    Ok(names.into_iter().filter(|name| lab_of(name).as_deref() == Some(lab)).collect())
}

/// Deletes a namespace; one that somebody else deleted meanwhile is fine.
fn delete_namespace(namespace: &str) -> Result<()> {
    match process::run_checked(Command::new("ip").args(["netns", "delete", namespace])) {
        Err(error) if exists(namespace) => Err(error),
        _ => Ok(()),
    }
}

fn exists(namespace: &str) -> bool {
    Path::new(NETNS_DIR).join(namespace).exists()
}

/// Kills every process in a namespace and waits until none is left.
fn end_processes(namespace: &str) -> Result<()> {
    wait_for(&format!("the processes in {namespace} end"), Duration::from_secs(5), || {
        let result = kill_processes(namespace);
        match result {
            Ok(0) => Some(Ok(())),
            Ok(_) => None,
            Err(error) if exists(namespace) => Some(Err(error)),
            Err(_) => Some(Ok(())),
        }
    })?
}

/// How many there were.
fn kill_processes(namespace: &str) -> Result<usize> {
    let listed = process::run_checked(Command::new("ip").args(["netns", "pids", namespace]))?.stdout;
    let own = std::process::id().cast_signed();
    let pids = listed.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own);
    Ok(pids
        .map(|pid: i32| {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        })
        .count())
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(anyhow!("remove {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
    };
    Ok(listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// When a process began, in clock ticks since boot (proc_pid_stat(5), field 22); `None` if there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in brackets, and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{lab_of, start_time};

    #[test]
    fn only_names_of_labs_are_taken_for_ones() {
        assert_eq!(lab_of("bl-12-0-client0").as_deref(), Some("bl-12-0"));
        assert_eq!(lab_of("bl-12-0").as_deref(), Some("bl-12-0"));
        for other in ["bl-12", "bl-x-0", "blue-1-2", "client0", ""] {
            assert_eq!(lab_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_running_process_has_a_start_time_and_another_has_none() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }
}

//! Where the daemon has its things.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access, geteuid},
};

use super::{
    super::{check::Check, finding::Finding, setup::Setup},
    daemon::Healthz,
    host::HOST,
};
use crate::dataplane::inspect::{self, Pinned};

/// `config`: the files that were read. `pinned`: what is in `pin_dir`, or why it can't be told. `healthz`: what was heard at the
/// metrics address, if a daemon runs.
pub(in super::super) fn all(
    setup: &Setup,
    config: &Path,
    pinned: &Result<Pinned, String>,
    healthz: Option<&Healthz>,
) -> Vec<Finding> {
    let (nearest, is_empty) = nearest(&setup.pin_dir);
    let mut findings = vec![
        match inspect::on_bpffs(&nearest) {
            Ok(mounted) => bpffs(&setup.pin_dir, &nearest, mounted, is_empty),
            Err(error) => Finding::skipped(Check::Bpffs, HOST, error.to_string()),
        },
        match pinned {
            Ok(pinned) => pins(&setup.pin_dir, pinned, &inspect::own_layout()),
            Err(error) => Finding::skipped(Check::Pins, HOST, error.clone()),
        },
        state_dir(&setup.state_dir, &look_at(&setup.state_dir)),
    ];
    findings.push(match (setup.metrics, healthz) {
        (Some(address), Some(healthz)) => listener(address, healthz),
        (Some(address), None) => metrics(address, TcpListener::bind(address).err()),
        (None, _) => Finding::ok(Check::Metrics, HOST, "off"),
    });
    let now = SystemTime::now();
    let files = [config.to_owned(), setup.state_dir.join("state.toml"), setup.state_dir.join("applied.toml")];
    let dated = files.into_iter().filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)));
    findings.push(clock(now, dated));
    findings
}

/// The nearest directory that exists, and whether that one is empty.
fn nearest(path: &Path) -> (PathBuf, bool) {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    // Where the pins go the daemon mounts on the parent.
    let parent = path.parent().unwrap_or(Path::new("/"));
    let is_empty = fs::read_dir(parent).map_or(true, |mut entries| entries.next().is_none());
    (existing.to_owned(), is_empty)
}

fn bpffs(pin_dir: &Path, nearest: &Path, mounted: bool, parent_is_empty: bool) -> Finding {
    if mounted {
        return Finding::ok(Check::Bpffs, HOST, format!("{} is on one", nearest.display()));
    }
    let parent = pin_dir.parent().unwrap_or(Path::new("/")).display();
    if parent_is_empty {
        return Finding::warning(
            Check::Bpffs,
            HOST,
            format!("no BPF file system is mounted for pin_dir {}: a daemon that starts as root mounts one on {parent}, another user's can't", pin_dir.display()),
        )
        .run([format!("mkdir -p {parent}"), format!("mount -t bpf bpf {parent}")])
        .advise("`ip netns exec` hides the one that there is; `nsenter --net=` does not");
    }
    Finding::problem(
        Check::Bpffs,
        HOST,
        format!(
            "pin_dir {} is not on a BPF file system, and none is mounted over {parent}, which is not empty",
            pin_dir.display()
        ),
    )
    .run([format!("mkdir -p {}", pin_dir.display()), format!("mount -t bpf bpf {}", pin_dir.display())])
    .advise("or leave pin_dir away: the usual place is /sys/fs/bpf/ballast")
}

fn pins(pin_dir: &Path, pinned: &Pinned, own: &str) -> Finding {
    let pin_dir = pin_dir.display();
    if let Some(other) = pinned.layouts.iter().find(|layout| *layout != own) {
        return Finding::problem(
            Check::Pins,
            HOST,
            format!("{pin_dir} holds maps of layout {other}, and this version uses {own}: a start is refused, and what was there goes on forwarding"),
        )
        .run([format!("ballast detach --pin-dir {pin_dir}")])
        .advise("this stops forwarding until the daemon is started; or run the version that made them");
    }
    match (pinned.layouts.is_empty(), pinned.holder) {
        (true, _) => Finding::ok(Check::Pins, HOST, format!("nothing is pinned at {pin_dir}")),
        (false, Some(pid)) => Finding::ok(Check::Pins, HOST, format!("process {pid} has {pin_dir}")),
        (false, None) => {
            Finding::ok(Check::Pins, HOST, format!("{pin_dir} is there for the next daemon to go on from"))
        }
    }
}

/// What there is to know of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    Missing {
        parent_takes_files: bool,
    },
    /// Or something else that is no directory.
    File,
    There {
        takes_files: bool,
        bytes_free: u64,
        files_free: bool,
    },
}

fn look_at(path: &Path) -> Directory {
    let writable = |path: &Path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Directory::File,
        Ok(_) => {
            let room = statvfs(path).ok();
            let bytes_free = room.map_or(u64::MAX, |room| room.blocks_available() * room.fragment_size());
            // File systems without a fixed number of files say 0 of 0.
            let files_free = room.is_none_or(|room| room.files() == 0 || room.files_available() > 0);
            Directory::There { takes_files: writable(path), bytes_free, files_free }
        }
        Err(_) => {
            let (nearest, _) = nearest(path);
            Directory::Missing { parent_takes_files: writable(&nearest) }
        }
    }
}

fn state_dir(path: &Path, found: &Directory) -> Finding {
    let path = path.display();
    match *found {
        Directory::There { takes_files: true, bytes_free, files_free: true } if bytes_free >= ENOUGH => {
            Finding::ok(Check::StateDir, HOST, format!("{path} takes files"))
        }
        Directory::There { takes_files: true, bytes_free, .. } => Finding::problem(
            Check::StateDir,
            HOST,
            format!("{path}: {} KiB and no more are free, or no further file: a change that can't be kept is refused", bytes_free / 1024),
        )
        .run([format!("df -h {path}"), format!("df -i {path}")])
        .advise("make room on that file system"),
        Directory::Missing { parent_takes_files: true } => {
            Finding::ok(Check::StateDir, HOST, format!("{path} is made at the first start"))
        }
        Directory::File => {
            Finding::problem(Check::StateDir, HOST, format!("{path} is no directory")).advise("set `state_dir` to one")
        }
        Directory::There { takes_files: false, .. } | Directory::Missing { parent_takes_files: false } => {
            // Root that may not write meets a read-only file system.
            if geteuid().is_root() {
                return Finding::problem(Check::StateDir, HOST, format!("{path} can't be written to, not even by root"))
                    .run([format!("findmnt --target {path}")])
                    .advise("mount that file system read-write, or set `state_dir` to another place");
            }
            Finding::skipped(Check::StateDir, HOST, format!("{path} is not for this user: ask as root, or as the daemon's user"))
        }
    }
}

/// Of a daemon that runs. Whether it gets on is another check's to say.
fn listener(address: SocketAddr, healthz: &Healthz) -> Finding {
    match healthz {
        Ok(_) => Finding::ok(Check::Metrics, HOST, format!("the daemon answers at {address}")),
        Err(error) => Finding::warning(
            Check::Metrics,
            HOST,
            format!("a daemon runs, and does not answer at its metrics address {address}: {error}"),
        )
        .run(["journalctl -u ballast -n 50"])
        .advise("is [daemon] of the file that of the daemon that runs? Where it was changed, restart it"),
    }
}

fn metrics(address: SocketAddr, error: Option<io::Error>) -> Finding {
    let Some(error) = error else {
        return Finding::ok(Check::Metrics, HOST, format!("{address} is free"));
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => Finding::problem(
            Check::Metrics,
            HOST,
            format!("somebody else listens on {address}, so the daemon ends at its start"),
        )
        .run([format!("ss -ltnp 'sport = :{}'", address.port())])
        .advise("stop that one, or set `metrics` in [daemon] to another address, or \"off\""),
        io::ErrorKind::AddrNotAvailable => Finding::problem(
            Check::Metrics,
            HOST,
            format!("{} is not an address of this host, so the daemon ends at its start", address.ip()),
        )
        .advise("set `metrics` in [daemon] to an address of this host, or \"off\""),
        io::ErrorKind::PermissionDenied => Finding::skipped(
            Check::Metrics,
            HOST,
            format!("this user may not listen on port {}: ask as the daemon's", address.port()),
        ),
        _ => Finding::problem(Check::Metrics, HOST, format!("nobody can listen on {address}: {error}"))
            .advise("set `metrics` in [daemon] to another address, or \"off\""),
    }
}

fn clock(now: SystemTime, files: impl IntoIterator<Item = (SystemTime, PathBuf)>) -> Finding {
    let newest = files.into_iter().max();
    match newest {
        Some((at, path)) if at > now + TOLERANCE => Finding::warning(
            Check::Clock,
            HOST,
            format!(
                "{} was written in the future: the clock went back, and certificates are checked by it",
                path.display()
            ),
        )
        .run(["timedatectl set-ntp true"])
        .advise("or set the clock by hand; `touch` the file if it was copied with a wrong time"),
        _ => Finding::ok(Check::Clock, HOST, "no file of the daemon is from the future"),
    }
}

/// Twice what a configuration may have, which is kept as well.
const ENOUGH: u64 = 32 << 20;
const TOLERANCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::{
        super::{super::finding::Severity, commands},
        *,
    };

    #[test]
    fn a_bpf_file_system_is_there_or_can_be_mounted() {
        let (pin_dir, root) = (Path::new("/sys/fs/bpf/ballast"), Path::new("/sys/fs/bpf"));
        assert_eq!(bpffs(pin_dir, root, true, false).severity, Severity::Ok);
        let missing = bpffs(pin_dir, root, false, true);
        assert_eq!(missing.severity, Severity::Warning);
        assert_eq!(commands(&missing), ["mkdir -p /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"]);
        assert_eq!(
            bpffs(Path::new("/srv/pins"), Path::new("/srv"), false, false).severity,
            Severity::Problem
        );
    }

    #[test]
    fn pins_of_another_layout_are_a_problem() {
        let pinned = |layouts: &[&str]| Pinned {
            layouts: layouts.iter().map(|&layout| layout.to_owned()).collect(),
            ..Pinned::default()
        };
        let of = |layouts| pins(Path::new("/pins"), &pinned(layouts), "abi-7").severity;
        assert_eq!(of(&[]), Severity::Ok);
        assert_eq!(of(&["abi-7"]), Severity::Ok);
        assert_eq!(of(&["abi-6"]), Severity::Problem);
    }

    #[test]
    fn state_needs_a_place_with_room() {
        let there =
            |takes_files, bytes_free, files_free| Directory::There { takes_files, bytes_free, files_free };
        let of = |found| state_dir(Path::new("/var/lib/ballast"), &found).severity;
        assert_eq!(of(there(true, 1 << 30, true)), Severity::Ok);
        assert_eq!(of(there(true, 1 << 20, true)), Severity::Problem);
        assert_eq!(of(there(true, 1 << 30, false)), Severity::Problem);
        assert_eq!(of(Directory::File), Severity::Problem);
        assert_eq!(of(Directory::Missing { parent_takes_files: true }), Severity::Ok);
        assert_ne!(of(there(false, 1 << 30, true)), Severity::Ok);
    }

    #[test]
    fn the_metrics_address_has_to_be_free_and_this_hosts() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9640));
        let of = |kind: io::ErrorKind| metrics(address, Some(kind.into())).severity;
        assert_eq!(metrics(address, None).severity, Severity::Ok);
        assert_eq!(of(io::ErrorKind::AddrInUse), Severity::Problem);
        assert_eq!(of(io::ErrorKind::AddrNotAvailable), Severity::Problem);
        assert_eq!(of(io::ErrorKind::PermissionDenied), Severity::Skipped);
        // Of a daemon that runs it is asked whether it answers there.
        assert_eq!(listener(address, &Ok((200, "ok".into()))).severity, Severity::Ok);
        assert_eq!(listener(address, &Ok((503, "9 s".into()))).severity, Severity::Ok);
        let refused = listener(address, &Err(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(refused.severity, Severity::Warning);
    }

    #[test]
    fn files_are_not_from_the_future() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let of = |seconds| {
            clock(now + Duration::from_secs(seconds), [(now + Duration::from_secs(500), "f".into())])
        };
        assert_eq!(of(500).severity, Severity::Ok);
        assert_eq!(of(400).severity, Severity::Ok);
        assert_eq!(of(100).severity, Severity::Warning);
    }
}

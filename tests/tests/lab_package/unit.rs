//! The installed unit, and the process that it makes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use lb_tests::lab::Root;

const UNIT: &str = "/usr/lib/systemd/system/ballast.service";
/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF.
const FOUR: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

/// systemd has nothing to say about it, and rates it well.
pub(super) fn is_right(root: &Root) -> Result<()> {
    let said = root.run(&format!("systemd-analyze verify {UNIT}"))?;
    ensure!(said.is_empty(), "{said}");
    // In tenths.
    let rated =
        root.run(&format!("systemd-analyze security --offline=true --threshold=20 --no-pager {UNIT}"))?;
    ensure!(rated.contains("Overall exposure level for ballast.service: "), "{rated}");
    let text = fs::read_to_string(root.outside(UNIT))?;
    for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        let line = format!("{set}=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON");
        ensure!(text.lines().filter(|other| other.starts_with(set)).eq([line.as_str()]), "not only {line}");
    }
    Ok(())
}

/// Who the daemon is, what it may do, and who may do what with its files.
pub(super) fn is_confined(root: &Root) -> Result<()> {
    let user = number(root, "u")?;
    let pid = root.property("MainPID")?;
    let status = fs::read_to_string(root.outside(&format!("/proc/{pid}/status")))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.with_context(|| format!("no {name} in {status}"))
    };
    ensure!(field("Uid")?.split('\t').all(|id| id == user.to_string()), "{status}");
    for (set, expected) in
        [("CapInh", 0), ("CapPrm", FOUR), ("CapEff", FOUR), ("CapBnd", FOUR), ("CapAmb", 0)]
    {
        assert_eq!(u64::from_str_radix(field(set)?, 16)?, expected, "{set}");
    }
    assert_eq!((field("NoNewPrivs")?, field("Seccomp")?), ("1", "2"));

    let (owner, group) = (user, number(root, "g")?);
    for (path, mode, owner, group) in [
        ("/etc/ballast", 0o750, 0, group),
        ("/etc/ballast/config.toml", 0o640, 0, group),
        ("/run/ballast", 0o750, owner, group),
        ("/run/ballast/control.sock", 0o660, owner, group),
        ("/sys/fs/bpf/ballast", 0o700, owner, group),
        ("/var/lib/ballast", 0o700, owner, group),
        ("/var/lib/ballast/flow-hash.key", 0o600, owner, group),
    ] {
        let found = root.outside(path).metadata().with_context(|| path.to_owned())?;
        assert_eq!(
            (found.mode() & 0o7777, found.uid(), found.gid()),
            (mode, owner, group),
            "{path}: {:o}",
            found.mode()
        );
    }
    Ok(())
}

/// The number of the user or of the group `ballast`.
fn number(root: &Root, of: &str) -> Result<u32> {
    Ok(root.run(&format!("id -{of} ballast"))?.trim().parse()?)
}

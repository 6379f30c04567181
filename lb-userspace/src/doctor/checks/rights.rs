//! What the daemon may do, and how much of it.

use std::fs;

use capctl::caps::{Cap, CapSet, CapState};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{
    super::{check::Check, finding::Finding, setup::Setup},
    host::{HOST, version},
};

/// `daemon`: the process that runs, if one does and it is known.
pub(in super::super) fn all(setup: Option<&Setup>, daemon: Option<u32>) -> Vec<Finding> {
    let icmp = setup.is_some_and(|setup| setup.services.iter().any(|service| service.icmp));
    let mut findings = vec![match daemon {
        Some(pid) => match of_process(pid) {
            Ok(caps) => running(caps, icmp),
            Err(error) => Finding::skipped(Check::Rights, HOST, format!("process {pid}: {error}")),
        },
        None => match CapState::get_current() {
            Ok(state) => asking(state.permitted, icmp),
            Err(error) => {
                Finding::skipped(Check::Rights, HOST, format!("capabilities can't be read: {error}"))
            }
        },
    }];
    let checked = setup.map_or(0, |setup| {
        let services = setup.services.iter().filter(|service| service.checked);
        services.map(|service| service.backends.len() as u64).sum()
    });
    let files = match daemon {
        Some(pid) => limit_of(pid, "Max open files"),
        None => getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
    };
    findings.push(open_files(files, checked));
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let memory = match daemon {
        Some(pid) => limit_of(pid, "Max locked memory"),
        None => getrlimit(Resource::RLIMIT_MEMLOCK).ok().map(|(_, hard)| hard),
    };
    let charged = release.ok().and_then(|release| version(&release)).is_some_and(|version| version < (5, 11));
    findings.push(locked_memory(charged, memory));
    findings
}

fn running(caps: CapSet, icmp: bool) -> Finding {
    if icmp && !caps.has(Cap::NET_RAW) {
        return Finding::problem(
            Check::Rights,
            HOST,
            "the daemon has no CAP_NET_RAW: checks of type \"icmp\" are skipped, and their backends get no traffic",
        )
        .advise("start it as root, or add CAP_NET_RAW to AmbientCapabilities= and CapabilityBoundingSet= of its unit");
    }
    Finding::ok(Check::Rights, HOST, "the daemon has the capabilities that it needs")
}

fn asking(caps: CapSet, icmp: bool) -> Finding {
    let needed = [Some(Cap::BPF), Some(Cap::NET_ADMIN), Some(Cap::PERFMON), icmp.then_some(Cap::NET_RAW)];
    let missing = needed.into_iter().flatten().filter(|cap| !caps.has(*cap));
    let missing: Vec<_> = missing.map(|cap| format!("CAP_{cap:?}")).collect();
    if missing.is_empty() {
        return Finding::ok(
            Check::Rights,
            HOST,
            "a daemon that is started like this has the capabilities that it needs",
        );
    }
    let missing = missing.join(", ");
    Finding::skipped(
        Check::Rights,
        HOST,
        format!("this user has no {missing}: ask as root, or as the daemon's user with its capabilities"),
    )
}

fn open_files(limit: Option<u64>, checked: u64) -> Finding {
    let Some(limit) = limit else {
        return Finding::skipped(Check::Files, HOST, "the daemon's limit can't be read");
    };
    // Each backend's check holds one, exec a few, and half of them is for everything else.
    let needed = (checked * 2).next_multiple_of(1024).max(1024);
    if limit < checked * 2 {
        let why = format!(
            "{checked} checked backends, and at most {limit} open files: checks are skipped when they all wait"
        );
        return Finding::warning(Check::Files, HOST, why).advise(format!(
            "LimitNOFILE={needed} in the daemon's unit (`systemctl edit ballast`), and a restart"
        ));
    }
    Finding::ok(Check::Files, HOST, "as many open files as the health checks take")
}

fn locked_memory(charged: bool, limit: Option<u64>) -> Finding {
    match limit {
        _ if !charged => Finding::ok(Check::Memory, HOST, "maps are not counted against it since 5.11"),
        Some(RLIM_INFINITY) => Finding::ok(Check::Memory, HOST, "no limit"),
        None => Finding::skipped(Check::Memory, HOST, "the daemon's limit can't be read"),
        Some(limit) => Finding::problem(
            Check::Memory,
            HOST,
            format!("at most {} KiB of locked memory, against which this kernel counts maps", limit / 1024),
        )
        .advise("LimitMEMLOCK=infinity in the daemon's unit (`systemctl edit ballast`)"),
    }
}

fn of_process(pid: u32) -> capctl::Result<CapSet> {
    Ok(CapState::get_for_pid(pid.cast_signed())?.permitted)
}

/// The hard limit of a process: `Max open files            1024                 524288               files`.
fn limit_of(pid: u32, name: &str) -> Option<u64> {
    hard_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?, name)
}

fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let hard = values.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(RLIM_INFINITY) } else { hard.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Severity, *};

    #[test]
    fn only_icmp_checks_need_raw_sockets() {
        let caps: CapSet = [Cap::BPF, Cap::NET_ADMIN, Cap::PERFMON].into_iter().collect();
        assert_eq!(running(caps, false).severity, Severity::Ok);
        assert_eq!(running(caps, true).severity, Severity::Problem);
        assert_eq!(asking(caps, false).severity, Severity::Ok);
        let told = asking(CapSet::empty(), true);
        assert_eq!(told.severity, Severity::Skipped);
        assert!(
            told.message.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_NET_RAW"),
            "{}",
            told.message
        );
    }

    #[test]
    fn limits_are_read_and_compared() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(hard_limit(limits, "Max open files"), Some(524_288));
        assert_eq!(hard_limit(limits, "Max locked memory"), Some(RLIM_INFINITY));
        assert_eq!(hard_limit(limits, "Max something"), None);
        assert_eq!(open_files(Some(1024), 512).severity, Severity::Ok);
        assert_eq!(open_files(Some(1024), 513).severity, Severity::Warning);
        assert_eq!(locked_memory(false, Some(65_536)).severity, Severity::Ok);
        assert_eq!(locked_memory(true, Some(65_536)).severity, Severity::Problem);
        assert_eq!(locked_memory(true, Some(RLIM_INFINITY)).severity, Severity::Ok);
    }
}

//! The kernel.

use std::io;

use nix::sys::utsname::uname;

use super::super::{check::Check, finding::Finding};
use crate::{dataplane::inspect, sysctl};

pub(in super::super) fn all() -> Vec<Finding> {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    vec![
        kernel(&release),
        bpf(inspect::try_map()),
        jit(sysctl::number("net/core/bpf_jit_enable"), sysctl::number("net/core/bpf_jit_harden")),
    ]
}

/// Major and minor number of a kernel: `6.1.0-13-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel(release: &str) -> Finding {
    match version(release) {
        None => Finding::skipped(Check::Kernel, HOST, format!("Linux {release:?} is no number")),
        Some(version) if version < OLDEST => Finding::problem(
            Check::Kernel,
            HOST,
            format!("Linux {release} is older than 5.15, which Ballast needs"),
        )
        .advise("boot a newer kernel; Debian 12 and newer have one"),
        Some(version) if version < SEVERAL_BUFFERS => Finding::ok(
            Check::Kernel,
            HOST,
            format!("Linux {release}; frames of several buffers, and so MTUs above about 3500, take 5.18"),
        ),
        Some(_) => Finding::ok(Check::Kernel, HOST, format!("Linux {release}")),
    }
}

fn bpf(made: io::Result<()>) -> Finding {
    let error = match made {
        Ok(()) => return Finding::ok(Check::Bpf, HOST, "maps can be made and mapped into memory"),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Finding::skipped(
            Check::Bpf,
            HOST,
            "a map can't be made without CAP_BPF; where root is refused, too, look for a seccomp filter or a lockdown of the kernel",
        ),
        Some(libc::ENOSYS) => Finding::problem(Check::Bpf, HOST, "this kernel was built without bpf(2)")
            .advise("boot a kernel with CONFIG_BPF_SYSCALL"),
        _ => Finding::problem(
            Check::Bpf,
            HOST,
            format!("the kernel makes no map that can be mapped into memory: {error}"),
        ),
    }
}

fn jit(enabled: Option<u64>, hardening: Option<u64>) -> Finding {
    match (enabled, hardening) {
        (None, _) => Finding::skipped(
            Check::Jit,
            HOST,
            "net.core.bpf_jit_enable can only be seen in the host's own network namespace",
        ),
        (Some(0), _) => Finding::warning(
            Check::Jit,
            HOST,
            "the JIT is off: the program is interpreted, which is several times slower",
        )
        .run(["sysctl -w net.core.bpf_jit_enable=1"]),
        (Some(_), Some(2..)) => Finding::warning(
            Check::Jit,
            HOST,
            "net.core.bpf_jit_harden is 2: constants of root's programs are blinded, too, which makes each packet slower",
        )
        .run(["sysctl -w net.core.bpf_jit_harden=1"])
        .advise("it counts for programs that are loaded from then on: restart the daemon"),
        (Some(_), _) => Finding::ok(Check::Jit, HOST, "the JIT is on"),
    }
}

/// Subject of findings about this machine.
pub(in super::super) const HOST: &str = "host";
const OLDEST: (u32, u32) = (5, 15);
const SEVERAL_BUFFERS: (u32, u32) = (5, 18);

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Severity, *};

    #[test]
    fn kernels_are_told_by_their_numbers() {
        for (release, severity, words) in [
            ("5.10.0-30-amd64", Severity::Problem, "older than 5.15"),
            ("4.19", Severity::Problem, "older"),
            ("5.15.0", Severity::Ok, "5.18"),
            ("6.1.0-13-amd64", Severity::Ok, "Linux 6.1"),
            ("strange", Severity::Skipped, "no number"),
        ] {
            let finding = kernel(release);
            assert_eq!(finding.severity, severity, "{release}");
            assert!(finding.message.contains(words), "{}", finding.message);
        }
    }

    #[test]
    fn why_no_map_is_made_is_told_apart() {
        let of = |code| bpf(Err(io::Error::from_raw_os_error(code)));
        assert_eq!(bpf(Ok(())).severity, Severity::Ok);
        assert_eq!(of(libc::EPERM).severity, Severity::Skipped);
        assert_eq!(of(libc::ENOSYS).severity, Severity::Problem);
        assert_eq!(of(libc::EINVAL).severity, Severity::Problem);
    }

    #[test]
    fn the_jit_is_on_and_not_hardened_against_root() {
        assert_eq!(jit(None, None).severity, Severity::Skipped);
        assert_eq!(jit(Some(1), Some(1)).severity, Severity::Ok);
        assert_eq!(super::super::commands(&jit(Some(0), Some(0))), ["sysctl -w net.core.bpf_jit_enable=1"]);
        assert_eq!(super::super::commands(&jit(Some(1), Some(2))), ["sysctl -w net.core.bpf_jit_harden=1"]);
    }
}

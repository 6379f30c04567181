//! Settings of this host's kernel.

use std::fs;

/// By its path under `/proc/sys`; `None` where this kernel, or this network namespace, has none.
pub(crate) fn text(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

pub(crate) fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Whether the kernel takes packets on this interface only from where it would send to (RFC 3704 section 2.2).
pub(crate) fn filters_strictly(interface: &str) -> bool {
    let of = |name: &str| number(&format!("net/ipv4/conf/{name}/rp_filter"));
    // The larger of the two is what counts.
    of("all").max(of(interface)) == Some(1)
}

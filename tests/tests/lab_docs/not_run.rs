//! Commands that can't be run here, each with the reason.

const LAB: &str = "it makes labs of its own";
const KERNEL: &str =
    "it takes a tunnel device, which not every kernel has; the lab's backends take headers off by a program";
const OTHER_HOST: &str = "it is typed on another host than those that there are";

/// Page, command, reason.
pub(super) const NOT_RUN: [(&str, &str, &str); 12] = [
    ("README.md", "cargo xtask demo", LAB),
    ("README.md", "cargo xtask test", LAB),
    ("README.md", "cargo xtask package", PACKAGE),
    ("docs/getting-started.md", "cargo xtask package", PACKAGE),
    ("docs/forwarding-modes.md", "modprobe ipip && ip link set tunl0 up", KERNEL),
    ("docs/forwarding-modes.md", "modprobe sit && ip link set sit0 up", KERNEL),
    (
        "docs/forwarding-modes.md",
        "sysctl -w net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
        KERNEL,
    ),
    (
        "docs/forwarding-modes.md",
        "ip link add name lb-in type ip6tnl mode any local BACKEND remote any && ip link set lb-in up",
        KERNEL,
    ),
    (
        "docs/forwarding-modes.md",
        "sysctl -w net.ipv4.conf.lb-in.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
        KERNEL,
    ),
    ("docs/forwarding-modes.md", "modprobe fou && ip fou add port 6080 gue", KERNEL),
    ("docs/forwarding-modes.md", "modprobe fou6 && ip -6 fou add port 6080 gue", KERNEL),
    ("docs/status-page.md", "ssh -L 9640:127.0.0.1:9640 lb1", OTHER_HOST),
];

const PACKAGE: &str = "the package is made by the code that this runs, of the program that is tested";

/// Pages whose commands other tests run.
pub(super) const ELSEWHERE: [(&str, &str); 4] = [
    ("docs/fleet.md", "lab_fleet, which has the etcd that they take"),
    (
        "docs/high-availability.md",
        "lab_announce, lab_pair and lab_peers, which have routers and a second load balancer",
    ),
    ("docs/install.md", "lab_package, which has to see more of what they do"),
    ("docs/cli.md", "it is made from the program, and its examples are parsed by it"),
];

/// Why a command is not run.
pub(super) fn reason(page: &str, command: &str) -> Option<&'static str> {
    let found = NOT_RUN.iter().find(|(of, line, _)| *of == page && *line == command);
    found.map(|(_, _, reason)| *reason)
}

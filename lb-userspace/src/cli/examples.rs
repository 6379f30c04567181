//! What people do with the commands: shown in the man pages and the reference.

/// A line to type.
pub(super) struct Example {
    pub(super) line: &'static str,
    pub(super) says: &'static str,
}

impl Example {
    /// Whether it is one of `command`, as `ballast backend drain`, or of one of its subcommands.
    pub(super) fn is_of(&self, command: &str) -> bool {
        self.line.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

const fn example(line: &'static str, says: &'static str) -> Example {
    Example { line, says }
}

pub(super) const EXAMPLES: [Example; 36] = [
    example("ballast check --config new/config.toml", "Is this file right? Needs neither root nor a daemon"),
    example("ballast plan --config new/config.toml", "What would it change, and for how many clients?"),
    example("ballast reload --dry-run", "The same of the file that the daemon has"),
    example("ballast reload", "Make it so, all or nothing"),
    example("ballast status", "Everything at a glance"),
    example("ballast status --watch", "The same every 2 seconds, with rates and what is news"),
    example("ballast status --watch=10s -o json", "A line of JSON every 10 seconds"),
    example("ballast status --ready", "Exit code 4 unless it is ready: for scripts"),
    example("ballast announce status", "Which VIPs does the network know of, and why not the others?"),
    example(
        "ballast announce off --wait --timeout 2m",
        "Before maintenance: send the traffic to the other load balancers",
    ),
    example("ballast announce on", "And have it back"),
    example("ballast top", "Live rates, health and drops; drains and enables backends"),
    example("ballast top --interval 5s", "Easier on a thin line"),
    example("ballast service show web", "Settings, backends and where they come from"),
    example("ballast service list --watch=1s", "What passes in a second, service by service"),
    example(
        "ballast service add dns 203.0.113.53:53 --protocol udp --health-type dns --health-name example.org",
        "A service that no file declares",
    ),
    example(
        "ballast service set dns --slow-start 30s --unset unhealthy_grace",
        "Change one setting, take another back",
    ),
    example("ballast backend list web", "The backends of a service"),
    example("ballast backend add web web-3 10.0.0.13:80 --weight 2", "A backend for any service"),
    example(
        "ballast backend set web web-1 --weight 0",
        "No new flows, existing ones stay for as long as they like",
    ),
    example(
        "ballast backend drain web web-1 --wait --timeout 10m",
        "No new flows; returns when the last one is gone, with 5 when some are left after 10 minutes",
    ),
    example(
        "ballast backend drain web web-1 --wait=quiet",
        "Returns when it has had no packet for 10 seconds",
    ),
    example("ballast backend enable web web-1 --wait", "Returns when it gets new flows again"),
    example("ballast backend reset web web-1", "As it is declared: takes back weight, drain and disable"),
    example(
        "ballast explain --service web --from 198.51.100.7:40000 --syn",
        "Which backend does a new connection get, and why?",
    ),
    example(
        "ballast explain --to 203.0.113.10:443 --from 198.51.100.7:40000 --length 1500",
        "What becomes of a large packet to some address?",
    ),
    example("ballast capture --service web --dropped", "What is dropped, and why, as it happens"),
    example("ballast capture --service web -w web.pcapng", "Packets before and after, for Wireshark"),
    example("ballast doctor", "What on this host would keep it from working, and the fix"),
    example("ballast fleet import services.toml", "Put the services of a file into etcd, for all members"),
    example("ballast fleet status", "Who is in the fleet, and who lags behind or differs"),
    example(
        "ballast fleet export",
        "The services of the fleet as a file: a backup, or to edit and import again",
    ),
    example("ballast import haproxy /etc/haproxy/haproxy.cfg --vip 203.0.113.10", "Coming from HAProxy"),
    example(
        "ballast keepalived --peer 192.0.2.12 --source 192.0.2.11 --priority 110",
        "One of two load balancers without routers: what belongs into its keepalived.conf",
    ),
    example("ballast completions bash", "For a file in /usr/share/bash-completion/completions"),
    example(
        "ballast man /usr/local/share/man",
        "The manual: man ballast, man ballast-backend-drain, man ballast-config",
    ),
];

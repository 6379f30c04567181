//! Configuration files: what one would write in production, and what docs/performance.md says of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::lab::{Lab, Service};

/// What backends and balancers serve.
pub(super) const PORT: u16 = 80;
/// Body of an answer, bytes.
pub(super) const BODY: usize = 1024;
/// More than clients have open with them, at a load that they can bear.
const CONNECTIONS: u32 = 8_192;

/// A backend: one process, so that SIGKILL ends all of it. It does not close kept connections by itself.
pub(super) fn backend(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log {directory}/error.log;\n\
         events {{ worker_connections {CONNECTIONS}; }}\n\
         http {{\n\
         access_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\nopen_file_cache max=16;\n\
         server {{\n\
         listen {PORT} backlog=4096;\nlisten [::]:{PORT} backlog=4096;\nroot {directory};\n\
         location = /healthz {{ return 200 \"ok\\n\"; }}\n\
         }}\n}}\n"
    )
}

/// Backends close connections first, so they keep each in TIME_WAIT for a minute.
const NAT: &str = "[nat]\nports = \"1024-32767\"\n\n";

/// One service, everything not said here as it is by default.
pub(super) fn ballast(lab: &Lab, vip: IpAddr, forwarding: &str) -> String {
    let address = SocketAddr::new(vip, PORT);
    let service = Service::new("web", address, "tcp", forwarding);
    let service = service.health("type = \"http\"\npath = \"/healthz\"").nodes(lab.backends(), address);
    format!("{NAT}{}", service.toml())
}

/// Clients are spread by their address as Ballast does, checks have the same interval and counts (which are HAProxy's
/// own defaults), and a connection that a backend does not take goes to another.
pub(super) fn haproxy(lab: &Lab, vip: IpAddr) -> String {
    let servers: String = lab
        .backends()
        .map(|node| {
            let address = SocketAddr::new(node.address(vip), PORT);
            format!(
                "    server {} {address} check inter 2s rise 2 fall 3 on-marked-down shutdown-sessions\n",
                node.label()
            )
        })
        .collect();
    format!(
        "global\n    maxconn {CONNECTIONS}\n\
         defaults\n    mode tcp\n    retries 3\n    option redispatch 1\n    timeout connect 500ms\n    \
         timeout client 1h\n    timeout server 1h\n    timeout check 1s\n\
         listen web\n    bind {}\n    balance source\n    hash-type consistent\n    \
         option httpchk GET /healthz\n{servers}",
        SocketAddr::new(vip, PORT)
    )
}

/// nginx looks after its backends by what becomes of clients' connections: one failure takes a backend out for 10 s (the
/// defaults), and the connection goes to another.
pub(super) fn nginx(lab: &Lab, vip: IpAddr, directory: &Path) -> String {
    let directory = directory.display();
    let servers: String = lab
        .backends()
        .map(|node| format!("server {};\n", SocketAddr::new(node.address(vip), PORT)))
        .collect();
    // Where the distribution loads the module; a program that has it built in needs none.
    format!(
        "include /etc/nginx/modules-enabled/*stream*.conf;\n\
         daemon off;\nworker_processes auto;\npid {directory}/pid;\nerror_log {directory}/error.log;\n\
         events {{ worker_connections {CONNECTIONS}; }}\n\
         stream {{\n\
         upstream web {{\nhash $remote_addr consistent;\n{servers}}}\n\
         server {{\nlisten {} backlog=4096;\nproxy_pass web;\nproxy_connect_timeout 500ms;\nproxy_timeout 1h;\n}}\n}}\n",
        SocketAddr::new(vip, PORT)
    )
}

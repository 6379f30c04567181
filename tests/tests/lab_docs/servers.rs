//! The web servers of the pages: nginx in every backend, and a `systemctl` that stops and starts it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use lb_tests::lab::{Lab, Node, Output, http_get, try_wait_for};

const SOON: Duration = Duration::from_secs(20);

/// A backend, as the pages call it.
pub(super) struct Server {
    pub(super) name: String,
    node: Node,
    directory: PathBuf,
}

impl Server {
    /// Number `index`, which is `web-1` for the first.
    pub(super) fn start(lab: &Lab, index: usize) -> Result<Self> {
        let name = format!("web-{}", index + 1);
        let directory = lab.directory().join(&name);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        fs::write(directory.join("nginx.conf"), configuration(&name))?;
        let systemctl = directory.join("systemctl");
        let nginx = format!("nginx -p {0} -e error.log -c {0}/nginx.conf", directory.display());
        fs::write(
            &systemctl,
            format!(
                "#!/bin/sh\ncase \"$*\" in\n\"start nginx\") exec {nginx} ;;\n\"stop nginx\") exec {nginx} -s stop ;;\n\
                 *) echo \"there is no service for: $*\" >&2; exit 1 ;;\nesac\n"
            ),
        )?;
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
        let server = Self { name, node: lab.backend(index).clone(), directory };
        server
            .node
            .ip("give it the pages' address", [format!("address add {}/16 dev eth0", server.address())])?;
        server.run("systemctl start nginx")?;
        Ok(server)
    }

    /// `10.0.0.11` for the first.
    pub(super) fn address(&self) -> String {
        format!("10.0.0.1{}", self.name.trim_start_matches("web-"))
    }

    /// A command for its shell, whatever its exit status.
    pub(super) fn run(&self, line: &str) -> Result<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sudo() {{ \"$@\"; }}\n{line}")]).stdin(Stdio::null());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.directory.display()));
        self.node.output(&mut command)
    }

    /// Without the VIP, with the kernel's own ways of answering for addresses, and serving.
    pub(super) fn reset(&self) -> Result<()> {
        self.run(
            "ip address flush dev lo to 203.0.113.10; ip address flush dev lo to 2001:db8::10\n\
             sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0\n",
        )?;
        let itself = (self.node.ipv4(), 80).into();
        let serves = || http_get(&self.node, None, itself, "/", Duration::from_secs(1)).map(Some);
        if serves().is_err() {
            self.run("systemctl start nginx")?;
        }
        try_wait_for(&format!("nginx serves on {}", self.name), SOON, serves).map(drop)
    }

    /// As `docs/forwarding-modes.md` has it for `l2-dsr`.
    pub(super) fn take_the_vip(&self) -> Result<()> {
        self.run(
            "ip address add 203.0.113.10/32 dev lo\n\
             sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2\n",
        )
        .map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.run("systemctl stop nginx") {
            eprintln!("{error:#}");
        }
    }
}

fn configuration(name: &str) -> String {
    format!(
        "master_process off;\npid nginx.pid;\nevents {{ worker_connections 2048; }}\n\
         http {{\n    access_log off;\n    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;\n    \
         uwsgi_temp_path temp; scgi_temp_path temp;\n    server {{\n        listen 80 backlog=4096; listen [::]:80 backlog=4096;\n        \
         add_header X-Backend {name};\n        location / {{ default_type text/plain; return 200 \"{name}\\n\"; }}\n    }}\n}}\n"
    )
}

//! A web server in a lab's backend: a process, so that it can die like one.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::Lab;
use super::http::http_get;
use super::node::Node;
use super::process::ChildGuard;
use super::wait::try_wait_until;

/// nginx, answering every request with its backend's name. Killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    node: Node,
    directory: PathBuf,
    port: u16,
    process: Option<ChildGuard>,
}

impl Nginx {
    /// Starts it and waits until it serves.
    pub fn start(lab: &Lab, node: &Node, port: u16) -> Result<Self> {
        let directory = lab.directory().join(format!("{}.nginx", node.label()));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        fs::write(directory.join("nginx.conf"), config(&node.label(), port))
            .context("write nginx's configuration")?;
        let mut this = Self { node: node.clone(), directory, port, process: None };
        this.restart()?;
        Ok(this)
    }

    /// SIGKILL: nothing is said to clients or the load balancer.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("it is not running")?.kill()
    }

    /// Sends it a signal: SIGSTOP lets it hang, with a kernel that goes on accepting its connections.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().context("it is not running")?.signal(signal)
    }

    /// Starts it (again) and waits until it serves.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&self.directory).args(["-e", "error.log", "-c", "nginx.conf"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(self.node.spawn(&mut command).context("`cargo xtask setup` installs nginx")?);

        let itself = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port);
        let one = Duration::from_secs(1);
        try_wait_until(&format!("nginx serves on {}", self.node.label()), 10 * one, || {
            http_get(&self.node, None, itself, "/", one).map(|reply| reply.status == 200)
        })
        .with_context(|| format!("nginx said: {}", self.log()))
    }

    /// Lets it live on after this process.
    pub fn leave_running(mut self) {
        if let Some(process) = self.process.take() {
            std::mem::forget(process);
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("error.log")).unwrap_or_else(|error| format!("({error})"))
    }
}

fn config(name: &str, port: u16) -> String {
    format!(
        "daemon off;\n\
         # One process: killing it kills all of it.\n\
         master_process off;\n\
         pid nginx.pid;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n\
             access_log off;\n\
             client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;\n\
             server {{\n\
                 listen {port} backlog=4096; listen [::]:{port} backlog=4096;\n\
                 add_header X-Backend {name};\n\
                 location / {{ default_type text/plain; return 200 \"{name}\\n\"; }}\n\
             }}\n\
         }}\n"
    )
}

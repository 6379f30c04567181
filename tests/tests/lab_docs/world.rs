//! The hosts of the pages: a load balancer with a systemd and the package, web servers, and a client that asks all the time.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_tests::lab::{Daemon, Lab, Node, Output, Root, VIP_V4, try_wait_until, wait_until};
use xtask::packaging::{Effort, Package};

use super::servers::Server;

pub(super) const SOON: Duration = Duration::from_secs(30);
/// For one command.
const LIMIT: &str = "timeout --kill-after=5 40";
pub(super) const CONFIGURATION: &str = "/etc/ballast/config.toml";
/// Nobody waits for minutes in a test.
const SHORT: &str = "flow_idle_timeout = \"1s\"\ndrain_timeout = \"1s\"\n";
/// Programs of the reader's own host: what they are given is looked at by others.
const STANDINS: [(&str, &str); 4] = [
    ("sudo", "#!/bin/sh\nexec \"$@\"\n"),
    ("editor", "#!/bin/sh\n"),
    ("ssh", "#!/bin/sh\nshift\nexec sh -c \"$*\"\n"),
    ("wireshark", "#!/bin/sh\nexec tshark -n -i - -c 3\n"),
];

pub(super) struct World {
    pub(super) root: Root,
    pub(super) servers: Vec<Server>,
    /// Whether it is as [`World::serve`] left it.
    pub(super) is_serving: bool,
    /// The file that was written last.
    written: Option<(String, String)>,
    _load: Load,
    lab: Lab,
}

impl World {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::builder().backends(3).plain_backends().build()?;
        let (balancer, client) = (lab.balancer(0), lab.client(0));
        balancer.ip("give it the pages' address", ["address add 10.0.0.1/16 dev eth0"])?;
        balancer.route_vip_to(VIP_V4, client)?;
        let route = format!("route add 198.51.100.0/24 via {}", client.ipv4());
        for node in lab.backends().chain([balancer]) {
            node.ip("find the pages' client", [route.as_str()])?;
        }
        client.ip(
            "be the pages' client",
            [
                "address add 198.51.100.7/32 dev eth0".to_owned(),
                format!("route replace {VIP_V4} via {} src 198.51.100.7", balancer.ipv4()),
            ],
        )?;
        let servers = (0..3).map(|index| Server::start(&lab, index)).collect::<Result<_>>()?;
        let (root, package) = std::thread::scope(|scope| -> Result<_> {
            let package = scope.spawn(|| make_package(&lab));
            let root = Root::boot(&lab, balancer)?;
            Ok((root, package.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
        })?;
        for (name, script) in STANDINS {
            let path = format!("/usr/local/bin/{name}");
            root.write(&path, script)?;
            fs::set_permissions(root.outside(&path), fs::Permissions::from_mode(0o755))?;
        }
        root.run("useradd --create-home alice")?;
        // A refusal of the API is a failure.
        root.write("/root/.curlrc", "fail\nshow-error\n")?;
        let world =
            Self { _load: Load::start(client)?, root, servers, is_serving: false, written: None, lab };
        let name = package.file_name().and_then(|name| name.to_str()).context("a name")?;
        world.root.write(&format!("/root/target/package/{name}"), fs::read(&package)?)?;
        Ok(world)
    }

    pub(super) fn balancer(&self) -> &Node {
        self.lab.balancer(0)
    }

    /// Before a page: nothing is configured, and nothing forwards.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.is_serving = false;
        self.written = None;
        self.servers.iter().try_for_each(Server::reset)?;
        if !self.root.has("/usr/bin/ballast") {
            return Ok(());
        }
        self.root.run(
            "systemctl stop ballast; ballast detach --pin-dir /sys/fs/bpf/ballast || true\n\
             rm -rf /etc/ballast/config.toml /etc/ballast/conf.d/* /var/lib/ballast/* /run/ballast/*\n\
             systemd-sysusers ballast.conf; systemd-tmpfiles --create ballast.conf\n\
             [ ! -d /var/lib/ballast ] || chown ballast:ballast /var/lib/ballast; chgrp -R ballast /etc/ballast; systemctl reset-failed ballast || true",
        )?;
        Ok(())
    }

    /// As the reader of a page has it who has read those before: web-1 and web-2 serve.
    pub(super) fn serve(&mut self) -> Result<()> {
        if !self.root.has("/usr/bin/ballast") {
            self.root.run("apt install ./target/package/ballast_*.deb")?;
        }
        self.clear()?;
        self.servers.iter().try_for_each(Server::take_the_vip)?;
        self.start(WEB)?;
        self.is_serving = true;
        self.wait_healthy()
    }

    /// Starts the daemon on a configuration.
    pub(super) fn start(&mut self, configuration: &str) -> Result<()> {
        self.write(CONFIGURATION, configuration)?;
        self.root.run("systemctl start ballast").map(drop)
    }

    pub(super) fn wait_healthy(&self) -> Result<()> {
        self.wait_for_state("web", "healthy")
    }

    /// Waits until a service, or what `service/backend` names, is in this state.
    pub(super) fn wait_for_state(&self, of: &str, state: &str) -> Result<()> {
        let (service, backend) = of.split_once('/').map_or((of, None), |(of, name)| (of, Some(name)));
        let command = format!("ballast -o json service show {service}");
        try_wait_until(&format!("{of} is {state}"), SOON, || {
            let shown: serde_json::Value = serde_json::from_str(&self.root.run(&command)?)?;
            let found = match backend {
                None => &shown["state"],
                Some(name) => {
                    let mut backends = shown["backends"].as_array().into_iter().flatten();
                    &backends.find(|one| one["name"] == name).context("it is not there")?["health"]
                }
            };
            Ok(found == state)
        })
    }

    pub(super) fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.written = Some((path.to_owned(), text.to_owned()));
        let text = text.replace("[[service]]\n", &format!("[[service]]\n{SHORT}"));
        self.root.write(path, text.replace("interval = \"1s\"", "interval = \"300ms\"\ntimeout = \"300ms\""))
    }

    /// Adds lines to what was written last.
    pub(super) fn insert(&mut self, below: &str, lines: &str) -> Result<()> {
        let (path, text) = self.written.clone().context("no file was written before")?;
        let Some((before, after)) = text.split_once(&format!("{below}\n")) else {
            bail!("there is no line `{below}` in\n{text}");
        };
        self.write(&path, &format!("{before}{below}\n{lines}{after}"))
    }

    /// Runs a command wherever a page wants it, whatever its exit status.
    pub(super) fn run(&self, on: &str, line: &str, is_interrupted: bool) -> Result<Vec<Output>> {
        if is_interrupted {
            return Ok(vec![self.interrupt(line)?]);
        }
        // What `timeout` starts is a program.
        let script = format!("cat > /tmp/command <<'END OF COMMAND'\n{line}\nEND OF COMMAND\n");
        match on {
            "" => {
                self.root.run(&script)?;
                Ok(vec![self.root.try_run(&format!("{LIMIT} sh /tmp/command"))?])
            }
            "client" => {
                let mut command = Command::new("sh");
                command.args(["-c", line]).stdin(Stdio::null());
                Ok(vec![self.lab.client(0).output(&mut command)?])
            }
            "backends" => self.servers.iter().map(|server| server.run(line)).collect(),
            name => {
                let server = self.servers.iter().find(|server| server.name == name);
                Ok(vec![server.with_context(|| format!("there is no host `{name}`"))?.run(line)?])
            }
        }
    }
}

impl World {
    /// Runs a command on the load balancer until it has printed something, and interrupts it then.
    fn interrupt(&self, line: &str) -> Result<Output> {
        self.root.run("rm -f /tmp/printed")?;
        let mut running = self.root.spawn(&format!("{{ {line}\n}} > /tmp/printed 2>&1"))?;
        let printed = || fs::read_to_string(self.root.outside("/tmp/printed")).unwrap_or_default();
        wait_until("it prints something", SOON, || !printed().is_empty())?;
        let words = line.trim_start_matches("sudo ").trim();
        self.root.run(&format!("pkill -INT -x -f '{words}'"))?;
        let status = running.wait(SOON)?;
        Ok(Output { status, stdout: printed(), stderr: String::new() })
    }
}

/// Of the program that is tested.
fn make_package(lab: &Lab) -> Result<PathBuf> {
    let directory = lab.directory().join("package");
    fs::create_dir(&directory)?;
    let package = Package {
        program: Daemon::binary_for_everybody(lab)?,
        workspace: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."),
        version: "0.1.0".to_owned(),
        epoch: 1_700_000_000,
        third_party: "whose code is in it\n".to_owned(),
        effort: Effort::Least,
    };
    package.deb(&directory)
}

/// What pages go by that configure nothing themselves.
pub(super) const WEB: &str = "[daemon]\ninterfaces = [\"eth0\"]\n\n[[service]]\nname = \"web\"\n\
    address = \"203.0.113.10:80\"\nforwarding = \"l2-dsr\"\n\n[service.health]\ntype = \"http\"\npath = \"/healthz\"\n\
    interval = \"500ms\"\ntimeout = \"500ms\"\n\n[[service.backend]]\nname = \"web-1\"\naddress = \"10.0.0.11:80\"\n\n\
    [[service.backend]]\nname = \"web-2\"\naddress = \"10.0.0.12:80\"\n";

/// A client that asks for `/` again and again, whether it is answered or not.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(client: &Node) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = client.thread("load", move || {
            let (to, limit) = (SocketAddr::new(VIP_V4, 80), Duration::from_millis(300));
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(mut stream) = TcpStream::connect_timeout(&to, limit) {
                    let _ = stream.set_read_timeout(Some(limit));
                    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                    let _ = stream.read_to_end(&mut Vec::new());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

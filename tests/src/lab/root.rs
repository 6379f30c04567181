//! A throw-away copy of this system, with a systemd of its own as its first process, to install packages in: an overlay of the
//! root directory in namespaces that end with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{ChildGuard, Lab, Node, Output, try_wait_until, wait_for};
use anyhow::{Context, Result, bail};

const SOON: Duration = Duration::from_secs(30);
/// Arguments: the directory for all of it, and a name. That systemd's control groups are below one of ours.
const MAKE: &str = r#"
set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
cd "$1"
mkdir upper work root cgroup
mount -t cgroup2 cgroup2 cgroup
own=cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$2
mkdir "$own"
echo $$ > "$own/cgroup.procs"
umount cgroup
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
exec unshare --cgroup --pid --fork --kill-child sh -c "$3"
"#;
/// Nothing of the host's is touched: what would set up its kernel and its devices is not wanted by anything here.
const BOOT: &str = r#"
set -e
cd root
mount -t tmpfs -o mode=0755 tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 dev/${node%:*} c 1 ${node#*:}; done
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
rm -rf etc/systemd/system/*.wants usr/lib/systemd/system/*.wants etc/fstab
mkdir -p usr/lib/systemd/system/sockets.target.wants
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket usr/lib/systemd/system/sockets.target.wants/
# The database of manual pages would take longer than all the rest, apt would ask, and images for containers install no
# documentation and start no services.
rm -f var/lib/man-db/auto-update etc/dpkg/dpkg.cfg.d/* usr/sbin/policy-rc.d
echo 'APT::Get::Assume-Yes "true";' > etc/apt/apt.conf.d/99-assume-yes
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system --unit=basic.target \
    --log-target=null --show-status=0
"#;
/// Argument: the name. Control groups outlive those in them.
const CLEAR: &str = r#"
mount -t cgroup2 cgroup2 /mnt
find "/mnt$(sed -n 's/^0:://p' /proc/self/cgroup)/$1" -depth -type d -exec rmdir {} +
"#;
/// What documentation calls `sudo`, and where it is.
const SHELL: &str = "sudo() { \"$@\"; }\nset -e\ncd /root\n";

/// See the module.
#[derive(Debug)]
pub struct Root {
    holder: ChildGuard,
    /// That systemd.
    first: u32,
    node: Node,
    name: String,
}

impl Root {
    /// Boots one in the network namespace of a load balancer.
    pub fn boot(lab: &Lab, node: &Node) -> Result<Self> {
        let (directory, log) = (lab.directory().join("root"), lab.directory().join("root.log"));
        fs::create_dir(&directory)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--ipc", "--uts", "--propagation", "private", "sh", "-c", MAKE, "sh"]);
        command.arg(&directory).arg(lab.name()).arg(BOOT).stdin(Stdio::null());
        command.stdout(fs::File::create(&log)?).stderr(fs::File::options().append(true).open(&log)?);
        let holder = node.spawn(&mut command)?;
        let children = format!("/proc/{pid}/task/{pid}/children", pid = holder.id());
        // What prepares its place are children, too.
        let systemd = || {
            let children = fs::read_to_string(&children).ok()?;
            let is_it = |pid: &&str| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "systemd\n")
            };
            children.split_whitespace().find(is_it)?.parse().ok()
        };
        let first = wait_for("systemd in the copy of this system", SOON, systemd);
        let first = first.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let root = Self { holder, first, node: node.clone(), name: lab.name().to_owned() };
        let booted = try_wait_until("systemd has booted", SOON, || {
            root.try_run("systemctl is-active --quiet basic.target").map(|run| run.status.success())
        });
        booted.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        // Somebody may be installing packages on this host at the moment.
        root.run("dpkg --configure -a")?;
        Ok(root)
    }

    /// A command for the shell inside, as root.
    #[must_use]
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string()]);
        command.args(["--mount", "--pid", "--net", "--cgroup", "--ipc", "--uts", "--root", "--wd"]);
        command.args(["sh", "-c", &format!("{SHELL}{line}")]).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive").env("NO_COLOR", "1");
        command
    }

    /// Runs a command inside, whatever its exit status.
    pub fn try_run(&self, line: &str) -> Result<Output> {
        self.node.output(&mut self.command(line))
    }

    /// Runs a command inside that must succeed, and returns what it said.
    pub fn run(&self, line: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.try_run(line)?;
        if !status.success() {
            bail!("`{line}` failed ({status}): {stderr}{stdout}\n{}", self.journal());
        }
        Ok(stdout + &stderr)
    }

    /// Starts a command inside, whatever it says.
    pub fn spawn(&self, line: &str) -> Result<ChildGuard> {
        self.node.spawn(self.command(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// What the service has said.
    #[must_use]
    pub fn journal(&self) -> String {
        let journal = self.try_run("journalctl --no-pager --output=cat --unit=ballast");
        journal.map_or_else(|error| format!("({error})"), |output| output.stdout)
    }

    /// A property of the service.
    pub fn property(&self, name: &str) -> Result<String> {
        Ok(self.run(&format!("systemctl show --value --property={name} ballast"))?.trim().to_owned())
    }

    /// The path by which this process reaches one inside.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.first.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Whether there is something at a path inside.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.outside(path).symlink_metadata().is_ok()
    }

    /// Writes a file inside, and the directories that it is in.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let outside = self.outside(path);
        let parent = outside.parent().context("a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        fs::write(&outside, bytes).with_context(|| format!("write {path}"))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let cleared = self.holder.kill().and_then(|()| {
            // Those that ended with the first process are still leaving their groups.
            let mut clear = Command::new("unshare");
            clear.args(["--mount", "--propagation", "private", "sh", "-c", CLEAR, "sh", &self.name]);
            wait_for("the copy's control groups are empty", SOON, || {
                let output = clear.output().ok()?;
                output.status.success().then_some(())
            })
        });
        if let Err(error) = cleared {
            eprintln!("{error:#}");
        }
    }
}

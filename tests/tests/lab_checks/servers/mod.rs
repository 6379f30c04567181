//! Servers from the distribution's packages, each on a data directory of its own, gone with their guards.

mod postgres;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{ChildGuard, Node, wait_until};
use nix::unistd::{Gid, Uid, User};
use tempfile::TempDir;

pub(crate) use self::postgres::Postgres;
use super::START;

/// A server process and its directory, which anybody may look into: some servers refuse to run as root.
pub(crate) struct Server {
    pub(crate) node: Node,
    process: ChildGuard,
    directory: TempDir,
}

impl Server {
    /// Starts `command`, its output in the directory's `log`.
    pub(crate) fn start(node: &Node, directory: TempDir, mut command: Command) -> Result<Self> {
        let log = fs::File::create(directory.path().join("log")).context("make a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = node.spawn(&mut command)?;
        Ok(Self { node: node.clone(), process, directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until `ready` says so; the log is shown if it never does.
    pub(crate) fn wait(self, ready: impl Fn(&Self) -> bool) -> Result<Self> {
        let waited = wait_until("the server answers", START, || ready(&self));
        waited.with_context(|| fs::read_to_string(self.path("log")).unwrap_or_default())?;
        Ok(self)
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}

pub(crate) fn directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("ballast-server-").tempdir().context("make a directory for a server")
}

/// The account of a server that does not run as root.
pub(crate) struct Account {
    name: &'static str,
    uid: Uid,
    gid: Gid,
}

impl Account {
    pub(crate) fn named(name: &'static str) -> Result<Self> {
        let user = User::from_name(name)?.with_context(|| format!("no user {name}"))?;
        Ok(Self { name, uid: user.uid, gid: user.gid })
    }

    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())).context("give a directory away")
    }

    /// `program`, to be run by this account.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", self.name, "--regid", self.name, "--clear-groups", "--"]).arg(program);
        command
    }
}

/// An authority, and a certificate of it for `www.example.org`.
pub(crate) fn certificates(directory: &Path) -> Result<()> {
    let path = |name: &str| directory.join(name).display().to_string();
    let make = |arguments: &[&str]| run(Command::new("openssl").args(arguments));
    let (ca_key, ca, key, request, certificate) =
        (path("ca.key"), path("ca.pem"), path("key.pem"), path("request"), path("certificate.pem"));
    fs::write(directory.join("names"), "subjectAltName=DNS:www.example.org\n")?;
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    make(
        &[
            &["req", "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", &ca_key, "-out", &ca],
            &curve[..],
        ]
        .concat(),
    )?;
    make(
        &[&["req", "-subj", "/CN=www.example.org", "-keyout", &key, "-out", &request], &curve[..]].concat(),
    )?;
    make(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &path("names"),
        "-out",
        &certificate,
    ])
}

/// Runs a command outside of any namespace; an error shows what it said.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&said));
    Ok(())
}

pub(crate) struct MariaDb(pub(crate) Server);

impl MariaDb {
    /// An empty server that logs for replicas.
    pub(crate) fn start(node: &Node, id: u32) -> Result<Self> {
        let directory = directory()?;
        let data = directory.path().join("data");
        certificates(directory.path())?;
        run(Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--user=root",
            ])
            .arg(format!("--datadir={}", data.display())))?;
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--user=root", "--port=3306", "--bind-address=*", "--log-bin=log"])
            .args([
                "--skip-name-resolve",
                "--gtid-strict-mode=ON",
                "--log-slave-updates=ON",
                "--innodb-buffer-pool-size=16M",
                "--innodb-flush-log-at-trx-commit=0",
            ]);
        command.arg(format!("--ssl-cert={}", directory.path().join("certificate.pem").display()));
        command.arg(format!("--ssl-key={}", directory.path().join("key.pem").display()));
        command.arg(format!("--server-id={id}")).arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", directory.path().join("socket").display()));
        command.arg(format!("--pid-file={}", directory.path().join("pid").display()));
        let server = Server::start(node, directory, command)?;
        Ok(Self(server.wait(|server| sql(server, "SELECT 1").is_ok())?))
    }

    /// Runs statements as root; what they print, without column names.
    pub(crate) fn sql(&self, text: &str) -> Result<String> {
        sql(&self.0, text)
    }
}

fn sql(server: &Server, text: &str) -> Result<String> {
    let socket = format!("--socket={}", server.path("socket").display());
    let run = server.node.run("mariadb", ["--no-defaults", &socket, "-uroot", "-N", "-B", "-e", text])?;
    Ok(run.stdout.trim().to_owned())
}

pub(crate) struct Redis(pub(crate) Server);

impl Redis {
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let directory = directory()?;
        certificates(directory.path())?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
        command.args([
            "--requirepass",
            "secret",
            "--masterauth",
            "secret",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        command.args([
            "--tls-port",
            "6380",
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            &path("ca.pem"),
        ]);
        command.args(["--tls-cert-file", &path("certificate.pem"), "--tls-key-file", &path("key.pem")]);
        command.args(["--dir", &path(".")]);
        let server = Self(Server::start(node, directory, command)?);
        let (Self(server), answers) = (server, |server: &Server| redis(server, &["PING"]).is_ok());
        Ok(Self(server.wait(answers)?))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Result<String> {
        redis(&self.0, words)
    }
}

fn redis(server: &Server, words: &[&str]) -> Result<String> {
    let address = server.node.ipv4().to_string();
    let arguments = ["-h", &address, "-e", "--no-auth-warning", "-a", "secret"];
    let run = server.node.run("redis-cli", arguments.into_iter().chain(words.iter().copied()))?;
    Ok(run.stdout.trim().to_owned())
}

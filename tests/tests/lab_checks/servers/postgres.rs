//! PostgreSQL, of whatever version the distribution has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::Node;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Account, Server, certificates, directory, run};
use crate::SOON;

pub(crate) struct Postgres(pub(crate) Server);

impl Postgres {
    /// A primary, with the users `ballast`, `md5` and `clear`, who prove the password `secret` each in another way, and
    /// `replicator`, whom it trusts.
    pub(crate) fn primary(node: &Node) -> Result<Self> {
        let (account, directory) = (Account::named("postgres")?, directory()?);
        account.own(directory.path())?;
        let data = directory.path().join("data");
        run(account.command(binary("initdb")?).args(["--auth=trust", "--no-sync", "-D"]).arg(&data))?;
        let rules = "local all all trust\nhost replication replicator all trust\nhost all md5 all md5\n\
                     host all clear all password\nhost all all all scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules)?;
        let server = Self::run(node, &account, directory)?;
        for role in ["ballast", "clear"] {
            server.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"))?;
        }
        server.sql("SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD 'secret'")?;
        server.sql("CREATE ROLE replicator LOGIN REPLICATION")?;
        Ok(server)
    }

    /// A replica of `primary`.
    pub(crate) fn replica(node: &Node, primary: &Self) -> Result<Self> {
        let (account, directory) = (Account::named("postgres")?, directory()?);
        account.own(directory.path())?;
        let mut backup = account.command(binary("pg_basebackup")?);
        backup.args(["-R", "-c", "fast", "-U", "replicator", "-h", &primary.0.node.ipv4().to_string()]);
        backup.arg("-D").arg(directory.path().join("data"));
        let output = node.output(&mut backup)?;
        ensure!(output.status.success(), "pg_basebackup: {}", output.stderr);
        Self::run(node, &account, directory)
    }

    /// Ends it when its replicas have everything.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.0.process.signal(Signal::SIGINT)?;
        let status = self.0.process.wait(SOON)?;
        ensure!(status.success(), "PostgreSQL ended with {status}");
        Ok(())
    }

    /// Starts it again, as a replica of what was its own.
    pub(crate) fn follow(&mut self, primary: &Self) -> Result<()> {
        let account = Account::named("postgres")?;
        let data = self.0.path("data");
        fs::write(data.join("standby.signal"), "")?;
        account.own(&data.join("standby.signal"))?;
        let line = format!("primary_conninfo = 'host={} user=replicator'\n", primary.0.node.ipv4());
        let file = data.join("postgresql.auto.conf");
        fs::write(&file, fs::read_to_string(&file)? + &line).context("add a setting")?;
        let log = fs::File::options().append(true).open(self.0.path("log")).context("open the log")?;
        let mut command = Self::command(&self.0.node, &account, self.0.directory.path())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.0.process = self.0.node.spawn(&mut command)?;
        Ok(())
    }

    fn run(node: &Node, account: &Account, directory: TempDir) -> Result<Self> {
        certificates(directory.path())?;
        for (name, setting) in [("certificate.pem", "ssl_cert_file"), ("key.pem", "ssl_key_file")] {
            account.own(&directory.path().join(name))?;
            let line = format!("{setting} = '{}'\n", directory.path().join(name).display());
            let file = directory.path().join("data/postgresql.conf");
            fs::write(&file, fs::read_to_string(&file)? + &line).context("add a setting")?;
        }
        let command = Self::command(node, account, directory.path())?;
        let server = Server::start(node, directory, command)?;
        Ok(Self(server.wait(|server| psql(server, "SELECT 1").is_ok())?))
    }

    /// Which says who it is by the name of its node.
    fn command(node: &Node, account: &Account, directory: &Path) -> Result<Command> {
        let mut command = account.command(binary("postgres")?);
        command.arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
        let name = format!("cluster_name={}", node.label());
        for setting in ["listen_addresses=*", "fsync=off", "shared_buffers=16MB", "ssl=on", &name] {
            command.args(["-c", setting]);
        }
        Ok(command)
    }

    pub(crate) fn sql(&self, text: &str) -> Result<String> {
        psql(&self.0, text)
    }
}

fn psql(server: &Server, text: &str) -> Result<String> {
    let directory = server.directory.path().display().to_string();
    let arguments = ["-h", &directory, "-U", "postgres", "-A", "-t", "-c", text];
    Ok(server.node.run("psql", arguments)?.stdout.trim().to_owned())
}

/// Debian keeps the servers' programs of each version apart, and out of the way.
fn binary(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let found = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)));
    found.filter(|path| path.exists()).max().with_context(|| format!("no {name} in /usr/lib/postgresql"))
}

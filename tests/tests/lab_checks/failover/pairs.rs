//! How servers of each kind change places, with nothing lost of what was written.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Lab, VIP_V4, try_wait_for, try_wait_until};

use super::Pair;
use crate::SOON;
use crate::servers::{MariaDb, Postgres, Redis};

pub(super) struct MariaDbPair([MariaDb; 2]);

impl MariaDbPair {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let servers = [MariaDb::start(lab.backend(0), 1)?, MariaDb::start(lab.backend(1), 2)?];
        servers[0].sql(
            "CREATE USER ballast IDENTIFIED BY 'secret'; GRANT REPLICA MONITOR ON *.* TO ballast; \
             CREATE USER replicator IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO replicator; \
             CREATE DATABASE shop; CREATE TABLE shop.orders (server INT); \
             CREATE USER shopper IDENTIFIED BY 'secret'; GRANT INSERT ON shop.* TO shopper",
        )?;
        follow(&servers[1], &servers[0])?;
        try_wait_for("the replica has the table", SOON, || {
            servers[1].sql("SELECT 1 FROM shop.orders").map(Some)
        })?;
        Ok(Self(servers))
    }
}

fn follow(replica: &MariaDb, primary: &MariaDb) -> Result<()> {
    let address = primary.0.node.ipv4();
    let text = format!(
        "SET GLOBAL read_only = ON; CHANGE MASTER TO MASTER_HOST = '{address}', MASTER_USER = 'replicator', \
         MASTER_PASSWORD = 'secret', MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = current_pos; START SLAVE"
    );
    replica.sql(&text).map(drop)
}

impl Pair for MariaDbPair {
    const CHECK: (&str, &str) = ("mysql", "user = \"ballast\"");
    const PORT: u16 = 3306;

    fn write() -> Vec<String> {
        let text = "INSERT INTO shop.orders VALUES (@@server_id); SELECT CONCAT('server ', @@server_id)";
        let vip = VIP_V4.to_string();
        let options = ["mariadb", "--no-defaults", "--connect-timeout=1", "-h", &vip, "-P", "3306"];
        let login = ["-ushopper", "-psecret", "-N", "-B", "-e", text];
        options.iter().chain(&login).map(ToString::to_string).collect()
    }

    fn name(&self, server: usize) -> &str {
        ["server 1", "server 2"][server]
    }

    fn switch(&mut self, old: usize, new: usize) -> Result<Instant> {
        let Self(servers) = self;
        servers[old].sql("SET GLOBAL read_only = ON")?;
        let position = servers[old].sql("SELECT @@gtid_binlog_pos")?;
        let caught_up = servers[new].sql(&format!("SELECT MASTER_GTID_WAIT('{position}', 10)"))?;
        ensure!(caught_up == "0", "the replica did not catch up");
        servers[new].sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF")?;
        let switched = Instant::now();
        follow(&servers[old], &servers[new])?;
        Ok(switched)
    }

    fn rows(&self) -> Result<usize> {
        self.0[0].sql("SELECT COUNT(*) FROM shop.orders")?.parse().context("a number")
    }
}

pub(super) struct PostgresPair([Postgres; 2]);

impl PostgresPair {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let primary = Postgres::primary(lab.backend(0))?;
        let replica = Postgres::replica(lab.backend(1), &primary)?;
        primary.sql("CREATE TABLE orders (port INT); GRANT INSERT ON orders TO ballast")?;
        Ok(Self([primary, replica]))
    }
}

impl Pair for PostgresPair {
    const CHECK: (&str, &str) = ("postgres", "user = \"ballast\"\ndatabase = \"postgres\"");
    const PORT: u16 = 5432;

    fn write() -> Vec<String> {
        let to =
            format!("postgresql://ballast:secret@{VIP_V4}:5432/postgres?connect_timeout=1&sslmode=disable");
        let text = "INSERT INTO orders VALUES (1) RETURNING current_setting('cluster_name')";
        ["psql", &to, "-q", "-A", "-t", "-c", text].map(ToOwned::to_owned).into()
    }

    fn name(&self, server: usize) -> &str {
        ["backend0", "backend1"][server]
    }

    fn switch(&mut self, old: usize, new: usize) -> Result<Instant> {
        let Self(servers) = self;
        // It ends when the replica has everything.
        servers[old].stop()?;
        ensure!(servers[new].sql("SELECT pg_promote()")? == "t", "it was not promoted");
        let switched = Instant::now();
        let [first, second] = servers;
        if old == 0 {
            first.follow(second)?
        } else {
            second.follow(first)?
        }
        Ok(switched)
    }

    fn rows(&self) -> Result<usize> {
        self.0[0].sql("SELECT COUNT(*) FROM orders")?.parse().context("a number")
    }
}

pub(super) struct RedisPair {
    servers: [Redis; 2],
    /// `run_id:...`
    names: [String; 2],
}

impl RedisPair {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let servers = [Redis::start(lab.backend(0))?, Redis::start(lab.backend(1))?];
        let name = |server: &Redis| -> Result<String> {
            let info = server.command(&["INFO", "server"])?;
            let line = info.lines().find(|line| line.starts_with("run_id:")).context("no run_id")?;
            Ok(line.trim().to_owned())
        };
        let names = [name(&servers[0])?, name(&servers[1])?];
        servers[1].command(&["REPLICAOF", &servers[0].0.node.ipv4().to_string(), "6379"])?;
        try_wait_until("the replica follows", SOON, || {
            servers[1].command(&["ROLE"]).map(|role| role.contains("connected"))
        })?;
        Ok(Self { servers, names })
    }
}

impl Pair for RedisPair {
    const CHECK: (&str, &str) = ("redis", "user = \"default\"");
    const PORT: u16 = 6379;

    fn write() -> Vec<String> {
        let script = "redis.call('RPUSH', 'orders', 1) return redis.call('INFO', 'server')";
        let vip = VIP_V4.to_string();
        let command =
            ["redis-cli", "-h", &vip, "-e", "--no-auth-warning", "-a", "secret", "EVAL", script, "0"];
        command.map(ToOwned::to_owned).into()
    }

    fn name(&self, server: usize) -> &str {
        &self.names[server]
    }

    fn switch(&mut self, old: usize, new: usize) -> Result<Instant> {
        let Self { servers, .. } = self;
        let address = servers[new].0.node.ipv4().to_string();
        servers[old].command(&["FAILOVER", "TO", &address, "6379", "TIMEOUT", "10000"])?;
        try_wait_until("the replica is the primary", SOON, || {
            servers[new].command(&["ROLE"]).map(|role| role.starts_with("master"))
        })?;
        Ok(Instant::now())
    }

    fn rows(&self) -> Result<usize> {
        self.servers[0].command(&["LLEN", "orders"])?.parse().context("a number")
    }
}

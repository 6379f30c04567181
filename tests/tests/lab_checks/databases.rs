use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, require_root};

use super::servers::{MariaDb, Postgres, Redis};
use super::{at, service, wait_verdict};

/// A service for each role, and one that can't log in.
fn services(lab: &Lab, kind: &str, port: u16, user: &str) -> Result<String> {
    let [right, wrong] = ["secret", "wrong"].map(|name| lab.directory().join(name));
    fs::write(&right, "secret\n").context("write a password")?;
    fs::write(&wrong, "guess\n").context("write a password")?;
    let mut config = String::new();
    let roles = [("writers", "primary"), ("readers", "replica"), ("all", "any"), ("locked-out", "any")];
    for ((name, role), vip_port) in roles.into_iter().zip(port..) {
        let file = if name == "locked-out" { &wrong } else { &right };
        let check = format!(
            "type = \"{kind}\"\nport = {port}\nrole = \"{role}\"\n{user}\npassword_file = \"{}\"",
            file.display()
        );
        let service = service(name, vip_port, &check);
        config += &lab.backends().fold(service, |service, node| at(service, node, vip_port)).toml();
    }
    Ok(config)
}

/// A service that logs in to the first backend over TLS, whose certificate is from the authority in `ca`.
fn secure(lab: &Lab, kind: &str, port: u16, user: &str, ca: &Path) -> String {
    let check = format!(
        "type = \"{kind}\"\nport = {port}\nrole = \"primary\"\n{user}\npassword_file = \"{}\"\ntls = true\n\
         ca_file = \"{}\"\nserver_name = \"www.example.org\"",
        lab.directory().join("secret").display(),
        ca.display()
    );
    at(service("secure", 4000, &check), lab.backend(0), 4000).toml()
}

/// A service for a replica, the second backend, that is hardly behind.
fn current(lab: &Lab, kind: &str, port: u16, user: &str) -> String {
    let check = format!(
        "type = \"{kind}\"\nport = {port}\nrole = \"replica\"\nmax_lag = \"1s\"\n{user}\npassword_file = \"{}\"",
        lab.directory().join("secret").display()
    );
    at(service("current", 4001, &check), lab.backend(1), 4001).toml()
}

/// Health and detail of both backends in each service; in this order the primary and the replica.
fn expect(daemon: &Daemon, [primary, replica]: [&str; 2], details: [&str; 2]) -> Result<()> {
    for (service, health) in [
        ("writers", ["healthy", "ineligible"]),
        ("readers", ["ineligible", "healthy"]),
        ("all", ["healthy", "healthy"]),
    ] {
        for ((backend, wanted), detail) in [primary, replica].into_iter().zip(health).zip(details) {
            let said = wait_verdict(daemon, service, backend, wanted)?;
            // The service for all asks no more than it has to.
            ensure!(said.contains(detail) || service == "all", "{service}/{backend} is {wanted}: {said}");
        }
    }
    wait_verdict(daemon, "secure", primary, "healthy").map(drop)
}

#[test]
fn mariadb_is_followed_by_role() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let [primary, replica] = [0, 1].map(|index| MariaDb::start(lab.backend(index), index as u32 + 1));
    let (primary, mut replica) = (primary?, replica?);
    primary.sql(
        "CREATE USER ballast IDENTIFIED BY 'secret'; GRANT REPLICA MONITOR ON *.* TO ballast; \
         CREATE USER replicator IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO replicator",
    )?;
    let follow = format!(
        "CHANGE MASTER TO MASTER_HOST = '{}', MASTER_USER = 'replicator', MASTER_PASSWORD = 'secret', \
         MASTER_USE_GTID = slave_pos; START SLAVE; SET GLOBAL read_only = ON",
        primary.0.node.ipv4()
    );
    replica.sql(&follow)?;
    let login = "user = \"ballast\"";
    let config = services(&lab, "mysql", 3306, login)?
        + &secure(&lab, "mysql", 3306, login, &primary.0.path("ca.pem"))
        + &current(&lab, "mysql", 3306, login);
    let daemon = Daemon::start(&lab, 0, &config)?;
    let backends = ["backend0", "backend1"];
    expect(&daemon, backends, ["primary", "replica"])?;
    let locked_out = wait_verdict(&daemon, "locked-out", "backend0", "unhealthy")?;
    ensure!(locked_out.contains("Access denied for user 'ballast'"), "{locked_out}");

    // Who is behind can't do the work.
    replica.sql("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 30; START SLAVE")?;
    primary.sql("CREATE DATABASE news")?;
    let late = wait_verdict(&daemon, "current", "backend1", "unhealthy")?;
    ensure!(late.starts_with("replica, ") && late.ends_with(" s behind"), "{late}");
    wait_verdict(&daemon, "readers", "backend1", "healthy")?;
    replica.sql("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 0; START SLAVE")?;
    wait_verdict(&daemon, "current", "backend1", "healthy")?;

    // A replica that does not replicate has the role and can't do the work.
    replica.sql("STOP SLAVE SQL_THREAD")?;
    let stopped = wait_verdict(&daemon, "readers", "backend1", "unhealthy")?;
    ensure!(stopped == "replication SQL thread running: No", "{stopped}");
    replica.sql("START SLAVE")?;
    wait_verdict(&daemon, "readers", "backend1", "healthy")?;
    // Read-only and following nobody it is neither.
    replica.sql("STOP SLAVE; RESET SLAVE ALL")?;
    let alone = wait_verdict(&daemon, "readers", "backend1", "ineligible")?;
    ensure!(alone.contains("replicates from nobody"), "{alone}");
    replica.0.kill()?;
    let gone = wait_verdict(&daemon, "all", "backend1", "unhealthy")?;
    ensure!(gone == "connection refused", "{gone}");
    Ok(())
}

#[test]
fn postgresql_is_followed_by_role() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let mut primary = Postgres::primary(lab.backend(0))?;
    let replica = Postgres::replica(lab.backend(1), &primary)?;
    let login = "user = \"ballast\"\ndatabase = \"postgres\"";
    let mut config = services(&lab, "postgres", 5432, login)?
        + &secure(&lab, "postgres", 5432, login, &primary.0.path("ca.pem"))
        + &current(&lab, "postgres", 5432, login);
    // Those who prove it by other means than SCRAM.
    for (user, vip_port) in [("md5", 4002), ("clear", 4003)] {
        let check = format!(
            "type = \"postgres\"\nport = 5432\nuser = \"{user}\"\ndatabase = \"postgres\"\npassword_file = \"{}\"",
            lab.directory().join("secret").display()
        );
        config += &at(service(user, vip_port, &check), lab.backend(0), vip_port).toml();
    }
    let daemon = Daemon::start(&lab, 0, &config)?;
    expect(&daemon, ["backend0", "backend1"], ["primary", "replica"])?;
    let locked_out = wait_verdict(&daemon, "locked-out", "backend0", "unhealthy")?;
    ensure!(locked_out.contains("password authentication failed"), "{locked_out}");
    let kept = primary.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'md5'")?;
    ensure!(kept.starts_with("md5"), "{kept}");
    for user in ["md5", "clear"] {
        wait_verdict(&daemon, user, "backend0", "healthy")?;
    }

    // Who is behind can't do the work; who has replayed all there is, is not.
    primary.sql("CREATE TABLE old ()")?;
    wait_verdict(&daemon, "current", "backend1", "healthy")?;
    replica.sql("SELECT pg_wal_replay_pause()")?;
    primary.sql("CREATE TABLE new ()")?;
    let late = wait_verdict(&daemon, "current", "backend1", "unhealthy")?;
    ensure!(late.starts_with("replica, ") && late.ends_with(" s behind"), "{late}");
    replica.sql("SELECT pg_wal_replay_resume()")?;
    wait_verdict(&daemon, "current", "backend1", "healthy")?;

    primary.0.kill()?;
    replica.sql("SELECT pg_promote()")?;
    wait_verdict(&daemon, "writers", "backend1", "healthy")?;
    let promoted = wait_verdict(&daemon, "readers", "backend1", "ineligible")?;
    ensure!(promoted.contains("primary"), "{promoted}");
    wait_verdict(&daemon, "writers", "backend0", "unhealthy").map(drop)
}

#[test]
fn redis_is_followed_by_role() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let (mut primary, replica) = (Redis::start(lab.backend(0))?, Redis::start(lab.backend(1))?);
    replica.command(&["REPLICAOF", &primary.0.node.ipv4().to_string(), "6379"])?;
    let login = "user = \"default\"";
    let config = services(&lab, "redis", 6379, login)?
        + &secure(&lab, "redis", 6380, login, &primary.0.path("ca.pem"));
    let daemon = Daemon::start(&lab, 0, &config)?;
    expect(&daemon, ["backend0", "backend1"], ["primary", "replica"])?;
    let locked_out = wait_verdict(&daemon, "locked-out", "backend0", "unhealthy")?;
    ensure!(locked_out.starts_with("WRONGPASS"), "{locked_out}");

    // Without its primary a replica has nothing new to say.
    primary.0.kill()?;
    let cut_off = wait_verdict(&daemon, "readers", "backend1", "unhealthy")?;
    ensure!(cut_off == "replica, link to its primary down", "{cut_off}");
    replica.command(&["REPLICAOF", "NO", "ONE"])?;
    wait_verdict(&daemon, "writers", "backend1", "healthy")?;
    wait_verdict(&daemon, "readers", "backend1", "ineligible").map(drop)
}

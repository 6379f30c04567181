use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Node, Service, VIP_V4, require_root, wait_until};

use super::servers::MariaDb;
use super::{SOON, at, verdict, wait_verdict};

const PORT: u16 = 3306;
/// fall × interval + timeout + 100 ms
const DETECTION: Duration = Duration::from_millis(3 * 300 + 300 + 100);
/// What a client that is a process of its own, and a look at the status, may take on a machine with two cores.
const SLACK: Duration = Duration::from_millis(400);

/// A row that was written: when, and by the server of which number.
type Writes = Mutex<Vec<(Instant, String)>>;

/// Clients write all the time, each row over a connection of its own, while the primary becomes the replica and the
/// replica the primary, and back again.
#[test]
fn the_writer_follows_a_mariadb_switchover_and_never_offers_two_for_long() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let servers = [MariaDb::start(lab.backend(0), 1)?, MariaDb::start(lab.backend(1), 2)?];
    servers[0].sql(
        "CREATE USER ballast IDENTIFIED BY 'secret'; GRANT REPLICA MONITOR ON *.* TO ballast; \
         CREATE USER replicator IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO replicator; \
         CREATE DATABASE shop; CREATE TABLE shop.orders (server INT); \
         CREATE USER shopper IDENTIFIED BY 'secret'; GRANT INSERT ON shop.* TO shopper",
    )?;
    follow(&servers[1], &servers[0])?;
    wait_until("the replica has the table", SOON, || servers[1].sql("SELECT 1 FROM shop.orders").is_ok())?;
    let secret = lab.directory().join("secret");
    std::fs::write(&secret, "secret\n").context("write a password")?;
    let check = |role: &str| {
        format!(
            "type = \"mysql\"\nport = {PORT}\nrole = \"{role}\"\nuser = \"ballast\"\npassword_file = \"{}\"\n\
             interval = \"300ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 3",
            secret.display()
        )
    };
    let writers = Service::new("writers", SocketAddr::new(VIP_V4, PORT), "tcp", "l2-dsr")
        .line("on_all_down = \"drop\"")
        .health(&check("primary"));
    let readers =
        Service::new("readers", SocketAddr::new(VIP_V4, PORT + 1), "tcp", "l2-dsr").health(&check("replica"));
    let writers = lab.backends().fold(writers, |service, node| at(service, node, PORT));
    let readers = lab.backends().fold(readers, |service, node| at(service, node, PORT + 1));
    let daemon = Daemon::start(&lab, 0, &(writers.toml() + &readers.toml()))?;
    wait_verdict(&daemon, "writers", "backend0", "healthy")?;
    wait_verdict(&daemon, "readers", "backend1", "healthy")?;

    let (stop, writes) = (AtomicBool::new(false), Writes::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| write(lab.client(0), &stop, &writes));
        }
        let watched = scope.spawn(|| watch(&daemon, &stop));
        let result = switch_twice(&daemon, &servers, &writes);
        stop.store(true, Ordering::Relaxed);
        let both = watched.join().expect("watching does not panic")?;
        result?;
        ensure!(both <= DETECTION, "two writers were offered for {both:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    // Whatever a client was told is written, is.
    // One before, between and after the two.
    let told = writes.into_inner().expect("nobody panicked").len();
    let kept: usize = servers[0].sql("SELECT COUNT(*) FROM shop.orders")?.parse()?;
    ensure!(told >= 3 && kept >= told, "{told} writes, {kept} rows");
    Ok(())
}

fn switch_twice(daemon: &Daemon, servers: &[MariaDb; 2], writes: &Writes) -> Result<()> {
    for (round, [old, new]) in [[0, 1], [1, 0]].into_iter().enumerate() {
        wait_until("the writer writes", SOON, || last_writer(writes) == Some((old + 1).to_string()))?;
        servers[old].sql("SET GLOBAL read_only = ON")?;
        let position = servers[old].sql("SELECT @@gtid_binlog_pos")?;
        let caught_up = servers[new].sql(&format!("SELECT MASTER_GTID_WAIT('{position}', 10)"))?;
        ensure!(caught_up == "0", "the replica did not catch up");
        servers[new].sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF")?;
        let switched = Instant::now();
        follow(&servers[old], &servers[new])?;
        let name = (new + 1).to_string();
        wait_until("the new primary is written to", SOON, || {
            writes.lock().is_ok_and(|all| all.iter().any(|(at, by)| *at > switched && *by == name))
        })?;
        let all = writes.lock().expect("nobody panicked");
        let first = all.iter().find(|(at, by)| *at > switched && *by == name).context("it was there")?.0;
        let took = first - switched;
        ensure!(took <= DETECTION + SLACK, "round {round}: the writer followed after {took:?}");
        let strays = all.iter().filter(|(at, by)| *at > switched && *by != name).count();
        ensure!(strays == 0, "{strays} writes to the old primary");
        drop(all);
        wait_verdict(daemon, "writers", &format!("backend{old}"), "ineligible")?;
        wait_verdict(daemon, "readers", &format!("backend{old}"), "healthy")?;
        wait_verdict(daemon, "readers", &format!("backend{new}"), "ineligible")?;
    }
    Ok(())
}

fn follow(replica: &MariaDb, primary: &MariaDb) -> Result<()> {
    let address = primary.0.node.ipv4();
    let text = format!(
        "SET GLOBAL read_only = ON; CHANGE MASTER TO MASTER_HOST = '{address}', MASTER_USER = 'replicator', \
         MASTER_PASSWORD = 'secret', MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = current_pos; START SLAVE"
    );
    replica.sql(&text).map(drop)
}

fn last_writer(writes: &Writes) -> Option<String> {
    writes.lock().ok()?.last().map(|(_, by)| by.clone())
}

/// Writes rows through the VIP until told to stop. What fails is nobody's row.
fn write(client: &Node, stop: &AtomicBool, writes: &Writes) {
    let (vip, port) = (VIP_V4.to_string(), PORT.to_string());
    let text = "INSERT INTO shop.orders VALUES (@@server_id); SELECT @@server_id";
    let arguments = [
        "--no-defaults",
        "--connect-timeout=1",
        "-h",
        &vip,
        "-P",
        &port,
        "-ushopper",
        "-psecret",
        "-N",
        "-B",
        "-e",
        text,
    ];
    while !stop.load(Ordering::Relaxed) {
        let Ok(run) = client.try_run("timeout", ["1", "mariadb"].into_iter().chain(arguments)) else {
            return;
        };
        if run.status.success()
            && let Ok(mut all) = writes.lock()
        {
            all.push((Instant::now(), run.stdout.trim().to_owned()));
        }
    }
}

/// For how long both backends were offered as writers together, as far as looks at the status tell.
fn watch(daemon: &Daemon, stop: &AtomicBool) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut since = None;
    while !stop.load(Ordering::Relaxed) {
        let mut healthy = 0;
        for backend in ["backend0", "backend1"] {
            healthy += usize::from(verdict(daemon, "writers", backend)?.0 == "healthy");
        }
        let now = Instant::now();
        match (healthy, since) {
            (2, None) => since = Some(now),
            (2, Some(since)) => longest = longest.max(now - since),
            _ => since = None,
        }
    }
    Ok(longest)
}

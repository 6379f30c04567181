//! A primary and a replica that change places while clients write through the service for the primary, each row over a
//! connection of its own.

mod pairs;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Lab, Node, Service, VIP_V4, require_root, wait_until};

use self::pairs::{MariaDbPair, PostgresPair, RedisPair};
use super::{SOON, at, verdict, wait_verdict};

/// fall × interval + timeout + 100 ms
const DETECTION: Duration = Duration::from_millis(3 * 300 + 300 + 100);
/// What a client that is a process of its own, and a look at the status, may take on a machine with two cores.
const SLACK: Duration = Duration::from_millis(400);

/// On a machine that is busy with other tests everything is later.
fn busy() -> Duration {
    if std::env::var_os("BALLAST_LONG").is_some() { Duration::ZERO } else { Duration::from_secs(2) }
}

/// Two servers in the lab's first backends, of which the first is the primary to begin with.
trait Pair {
    /// The check's type, and what it takes to log in.
    const CHECK: (&str, &str);
    const PORT: u16;

    /// A command that writes a row to the primary that it reaches at the VIP, and the server's answer.
    fn write() -> Vec<String>;

    /// Something in that answer which only this server says.
    fn name(&self, server: usize) -> &str;

    /// Makes them change places. Returns since when the new primary took what is written.
    fn switch(&mut self, old: usize, new: usize) -> Result<Instant>;

    /// How many rows there are.
    fn rows(&self) -> Result<usize>;
}

/// A row that was written.
struct Row {
    begun: Instant,
    /// The client has ended.
    done: Instant,
    /// What the server said, which tells which one it was.
    answer: String,
}

type Writes = Mutex<Vec<Row>>;

#[test]
fn the_writer_follows_a_mariadb_switchover_and_never_offers_two_for_long() -> Result<()> {
    require_root!(Ok(()));
    follows(MariaDbPair::start)
}

#[test]
fn the_writer_follows_a_postgresql_switchover_and_never_offers_two_for_long() -> Result<()> {
    require_root!(Ok(()));
    follows(PostgresPair::start)
}

#[test]
fn the_writer_follows_a_redis_switchover_and_never_offers_two_for_long() -> Result<()> {
    require_root!(Ok(()));
    follows(RedisPair::start)
}

/// The primary becomes the replica and the replica the primary, and back again.
fn follows<P: Pair>(start: impl FnOnce(&Lab) -> Result<P>) -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let mut pair = start(&lab)?;
    let daemon = Daemon::start(&lab, 0, &config::<P>(&lab)?)?;
    wait_verdict(&daemon, "writers", "backend0", "healthy")?;
    wait_verdict(&daemon, "readers", "backend1", "healthy")?;
    let (stop, writes) = (AtomicBool::new(false), Writes::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| write::<P>(lab.client(0), &stop, &writes));
        }
        let watched = scope.spawn(|| watch(&daemon, &stop));
        let result = switch_twice(&daemon, &mut pair, &writes);
        stop.store(true, Ordering::Relaxed);
        let both = watched.join().expect("watching does not panic")?;
        result?;
        ensure!(both <= DETECTION + busy(), "two writers were offered for {both:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    // Whatever a client was told is written, is. One before, between and after the two.
    let told = writes.into_inner().expect("nobody panicked").len();
    let kept = pair.rows()?;
    ensure!(told >= 3 && kept >= told, "{told} writes, {kept} rows");
    Ok(())
}

fn config<P: Pair>(lab: &Lab) -> Result<String> {
    let secret = lab.directory().join("secret");
    std::fs::write(&secret, "secret\n").context("write a password")?;
    let (kind, login) = P::CHECK;
    let service = |name: &str, port: u16, role: &str| {
        let check = format!(
            "type = \"{kind}\"\nport = {}\nrole = \"{role}\"\n{login}\npassword_file = \"{}\"\n\
             interval = \"300ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 3",
            P::PORT,
            secret.display()
        );
        let service = Service::new(name, SocketAddr::new(VIP_V4, port), "tcp", "l2-dsr").health(&check);
        lab.backends().fold(service.line("on_all_down = \"drop\""), |service, node| at(service, node, port))
    };
    Ok(service("writers", P::PORT, "primary").toml() + &service("readers", P::PORT + 1, "replica").toml())
}

fn switch_twice<P: Pair>(daemon: &Daemon, pair: &mut P, writes: &Writes) -> Result<()> {
    for (round, [old, new]) in [[0, 1], [1, 0]].into_iter().enumerate() {
        let writer = |server: usize| move |answer: &str, pair: &P| answer.contains(pair.name(server));
        wait_until("the writer writes", SOON, || {
            writes.lock().is_ok_and(|all| all.last().is_some_and(|row| writer(old)(&row.answer, pair)))
        })?;
        let switched = pair.switch(old, new)?;
        let followed = |all: &[Row]| {
            let mut after = all.iter().filter(|row| row.done > switched);
            after.find(|row| writer(new)(&row.answer, pair)).map(|row| row.done - switched)
        };
        wait_until("the new primary is written to", SOON, || {
            writes.lock().is_ok_and(|all| followed(&all).is_some())
        })?;
        let all = writes.lock().expect("nobody panicked");
        let took = followed(&all).context("it was there")?;
        ensure!(took <= DETECTION + SLACK + busy(), "round {round}: the writer followed after {took:?}");
        // It took none any more.
        let late = all.iter().filter(|row| row.begun > switched);
        let strays = late.filter(|row| writer(old)(&row.answer, pair)).count();
        ensure!(strays == 0, "{strays} writes to the old primary");
        drop(all);
        wait_verdict(daemon, "writers", &format!("backend{old}"), "ineligible")?;
        wait_verdict(daemon, "readers", &format!("backend{old}"), "healthy")?;
        wait_verdict(daemon, "readers", &format!("backend{new}"), "ineligible")?;
    }
    Ok(())
}

/// Writes rows through the VIP until told to stop. What fails is nobody's row.
fn write<P: Pair>(client: &Node, stop: &AtomicBool, writes: &Writes) {
    let command = P::write();
    let words = ["1"].into_iter().chain(command.iter().map(String::as_str));
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let Ok(run) = client.try_run("timeout", words.clone()) else { return };
        if run.status.success()
            && let Ok(mut all) = writes.lock()
        {
            all.push(Row { begun, done: Instant::now(), answer: run.stdout });
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

//! The storm: load balancers behind a router, the etcd of their fleet, backends, steady clients, and faults by a plan, until
//! the time is over. Every request that fails has to be one that a fault costs until it is detected. docs/high-availability.md says how to read it.

mod clients;
mod diary;
mod fault;
mod fleet;
mod judge;
mod ledger;
mod plan;
mod report;
mod strike;
mod topology;
mod ways;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::lab::interrupt_cleans_up;
use clients::{Clients, Demand};
use diary::Diary;
use fault::{Cost, Fault, Kind};
use judge::{Accounting, Window};
use plan::Deck;
pub use report::Report;
use topology::{LIVE, SIZE, Scene, WEB};
use ways::Ways;

/// What to run, and how to say it.
#[derive(Debug, Parser)]
pub struct Options {
    /// How long it is to last
    #[arg(long, default_value_t = 30.0, value_name = "N")]
    minutes: f64,
    /// Of the plan of faults, which is the same from the same seed; by default a random one
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the report there, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show the plan, and strike nothing
    #[arg(long)]
    plan: bool,
}

/// A storm from half an hour on has to reach this.
const AVAILABILITY: f64 = 0.9999;
/// A shorter one has more deaths of backends for its time than a long one, by chance.
const SHORT_AVAILABILITY: f64 = 0.999;
const LONG: Duration = Duration::from_secs(30 * 60);

/// In which a load balancer tells its peers of a connection that has just been opened: docs/flow-replication.md.
const HEARD: Duration = Duration::from_millis(50);

/// How a storm is set up.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    pub length: Duration,
    /// How much later than promised a fault may be detected: processes have to get their turn, and changes are published
    /// at most ten times a second.
    pub slack: Duration,
}

impl Settings {
    /// All kinds of faults, at a steady rate.
    #[must_use]
    pub fn steady(seed: u64, length: Duration) -> Self {
        Self { seed, length, slack: Duration::from_millis(300) }
    }

    fn plan(&self) -> Vec<Fault> {
        plan::generate(self.seed, self.length, Deck::steady(), SIZE)
    }
}

/// Runs a storm and prints what became of it.
///
/// # Errors
///
/// If something can't be set up, or it was not passed: a request failed that nothing accounts for, something did not
/// come back, or too many requests failed.
pub fn run(options: &Options) -> Result<()> {
    ensure!((0.5..=24.0 * 60.0).contains(&options.minutes), "a storm lasts from half a minute to a day");
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..100_000));
    let settings = Settings::steady(seed, Duration::from_secs_f64(options.minutes * 60.0));
    if options.plan {
        for fault in settings.plan() {
            println!("{:>7.1} s  {fault}", fault.begins.as_secs_f64());
        }
        return Ok(());
    }
    let report = storm(settings)?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json()).context("write JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    report.verdict()
}

/// Runs a storm, says what happens while it does, and returns what became of it.
///
/// # Errors
///
/// If something can't be set up. What does not come back afterwards is a result, not an error.
pub fn storm(settings: Settings) -> Result<Report> {
    let faults = settings.plan();
    println!("a storm of {:?} with {} faults, seed {}", settings.length, faults.len(), settings.seed);
    let diary = Diary::default();
    let mut scene = Scene::build(settings, &diary).context("build the place of the storm")?;
    interrupt_cleans_up(scene.lab.name())?;
    let demand = Demand {
        web: Scene::to(WEB),
        web_rate: 100.0,
        live: Scene::to(LIVE),
        connections: 20,
        heartbeat: Duration::from_millis(100),
    };
    let (broken, witness) = diary::ask_about_broken(&scene.daemons, &diary)?;
    let (began, clock) = (Instant::now(), SystemTime::now());
    let ways = Ways::watch(scene.lab.gateway(), began, &diary)?;
    let clients = Clients::start(scene.lab.client(0), demand.clone(), began, settings.seed, broken)?;
    let mut course = Course { began, late: Duration::ZERO, windows: Vec::new(), diary: diary.clone() };
    let trouble = course.run(&mut scene, &clients, &faults, settings.length).err();
    // What is not whole by now tells nothing new.
    let trouble = trouble.or_else(|| scene.wait_whole().context("after the storm").err());
    let lasted = began.elapsed();
    let ledger = clients.stop()?;
    witness.join().map_err(|_| anyhow!("the witness panicked"))?;
    let accounting =
        Accounting { windows: course.windows, ways: ways.changes(), heard: HEARD + settings.slack };
    let trouble = trouble.map(|error| format!("{error:#}")).or_else(|| demand.shortfall(&ledger, lasted));
    let record = record(&scene, &diary, began, clock);
    let changes = scene.fleet.changes();
    let report = Report::new(settings, lasted, faults, &accounting, ledger, changes, trouble);
    println!("{}", report.text());
    Ok(report.with_record(record))
}

/// What happened when, and what load balancers said: their clock showed `clock` when the storm began.
fn record(scene: &Scene, diary: &Diary, began: Instant, clock: SystemTime) -> Value {
    let logs = scene.daemons.iter().map(|daemon| {
        let log = daemon.log();
        (daemon.node().label(), log.lines().collect())
    });
    json!({
        "began": clock.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        "diary": diary.json(began),
        "logs": logs.collect::<serde_json::Map<String, Value>>(),
    })
}

/// How far a storm is.
struct Course {
    began: Instant,
    /// How much later everything happens than planned, because something took longer.
    late: Duration,
    windows: Vec<Window>,
    diary: Diary,
}

/// What is done about a fault, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Settle,
    End,
    Begin,
}

impl Course {
    fn run(
        &mut self,
        scene: &mut Scene,
        clients: &Clients,
        faults: &[Fault],
        length: Duration,
    ) -> Result<()> {
        let mut steps: Vec<_> = faults
            .iter()
            .enumerate()
            .flat_map(|(number, fault)| {
                [(fault.begins, Step::Begin), (fault.ends, Step::End), (fault.settled, Step::Settle)]
                    .map(|(at, step)| (at, step, number))
            })
            .collect();
        steps.sort();
        for (at, step, number) in steps {
            self.wait_until(at);
            let fault = &faults[number];
            self.diary.note(format!("{step:?} {fault}"));
            self.take(step, scene, clients, number, fault).with_context(|| format!("{step:?} {fault}"))?;
            self.diary.note(format!("{step:?} {fault}: done"));
            if step == Step::Begin {
                let failed = clients.so_far().failures.len();
                println!("{:>7.1} s  {fault} ({failed} failed so far)", at.as_secs_f64());
            }
        }
        self.wait_until(length);
        Ok(())
    }

    fn take(
        &mut self,
        step: Step,
        scene: &mut Scene,
        clients: &Clients,
        number: usize,
        fault: &Fault,
    ) -> Result<()> {
        match step {
            Step::Begin => {
                let from = self.began.elapsed();
                scene.begin(fault)?;
                let bound = match fault.kind.nature().cost {
                    Cost::Nothing => return Ok(()),
                    Cost::OfBackend(_) => scene.backend_bound(),
                    Cost::OfBalancer => scene.balancer_bound(),
                };
                let until = self.began.elapsed() + bound;
                self.windows.push(Window {
                    fault: number,
                    kind: fault.kind,
                    target: fault.target,
                    from,
                    until,
                });
                Ok(())
            }
            Step::End => {
                scene.end(fault, clients)?;
                // A flap may be over before it is detected, and costs until then at least.
                if matches!(fault.kind, Kind::BalancerFlaps | Kind::BackendFlaps) {
                    let now = self.began.elapsed();
                    let own = self.windows.iter_mut().rfind(|window| window.fault == number);
                    own.into_iter().for_each(|window| window.until = window.until.max(now));
                }
                Ok(())
            }
            Step::Settle => scene.settle(fault, clients),
        }
    }

    /// Whatever is late, the time between two steps is at least what was planned.
    fn wait_until(&mut self, at: Duration) {
        let now = self.began.elapsed();
        let due = at + self.late;
        match due.checked_sub(now) {
            Some(left) => thread::sleep(left),
            None => self.late += now - due,
        }
    }
}

//! Services are those of a fleet: whoever changes them asks etcd, and is refused where that can't be asked.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;
use serde_json::Value;

use super::diary::Diary;
use super::fault::{Fault, Kind, Target, seconds};
use super::topology::{PATIENCE, SIZE, Scene, VIPS, services};
use crate::lab::{Daemon, Etcd, wait_for, wait_until};

/// For which a change may be refused after etcd's leader has died: an election, and what a busy machine makes of it.
const ELECTION: Duration = Duration::from_secs(10);
/// Before a change that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// The service that can't be added.
const REFUSED: &str = "refused";

/// What became of changes of services that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Changes {
    pub(super) made: u64,
    /// Of those made: asked for more than once, because etcd had no leader.
    pub(super) again: u64,
    /// As they had to be: etcd had no majority, or was out of reach.
    pub(super) refused: u64,
    #[serde(rename = "slowest_seconds", serialize_with = "seconds")]
    pub(super) slowest: Duration,
}

/// etcd, and what was asked of it.
pub(super) struct Fleet {
    pub(super) etcd: Etcd,
    diary: Diary,
    changes: Mutex<Changes>,
    /// Until then etcd may have no leader.
    electing: Option<Instant>,
    has_majority: bool,
    /// Changes that have to be refused, under way.
    attempts: Vec<JoinHandle<Result<()>>>,
}

impl Fleet {
    pub(super) fn new(etcd: Etcd, diary: Diary) -> Self {
        Self {
            etcd,
            diary,
            changes: Mutex::default(),
            electing: None,
            has_majority: true,
            attempts: Vec::new(),
        }
    }

    pub(super) fn changes(&self) -> Changes {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Changes)) {
        note(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes a change on one load balancer, by a command that may be given again. `is_made` looks at its status for what the
    /// command can't do twice.
    fn change(&self, daemon: &Daemon, words: &[&str], is_made: impl Fn(&Value) -> bool) -> Result<()> {
        let what = format!("`{}` by {}", words.join(" "), daemon.node().label());
        self.diary.note(format!("asked for: {what}"));
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let asked = Instant::now();
            let output = daemon.cli(words.iter().copied())?;
            tries += 1;
            // Whoever was asked may have died before it said what it had done.
            if output.status.success() || tries > 1 && is_made(&daemon.status_json()?) {
                break;
            }
            ensure!(
                self.electing.is_some_and(|until| asked < until),
                "{}: `ballast {}` is refused ({}) for no reason: {}",
                daemon.node().label(),
                words.join(" "),
                output.status,
                output.stderr
            );
            thread::sleep(PAUSE);
        }
        self.diary.note(format!("made: {what}"));
        self.note(|changes| {
            changes.made += 1;
            changes.again += u64::from(tries > 1);
            changes.slowest = changes.slowest.max(begun.elapsed());
        });
        Ok(())
    }

    /// Tries a change where it has to be refused. It takes its time, see [`Fleet::wait_refused`].
    fn attempt(&mut self, daemon: &Daemon) {
        // Talks to the same daemon.
        let daemon = daemon.rival();
        self.attempts.push(thread::spawn(move || {
            let to = extra(0).to_string();
            let output = daemon.cli(["service", "add", REFUSED, &to])?;
            ensure!(
                output.status.code() == Some(1) && output.stderr.contains("nothing changed"),
                "{}: a change without etcd ended with {}: {}",
                daemon.node().label(),
                output.status,
                output.stderr
            );
            Ok(())
        }));
    }

    fn wait_refused(&mut self) -> Result<()> {
        for attempt in self.attempts.drain(..) {
            attempt.join().map_err(|_| anyhow!("a thread panicked"))??;
            self.changes.get_mut().unwrap_or_else(PoisonError::into_inner).refused += 1;
        }
        Ok(())
    }
}

impl Scene {
    /// Each member that is killed is started again by [`Scene::revive_etcd`]. Meanwhile services are changed, if that can be.
    pub(super) fn strike_etcd(&mut self, fault: &Fault) -> Result<()> {
        let leader = self.fleet.etcd.leader()?;
        let follower = self.fleet.etcd.alive().into_iter().find(|member| *member != leader);
        let follower = follower.context("etcd has no other member")?;
        match fault.kind {
            Kind::EtcdKilled => self.fleet.etcd.kill(follower)?,
            Kind::EtcdMajorityKilled => {
                self.fleet.etcd.kill(follower)?;
                self.fleet.etcd.kill(leader)?;
                self.fleet.has_majority = false;
                let asked: Vec<_> = self.members().collect();
                asked.into_iter().for_each(|member| self.fleet.attempt(&self.daemons[member]));
                return Ok(());
            }
            _ => {
                self.fleet.etcd.kill(leader)?;
                self.fleet.electing = Some(Instant::now() + ELECTION);
            }
        }
        self.add_extra(fault)
    }

    pub(super) fn revive_etcd(&mut self, fault: &Fault) -> Result<()> {
        self.fleet.wait_refused()?;
        self.fleet.etcd.revive()?;
        self.fleet.etcd.leader()?;
        match fault.kind {
            Kind::EtcdMajorityKilled => Ok(()),
            _ => self.remove_extra(fault),
        }
    }

    pub(super) fn settle_etcd(&mut self) -> Result<()> {
        self.fleet.has_majority = true;
        self.fleet.electing = None;
        self.wait_caught_up()
    }

    /// Cuts a load balancer off from etcd, where services are changed meanwhile.
    pub(super) fn leave_alone(&mut self, fault: &Fault, member: usize) -> Result<()> {
        self.fleet.etcd.ways(self.lab.balancer(member), "add")?;
        self.fleet.attempt(&self.daemons[member]);
        self.add_extra(fault)
    }

    pub(super) fn rejoin(&mut self, fault: &Fault, member: usize) -> Result<()> {
        self.fleet.wait_refused()?;
        self.remove_extra(fault)?;
        self.fleet.etcd.ways(self.lab.balancer(member), "del")
    }

    /// Load balancers that nothing strikes for the moment.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> + use<> {
        let struck = self.struck;
        (0..usize::from(SIZE.balancers)).filter(move |number| Some(*number) != struck)
    }

    /// `ballast backend VERB SERVICE NAME ...` for every service.
    pub(super) fn tell(&self, target: Target, verb: &str, more: &[&str]) -> Result<()> {
        let (fleet, name) = (&self.fleet, self.node(target).label());
        self.for_every_service(|daemon, service, _| {
            let words: Vec<_> =
                ["backend", verb, service, &name].into_iter().chain(more.iter().copied()).collect();
            let is_gone = |status: &Value| verb == "remove" && !has_backend(status, service, &name);
            fleet.change(daemon, &words, is_gone)
        })
    }

    /// `ballast backend add` for every service.
    pub(super) fn add(&self, target: Target) -> Result<()> {
        let (fleet, node) = (&self.fleet, self.node(target));
        let name = node.label();
        self.for_every_service(|daemon, service, to| {
            let address = SocketAddr::new(node.address(to.ip()), to.port()).to_string();
            let is_there = |status: &Value| has_backend(status, service, &name);
            fleet.change(daemon, &["backend", "add", service, &name, &address], is_there)
        })
    }

    /// At the same time, each on another load balancer.
    fn for_every_service(
        &self,
        change: impl Fn(&Daemon, &str, SocketAddr) -> Result<()> + Sync,
    ) -> Result<()> {
        let (change, members) = (&change, self.members().collect::<Vec<_>>());
        thread::scope(|scope| {
            let turns = services().zip(members.iter().cycle());
            let workers: Vec<_> = turns
                .map(|((service, to), member)| {
                    let daemon = &self.daemons[*member];
                    scope.spawn(move || change(daemon, &service, to))
                })
                .collect();
            let mut ended = workers.into_iter().map(|worker| worker.join());
            ended.try_for_each(|ended| ended.map_err(|_| anyhow!("a thread panicked"))?)
        })
    }

    /// A service that nobody asks for something, for as long as the fault lasts.
    fn add_extra(&self, fault: &Fault) -> Result<()> {
        let (name, to) = (extra_name(fault), extra(fault.kind as u16 + 1).to_string());
        let member = self.members().next().context("every load balancer is struck")?;
        let is_there = |status: &Value| service(status, &name).is_some();
        self.fleet.change(&self.daemons[member], &["service", "add", &name, &to], is_there)
    }

    fn remove_extra(&self, fault: &Fault) -> Result<()> {
        let name = extra_name(fault);
        let member = self.members().last().context("every load balancer is struck")?;
        let is_gone = |status: &Value| service(status, &name).is_none();
        self.fleet.change(&self.daemons[member], &["service", "remove", &name], is_gone)
    }

    /// Waits until every load balancer that is not struck has made live what etcd has, if that can be asked.
    pub(super) fn wait_caught_up(&self) -> Result<()> {
        if !self.fleet.has_majority {
            return Ok(());
        }
        let revision = |member: usize| -> Result<Option<i64>> {
            let fleet = self.daemons[member].fleet_status()?;
            let is_well = fleet["connected"] == true && fleet["trouble"].is_null();
            let live = fleet["live_revision"].as_i64();
            Ok(live.filter(|_| is_well && fleet["live_revision"] == fleet["revision"]))
        };
        wait_until("load balancers have what etcd has", PATIENCE, || {
            let all = self.members().map(|member| revision(member).ok().flatten());
            let all: Option<Vec<_>> = all.collect();
            all.is_some_and(|all| all.windows(2).all(|pair| pair[0] == pair[1]))
        })
        .with_context(|| format!("{:#?}", self.daemons.iter().map(Daemon::fleet_status).collect::<Vec<_>>()))
    }

    /// Waits until every load balancer finds nothing wrong with any, hears every other, and has the services that were declared
    /// and no others.
    pub(super) fn wait_as_declared(&self) -> Result<()> {
        let backends: Vec<_> = (0..SIZE.backends).map(|number| format!("backend{number}")).collect();
        let is_declared = |status: &Value| {
            let all = status["services"].as_array().map_or(&[][..], Vec::as_slice);
            all.len() == services().count()
                && services().all(|(name, _)| service(status, &name).is_some_and(|it| is_as(it, &backends)))
        };
        let are_well = |fleet: &Value| {
            let members = fleet["members"].as_array().map_or(&[][..], Vec::as_slice);
            members.len() == usize::from(SIZE.balancers)
                && members.iter().all(|one| one["marks"].as_array().is_some_and(Vec::is_empty))
        };
        let hear_peers = |status: &Value| {
            let peers = status["peers"]["peers"].as_array().map_or(&[][..], Vec::as_slice);
            let is_heard = |peer: &Value| peer["up"] == true && peer["tables_equal"] == true;
            peers.len() + 1 == usize::from(SIZE.balancers) && peers.iter().all(is_heard)
        };
        for daemon in &self.daemons {
            let mut last = Value::Null;
            wait_for("services are as declared, members well, and peers there", PATIENCE, || {
                last = daemon.status_json().ok()?;
                (is_declared(&last) && hear_peers(&last) && are_well(&daemon.fleet_status().ok()?))
                    .then_some(())
            })
            .with_context(|| format!("{}: {last:#}", daemon.node().label()))?;
        }
        Ok(())
    }
}

fn extra_name(fault: &Fault) -> String {
    format!("extra-{}", fault.kind as u16)
}

/// An address that no client knows.
fn extra(number: u16) -> SocketAddr {
    SocketAddr::new(VIPS[0], 8_000 + number)
}

fn service<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["services"].as_array()?.iter().find(|service| service["name"] == name)
}

fn has_backend(status: &Value, of: &str, name: &str) -> bool {
    let backends = service(status, of).and_then(|service| service["backends"].as_array());
    backends.is_some_and(|backends| backends.iter().any(|backend| backend["name"] == name))
}

/// Whether a service has these backends as they were declared.
fn is_as(service: &Value, names: &[String]) -> bool {
    let backends = service["backends"].as_array().map_or(&[][..], Vec::as_slice);
    let is_plain = |backend: &Value| {
        backend["admin"] == "active"
            && backend["weight"] == 1
            && backend["overrides"].as_array().is_some_and(Vec::is_empty)
    };
    backends.len() == names.len()
        && names.iter().all(|name| backends.iter().any(|one| one["name"] == **name && is_plain(one)))
}

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::checker::{Checker, Key, Shared};
use crate::{
    control::{self, Command, HealthReport, Rejected, Snapshot},
    domain::{Health, HealthCheck, Probe},
    telemetry::HealthStats,
};

/// Checks every backend of every service from now on and reports transitions to the control task. Ends when the
/// control task does.
pub fn spawn(handle: control::Handle, stats: Arc<HealthStats>) -> JoinHandle<()> {
    let snapshots = handle.watch();
    tokio::spawn(Scheduler::new(snapshots, stats).run(move |reports| {
        let handle = handle.clone();
        async move { handle.submit(Command::Health(reports)).await.map(drop) }
    }))
}

struct Scheduler {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    checkers: HashMap<Key, Running>,
    shared: Shared,
    reports: mpsc::UnboundedReceiver<HealthReport>,
    /// Reported but not yet accepted by the control task; the latest of each backend.
    pending: HashMap<Key, HealthReport>,
}

struct Running {
    /// Dropping it ends the checker.
    check: watch::Sender<HealthCheck>,
    task: JoinHandle<()>,
    /// The last thing the checker said.
    last: Option<HealthReport>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Rather than at the end of a check that may be under way.
        self.task.abort();
    }
}

impl Scheduler {
    fn new(snapshots: watch::Receiver<Arc<Snapshot>>, stats: Arc<HealthStats>) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let sockets = Arc::new(Semaphore::new(MAX_SOCKETS));
        let shared = Shared { reports: sender, sockets, stats, epoch: Instant::now() };
        Self { snapshots, checkers: HashMap::new(), shared, reports, pending: HashMap::new() }
    }

    async fn run<F: Future<Output = Result<(), Rejected>>>(
        mut self,
        submit: impl Fn(Vec<HealthReport>) -> F,
    ) {
        let mut next_publish = Instant::now();
        self.follow();
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow();
                }
                Some(report) = self.reports.recv() => self.accept(report),
                // The first transition goes at once, those of the following 100 ms together.
                () = tokio::time::sleep_until(next_publish), if !self.pending.is_empty() => {
                    while let Ok(report) = self.reports.try_recv() {
                        self.accept(report);
                    }
                    next_publish = Instant::now() + PUBLISH_INTERVAL;
                    let reports: Vec<_> = self.pending.values().cloned().collect();
                    match submit(reports).await {
                        Ok(()) => self.pending.clear(),
                        Err(Rejected::Stopping) => return,
                        Err(error) => {
                            log::error!("health of {} backends not applied, trying again: {error}",
                                self.pending.len());
                            next_publish = Instant::now() + RETRY_INTERVAL;
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, report: HealthReport) {
        let key = key(&report);
        // A checker may have been stopped while its report was on the way.
        if let Some(running) = self.checkers.get_mut(&key) {
            running.last = Some(report.clone());
            self.pending.insert(key, report);
        }
    }

    /// Makes the checkers those of the latest snapshot.
    fn follow(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let mut previous = std::mem::take(&mut self.checkers);
        for view in &snapshot.services {
            let service = &view.service;
            for backend in &view.backends {
                let key = Key {
                    service: service.name.clone(),
                    backend: backend.name.clone(),
                    address: backend.address,
                };
                let running = match previous.remove(&key) {
                    Some(running) => {
                        running.check.send_if_modified(|check| {
                            let changed = *check != service.health;
                            check.clone_from(&service.health);
                            changed
                        });
                        // The backend was taken away and given back between two snapshots, say: what is known of
                        // it still holds, and no new transition would tell.
                        // Without checks there is nothing to hold on to.
                        let checked = service.health.probe != Probe::None;
                        if let Some(last) =
                            running.last.as_ref().filter(|last| checked && last.health != backend.health)
                        {
                            self.pending.insert(key.clone(), last.clone());
                        }
                        running
                    }
                    None => self.start(&key, backend.health, service.health.clone()),
                };
                self.checkers.insert(key, running);
            }
        }
        self.pending.retain(|key, _| self.checkers.contains_key(key));
        let there: HashSet<_> = self.checkers.keys().map(|key| (&key.service, &key.backend)).collect();
        self.shared.stats.retain(|service, backend| there.contains(&(service, backend)));
    }

    fn start(&self, key: &Key, initial: Health, check: HealthCheck) -> Running {
        let (sender, receiver) = watch::channel(check);
        let checker = Checker::new(key.clone(), initial, receiver, self.shared.clone());
        Running { check: sender, task: tokio::spawn(checker.run()), last: None }
    }
}

fn key(report: &HealthReport) -> Key {
    Key { service: report.service.clone(), backend: report.backend.clone(), address: report.address }
}

/// Checks under way at the same time. More wait for their turn.
pub const MAX_SOCKETS: usize = 512;
/// At most ten publishes a second come from health.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Mutex};

    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        control::{BackendView, ServiceView},
        domain::{
            Admin, Admission, Algorithm, Backend, Forwarding, OnAllDown, Origin, Probe, Protocol, Service,
            TableSize, Vip, policy::ServiceState,
        },
    };

    const INTERVAL: Duration = Duration::from_millis(50);
    const TIMEOUT: Duration = Duration::from_millis(40);

    fn quick(probe: Probe) -> HealthCheck {
        HealthCheck { probe, interval: INTERVAL, timeout: TIMEOUT, rise: 2, fall: 3, port: None }
    }

    fn snapshot(check: HealthCheck, backends: &[(&str, SocketAddr, Health)]) -> Arc<Snapshot> {
        let origin = Origin::File { path: Arc::new(PathBuf::from("test.toml")), line: 1 };
        let declared = backends.iter().map(|&(name, address, _)| Backend {
            name: name.parse().unwrap(),
            address,
            weight: 1,
            backup: false,
            admin: Admin::Active,
            origin: origin.clone(),
        });
        let service = Service {
            name: "web".parse().unwrap(),
            vip: Vip { address: "192.0.2.1".parse().unwrap(), port: Some(80) },
            protocol: Protocol::Tcp,
            forwarding: Forwarding::L2Dsr,
            algorithm: Algorithm::SourceHash,
            table_size: TableSize::DEFAULT,
            health: check,
            panic: crate::domain::Panic::default(),
            on_all_down: OnAllDown::FailOpen,
            tracking: crate::domain::Tracking::Auto,
            flow_idle_timeout: Duration::from_secs(900),
            unhealthy_grace: Service::DEFAULT_UNHEALTHY_GRACE,
            drain_timeout: Service::DEFAULT_DRAIN_TIMEOUT,
            slow_start: Duration::ZERO,
            admission: Admission::default(),
            backends: declared.map(|backend| (backend.name.clone(), backend)).collect::<BTreeMap<_, _>>(),
            origin: origin.clone(),
        };
        let views = backends.iter().map(|&(name, address, health)| BackendView {
            name: name.parse().unwrap(),
            address,
            index: 1,
            health,
            health_detail: String::new(),
            share: 0.0,
            reachable: true,
            accepts_existing: true,
            drain_deadline: 0,
            drained: false,
            flows: None,
            overrides: Vec::new(),
        });
        let backends = views.collect();
        let service = Arc::new(service);
        let state = ServiceState::Healthy;
        let view = ServiceView { service, id: 0, state, fingerprint: 0, backends, leaving: Vec::new() };
        Arc::new(Snapshot { services: vec![view], ..Snapshot::default() })
    }

    type Batches = Arc<Mutex<Vec<(Instant, Vec<HealthReport>)>>>;

    /// A scheduler whose reports are collected instead of applied.
    fn start(first: Arc<Snapshot>) -> (watch::Sender<Arc<Snapshot>>, Batches, JoinHandle<()>) {
        let (sender, receiver) = watch::channel(first);
        let batches = Batches::default();
        let collected = batches.clone();
        let task = tokio::spawn(Scheduler::new(receiver, Arc::new(HealthStats::new())).run(move |reports| {
            collected.lock().unwrap().push((Instant::now(), reports));
            std::future::ready(Ok(()))
        }));
        (sender, batches, task)
    }

    fn reports(batches: &Batches) -> Vec<(String, Health)> {
        let batches = batches.lock().unwrap();
        let all = batches.iter().flat_map(|(_, reports)| reports);
        all.map(|report| (report.backend.to_string(), report.health)).collect()
    }

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !condition() {
            assert!(Instant::now() < deadline, "never came: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_dead_backend_is_unhealthy_within_the_promised_time_and_comes_back() {
        let (server, address) = listener().await;
        let (snapshots, batches, _task) =
            start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
        until("first check passed", || reports(&batches) == [("a".into(), Health::Healthy)]).await;
        snapshots.send_replace(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));

        drop(server);
        let died = Instant::now();
        until("unhealthy", || reports(&batches).len() == 2).await;
        let (found, report) = batches.lock().unwrap().last().cloned().unwrap();
        assert_eq!((report[0].health, report[0].detail.as_str()), (Health::Unhealthy, "connection refused"));
        // One publish interval for the batch, and some for a busy machine.
        assert!(found - died <= 3 * INTERVAL + TIMEOUT + PUBLISH_INTERVAL + Duration::from_millis(100));
        snapshots.send_replace(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unhealthy)]));

        let _server = TcpListener::bind(address).await.unwrap();
        until("healthy again", || reports(&batches).last() == Some(&("a".into(), Health::Healthy))).await;
        assert_eq!(reports(&batches).len(), 3);
    }

    #[tokio::test]
    async fn a_backend_known_as_healthy_is_reported_only_when_it_fell() {
        let (server, address) = listener().await;
        let (_snapshots, batches, _task) =
            start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));
        // Connections checked, with nothing to report.
        for _ in 0..4 {
            server.accept().await.unwrap();
        }
        assert_eq!(reports(&batches), []);
        drop(server);
        until("unhealthy", || reports(&batches) == [("a".into(), Health::Unhealthy)]).await;
    }

    #[tokio::test]
    async fn backends_without_checks_are_healthy_at_once_in_few_batches() {
        let address = |last| SocketAddr::from(([192, 0, 2, last], 80));
        let names: Vec<String> = (0..100).map(|number| format!("b{number}")).collect();
        let backends: Vec<_> =
            names.iter().map(|name| (name.as_str(), address(7), Health::Unknown)).collect();
        let (snapshots, batches, _task) = start(snapshot(quick(Probe::None), &backends[..1]));
        until("the first healthy", || reports(&batches).len() == 1).await;
        let mut all = backends;
        all[0].2 = Health::Healthy;
        snapshots.send_replace(snapshot(quick(Probe::None), &all));
        until("all healthy", || reports(&batches).len() == 100).await;
        let batches = batches.lock().unwrap();
        assert_eq!(batches.len(), 2);
        assert!(batches[1].0 - batches[0].0 >= PUBLISH_INTERVAL);
    }

    #[tokio::test]
    async fn removed_backends_are_left_alone() {
        let (server, address) = listener().await;
        let (snapshots, batches, _task) =
            start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));
        server.accept().await.unwrap();
        snapshots.send_replace(snapshot(quick(Probe::Tcp), &[]));
        // A check under way when the snapshot came may still be in the backlog; no more than one.
        let mut late = 0;
        while late < 2 && tokio::time::timeout(4 * INTERVAL, server.accept()).await.is_ok() {
            late += 1;
        }
        assert!(late < 2);
        drop(server);
        tokio::time::sleep(6 * INTERVAL).await;
        assert_eq!(reports(&batches), []);
    }

    #[tokio::test]
    async fn a_backend_that_lost_its_verdict_is_told_again() {
        let (_server, address) = listener().await;
        let (snapshots, batches, _task) =
            start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
        until("healthy", || reports(&batches).len() == 1).await;
        // Removed and added again between two looks: the same key, without a verdict.
        snapshots.send_replace(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
        until("told again", || reports(&batches).len() == 2).await;
        assert_eq!(reports(&batches)[1], ("a".into(), Health::Healthy));
    }

    #[tokio::test]
    async fn changed_checks_go_on_from_the_health_there_was() {
        let (server, address) = listener().await;
        let slow = HealthCheck { interval: Duration::from_secs(3600), ..quick(Probe::Tcp) };
        let (snapshots, batches, _task) = start(snapshot(slow, &[("a", address, Health::Healthy)]));
        drop(server);
        // One thread runs everything: the checker has started to wait by then.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        // The new interval takes effect now, not after an hour.
        snapshots.send_replace(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));
        until("unhealthy", || reports(&batches) == [("a".into(), Health::Unhealthy)]).await;
        snapshots.send_replace(snapshot(quick(Probe::None), &[("a", address, Health::Unhealthy)]));
        until("not checked", || reports(&batches).last() == Some(&("a".into(), Health::Healthy))).await;
    }

    #[tokio::test]
    async fn a_refused_report_is_tried_again_and_a_stopping_daemon_ends_it() {
        let (_server, address) = listener().await;
        let (_sender, receiver) =
            watch::channel(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
        let tries = Arc::new(Mutex::new(0));
        let counted = tries.clone();
        let scheduler = Scheduler::new(receiver, Arc::new(HealthStats::new()));
        let task = tokio::spawn(scheduler.run(move |_| {
            let mut tries = counted.lock().unwrap();
            *tries += 1;
            let error = match *tries {
                1 => Rejected::Limit { limit: "test", message: "full".into() },
                _ => Rejected::Stopping,
            };
            std::future::ready(Err(error))
        }));
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        assert_eq!(*tries.lock().unwrap(), 2);
    }
}

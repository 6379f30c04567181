use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Mutex};

use tokio::net::TcpListener;

use super::*;
use crate::{
    control::testing::{backend_view, service_view},
    domain::{
        Admin, Admission, Algorithm, Backend, Forwarding, Health, HealthCheck, OnAllDown, Origin, Probe,
        Protocol, Service, TableSize, Vip, policy::ServiceState,
    },
};

const INTERVAL: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_millis(40);
const ROOM: usize = 100;

fn quick(probe: Probe) -> HealthCheck {
    HealthCheck { probe, interval: INTERVAL, timeout: TIMEOUT, ..HealthCheck::default() }
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
        on_all_down: OnAllDown::FailOpen,
        tracking: crate::domain::Tracking::Auto,
        flow_idle_timeout: Duration::from_secs(900),
        panic: crate::domain::Panic::default(),
        slow_start: Duration::ZERO,
        withdraw_below: 0,
        discovery: Default::default(),
        unhealthy_grace: Service::DEFAULT_UNHEALTHY_GRACE,
        drain_timeout: Service::DEFAULT_DRAIN_TIMEOUT,
        admission: Admission::default(),
        backends: declared.map(|backend| (backend.name.clone(), backend)).collect::<BTreeMap<_, _>>(),
        origin: origin.clone(),
    };
    let backends =
        backends.iter().map(|&(name, address, health)| backend_view(name.parse().unwrap(), address, health));
    let view = service_view(service, ServiceState::Healthy, backends);
    Arc::new(Snapshot { services: vec![view], ..Snapshot::default() })
}

type Batches = Arc<Mutex<Vec<(Instant, Vec<HealthReport>)>>>;

/// A scheduler whose reports are collected instead of applied.
fn start(first: Arc<Snapshot>) -> (watch::Sender<Arc<Snapshot>>, Batches, JoinHandle<()>) {
    let (sender, batches, _, task) = start_on(&[], first);
    (sender, batches, task)
}

/// The same on a host whose interfaces these are, and what it counts.
fn start_on(
    interfaces: &[&str],
    first: Arc<Snapshot>,
) -> (watch::Sender<Arc<Snapshot>>, Batches, Arc<HealthStats>, JoinHandle<()>) {
    let interfaces: Vec<_> = interfaces.iter().map(ToString::to_string).collect();
    let links = Arc::new(Links::new(&interfaces));
    let follower = Arc::clone(&links);
    tokio::spawn(async move { follower.follow().await });
    start_with(links, first)
}

fn start_with(
    links: Arc<Links>,
    first: Arc<Snapshot>,
) -> (watch::Sender<Arc<Snapshot>>, Batches, Arc<HealthStats>, JoinHandle<()>) {
    let stats = Arc::new(HealthStats::new());
    let (sender, receiver) = watch::channel(first);
    let batches = Batches::default();
    let collected = batches.clone();
    let scheduler = Scheduler::new(receiver, Arc::clone(&stats), None, links, ROOM);
    let task = tokio::spawn(scheduler.run(move |reports| {
        collected.lock().unwrap().push((Instant::now(), reports));
        std::future::ready(Ok(()))
    }));
    (sender, batches, stats, task)
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
    let (snapshots, batches, _task) = start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
    until("first check passed", || reports(&batches) == [("a".into(), Health::Healthy)]).await;
    snapshots.send_replace(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));

    drop(server);
    let died = Instant::now();
    until("unhealthy", || reports(&batches).len() == 2).await;
    let (found, report) = batches.lock().unwrap().last().cloned().unwrap();
    assert_eq!((report[0].health, report[0].detail.as_str()), (Health::Unhealthy, "connection refused"));
    // One publish interval for the batch, and some for a busy machine.
    assert!(found - died <= 3 * INTERVAL + TIMEOUT + REPORT_INTERVAL + Duration::from_millis(100));
    snapshots.send_replace(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unhealthy)]));

    let _server = TcpListener::bind(address).await.unwrap();
    until("healthy again", || reports(&batches).last() == Some(&("a".into(), Health::Healthy))).await;
    assert_eq!(reports(&batches).len(), 3);
}

#[tokio::test]
async fn a_backend_known_as_healthy_is_reported_only_when_it_fell() {
    let (server, address) = listener().await;
    let (_snapshots, batches, _task) = start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));
    // Connections checked, with nothing to report.
    for _ in 0..4 {
        server.accept().await.unwrap();
    }
    assert_eq!(reports(&batches), []);
    drop(server);
    until("unhealthy", || reports(&batches) == [("a".into(), Health::Unhealthy)]).await;
}

#[tokio::test]
async fn failed_checks_say_nothing_while_no_interface_has_a_link_and_good_ones_count() {
    let (server, address) = listener().await;
    let (dead, gone) = listener().await;
    drop(dead);
    let backends = [("a", address, Health::Unknown), ("b", gone, Health::Healthy)];
    let first = snapshot(quick(Probe::Tcp), &backends);
    // One that is not there has no link.
    let (_snapshots, batches, stats, _task) = start_on(&["no-such-if"], first.clone());
    until("checks failed", || stats.held() >= 8).await;
    assert_eq!(reports(&batches), [("a".into(), Health::Healthy)]);
    let (_snapshots, batches, stats, _task) = start_on(&["no-such-if", "lo"], first);
    until("one has a link", || reports(&batches).len() == 2).await;
    assert_eq!((reports(&batches)[1].clone(), stats.held()), (("b".into(), Health::Unhealthy), 0));
    drop(server);
}

#[tokio::test]
async fn who_passes_while_a_link_settles_is_told_with_those_who_could_not_yet() {
    let ((_server, address), (late, late_address)) = (listener().await, listener().await);
    drop(late);
    let backends = [("a", address, Health::Unknown), ("b", late_address, Health::Unknown)];
    let links = Arc::new(Links::default());
    links.pretend(Phase::Settling);
    // The one that is not reached in time has no verdict.
    let check = HealthCheck { fall: 1_000, ..quick(Probe::Tcp) };
    let (_snapshots, batches, stats, _task) = start_with(Arc::clone(&links), snapshot(check, &backends));
    tokio::time::sleep(8 * INTERVAL).await;
    assert_eq!((reports(&batches), stats.held()), (vec![], 0));
    let _late = TcpListener::bind(late_address).await.unwrap();
    links.pretend(Phase::Counting);
    until("both healthy", || reports(&batches).len() == 2).await;
    assert_eq!(batches.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_check_under_way_when_failures_count_again_is_not_waited_for() {
    // It accepts connections, and answers nobody.
    let (server, address) = listener().await;
    let probe = Probe::Http(crate::domain::Http::default());
    let hour = Duration::from_secs(3600);
    let check = HealthCheck { probe, interval: hour, timeout: hour, ..HealthCheck::default() };
    let links = Arc::new(Links::default());
    links.pretend(Phase::Settling);
    let first = snapshot(check, &[("a", address, Health::Unknown)]);
    let (_snapshots, _batches, _, _task) = start_with(Arc::clone(&links), first);
    let _under_way = server.accept().await.unwrap();
    links.pretend(Phase::Counting);
    let again = tokio::time::timeout(Duration::from_secs(5), server.accept()).await;
    again.expect("it is made anew").unwrap();
}

#[tokio::test]
async fn backends_without_checks_are_healthy_at_once_in_few_batches() {
    let address = |last| SocketAddr::from(([192, 0, 2, last], 80));
    let names: Vec<String> = (0..100).map(|number| format!("b{number}")).collect();
    let backends: Vec<_> = names.iter().map(|name| (name.as_str(), address(7), Health::Unknown)).collect();
    let (snapshots, batches, _task) = start(snapshot(quick(Probe::None), &backends[..1]));
    until("the first healthy", || reports(&batches).len() == 1).await;
    let mut all = backends;
    all[0].2 = Health::Healthy;
    snapshots.send_replace(snapshot(quick(Probe::None), &all));
    until("all healthy", || reports(&batches).len() == 100).await;
    let batches = batches.lock().unwrap();
    assert_eq!(batches.len(), 2);
    assert!(batches[1].0 - batches[0].0 >= REPORT_INTERVAL);
}

#[tokio::test]
async fn first_verdicts_are_told_together() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(listener().await);
    }
    let names = ["a", "b", "c"];
    let backends =
        names.into_iter().zip(&listeners).map(|(name, (_, address))| (name, *address, Health::Unknown));
    let (_snapshots, batches, _task) = start(snapshot(HealthCheck::default(), &backends.collect::<Vec<_>>()));
    until("all healthy", || reports(&batches).len() == 3).await;
    assert_eq!(batches.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn removed_backends_are_left_alone() {
    let (server, address) = listener().await;
    let (snapshots, batches, _task) = start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Healthy)]));
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
    let (snapshots, batches, _task) = start(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
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
    let (_sender, receiver) = watch::channel(snapshot(quick(Probe::Tcp), &[("a", address, Health::Unknown)]));
    let tries = Arc::new(Mutex::new(0));
    let counted = tries.clone();
    let scheduler = Scheduler::new(receiver, Arc::new(HealthStats::new()), None, Arc::default(), ROOM);
    let task = tokio::spawn(scheduler.run(move |_| {
        let mut tries = counted.lock().unwrap();
        *tries += 1;
        let error = match *tries {
            1 => Rejected::Outdated { what: "full".into() },
            _ => Rejected::Stopping,
        };
        std::future::ready(Err(error))
    }));
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert_eq!(*tries.lock().unwrap(), 2);
}

//! What the service manager is told (sd_notify(3)); where there is none, nothing.

use std::{env, io, time::Duration};

use sd_notify::NotifyState;

use crate::{
    control::{Handle, Snapshot},
    domain::{Health, policy::ServiceState},
};

/// The daemon serves: after its start, and after each reload, whatever became of that.
pub(super) async fn ready(control: &Handle) {
    let status = status(&control.snapshot());
    tell(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])).await;
}

/// [`ready`] has to follow. The time tells `Type=notify-reload` (systemd 253) that this is about the reload it asked for.
pub(super) async fn reloading() {
    tell(|| sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])).await;
}

pub(super) async fn stopping() {
    let status = NotifyState::Status("stopping; forwarding goes on");
    tell(move || sd_notify::notify(&[NotifyState::Stopping, status])).await;
}

/// From now on says how things are, and if the manager wants to know that the daemon is alive.
pub(super) fn keep_informed(control: &Handle) {
    if !is_there() {
        return;
    }
    tokio::spawn(show(control.clone()));
    if let Some(limit) = sd_notify::watchdog_enabled() {
        let ping = async || tell(|| sd_notify::notify(&[NotifyState::Watchdog])).await;
        tokio::spawn(keep_alive(control.clone(), limit, ping));
    }
}

/// Tells each new state, at most once a second.
async fn show(control: Handle) {
    let mut snapshots = control.watch();
    let mut told = String::new();
    while snapshots.changed().await.is_ok() {
        let status = status(&snapshots.borrow_and_update());
        if status != told {
            told.clone_from(&status);
            tell(move || sd_notify::notify(&[NotifyState::Status(&status)])).await;
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
}

/// Pings for as long as the control task has taken a turn since the last time. Being a task of the same loop as everything
/// else, this is silent when that stands still. `limit` is after how much silence the manager acts.
async fn keep_alive(control: Handle, limit: Duration, ping: impl AsyncFn()) {
    let period = limit / 3;
    let mut tick = tokio::time::interval(period);
    let mut was_alive = true;
    loop {
        tick.tick().await;
        let age = control.heartbeat_age();
        let is_alive = age < period;
        if is_alive {
            ping().await;
        } else if was_alive {
            log::error!(
                "the control task has not moved for {} ms: the service manager hears nothing until it does",
                age.as_millis()
            );
        }
        was_alive = is_alive;
    }
}

/// One line for people.
fn status(snapshot: &Snapshot) -> String {
    let mut parts = Vec::new();
    if snapshot.config_error.is_some() {
        parts.push("CONFIGURATION REFUSED, see `ballast status`".to_owned());
    }
    let absent = snapshot.interfaces.iter().filter(|interface| !interface.attached);
    parts.extend(absent.map(|interface| format!("{} not attached", interface.name)));
    let services = &snapshot.services;
    let troubled = services.iter().filter(|service| service.state != ServiceState::Healthy);
    let troubled: Vec<_> =
        troubled.map(|view| format!("{} {}", view.service.name, view.state.as_str())).collect();
    parts.extend(troubled.iter().take(NAMED).cloned());
    if let Some(more) = troubled.len().checked_sub(NAMED + 1) {
        parts.push(format!("{} more in trouble", more + 1));
    }
    let backends = || services.iter().flat_map(|service| &service.backends);
    let healthy = backends().filter(|backend| backend.health == Health::Healthy).count();
    parts.push(format!(
        "{} of {} backends healthy in {}; revision {}",
        healthy,
        backends().count(),
        match services.len() {
            1 => "1 service".to_owned(),
            several => format!("{several} services"),
        },
        snapshot.revision
    ));
    parts.join("; ")
}

/// Sends `message`. A manager that takes nothing holds up whoever tells it, for a moment, and nobody else.
async fn tell(message: impl FnOnce() -> io::Result<()> + Send + 'static) {
    if !is_there() {
        return;
    }
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(message)).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => log::warn!("can't tell the service manager: {error}"),
        Ok(Err(error)) => log::warn!("can't tell the service manager: {error}"),
        Err(_) => log::warn!("the service manager takes no messages"),
    }
}

fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

const STATUS_INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(1);
/// Services in trouble that are named.
const NAMED: usize = 3;

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;
    use crate::{
        control::{
            self, Command, Edit, InterfaceView,
            store::{Loaded, Store, StoreError},
            testing::{backend_view, service_view},
        },
        dataplane::{Fake, reconcile::Reconciler},
        domain::{
            Kept, NatPool,
            testing::{name, service},
        },
        telemetry::PublishStats,
    };

    /// Keeps nothing, says when it is asked to, and goes on only when it is let.
    struct SlowStore {
        asked: mpsc::Sender<()>,
        release: Mutex<mpsc::Receiver<()>>,
    }

    impl Store for SlowStore {
        fn load(&mut self) -> Result<Loaded, StoreError> {
            Ok(Loaded::default())
        }

        fn save(&mut self, _: &Kept) -> Result<(), StoreError> {
            let _ = self.asked.send(());
            let _ = self.release.lock().unwrap().recv();
            Ok(())
        }
    }

    fn start(store: SlowStore) -> Handle {
        let reconciler = Reconciler::restore(Box::new(Fake::default())).expect("an empty fake");
        control::start(reconciler, Arc::new(PublishStats::new()), Box::new(store), Loaded::default())
    }

    /// Counts the pings, at most three in 900 ms.
    fn pings(control: &Handle) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let pinged = Arc::clone(&count);
        let ping = async move || {
            pinged.fetch_add(1, Ordering::Relaxed);
        };
        tokio::spawn(keep_alive(control.clone(), Duration::from_millis(900), ping));
        count
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_control_task_that_hangs_silences_the_pings_until_it_goes_on() {
        let ((asked, is_asked), (release, held)) = (mpsc::channel(), mpsc::channel());
        let control = start(SlowStore { asked, release: Mutex::new(held) });
        let count = pings(&control);
        let declared = Command::Declare {
            services: vec![service("web", &[("a", 1)])],
            nat: NatPool::default(),
            ways: Vec::new(),
            disruptive: false,
        };
        control.submit(declared).await.expect("it fits");
        let edit = Edit::SetWeight { service: name("web"), backend: name("a"), weight: 2 };
        let hanging = tokio::spawn({
            let control = control.clone();
            async move { control.submit(Command::Edit { edit, ways: Vec::new() }).await }
        });
        tokio::task::spawn_blocking(move || is_asked.recv()).await.expect("no panic").expect("it is asked");
        // One may be under way; after that there is none.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = count.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(count.load(Ordering::Relaxed), before);
        release.send(()).expect("it waits");
        hanging.await.expect("no panic").expect("it fits");
        let again = async {
            while count.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.expect("pings again");
    }

    #[test]
    fn the_status_names_what_is_wrong_first() {
        let address = "10.0.0.1:80".parse().expect("an address");
        let view = |service_name: &str, state, health: &[Health]| {
            let backends: Vec<_> =
                health.iter().map(|health| backend_view(name("a"), address, *health)).collect();
            service_view(service(service_name, &[]), state, backends)
        };
        let healthy = [Health::Healthy; 2];
        let mut snapshot = Snapshot {
            revision: 7,
            services: vec![view("web", ServiceState::Healthy, &healthy)],
            ..Snapshot::default()
        };
        assert_eq!(status(&snapshot), "2 of 2 backends healthy in 1 service; revision 7");
        snapshot.services.push(view("dns", ServiceState::Degraded, &[Health::Healthy, Health::Unhealthy]));
        snapshot.services.extend(["a", "b", "c"].map(|name| view(name, ServiceState::Failing, &[])));
        snapshot.config_error = Some("it makes no sense\non two lines".to_owned());
        snapshot.interfaces = vec![InterfaceView { name: "eth1".to_owned(), mode: "none", attached: false }];
        assert_eq!(
            status(&snapshot),
            "CONFIGURATION REFUSED, see `ballast status`; eth1 not attached; dns degraded; a failing; b failing; \
             1 more in trouble; 3 of 4 backends healthy in 5 services; revision 7"
        );
    }
}

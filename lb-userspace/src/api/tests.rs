#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod announce;
mod bounds;
mod changes;
mod explain;

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lb_common::abi::DropReason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
};

use super::{
    Api, ReloadError, Reloading,
    client::{Client, ClientError},
    server::{self, BindError, MAX_REQUEST},
    v1,
};
use crate::{
    announce::Board,
    boards::Boards,
    capture::{Request, StartError, Started},
    config,
    control::{
        self, Applied, Change, Command, InterfaceView, Rejected,
        store::{Loaded, MemoryStore},
    },
    dataplane::{
        Fake, Limits,
        loader::LoadError,
        reconcile::{Impact, Reconciler},
    },
    domain::Name,
    explain::Explainer,
    telemetry::PublishStats,
};

const CONFIG: &str = r#"
[daemon]
interfaces = ["eth0"]
[[service]]
name = "dns"
address = "[2001:db8::10]:*"
protocol = "udp"
backend = [{ name = "dns-1", address = "[2001:db8::11]:*" }]
[[service]]
name = "web"
address = "203.0.113.10:80"
backend = [{ name = "web-1", address = "10.0.0.11:80", weight = 3 }, { name = "web-2", address = "10.0.0.12:80" }]
"#;

/// Blocks of 64 KiB: `count` of them and the end, or one and then nothing for ever. On `eth7` there is another capture.
fn captured(request: Request) -> Result<Started, StartError> {
    if request.interface.as_deref() == Some("eth7") {
        return Err(StartError::Busy);
    }
    let (sender, blocks) = tokio::sync::mpsc::channel(1024);
    for _ in 0..request.count.unwrap_or(1) {
        sender.try_send(vec![b'x'; 64 << 10].into()).unwrap();
    }
    let ended = Arc::new(tokio::sync::SetOnce::new());
    match request.count {
        Some(_) => ended.set(()).unwrap(),
        None => drop(tokio::spawn(async move { sender.closed().await })),
    }
    Ok(Started { blocks, ended })
}

/// A server on a socket of its own, with real state over fake maps.
struct Daemon {
    directory: tempfile::TempDir,
    server: JoinHandle<()>,
    /// Reloads asked for.
    reloads: Arc<AtomicUsize>,
}

impl Daemon {
    async fn start(reload: fn(Reloading) -> Result<Applied, ReloadError>) -> Self {
        Self::announcing(reload, Board::default()).await
    }

    async fn announcing(reload: fn(Reloading) -> Result<Applied, ReloadError>, board: Board) -> Self {
        let config = config::parse(vec![("/etc/ballast/config.toml".into(), CONFIG.to_owned())]).unwrap();
        let reconciler = Reconciler::restore(Box::new(Fake::new(Limits::default()))).unwrap();
        let counters = reconciler.counters();
        let control = control::start(
            reconciler,
            Arc::new(PublishStats::new()),
            Box::new(MemoryStore::default()),
            Loaded::default(),
        );
        control
            .submit(Command::Declare {
                services: config.services,
                nat: config.nat,
                ways: Vec::new(),
                disruptive: false,
            })
            .await
            .unwrap();
        let eth0 = InterfaceView { name: "eth0".into(), mode: "native", attached: true };
        control.submit(Command::Interfaces(vec![eth0])).await.unwrap();

        let reloads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reloads);
        let editing = control.clone();
        let api = Api {
            control,
            counters,
            discovery: Arc::default(),
            boards: Boards { announce: Arc::new(board), ..Boards::default() },
            explainer: Arc::new(Explainer::new(|| Err(LoadError::Malformed("is none".to_owned())))),
            turn: Arc::default(),
            capture: Arc::new(|request, _| Box::pin(async move { captured(request) })),
            edit: Arc::new(move |edit| {
                let control = editing.clone();
                Box::pin(async move { control.submit(Command::Edit { edit, ways: Vec::new() }).await })
            }),
            reload: Arc::new(move |reloading| {
                let count = Arc::clone(&count);
                Box::pin(async move {
                    // A moment in which the client may go away.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    reload(reloading)
                })
            }),
        };
        let directory = tempfile::tempdir().unwrap();
        let listener = server::bind(&directory.path().join("run/control.sock")).unwrap();
        let server = tokio::spawn(server::serve(listener, api));
        Self { directory, server, reloads }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/control.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Sends bytes as they are and returns the answer: status line and body.
    async fn send(&self, request: &[u8]) -> (String, String) {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The server may answer, and hang up, before it has read everything.
        let _ = stream.write_all(request).await;
        answer(&mut stream).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Status line and body of what the server says until it hangs up.
async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> (String, String) {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    let said = String::from_utf8(said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn applied(reloading: Reloading) -> Result<Applied, ReloadError> {
    let detail = format!("{reloading:?}");
    let change = Change { action: "add", object: "service web".into(), detail };
    let impact = Impact { slots: 1024, moved: 256, flows_ending: None, flows_draining: Some(7) };
    Ok(Applied {
        revision: 3,
        changes: vec![change],
        warnings: vec!["mind the gap".into()],
        impacts: vec![(name("web"), impact)],
    })
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_client_reads_status_services_and_backends() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    let status = client.status().await.unwrap();
    assert!(status.ready && status.config_error.is_none());
    assert_eq!(
        status.interfaces,
        [v1::Interface { name: "eth0".into(), mode: "native".into(), attached: true }]
    );
    assert_eq!(status.drops.len(), DropReason::ALL.len());
    assert_eq!((status.packets, status.verdicts), (0, v1::Verdicts::default()));

    let services = client.services().await.unwrap();
    assert_eq!(services, status.services);
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["dns", "web"]);

    let web = client.service(&name("web")).await.unwrap();
    assert_eq!((web.address.as_str(), web.protocol.as_str()), ("203.0.113.10:80", "tcp"));
    assert_eq!(web.origin, v1::Origin::File { file: "/etc/ballast/config.toml".into(), line: 9 });
    assert_eq!((web.new_flows, web.fingerprint.len()), (Some(0), 16));
    assert_eq!(client.backends(&name("web")).await.unwrap(), web.backends);
    let backend = client.backend(&name("web"), &name("web-1")).await.unwrap();
    assert_eq!((backend.weight, backend.address.as_str()), (3, "10.0.0.11:80"));
    assert_eq!(backend, web.backends[0]);

    let dns = client.service(&name("dns")).await.unwrap();
    assert_eq!((dns.address.as_str(), dns.new_flows), ("[2001:db8::10]:*", Some(0)));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    let refused = client.service(&name("nope")).await.unwrap_err();
    let ClientError::Refused { status, error } = refused else { panic!("{refused}") };
    assert_eq!((status, error.kind.as_str(), error.field.as_deref()), (404, "not_found", Some("service")));
    assert_eq!(error.message, "service \"nope\" does not exist");
    let refused = client.backend(&name("web"), &name("nope")).await.unwrap_err();
    assert_eq!(refused.to_string(), "backend \"nope\" does not exist");
    let refused = client.service(&name("wbe")).await.unwrap_err();
    assert_eq!(refused.to_string(), "service \"wbe\" does not exist; did you mean \"web\"?");
    let refused = client.backend(&name("web"), &name("web1")).await.unwrap_err();
    assert_eq!(refused.to_string(), "backend \"web1\" does not exist; did you mean \"web-1\"?");
}

#[tokio::test]
async fn a_reload_says_what_it_did() {
    let daemon = Daemon::start(applied).await;
    for dry_run in [true, false] {
        let reload = daemon.client().reload(dry_run, !dry_run).await.unwrap();
        let asked = Reloading { files: None, dry_run, disruptive: !dry_run };
        assert_eq!(reload.changes[0].detail, format!("{asked:?}"));
        assert_eq!((reload.dry_run, reload.revision), (dry_run, 3));
        assert_eq!((reload.changes[0].object.as_str(), reload.warnings.len()), ("service web", 1));
    }
    let (line, _) = daemon.send(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_plan_is_made_from_the_files_it_brings_and_never_applied() {
    let daemon = Daemon::start(applied).await;
    // Larger than any other request may be.
    let text = "# comment\n".repeat(MAX_REQUEST / 5);
    let plan = v1::Plan { files: vec![v1::File { path: "a.toml".into(), text: text.clone() }] };
    let planned = daemon.client().plan(&plan, true).await.unwrap();
    let asked = Reloading { files: Some(vec![("a.toml".into(), text)]), dry_run: true, disruptive: true };
    assert_eq!(planned.changes[0].detail, format!("{asked:?}"));
    assert!(planned.dry_run);
    let [web] = planned.services.as_slice() else { panic!("{planned:?}") };
    assert_eq!((web.service.as_str(), web.moved_slots, web.slots, web.moved), ("web", 256, 1024, 0.25));
    assert_eq!((web.flows_ending, web.flows_draining), (None, Some(7)));
    // Without a body it is about the daemon's own.
    let (line, body) = daemon.send(b"POST /v1/plan HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(body.contains("files: None, dry_run: true"), "{body}");
}

#[tokio::test]
async fn a_refused_reload_says_what_is_at_fault() {
    let limit = |_| {
        Err(ReloadError::Rejected(Rejected::Limit {
            limit: "backends",
            field: None,
            message: "too many".into(),
        }))
    };
    let daemon = Daemon::start(limit).await;
    let refused = daemon.client().reload(false, false).await.unwrap_err();
    let ClientError::Refused { status, error } = refused else { panic!("{refused}") };
    assert_eq!((status, error.kind.as_str(), error.field.as_deref()), (422, "limit", Some("backends")));

    let daemon = Daemon::start(|_| {
        let wrong = config::parse(vec![("config.toml".into(), "[demon]\n".into())]).unwrap_err();
        Err(ReloadError::Config(wrong))
    })
    .await;
    let refused = daemon.client().reload(false, false).await.unwrap_err();
    let ClientError::Refused { status, error } = refused else { panic!("{refused}") };
    assert_eq!((status, error.kind.as_str()), (422, "config"));
    assert!(error.message.contains(" --> config.toml:1:2"), "{}", error.message);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_a_reload() {
    let daemon = Daemon::start(applied).await;
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(stream);
    let begun = std::time::Instant::now();
    while daemon.reloads.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the reload was given up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_socket_is_for_its_group_and_replaces_a_dead_one() {
    let daemon = Daemon::start(applied).await;
    let socket = daemon.socket();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o660, 0o750));
    assert!(matches!(server::bind(&socket), Err(BindError::InUse(path)) if path == socket));

    let other = daemon.directory.path().join("other.sock");
    drop(std::os::unix::net::UnixListener::bind(&other).unwrap());
    drop(server::bind(&other).unwrap());
    drop(server::bind(&other).unwrap());
    let left: Vec<_> =
        std::fs::read_dir(daemon.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    let file = daemon.directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(matches!(server::bind(&file), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::new(directory.path().join("none.sock")).status().await.unwrap_err();
    let ClientError::Unreachable { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

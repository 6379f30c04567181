//! `ballast capture`: files that Wireshark opens, lines that say what became of a packet, and a load balancer that runs what it
//! ran as soon as nobody listens any more.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    ChildGuard, Daemon, Flood, Lab, Mode, Node, Segment, Service, TcpServer, UdpServer, UdpTraffic, VIP_V4,
    VIP_V6, connect, exchange, require_root, try_wait_until, wait_for, wait_until,
};
use lb_tests::packet::SYN;
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const FAMILIES: [IpAddr; 2] = [VIP_V4, VIP_V6];
const UDP: u16 = 53;
/// Of services without a backend that takes flows.
const OFF: u16 = 54;
/// Of no service.
const NOBODY: u16 = 55;
/// A user that nobody has heard of.
const USER: u32 = 64_001;

#[test]
fn a_file_opens_in_tshark_with_both_frames_and_the_verdict_in_every_mode_and_family() -> Result<()> {
    require_root!(Ok(()));
    for (modes, builder) in [
        (
            &[Mode::L2Dsr, Mode::Ipip, Mode::IpipMixed, Mode::Gue, Mode::GueMixed, Mode::Nat][..],
            Mode::Ipip.lab(),
        ),
        (&[Mode::Dnat][..], Mode::Dnat.lab()),
    ] {
        let lab = builder.backends(1).build()?;
        let port =
            |mode: Mode| 8_000 + Mode::ALL.iter().position(|one| *one == mode).unwrap_or_default() as u16;
        let ports: Vec<_> = modes.iter().map(|mode| mode.server_port(port(*mode))).collect();
        let _server = TcpServer::start(lab.backend(0), &ports)?;
        let services = modes.iter().flat_map(|mode| {
            let lab = &lab;
            FAMILIES.map(|vip| {
                let to = SocketAddr::new(vip, port(*mode));
                mode.service(&service_name(*mode, vip), to, "tcp", lab.backends()).toml()
            })
        });
        let daemon = Daemon::start(&lab, 0, &services.chain(off(&lab)).collect::<String>())?;
        turn_off(&daemon)?;

        let file = lab.directory().join("all.pcapng");
        let capture =
            Capturing::start(&lab, &daemon, &["--rate", "100000", "-w", &file.display().to_string()])?;
        for mode in modes {
            for vip in FAMILIES {
                let stream = connect(lab.client(0), None, SocketAddr::new(vip, port(*mode)), SOON)?;
                exchange(&stream, 2_000).with_context(|| format!("{mode} {vip}"))?;
            }
        }
        FAMILIES.iter().try_for_each(|vip| send(lab.client(0), SocketAddr::new(*vip, OFF)))?;
        try_wait_until("what was sent last is in the file", SOON, || {
            let file = fs::read(&file)?;
            Ok(has(&file, "off4: dropped") && has(&file, "off6: dropped"))
        })?;
        let ended = capture.interrupt()?;
        ensure!(ended.status.success() && ended.messages.contains(", 0 missed"), "{ended:?}");

        let frames = tshark(&lab, &file)?;
        for mode in modes {
            for vip in FAMILIES {
                let told = format!("{} → {} (", service_name(*mode, vip), lab.backend(0).label());
                let of_way = |way: &str| {
                    let of = frames
                        .iter()
                        .filter(|frame| frame.comment.starts_with(&told) && frame.interface == way);
                    of.collect::<Vec<_>>()
                };
                let (came, left) = (of_way("eth0 in"), of_way("eth0 out"));
                // The handshake's two, a request and its acknowledgements.
                ensure!(came.len() == left.len() && came.len() > 4, "{mode} {vip}: {came:?} {left:?}");
                let backend = match mode {
                    Mode::L2Dsr => vip,
                    Mode::IpipMixed | Mode::GueMixed if vip.is_ipv4() => lab.backend(0).ipv6().into(),
                    Mode::IpipMixed | Mode::GueMixed => lab.backend(0).ipv4().into(),
                    _ => lab.backend(0).address(vip),
                };
                for (came, left) in came.iter().zip(&left) {
                    assert_eq!(came.destination, vip.to_string(), "{mode}: {came:?}");
                    assert_eq!(left.destination, backend.to_string(), "{mode}: {left:?}");
                    assert_eq!(left.mac, lab.backend(0).first_leg().mac_text(), "{mode}: {left:?}");
                    ensure!(left.comment.contains(": tx, "), "{mode}: {left:?}");
                    ensure!(left.time >= came.time && came.time > 1e9, "{mode}: {came:?} {left:?}");
                }
            }
        }
        for vip in FAMILIES {
            let told = format!("{}: dropped: no_backend", off_name(vip));
            let dropped: Vec<_> = frames.iter().filter(|frame| frame.comment.starts_with(&told)).collect();
            ensure!(!dropped.is_empty(), "{told} is not in {frames:?}");
            // One frame of each: none left.
            ensure!(dropped.iter().all(|frame| frame.interface == "eth0 in"), "{dropped:?}");
        }
        daemon.accounts()?;
    }
    Ok(())
}

#[test]
fn captures_that_begin_and_end_lose_no_packet_and_leave_the_program_as_it_was() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().two_armed().build()?;
    let _udp: Vec<_> = lab.backends().map(|node| UdpServer::start(node, &[UDP])).collect::<Result<_>>()?;
    let _tcp: Vec<_> = lab.backends().map(|node| TcpServer::start(node, &[80])).collect::<Result<_>>()?;
    let config = FAMILIES.map(|vip| {
        let service = |name: String, protocol, port| {
            Service::new(&name, SocketAddr::new(vip, port), protocol, "l2-dsr")
                .nodes(lab.backends(), SocketAddr::new(vip, port))
                .toml()
        };
        service(format!("udp{}", digit(vip)), "udp", UDP) + &service(format!("tcp{}", digit(vip)), "tcp", 80)
    });
    let daemon = Daemon::start(&lab, 0, &config.concat())?;
    let before = programs(&daemon)?;
    let connect =
        |number: usize| connect(lab.client(0), None, SocketAddr::new(FAMILIES[number % 2], 80), SOON);
    // One for each capture that begins and ends while it lasts.
    let streams: Vec<_> = (0..5).map(connect).collect::<Result<_>>()?;
    let runs = FAMILIES.map(|vip| traffic(&lab, vip).start(lab.client(0)));
    for (number, stream) in streams.iter().enumerate() {
        let family = FAMILIES[number % 2];
        let service = format!("udp{}", digit(family));
        let printed = daemon.cli_checked(["capture", "-o", "json", "-c", "20", "--service", &service])?;
        let lines: Vec<Value> =
            printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>()?;
        assert_eq!(lines.len(), 20, "{printed}");
        for line in &lines {
            assert_eq!((&line["service"], &line["verdict"]), (&service.as_str().into(), &"redirect".into()));
            assert_eq!((&line["interface"], &line["interface_out"]), (&"eth0".into(), &"eth1".into()));
            assert_eq!(line["to"], SocketAddr::new(family, UDP).to_string(), "{line}");
            ensure!(["flow", "new_flow"].contains(&line["why"].as_str().unwrap_or_default()), "{line}");
            assert_eq!(line["length"], line["length_out"], "{line}");
        }
        try_wait_until("the program is back", SOON, || programs(&daemon).map(|now| now == before))?;
        exchange(stream, 10_000)?;
    }
    for run in runs {
        let report = run?.finish()?;
        assert_eq!((report.lost.len(), report.refused, report.duplicates), (0, 0, 0), "{report:?}");
        ensure!(report.by_flow.iter().all(|backends| backends.len() == 1), "a flow has two backends");
    }
    daemon.accounts().map(drop)
}

/// A packet that is sent, and what becomes of it.
#[derive(Debug)]
struct Sent {
    interface: &'static str,
    from: IpAddr,
    to: SocketAddr,
    service: Option<String>,
    verdict: &'static str,
}

impl Sent {
    /// Whether a line is about it.
    fn is(&self, line: &Value) -> bool {
        let from = line["from"].as_str().and_then(|from| from.parse().ok());
        from.is_some_and(|from: SocketAddr| from.ip() == self.from)
            && line["to"] == self.to.to_string()
            && (&line["interface"], &line["verdict"]) == (&self.interface.into(), &self.verdict.into())
            && line["service"] == self.service.clone().map_or(Value::Null, Value::from)
    }
}

#[test]
fn a_filter_lets_through_what_it_names_and_nothing_else() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().two_armed().clients(2).build()?;
    let services = FAMILIES.map(|vip| udp(&lab, vip)).into_iter().chain(off(&lab));
    let daemon = Daemon::start(&lab, 0, &services.collect::<String>())?;
    turn_off(&daemon)?;
    // From each client to a service with backends, to one without, and to none; and from a backend to the host.
    let mut all = Vec::new();
    for vip in FAMILIES {
        for client in lab.clients() {
            let from = client.address(vip);
            let of = |port, service: Option<String>, verdict| {
                let to = SocketAddr::new(vip, port);
                (client, Sent { interface: "eth0", from, to, service, verdict })
            };
            all.push(of(UDP, Some(format!("udp{}", digit(vip))), "redirect"));
            all.push(of(OFF, Some(off_name(vip)), "drop"));
            all.push(of(NOBODY, None, "pass"));
        }
        let (backend, host) = (lab.backend(0), lab.balancer(0).leg(Segment::Back).address(vip));
        let to = SocketAddr::new(host, NOBODY);
        let sent = Sent { interface: "eth1", from: backend.address(vip), to, service: None, verdict: "pass" };
        all.push((backend, sent));
    }

    let own = FAMILIES.map(|vip| lab.client(0).address(vip));
    let [first, first6] = own.map(|address| address.to_string());
    let network = format!("{}/64", Ipv6Addr::from(lab.client(0).ipv6().to_bits() >> 64 << 64));
    type Expected<'a> = Box<dyn Fn(&Sent) -> bool + 'a>;
    let cases: [(&[&str], Expected<'_>); 9] = [
        (&[], Box::new(|sent| sent.verdict != "pass")),
        (&["--passed"], Box::new(|_| true)),
        (&["--dropped"], Box::new(|sent| sent.verdict == "drop")),
        (&["--dropped", "--passed"], Box::new(|sent| sent.verdict != "redirect")),
        (&["--service", "off4"], Box::new(|sent| sent.service.as_deref() == Some("off4"))),
        (
            &["--service", "udp6", "--from", &first6],
            Box::new(|sent| sent.service.as_deref() == Some("udp6") && sent.from == own[1]),
        ),
        (&["--passed", "--from", &first], Box::new(|sent| sent.from == own[0])),
        (&["--from", &network], Box::new(|sent| sent.from.is_ipv6() && sent.verdict != "pass")),
        (&["--passed", "--interface", "eth1"], Box::new(|sent| sent.interface == "eth1")),
    ];
    for (filter, expected) in cases {
        let args: Vec<_> = filter.iter().copied().chain(["-o", "json"]).collect();
        let capture = Capturing::start(&lab, &daemon, &args)?;
        all.iter().try_for_each(|(node, sent)| send(node, sent.to))?;
        let wanted: Vec<_> = all.iter().map(|(_, sent)| sent).filter(|sent| expected(sent)).collect();
        let found = |line: &Value| wanted.iter().position(|sent| sent.is(line));
        wait_until("what is let through is captured", SOON, || {
            let lines = read(&capture.printed());
            (0..wanted.len()).all(|number| lines.iter().any(|line| found(line) == Some(number)))
        })?;
        let ended = capture.interrupt()?;
        ensure!(ended.status.success(), "{filter:?}: {ended:?}");
        // Of what the hosts have to say to each other nothing is told here.
        let ours = |line: &Value| all.iter().any(|(_, sent)| sent.is(line));
        for line in read(&ended.printed).iter().filter(|line| ours(line) || !filter.contains(&"--passed")) {
            ensure!(found(line).is_some(), "{filter:?}: {line}");
        }
    }
    Ok(())
}

/// The lines that are whole.
fn read(printed: &str) -> Vec<Value> {
    let lines = printed.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn the_rate_and_the_bounds_of_one_capture_hold() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let services = [udp(&lab, VIP_V4)].into_iter().chain(off(&lab));
    let daemon = Daemon::start(&lab, 0, &services.collect::<String>())?;
    turn_off(&daemon)?;
    let before = programs(&daemon)?;

    // A flood, of which a few are let through.
    let to = SocketAddrV4::new(std::net::Ipv4Addr::new(203, 0, 113, 10), OFF);
    let flood = Flood::start(lab.client(0), lab.balancer(0), to, SYN, 1)?;
    let begun = Instant::now();
    let capture = Capturing::start(&lab, &daemon, &["--rate", "200", "--passed", "-o", "json"])?;
    // More than comes at once.
    wait_until("some are captured", SOON, || capture.printed().lines().count() > 120)?;
    let ended = capture.interrupt()?;
    let (lines, took) = (ended.printed.lines().count(), begun.elapsed());
    // 200 a second, and a tenth of a second's at once.
    ensure!(lines as f64 <= 20.0 + 200.0 * took.as_secs_f64(), "{lines} packets in {took:?}");
    ensure!(!ended.messages.contains(" 0 missed"), "{lines}: {}", ended.messages);

    // Somebody who reads nothing holds up nobody, and another one has to wait.
    try_wait_until("the program is back", SOON, || programs(&daemon).map(|now| now == before))?;
    let mut silent = UnixStream::connect(&daemon.files().socket)?;
    let body = r#"{"rate": 100000, "passed": true, "format": "json"}"#;
    write!(silent, "POST /v1/capture HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    try_wait_until("more comes than is read", SOON, || {
        let capture = daemon.status_json().map(|status| status["capture"].clone());
        capture.map(|capture| capture["missed"].as_u64() > Some(0))
    })?;
    let refused = daemon.cli(["capture"])?;
    assert_eq!(refused.status.code(), Some(1));
    ensure!(refused.stderr.contains("another capture is running"), "{}", refused.stderr);
    daemon.status_json().context("it answers others")?;
    drop(silent);
    // It is noticed also while more comes than can be read.
    try_wait_until("the program is back", SOON, || programs(&daemon).map(|now| now == before))?;
    drop(flood);

    // What can't be written to is told, what can't be is refused, and neither leaves anything behind.
    for (args, said) in [
        (["-w", "/dev/full"], "can't write /dev/full: No space left on device"),
        (["-w", "/nowhere/file"], "can't write /nowhere/file: No such file"),
        (["--service", "nobody"], "service \"nobody\" does not exist"),
        (["--interface", "eth7"], "packets are not captured on eth7; there is eth0"),
    ] {
        let output = daemon.cli(["capture"].into_iter().chain(args))?;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        ensure!(output.stderr.contains(said), "{args:?}: {}", output.stderr);
    }
    // A file without packets is a file.
    let file = lab.directory().join("empty.pcapng");
    let capture = Capturing::start(&lab, &daemon, &["--service", "off6", "-w", &file.display().to_string()])?;
    try_wait_until("the file is begun", SOON, || Ok(fs::metadata(&file)?.len() > 0))?;
    ensure!(capture.interrupt()?.status.success());
    ensure!(tshark(&lab, &file)?.is_empty());
    try_wait_until("the program is back", SOON, || programs(&daemon).map(|now| now == before))?;
    daemon.accounts().map(drop)
}

#[test]
fn however_a_capture_ends_the_program_is_back() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _udp: Vec<_> = lab.backends().map(|node| UdpServer::start(node, &[UDP])).collect::<Result<_>>()?;
    let mut daemon = Daemon::start(&lab, 0, &udp(&lab, VIP_V4))?;
    // What is loaded anew has another number, and without what copies packets as many instructions as before.
    let length = |daemon: &Daemon| daemon.attached()?.instructions();
    let normal = length(&daemon)?;
    let is_back = |daemon: &Daemon| {
        try_wait_until("the program is back", SOON, || length(daemon).map(|now| now == normal))
    };
    let run = traffic(&lab, VIP_V4).start(lab.client(0))?;

    // Killed, the daemon can't put it back; packets go on, and the next one does.
    let capture = Capturing::start(&lab, &daemon, &["-o", "json"])?;
    let copying = length(&daemon)?;
    ensure!(copying > normal, "{copying} instructions instead of {normal}");
    daemon.kill9()?;
    let ended = capture.wait()?;
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert_eq!(length(&daemon)?, copying);
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    assert_eq!(length(&daemon)?, normal);

    // The client is killed.
    let mut capture = Capturing::start(&lab, &daemon, &["-o", "json"])?;
    capture.child.kill()?;
    is_back(&daemon)?;

    // The daemon stops.
    let capture = Capturing::start(&lab, &daemon, &["-o", "json"])?;
    ensure!(daemon.sigterm()?.success(), "it did not stop as it should");
    assert_eq!(length(&daemon)?, normal);
    ensure!(!capture.wait()?.status.success(), "it ended before its time");
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let report = run.finish()?;
    assert_eq!((report.lost.len(), report.refused, report.duplicates), (0, 0, 0), "{report:?}");

    // An interface that is made again meanwhile runs what the others run, and then what it is to run.
    let capture = Capturing::start(&lab, &daemon, &["-o", "json"])?;
    lab.balancer(0).ip(
        "make it again",
        ["link del eth0", "link add eth0 type veth peer name far", "link set eth0 up"],
    )?;
    try_wait_until("it is attached again", SOON, || length(&daemon).map(|now| now == copying))?;
    ensure!(capture.interrupt()?.status.success());
    is_back(&daemon)
}

#[test]
fn a_daemon_of_another_user_captures_with_the_capabilities_it_has() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _udp: Vec<_> = lab.backends().map(|node| UdpServer::start(node, &[UDP])).collect::<Result<_>>()?;
    let binary = Daemon::binary_for_everybody(&lab)?;
    let mut daemon = Daemon::with_binary(&lab, 0, &udp(&lab, VIP_V4), binary)?;
    let directories = [lab.directory(), &lab.pins(), &daemon.files().pin_dir];
    let of_daemon = daemon.files().config.parent().context("a directory")?;
    for path in directories.into_iter().chain([of_daemon, &daemon.files().config]) {
        chown(path, Some(USER), Some(USER)).with_context(|| format!("give {} away", path.display()))?;
    }
    let sets = ["inh-caps", "ambient-caps", "bounding-set"]
        .map(|set| format!("--{set}=-all,+bpf,+perfmon,+net_admin"));
    let own = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()];
    daemon.start_through(["setpriv"].into_iter().chain(own.iter().chain(&sets).map(String::as_str)));
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let before = programs(&daemon)?;
    let run = traffic(&lab, VIP_V4).start(lab.client(0))?;
    let printed = daemon.cli_checked(["capture", "-c", "3"])?;
    ensure!(
        printed.lines().count() == 3 && printed.lines().all(|line| line.contains(": udp4 → ")),
        "{printed}"
    );
    try_wait_until("the program is back", SOON, || programs(&daemon).map(|now| now == before))?;
    assert_eq!(run.finish()?.lost.len(), 0);
    Ok(())
}

#[test]
#[ignore = "long: a client has 10 s to read something"]
fn a_client_that_reads_nothing_is_given_up_and_the_program_is_back() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let daemon = Daemon::start(&lab, 0, &udp(&lab, VIP_V4))?;
    let before = programs(&daemon)?;
    let mut silent = UnixStream::connect(&daemon.files().socket)?;
    let body = r#"{"rate": 100000, "passed": true}"#;
    write!(silent, "POST /v1/capture HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let to = SocketAddrV4::new(std::net::Ipv4Addr::new(203, 0, 113, 10), OFF);
    let _flood = Flood::start(lab.client(0), lab.balancer(0), to, SYN, 1)?;
    try_wait_until("it runs another program", SOON, || programs(&daemon).map(|now| now != before))?;
    try_wait_until("the program is back", 2 * SOON, || programs(&daemon).map(|now| now == before))?;
    ensure!(daemon.log().contains("its client has read nothing for 10 s"), "{}", daemon.log());
    // What it was sent before is still there, and then its connection ends.
    let mut read = Vec::new();
    silent.read_to_end(&mut read)?;
    ensure!(read.starts_with(b"HTTP/1.1 200 OK"), "{} bytes", read.len());
    Ok(())
}

/// A capture on the command line.
struct Capturing {
    child: ChildGuard,
    printed: PathBuf,
    messages: PathBuf,
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    printed: String,
    messages: String,
}

impl Capturing {
    /// Starts one, and returns when interfaces run the program that copies.
    fn start(lab: &Lab, daemon: &Daemon, args: &[&str]) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |kind| lab.directory().join(format!("capture-{number}.{kind}"));
        let (printed, messages) = (file("out"), file("err"));
        let mut command = Command::new(daemon.binary());
        command.arg("capture").args(args);
        command.env("BALLAST_SOCKET", &daemon.files().socket).env("NO_COLOR", "1");
        command.stdout(File::create(&printed)?).stderr(File::create(&messages)?);
        let begun = || daemon.log().matches("capture: begun").count();
        let before = begun();
        let mut child = daemon.node().spawn(&mut command)?;
        let mut has_begun = || -> Result<bool> {
            if child.exit_status()?.is_some() {
                let said = fs::read_to_string(&messages)?;
                // The last one is not quite over.
                ensure!(said.contains("another capture is running"), "{said}");
                child = daemon.node().spawn(&mut command)?;
            }
            Ok(begun() > before)
        };
        wait_for("the capture begins", SOON, || has_begun().map(|begun| begun.then_some(())).transpose())??;
        Ok(Self { child, printed, messages })
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.printed).unwrap_or_default()
    }

    /// As with Ctrl-C.
    fn interrupt(mut self) -> Result<Ended> {
        self.child.signal(Signal::SIGINT)?;
        self.wait()
    }

    fn wait(mut self) -> Result<Ended> {
        let status = self.child.wait(SOON)?;
        Ok(Ended { status, printed: self.printed(), messages: fs::read_to_string(&self.messages)? })
    }
}

/// A frame as tshark reads it.
#[derive(Debug)]
struct Shown {
    interface: String,
    comment: String,
    time: f64,
    mac: String,
    /// Of the outermost IP header.
    destination: String,
}

fn tshark(lab: &Lab, file: &std::path::Path) -> Result<Vec<Shown>> {
    let fields = [
        "frame.interface_name",
        "frame.comment",
        "frame.time_epoch",
        "eth.dst",
        "ip.dst",
        "ipv6.dst",
        "eth.type",
    ];
    let mut args =
        vec!["-r".to_owned(), file.display().to_string(), "-n".into(), "-T".into(), "fields".into()];
    args.extend(["-E".into(), "occurrence=f".into()]);
    args.extend(fields.iter().flat_map(|field| ["-e".to_owned(), (*field).to_owned()]));
    let output = lab.client(0).run("tshark", &args)?.stdout;
    let shown = output.lines().map(|line| {
        let mut values = line.split('\t').map(str::to_owned);
        let mut next = || values.next().with_context(|| format!("too few fields: {line}"));
        let (interface, comment, time) = (next()?, next()?, next()?.parse()?);
        let (mac, v4, v6) = (next()?, next()?, next()?);
        let destination = if next()?.ends_with("0800") { v4 } else { v6 };
        Ok(Shown { interface, comment, time, mac, destination })
    });
    shown.collect()
}

fn has(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|window| window == text.as_bytes())
}

fn digit(vip: IpAddr) -> char {
    if vip.is_ipv4() { '4' } else { '6' }
}

fn service_name(mode: Mode, vip: IpAddr) -> String {
    let mixed = if matches!(mode, Mode::IpipMixed | Mode::GueMixed) { "-mixed" } else { "" };
    format!("{}{mixed}{}", mode.forwarding(), digit(vip))
}

fn udp(lab: &Lab, vip: IpAddr) -> String {
    let to = SocketAddr::new(vip, UDP);
    Service::new(&format!("udp{}", digit(vip)), to, "udp", "l2-dsr").nodes(lab.backends(), to).toml()
}

fn off_name(vip: IpAddr) -> String {
    format!("off{}", digit(vip))
}

fn off(lab: &Lab) -> impl Iterator<Item = String> {
    let service = |vip| {
        let to = SocketAddr::new(vip, OFF);
        Service::new(&off_name(vip), to, "udp", "l2-dsr").nodes(lab.backends().take(1), to).toml()
    };
    FAMILIES.map(service).into_iter()
}

/// Leaves the services of [`off`] without a backend.
fn turn_off(daemon: &Daemon) -> Result<()> {
    FAMILIES
        .iter()
        .try_for_each(|vip| daemon.cli_checked(["backend", "disable", &off_name(*vip), "backend0"]).map(drop))
}

/// Sends a datagram, and waits for no answer.
fn send(client: &Node, to: SocketAddr) -> Result<()> {
    client.enter(|| {
        let socket = UdpSocket::bind((client.address(to.ip()), 0))?;
        socket.send_to(b"one", to).map(drop).with_context(|| format!("send to {to}"))
    })
}

fn traffic(lab: &Lab, vip: IpAddr) -> UdpTraffic {
    let sources = (0..16).map(|number| lab.client(0).source_port(number, 4000, vip));
    UdpTraffic::new(sources, SocketAddr::new(vip, UDP)).rate(1_000)
}

/// Numbers of the programs that the load balancer's interfaces run.
fn programs(daemon: &Daemon) -> Result<Vec<u64>> {
    let legs = daemon.node().legs().iter();
    let ask = |interface: &str| daemon.node().xdp_program(interface)?.context("it runs no program");
    legs.map(|leg| ask(&leg.interface).map(|program| program.id)).collect()
}

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::{
    BackendCommand, Cli, Command, Format, ServiceCommand, backend, change, complete,
    exit::Failure,
    man,
    output::Style,
    reload, service, status,
    wait::{Absence, Goal, Look, Silence, cut_off, look},
    watch::Watched,
};
use crate::api::{client::ClientError, v1};

const PLAIN: Style = Style { colour: false, width: None };

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("ballast").chain(line.split_whitespace()))
}

#[test]
fn the_arguments_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn options_of_every_command_may_stand_anywhere() {
    for line in ["--socket /s -o json status --ready", "status --ready --socket /s -o json"] {
        let cli = parse(line).unwrap();
        assert_eq!((cli.socket, cli.output), (PathBuf::from("/s"), Format::Json));
        assert!(matches!(cli.command, Command::Status { ready: true, .. }));
    }
}

#[test]
fn commands_take_the_names_of_objects() {
    let Command::Service(ServiceCommand::Show { name, .. }) = parse("service show web").unwrap().command
    else {
        panic!()
    };
    assert_eq!(name.as_str(), "web");
    let command = parse("backend list web").unwrap().command;
    let Command::Backend(BackendCommand::List { service, .. }) = command else { panic!() };
    assert_eq!(service.as_str(), "web");
    let Command::Run { file } = parse("run").unwrap().command else { panic!() };
    assert_eq!(file.config, PathBuf::from("/etc/ballast/config.toml"));
}

#[test]
fn mistakes_in_the_arguments_are_usage_errors() {
    let cases = [
        ("status --redy", ErrorKind::UnknownArgument),
        ("statsu", ErrorKind::InvalidSubcommand),
        ("service", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("service show", ErrorKind::MissingRequiredArgument),
        ("service show Web", ErrorKind::ValueValidation),
        ("backend list ../web", ErrorKind::ValueValidation),
        ("-o yaml status", ErrorKind::InvalidValue),
        ("detach --pin-dir /p --config /c", ErrorKind::ArgumentConflict),
        ("reload --config /c", ErrorKind::UnknownArgument),
        ("backend drain web", ErrorKind::MissingRequiredArgument),
        ("backend set web a", ErrorKind::MissingRequiredArgument),
        ("backend drain web a --timeout 5s", ErrorKind::MissingRequiredArgument),
        ("backend drain web a --wait --timeout soon", ErrorKind::ValueValidation),
        ("backend drain web a --wait=loudly", ErrorKind::InvalidValue),
        ("backend add web a 10.0.0.1:80 --backup=yes", ErrorKind::TooManyValues),
        ("service add web", ErrorKind::MissingRequiredArgument),
        ("service set web --algorithm flow-hash", ErrorKind::UnknownArgument),
        ("status --watch=never", ErrorKind::ValueValidation),
        ("status --watch=10ms", ErrorKind::ValueValidation),
        ("status --watch --ready", ErrorKind::ArgumentConflict),
        ("top --interval 2h", ErrorKind::ValueValidation),
        ("--color sometimes status", ErrorKind::InvalidValue),
        ("completions csh", ErrorKind::InvalidValue),
    ];
    for (line, kind) in cases {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

fn unreachable_daemon(kind: io::ErrorKind) -> Failure {
    Failure::Daemon(ClientError::Unreachable { socket: "/run/b.sock".into(), source: kind.into() })
}

fn refused(kind: &str, field: Option<&str>, message: &str) -> Failure {
    let error =
        v1::ErrorDetail { kind: kind.into(), message: message.into(), field: field.map(ToOwned::to_owned) };
    Failure::Daemon(ClientError::Refused { status: 422, error })
}

#[test]
fn every_failure_has_its_exit_code() {
    let timeout = ClientError::Timeout { socket: "/s".into(), limit: Duration::from_secs(1) };
    let cases = [
        (Failure::Failed(anyhow::anyhow!("no")), 1),
        (refused("limit", Some("services"), "too many"), 1),
        (unreachable_daemon(io::ErrorKind::NotFound), 3),
        (Failure::Daemon(timeout), 3),
        (refused("owned", Some("backend"), "declared"), 1),
        (Failure::NotReady("not attached to eth0".into()), 4),
        (Failure::TimedOut("2 flows left".into()), 5),
        (Failure::Overtaken("it was removed meanwhile".into()), 5),
        (Failure::Usage("that makes no sense".into()), 2),
    ];
    for (failure, code) in cases {
        assert_eq!(failure.code(), code, "{}", failure.message());
    }
}

#[test]
fn messages_say_what_to_do_next() {
    let missing = unreachable_daemon(io::ErrorKind::NotFound).message();
    assert!(missing.starts_with("error: can't reach the daemon at /run/b.sock: "), "{missing}");
    assert!(missing.contains("is `ballast run` running?"), "{missing}");
    let denied = unreachable_daemon(io::ErrorKind::PermissionDenied).message();
    assert!(denied.contains("use root (sudo)"), "{denied}");
    let unknown = refused("not_found", Some("service"), "service \"x\" does not exist").message();
    assert!(unknown.contains("`ballast service list`"), "{unknown}");
    let file = refused("config", None, "error: unknown key\n --> config.toml:1:1").message();
    assert_eq!(file, "error: unknown key\n --> config.toml:1:1\nnothing changed; what ran before goes on");
}

/// A status as the daemon sends it: the keys are what scripts rely on.
const STATUS: &str = r#"{
  "revision": 12,
  "ready": true,
  "not_ready": null,
  "interfaces": [{"name": "eth0", "mode": "native", "attached": true}],
  "services": [
    {
      "name": "web", "address": "203.0.113.10:80", "protocol": "tcp", "forwarding": "l2-dsr",
      "algorithm": "source-hash", "state": "degraded", "packets": 1200, "bytes": 90000, "new_flows": 100,
      "reply_packets": null, "reply_bytes": null, "fingerprint": "00000000deadbeef",
      "settings": {"table_size": 16384, "drain_timeout": "5m", "allow": ["198.51.100.0/24", "192.0.2.0/24"], "deny": [], "new_flow_rate": 100, "health": {"type": "http", "path": "/", "interval": "2s"}},
      "origin": {"kind": "file", "file": "/etc/ballast/config.toml", "line": 9},
      "overrides": [],
      "leaving": [{"name": "web-0", "address": "10.0.0.10:80", "flows": 3, "drain_seconds_left": 120}],
      "discovery": [{
        "kind": "dns", "source": "web.example.org:80", "backends": 3, "answered": true, "age_seconds": 12, "failures": 1,
        "trouble": null, "left_out": [{"name": "vip", "address": "203.0.113.10:80", "why": "it is a VIP"}]
      }],
      "backends": [
        {
          "name": "web-1", "address": "10.0.0.11:80", "weight": 2, "backup": false, "admin": "active",
          "health": "healthy", "health_detail": "HTTP 200", "share": 1.0, "flows": null, "accepts_existing": true,
          "drain_seconds_left": null, "drained": false, "packets": 1200,
          "bytes": 90000, "new_flows": 100, "reply_packets": null, "reply_bytes": null, "reachable": true,
          "origin": {"kind": "file", "file": "/etc/ballast/config.toml", "line": 14}, "overrides": []
        },
        {
          "name": "web-2", "address": "10.0.0.12:80", "weight": 1, "backup": false, "admin": "draining",
          "health": "unhealthy", "health_detail": "connection refused\u001b[2J", "share": 0.0, "flows": 7,
          "accepts_existing": true, "drain_seconds_left": 41, "drained": false, "packets": 0, "bytes": 0, "new_flows": null, "reply_packets": null, "reply_bytes": null, "reachable": false,
          "origin": {"kind": "file", "file": "/etc/ballast/config.toml", "line": 18}, "overrides": ["weight", "admin"]
        }
      ]
    }
  ],
  "drops": {"bad_ip_header": 0, "no_backend": 3},
  "verdicts": {"tx": 1200, "redirect": 0, "pass": 40, "drop": 3},
  "packets": 1243,
  "own_macs": ["02:00:00:00:00:01"],
  "hash_key_fingerprint": "5f0c3a9e1b7d2468",
  "config_error": null,
  "state_error": null,
  "checks_held": null,
  "nat_clashes": [],
  "flow_table": {"entries": 10, "capacity": 1048576},
  "nat_table": {"entries": 0, "capacity": 131072},
  "icmp": {"echo_reply": 1, "too_big": 2, "time_exceeded": 3, "port_unreachable": 6, "relayed": 4, "limited": 5},
  "resets": 7,
  "tracked_slots": 4,
  "fleet": null,
  "capture": null,
  "announce": null,
  "held_vips": [],
  "peers": null
}"#;

fn example() -> v1::Status {
    serde_json::from_str(STATUS).unwrap()
}

#[test]
fn the_json_keys_are_those_of_the_contract() {
    let given: serde_json::Value = serde_json::from_str(STATUS).unwrap();
    assert_eq!(serde_json::to_value(example()).unwrap(), given);
}

#[test]
fn status_shows_everything_at_a_glance() {
    let expected = "\
revision 12, ready
hash key 5f0c3a9e1b7d2468
1243 packets: 1200 tx, 0 redirect, 40 pass, 3 drop
10 of 1048576 flow entries in use, 4 slots tracked

INTERFACE  MODE    ATTACHED
eth0       native  yes

SERVICE  ADDRESS              ADMIN           STATE                                                   WEIGHT    SHARE  FLOWS  PACKETS  BYTES  NEW FLOWS  ORIGIN
web      203.0.113.10:80/tcp                  degraded                                                                           1200  90000        100  config.toml:9
- web-1  10.0.0.11:80         active          healthy                                                      2  100.0 %      -     1200  90000        100  config.toml:14
- web-2  10.0.0.12:80         draining, 41 s  unhealthy: connection refused\u{fffd}[2J; next hop unresolved      1*    0.0 %      7        0      0          -  config.toml:18 + weight, admin
- web-0  10.0.0.10:80         leaving, 120 s                                                                               3

DROPPED     PACKETS
no_backend        3
";
    assert_eq!(status::render(&example(), None, PLAIN), expected);
}

#[test]
fn status_says_why_it_is_not_ready_and_what_is_wrong_with_the_file() {
    let mut example = example();
    example.ready = false;
    example.not_ready = Some("not attached to eth0".into());
    example.interfaces[0].attached = false;
    example.config_error = Some("error: unknown key `x`\n --> config.toml:1:1".into());
    example.state_error = Some("state.toml makes no sense".into());
    example.nat_clashes = vec!["service own can't share it".into()];
    example.services.clear();
    example.drops = BTreeMap::new();
    let expected = "\
revision 12, NOT READY: not attached to eth0
hash key 5f0c3a9e1b7d2468

THE CONFIGURATION IS NOT WHAT RUNS:
error: unknown key `x`
 --> config.toml:1:1


WHAT WAS MADE OVER THE COMMAND LINE IS NOT ALL THERE:
state.toml makes no sense


REPLIES THROUGH NAT MAY GET LOST:
service own can't share it

1243 packets: 1200 tx, 0 redirect, 40 pass, 3 drop
10 of 1048576 flow entries in use, 4 slots tracked

INTERFACE  MODE    ATTACHED
eth0       native  no

no services
";
    assert_eq!(status::render(&example, None, PLAIN), expected);
}

#[test]
fn colours_and_widths_are_for_terminals() {
    let terminal = Style { colour: true, width: Some(80) };
    let coloured = status::render(&example(), None, terminal);
    assert!(coloured.contains("\u{1b}[") && !coloured.contains("\u{1b}[2J"));
    let narrow = status::render(&example(), None, Style { colour: false, width: Some(80) });
    assert!(!narrow.contains('\u{1b}'));
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
}

#[test]
fn where_backends_are_found_and_what_is_wrong_there_is_told() {
    let mut example = example();
    let shown = service::render(&example.services[0], None, PLAIN);
    for row in
        ["dns web.example.org:80: 3 found, 12 s ago\n", "vip at 203.0.113.10:80 is left out: it is a VIP\n"]
    {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let of = &mut example.services[0].discovery[0];
    (of.answered, of.trouble) = (false, Some("error: no\n --> a\u{1b}.toml:1:2".into()));
    let shown = service::render(&example.services[0], None, PLAIN);
    for row in [
        "3 found, before the daemon started, and no answer since\n",
        "error: no\n",
        " --> a\u{fffd}.toml:1:2\n",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let shown = status::render(&example, None, PLAIN);
    let alarm = "\nDNS web.example.org:80 OF SERVICE web DOES NOT ANSWER AS IT SHOULD:\nerror: no\n --> a\u{fffd}.toml:1:2\n";
    assert!(shown.contains(alarm), "{shown}");
    let found = v1::Origin::Dns { name: "web.example.org:80".into() };
    assert_eq!(backend::owners(&found, &["admin".into()]), "dns web.example.org:80 + admin");
    let found = v1::Origin::Watched { file: "/run/web.toml".into(), line: 4 };
    assert_eq!(backend::owners(&found, &[]), "web.toml:4");
}

#[test]
fn a_narrow_terminal_tells_owners_below() {
    let narrow = Style { colour: false, width: Some(80) };
    let service = &example().services[0];
    let shown = backend::render(&service.backends, &service.leaving, None, narrow);
    assert!(shown.contains("\nweb-1  /etc/ballast/config.toml:14\n"), "{shown}");
    assert!(shown.contains("\nweb-2  /etc/ballast/config.toml:18  weight, admin\n"), "{shown}");
    let shown = status::render(&example(), None, narrow);
    assert!(shown.contains("\nweb      /etc/ballast/config.toml:9\n"), "{shown}");
    assert!(shown.contains("\n- web-2  /etc/ballast/config.toml:18  weight, admin\n"), "{shown}");
    let mut made = service.backends[1].clone();
    made.origin = v1::Origin::Cli;
    assert_eq!(backend::owners(&made.origin, &[]), "cli");
}

#[test]
fn services_and_backends_are_listed() {
    let services = example().services;
    let list = service::render_list(&services, None, PLAIN);
    assert!(
        list.contains("web      203.0.113.10:80/tcp  l2-dsr      source-hash  degraded  1/2 healthy"),
        "{list}"
    );
    let shown = service::render(&services[0], None, PLAIN);
    for row in [
        "origin         /etc/ballast/config.toml:9\n",
        "fingerprint    00000000deadbeef\n",
        "drain timeout  5m\n",
        "health check   http / every 2s\n",
        "web-0    10.0.0.10:80  leaving, 120 s",
    ] {
        assert!(shown.contains(row), "{row}\n{shown}");
    }
    assert_eq!(service::render_list(&[], None, PLAIN), "no services");
    assert_eq!(backend::render(&[], &[], None, PLAIN), "no backends");
}

#[test]
fn what_only_some_services_have_is_shown_where_they_have_it() {
    let mut status = example();
    let shown = service::render(&status.services[0], None, PLAIN);
    for row in ["allow             198.51.100.0/24, 192.0.2.0/24\n", "new flow rate     100 a second\n"] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&shown).contains(&squeezed(row)), "{row}\n{shown}");
    }
    assert!(!shown.contains("deny") && !shown.contains("REPLIES") && !shown.contains("reply"), "{shown}");
    assert!(!status::render(&status, None, PLAIN).contains("NAT"));
    let nat = &mut status.services[0];
    (nat.reply_packets, nat.reply_bytes) = (Some(7), Some(900));
    nat.backends[0].reply_packets = Some(6);
    let shown = service::render(&status.services[0], None, PLAIN);
    assert!(shown.contains("reply packets") && shown.contains("REPLIES"), "{shown}");
    status.nat_table.entries = 3;
    assert!(status::render(&status, None, PLAIN).contains("\n3 of 131072 NAT flows in use\n"));
}

#[test]
fn a_capture_that_runs_is_told_of_with_who_began_it() {
    let capture = v1::RunningCapture {
        user: 1000,
        process: Some(4711),
        seconds: 72,
        filter: "service web, only what is dropped".into(),
        packets: 120,
        missed: 3,
    };
    let status = v1::Status { capture: Some(capture), ..example() };
    let line = "\ncapturing for 1m 12s: service web, only what is dropped; 120 packets, 3 missed; user 1000, process 4711\n";
    let shown = status::render(&status, None, PLAIN);
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn settings_of_admission_are_lists_and_a_number() {
    let line = "service set web --allow 10.0.0.0/8,192.0.2.1 --deny= --new-flow-rate 0";
    let Command::Service(ServiceCommand::Set { settings, .. }) = parse(line).unwrap().command else {
        panic!("{line}")
    };
    let settings = settings.into_api();
    assert_eq!(settings.allow, Some(vec!["10.0.0.0/8".to_owned(), "192.0.2.1".to_owned()]));
    assert_eq!((settings.deny, settings.new_flow_rate), (Some(vec![]), Some(0)));
}

#[test]
fn a_reload_tells_what_it_did() {
    let change = |action: &str, object: &str, detail: &str| v1::Change {
        action: action.into(),
        object: object.into(),
        detail: detail.into(),
    };
    let changes = vec![change("add", "service web", ""), change("change", "backend web/a", "weight 1 to 2")];
    let done =
        v1::Reload { dry_run: false, revision: 7, changes, warnings: Vec::new(), services: Vec::new() };
    let expected = "add service web\nchange backend web/a: weight 1 to 2\nrevision 7 is live";
    assert_eq!(reload::render(&done, PLAIN), expected);
    let planned = v1::Reload { dry_run: true, ..done.clone() };
    assert!(
        reload::render(&planned, PLAIN).ends_with(
            "\nno client would move to another backend\n\nnothing changed yet; revision 7 is live"
        )
    );
    let impact = |service: &str, moved_slots: u32, flows_ending: Option<u64>| v1::Impact {
        service: service.into(),
        slots: 1024,
        moved_slots,
        moved: f64::from(moved_slots) / 1024.0,
        flows_ending,
        flows_draining: Some(12),
    };
    let services = vec![impact("web", 341, None), impact("dns", 1024, Some(0))];
    let felt = v1::Reload { services, ..planned };
    let expected = "\
add service web
change backend web/a: weight 1 to 2

SERVICE    MOVED         SLOTS  FLOWS ENDING  FLOWS DRAINING
web       33.3 %   341 of 1024       unknown              12
dns      100.0 %  1024 of 1024             0              12

nothing changed yet; revision 7 is live";
    assert_eq!(reload::render(&felt, PLAIN), expected);
    let nothing = v1::Reload { changes: Vec::new(), ..done };
    assert_eq!(reload::render(&nothing, PLAIN), "nothing to change; revision 7 is live");
}

#[test]
fn waiting_may_be_asked_for_with_and_without_a_word() {
    for line in ["backend drain web a --wait", "backend remove web a --wait=quiet --timeout 5m"] {
        let Command::Backend(BackendCommand::Drain(target) | BackendCommand::Remove(target)) =
            parse(line).unwrap().command
        else {
            panic!("{line}")
        };
        assert_eq!((target.service.as_str(), target.name.as_str()), ("web", "a"));
    }
    // The word after a bare --wait is a name, not its value.
    let Command::Backend(BackendCommand::Drain(target)) =
        parse("backend drain --wait web quiet").unwrap().command
    else {
        panic!()
    };
    assert_eq!(target.name.as_str(), "quiet");
}

#[test]
fn a_drain_is_over_when_nothing_is_left_or_time_is_up() {
    let draining = &example().services[0].backends[1];
    assert_eq!(look(Goal::Drained, Some(draining)), Look::NotYet("7 flows left, 41 s at most".into()));
    let with = |change: fn(&mut v1::Backend)| {
        let mut backend = draining.clone();
        change(&mut backend);
        look(Goal::Drained, Some(&backend))
    };
    assert_eq!(with(|backend| backend.drained = true), Look::Reached);
    assert_eq!(with(|backend| backend.accepts_existing = false), Look::Reached);
    assert!(matches!(with(|backend| backend.admin = "active".into()), Look::Never(_)));
    assert_eq!(look(Goal::Drained, None), Look::Reached);
}

#[test]
fn a_backend_is_back_when_it_has_a_share_if_it_is_meant_to() {
    let active = &example().services[0].backends[0];
    assert_eq!(look(Goal::InTable, Some(active)), Look::Reached);
    let with = |change: fn(&mut v1::Backend)| {
        let mut backend = v1::Backend { share: 0.0, ..active.clone() };
        change(&mut backend);
        look(Goal::InTable, Some(&backend))
    };
    assert!(matches!(with(|_| {}), Look::NotYet(_)));
    assert_eq!(with(|backend| backend.weight = 0), Look::Reached);
    assert!(matches!(with(|backend| backend.admin = "disabled".into()), Look::Never(_)));
    assert!(matches!(look(Goal::InTable, None), Look::Never(_)));
}

#[test]
fn waiting_for_silence_makes_no_sense_where_packets_are_wanted() {
    let patience = |line| {
        let Command::Backend(BackendCommand::Enable(target)) = parse(line).unwrap().command else {
            panic!("{line}")
        };
        target.patience
    };
    let refused = patience("backend enable web a --wait=quiet").check(Goal::InTable).unwrap_err();
    assert_eq!(refused.code(), 2);
    assert!(refused.message().contains("use plain --wait"), "{}", refused.message());
    assert!(patience("backend enable web a --wait=quiet").check(Goal::Drained).is_ok());
    assert!(patience("backend enable web a --wait").check(Goal::InTable).is_ok());
}

#[test]
fn a_change_that_was_made_does_not_read_as_if_nothing_had_changed() {
    let Failure::Daemon(error) = unreachable_daemon(io::ErrorKind::NotFound) else { panic!() };
    let lost = Failure::Unknown(error);
    assert_eq!(lost.code(), 3);
    for failure in [lost, Failure::Overtaken("x".into())] {
        assert!(failure.message().starts_with("error: the change was made, but"), "{}", failure.message());
    }
}

#[test]
fn a_daemon_may_be_away_for_a_while() {
    let begun = std::time::Instant::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    let mut absence = Absence::default();
    assert!(!absence.is_over(at(100), None));
    assert!(!absence.is_over(at(129), None));
    assert!(absence.is_over(at(130), None));
    assert!(!Absence::default().is_over(at(100), Some(at(101))));
    assert!(Absence::default().is_over(at(101), Some(at(101))));
}

#[tokio::test]
async fn waiting_goes_on_while_nobody_answers_and_ends_with_the_timeout() {
    let Command::Backend(BackendCommand::Drain(target)) =
        parse("backend drain web a --wait --timeout 300ms").unwrap().command
    else {
        panic!()
    };
    let directory = tempfile::tempdir().unwrap();
    let client = crate::api::client::Client::new(directory.path().join("none.sock"));
    let begun = std::time::Instant::now();
    let failure = super::wait::wait(&client, &target, Goal::Drained).await.unwrap_err();
    assert_eq!(failure.code(), 3);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_drain_whose_time_is_up_says_how_many_flows_it_ended() {
    let mut backend = example().services[0].backends[1].clone();
    assert_eq!(cut_off(&backend, Some(7)), None);
    backend.accepts_existing = false;
    let told = cut_off(&backend, Some(7)).unwrap();
    assert_eq!(told, "the drain timeout is over; 7 flows were ended");
    assert_eq!(cut_off(&backend, Some(0)), None);
    backend.drained = true;
    assert_eq!(cut_off(&backend, Some(7)), None);
}

#[test]
fn quiet_is_ten_seconds_without_a_packet() {
    let mut silence = Silence::default();
    let begun = std::time::Instant::now();
    let mut at = |seconds, packets| silence.since(packets, begun + Duration::from_secs(seconds));
    assert_eq!(at(0, 5), Some(Duration::ZERO));
    assert_eq!(at(9, 5), Some(Duration::from_secs(9)));
    assert_eq!(at(9, 6), Some(Duration::ZERO));
    assert_eq!(at(18, 6), Some(Duration::from_secs(9)));
    assert_eq!(at(19, 6), None);
}

#[test]
fn settings_are_set_and_taken_back_by_their_keys() {
    let patched = |line: &str| {
        let Command::Service(ServiceCommand::Set { settings, unset, .. }) = parse(line).unwrap().command
        else {
            panic!("{line}")
        };
        change::patch(settings.into_api(), &unset).map(|patch| patch.to_string())
    };
    let line = "service set web --health-role primary --health-tls true --drain-timeout 5s --unset health.port,slow_start";
    let patch =
        r#"{"drain_timeout":"5s","health":{"port":null,"role":"primary","tls":true},"slow_start":null}"#;
    assert_eq!(patched(line).as_deref(), Ok(patch));
    let header = "service set web --health-header X-A:b --health-header X-C:d --health-expect-addresses";
    let patch = r#"{"health":{"expect_addresses":["192.0.2.1","192.0.2.2"],"headers":["X-A:b","X-C:d"]}}"#;
    assert_eq!(patched(&format!("{header} 192.0.2.1,192.0.2.2")).as_deref(), Ok(patch));
    assert_eq!(patched("service set web --unset health").as_deref(), Ok(r#"{"health":null}"#));
    for (line, wrong) in [
        ("service set web", "nothing to set"),
        ("service set web --slow-start 5s --unset slow_start", "both set and taken back"),
        ("service set web --slow-start 5s --unset slow_start.x", "there is no setting slow_start.x"),
    ] {
        let told = patched(line).unwrap_err();
        assert!(told.contains(wrong), "{line}: {told}");
    }
}

#[test]
fn a_change_tells_what_it_did() {
    let changes = vec![v1::Change {
        action: "change".into(),
        object: "backend web/a".into(),
        detail: "active -> draining".into(),
    }];
    let done = v1::Changed { revision: 7, changes, warnings: Vec::new() };
    assert_eq!(change::render(&done, PLAIN), "change backend web/a: active -> draining\nrevision 7 is live");
    let nothing = v1::Changed { changes: Vec::new(), ..done };
    assert_eq!(change::render(&nothing, PLAIN), "nothing to change; revision 7 is live");
}

#[test]
fn typos_are_understood() {
    for (line, meant) in [
        ("statsu", "'status'"),
        ("backend drian web a", "'drain'"),
        ("status --redy", "'--ready'"),
        ("-o jsno status", "'json'"),
    ] {
        let told = parse(line).unwrap_err().to_string();
        assert!(told.contains("similar") && told.contains(meant), "{line}: {told}");
    }
}

#[test]
fn a_half_typed_line_tells_which_service_it_is_about() {
    let service = |line: &str| {
        let words: Vec<_> = line.split(' ').map(Into::into).collect();
        complete::service_of(&words).map(|name| name.to_string())
    };
    for (line, expected) in [
        ("ballast backend drain web ", Some("web")),
        ("ballast --socket /s backend drain web we", Some("web")),
        ("ballast backend set web a --weight", Some("web")),
        ("ballast backend list ", None),
        ("ballast backend drain ../x ", None),
        ("ballast status ", None),
    ] {
        assert_eq!(service(line).as_deref(), expected, "{line}");
    }
}

#[test]
fn in_a_watch_what_passes_in_a_second_takes_the_place_of_totals() {
    let before = example();
    let mut after = example();
    after.packets += 4_000_000;
    after.verdicts.drop += 20;
    after.drops.insert("no_backend".into(), 23);
    after.services[0].packets += 3_000_000;
    after.services[0].backends[0].bytes += 1_000_000;
    let two_seconds = Duration::from_secs(2);
    let first = Watched::render(&before, None, true, PLAIN);
    assert!(first.contains("\n- packets/s: - tx, - redirect, - pass, - drop\n"), "{first}");
    let shown = Watched::render(&after, Some((&before, two_seconds)), true, PLAIN);
    assert!(shown.contains("\n2.0M packets/s: 0 tx, 0 redirect, 0 pass, 10 drop\n"), "{shown}");
    assert!(shown.contains("PACKETS/S  BITS/S  NEW FLOWS/S"), "{shown}");
    let squeezed: Vec<_> =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "web 203.0.113.10:80/tcp degraded 1.5M 0 0 config.toml:9",
        "- web-1 10.0.0.11:80 active healthy 2 100.0 % - 0 4.0M 0 config.toml:14",
        "no_backend 23 10",
    ] {
        assert!(squeezed.iter().any(|found| found == line), "{line}\n{shown}");
    }
    let shown = Watched::render(&after.services, Some((&before.services, two_seconds)), true, PLAIN);
    assert!(shown.contains("PACKETS/S") && shown.contains("1.5M"), "{shown}");
    let shown = Watched::render(&after.services[0], Some((&before.services[0], two_seconds)), true, PLAIN);
    assert!(shown.contains("packets/s") && shown.contains("1.5M"), "{shown}");
    let narrow = Watched::render(&after, None, true, Style { colour: false, width: Some(60) });
    assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
}

#[test]
fn a_page_of_the_manual_is_made_for_every_command() {
    let pages = man::pages("2026-01-02").unwrap();
    let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
    for name in ["ballast.1", "ballast-top.1", "ballast-backend.1", "ballast-backend-drain.1"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
    let text = |name: &str| {
        let page = pages.iter().find(|page| page.name == name).unwrap();
        String::from_utf8(page.text.clone()).unwrap()
    };
    let root = text("ballast.1");
    for part in [
        "2026-01-02",
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
        "BALLAST_SOCKET",
        "/etc/ballast/config.toml",
    ] {
        assert!(root.contains(part), "{part}\n{root}");
    }
    let drain = text("ballast-backend-drain.1");
    for part in ["EXAMPLES", "SEE ALSO", "ballast\\-backend"] {
        assert!(drain.contains(part), "{part}\n{drain}");
    }
}

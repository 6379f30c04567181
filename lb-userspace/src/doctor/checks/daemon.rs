//! The daemon that runs, as it tells of itself.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use lb_common::abi::DropReason;

use super::{
    super::{check::Check, finding::Finding},
    host::HOST,
};
use crate::{
    api::{client::ClientError, v1},
    dataplane::inspect::Pinned,
    domain::{Filling, XdpMode},
    telemetry::drops::{self, Concern},
};

/// What `/healthz` says: its status and its text.
pub(super) type Healthz = io::Result<(u16, String)>;

/// Whether one runs. `healthz`: of its metrics address, if it has one.
pub(in super::super) fn presence(
    asked: &Result<v1::Status, ClientError>,
    pinned: &Result<Pinned, String>,
    healthz: Option<&Healthz>,
) -> Finding {
    let forwards =
        pinned.as_ref().is_ok_and(|pinned| pinned.programs.iter().any(|program| program.ifindex != 0));
    let holder = pinned.as_ref().ok().and_then(|pinned| pinned.holder);
    match asked {
        Ok(_) => match healthz {
            Some(Ok((200, _)) | Err(_)) | None => Finding::ok(Check::Daemon, HOST, "it runs"),
            Some(Ok((_, why))) => {
                Finding::problem(Check::Daemon, HOST, format!("it runs, and does not get on: {}", why.trim()))
                    .run(["systemctl restart ballast"])
                    .advise("a restart changes no slot and loses no packet; look at its log first: `journalctl -u ballast -n 50`")
            }
        },
        Err(ClientError::Unreachable { socket, source }) if source.kind() == io::ErrorKind::PermissionDenied => {
            Finding::skipped(Check::Daemon, HOST, format!("{} is not for this user: ask as root, or as a member of its group", socket.display()))
        }
        Err(error @ ClientError::Unreachable { .. }) => match (holder, forwards) {
            (Some(pid), _) => Finding::warning(
                Check::Daemon,
                HOST,
                format!("process {pid} has the pin directory, and {error}"),
            )
            .advise("name its control socket with --socket, or the file that it was started with with --config"),
            (None, true) => Finding::warning(
                Check::Daemon,
                HOST,
                "no daemon runs, and its program forwards the last table: nothing is checked, and nothing changes",
            )
            .run(["systemctl start ballast"])
            .advise("or `ballast run`; its log says why it ended: `journalctl -u ballast -n 50`"),
            (None, false) => Finding::ok(Check::Daemon, HOST, "no daemon runs; this is what the files say"),
        },
        Err(error) => Finding::problem(Check::Daemon, HOST, error.to_string())
            .run(["journalctl -u ballast -n 50", "systemctl restart ballast"])
            .advise("a restart changes no slot and loses no packet"),
    }
}

/// `planned`: what a reload would change, or why that can't be told.
pub(in super::super) fn running(
    status: &v1::Status,
    planned: Result<v1::Reload, ClientError>,
    mode: XdpMode,
) -> Vec<Finding> {
    let mut findings = vec![current(status, planned)];
    findings.extend(status.nat_clashes.iter().map(|clash| nat_clash(clash)));
    findings.extend(status.interfaces.iter().map(|interface| attached(interface, mode)));
    let announced = status.announce.iter().flat_map(|announce| &announce.vips);
    findings.extend(announced.map(announcement));
    findings.push(table(Filling::Flows, status.flow_table));
    findings.push(table(Filling::Nat, status.nat_table));
    findings
}

fn current(status: &v1::Status, planned: Result<v1::Reload, ClientError>) -> Finding {
    let wrong = status.config_error.as_ref().map(|error| ("the configuration is not what runs", error));
    let wrong = wrong.or(status
        .state_error
        .as_ref()
        .map(|error| ("what was made over the command line is not all there", error)));
    if let Some((what, error)) = wrong {
        return Finding::problem(Check::Current, HOST, format!("{what}: {error}"))
            .run(["ballast reload --dry-run", "ballast reload"])
            .advise("mend the file first");
    }
    match planned {
        Ok(planned) if planned.changes.is_empty() => {
            Finding::ok(Check::Current, HOST, "what runs is what the files say")
        }
        Ok(planned) => {
            let count = planned.changes.len();
            let plural = if count == 1 { "change" } else { "changes" };
            Finding::warning(
                Check::Current,
                HOST,
                format!("the files were edited: {count} {plural} that nobody applied"),
            )
            .run(["ballast reload --dry-run", "ballast reload"])
        }
        Err(error @ ClientError::Refused { .. }) => {
            Finding::problem(Check::Current, HOST, format!("a reload would be refused: {error}"))
                .run(["ballast reload --dry-run"])
                .advise("mend the file; until then what runs goes on, and a restart goes on with it, too")
        }
        Err(error) => Finding::skipped(Check::Current, HOST, error.to_string()),
    }
}

fn announcement(one: &v1::AnnouncedVip) -> Finding {
    let v1::AnnouncedVip { vip, reason, detail, .. } = one;
    let say = |text: &str| format!("{vip} is not announced: {text}");
    let status = "ballast announce status";
    match reason.as_deref() {
        None => match &one.kept {
            None => Finding::ok(Check::Announced, vip, "it is announced"),
            Some(kept) => Finding::warning(Check::Announced, vip, kept).run(["ballast fleet status"]),
        },
        Some("administrator") => {
            Finding::warning(Check::Announced, vip, say("somebody has it off")).run(["ballast announce on"])
        }
        Some("starting") => Finding::warning(Check::Announced, vip, say(detail)).run([status]),
        Some("foreign_route") => Finding::problem(Check::Announced, vip, say(detail))
            .run([format!("ip route show table all {vip}")])
            .advise("let one of both make the route, or give [announce] another `metric` or `table`"),
        Some(_) => Finding::problem(Check::Announced, vip, say(detail))
            .run([status])
            .advise("docs/high-availability.md lists the reasons, and the runbook what to do about each"),
    }
}

/// In the daemon's words: the host's addresses or routes changed after it took the configuration.
fn nat_clash(clash: &str) -> Finding {
    Finding::problem(Check::NatAddresses, HOST, clash)
        .run(["ip address"])
        .advise("give the service another address or port, or [nat] other `addresses` or `ports`, and `ballast reload`")
}

fn attached(interface: &v1::Interface, mode: XdpMode) -> Finding {
    let name = &interface.name;
    if !interface.attached {
        return Finding::problem(
            Check::Attached,
            name,
            "the program does not run there: what arrives is forwarded by nobody",
        )
        .run([format!("ip -details link show {name}"), "journalctl -u ballast -n 50".to_owned()])
        .advise("it is attached again within a second of the interface's return");
    }
    if interface.mode == "generic" && mode != XdpMode::Generic {
        return Finding::warning(Check::Attached, name, "the program runs in generic mode: each packet costs several times as much")
            .run(["systemctl restart ballast"])
            .advise("after mending what the driver refused it for: MTU, LRO (`xdp-native`, `interface-mtu`, `offloads` tell), or with `xdp_mode = \"generic\"` if it is meant");
    }
    Finding::ok(Check::Attached, name, format!("{} mode", interface.mode))
}

fn table(of: Filling, table: v1::FlowTable) -> Finding {
    let (what, limit) = match of {
        Filling::Flows => ("the flow table", "flow_entries"),
        Filling::Nat => ("NAT's table", "nat_flows"),
    };
    let v1::FlowTable { entries, capacity } = table;
    if of.is_alarming(entries, capacity) {
        return Finding::warning(Check::Tables, HOST, format!("{entries} of {capacity} entries of {what} are in use"))
            .advise(format!(
                "a shorter `flow_idle_timeout`, `new_flow_rate` against a flood, or a larger `{limit}` in [limits], which takes `ballast detach` \
                 and a start"
            ));
    }
    Finding::ok(Check::Tables, HOST, format!("{entries} of {capacity} entries of {what} are in use"))
}

/// Reasons that tell of the set-up and not of the senders, between two looks.
pub(in super::super) fn drops(before: &v1::Status, after: &v1::Status) -> Finding {
    let faults = DropReason::ALL.into_iter().filter(|reason| drops::concern(*reason) == Concern::SetUp);
    let rising = faults.filter_map(|reason| {
        let count = |status: &v1::Status| status.drops.get(reason.name()).copied().unwrap_or_default();
        let more = count(after).saturating_sub(count(before));
        (more > 0).then_some((more, reason))
    });
    let Some((more, reason)) = rising.max_by_key(|(more, _)| *more) else {
        return Finding::ok(Check::Drops, HOST, "no packets are being dropped for a fault of the set-up");
    };
    Finding::warning(
        Check::Drops,
        HOST,
        format!(
            "{more} packets were dropped as `{}` while this looked: {}",
            reason.name(),
            drops::meaning(reason)
        ),
    )
    .run(["ballast status"])
    .advise(drops::advice(reason))
}

/// Asks the daemon whether it gets on.
pub(in super::super) fn healthz(address: SocketAddr) -> Healthz {
    let mut address = address;
    // Who listens everywhere is reached at home.
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::other("what answers there is no daemon"))
}

const LIMIT: Duration = Duration::from_secs(2);
const MOST: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::super::finding::Severity, *};
    use crate::dataplane::inspect::PinnedProgram;

    fn status() -> v1::Status {
        serde_json::from_value(serde_json::json!({
            "revision": 1, "ready": true, "interfaces": [], "own_macs": null, "services": [], "drops": {},
            "verdicts": {"tx": 0, "redirect": 0, "pass": 0, "drop": 0}, "packets": 0, "config_error": null,
            "state_error": null, "nat_clashes": [], "flow_table": {"entries": 0, "capacity": 1000},
            "nat_table": {"entries": 0, "capacity": 1000}, "icmp": {}, "resets": 0, "tracked_slots": 0
        }))
        .expect("a status")
    }

    fn unreachable() -> ClientError {
        ClientError::Unreachable { socket: PathBuf::from("/run/s"), source: io::ErrorKind::NotFound.into() }
    }

    fn planned(changes: usize) -> v1::Reload {
        let change = v1::Change { action: "add".into(), object: "service web".into(), detail: String::new() };
        v1::Reload {
            dry_run: true,
            revision: 1,
            changes: vec![change; changes],
            warnings: vec![],
            services: vec![],
        }
    }

    #[test]
    fn a_daemon_runs_gets_on_or_left_its_program_behind() {
        let nothing = Ok(Pinned::default());
        let of =
            |asked: Result<v1::Status, ClientError>,
             pinned: &Result<Pinned, String>,
             healthz: Option<Healthz>| { presence(&asked, pinned, healthz.as_ref()).severity };
        assert_eq!(of(Ok(status()), &nothing, Some(Ok((200, "ok".into())))), Severity::Ok);
        assert_eq!(of(Ok(status()), &nothing, None), Severity::Ok);
        assert_eq!(of(Ok(status()), &nothing, Some(Ok((503, "9 s".into())))), Severity::Problem);
        // The check `metrics` tells of that.
        let silent = Err(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(of(Ok(status()), &nothing, Some(silent)), Severity::Ok);
        assert_eq!(of(Err(unreachable()), &nothing, None), Severity::Ok);
        let left = Pinned { programs: vec![PinnedProgram { ifindex: 2, program: 1 }], ..Pinned::default() };
        assert_eq!(of(Err(unreachable()), &Ok(left.clone()), None), Severity::Warning);
        let held = Pinned { holder: Some(9), ..left };
        assert_eq!(of(Err(unreachable()), &Ok(held), None), Severity::Warning);
    }

    #[test]
    fn what_runs_is_what_the_files_say_or_that_is_told() {
        assert_eq!(current(&status(), Ok(planned(0))).severity, Severity::Ok);
        let edited = current(&status(), Ok(planned(1)));
        assert!(edited.message.contains("1 change that nobody applied"), "{}", edited.message);
        let wrong = v1::Status { config_error: Some("line 3".into()), ..status() };
        assert_eq!(current(&wrong, Ok(planned(0))).severity, Severity::Problem);
        assert_eq!(current(&status(), Err(unreachable())).severity, Severity::Skipped);
        let error = v1::ErrorDetail { kind: "config".into(), message: "line 3".into(), field: None };
        let refused = ClientError::Refused { status: 422, error };
        assert_eq!(current(&status(), Err(refused)).severity, Severity::Problem);
    }

    #[test]
    fn clashes_that_the_daemon_knows_of_are_told() {
        let clashing = v1::Status { nat_clashes: vec!["web and the replies".into()], ..status() };
        let findings = running(&clashing, Ok(planned(0)), XdpMode::Auto);
        let problems: Vec<_> = findings.iter().filter(|found| found.severity == Severity::Problem).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].message, "web and the replies");
    }

    #[test]
    fn generic_mode_is_told_where_native_was_wanted() {
        let interface =
            |mode: &str, attached| v1::Interface { name: "eth0".into(), mode: mode.into(), attached };
        assert_eq!(super::attached(&interface("native", true), XdpMode::Auto).severity, Severity::Ok);
        assert_eq!(super::attached(&interface("generic", true), XdpMode::Auto).severity, Severity::Warning);
        assert_eq!(super::attached(&interface("generic", true), XdpMode::Generic).severity, Severity::Ok);
        assert_eq!(super::attached(&interface("none", false), XdpMode::Auto).severity, Severity::Problem);
    }

    #[test]
    fn tables_that_fill_and_drops_that_rise_are_told() {
        let of = |filling, entries| table(filling, v1::FlowTable { entries, capacity: 1000 }).severity;
        assert_eq!((of(Filling::Flows, 499), of(Filling::Flows, 500)), (Severity::Ok, Severity::Warning));
        assert_eq!((of(Filling::Nat, 799), of(Filling::Nat, 800)), (Severity::Ok, Severity::Warning));
        let dropped = |reason: &str, count| {
            let drops = [(reason.to_owned(), count)].into();
            v1::Status { drops, ..status() }
        };
        assert_eq!(drops(&dropped("no_egress", 5), &dropped("no_egress", 5)).severity, Severity::Ok);
        assert_eq!(drops(&dropped("no_egress", 5), &dropped("no_egress", 6)).severity, Severity::Warning);
        assert_eq!(drops(&dropped("fragment", 5), &dropped("fragment", 6)).severity, Severity::Ok);
    }

    #[test]
    fn a_vip_that_is_not_announced_is_a_problem_unless_somebody_wants_it_so() {
        let of = |reason: Option<&str>| {
            announcement(&v1::AnnouncedVip {
                vip: "203.0.113.10".to_owned(),
                announced: reason.is_none(),
                reason: reason.map(str::to_owned),
                detail: "eth0 has no link".to_owned(),
                kept: None,
                seconds: 1,
                services: Vec::new(),
                packets: 0,
            })
        };
        assert_eq!(of(None).severity, Severity::Ok);
        assert_eq!(of(Some("administrator")).severity, Severity::Warning);
        assert_eq!(of(Some("foreign_route")).severity, Severity::Problem);
        assert!(of(Some("no_carrier")).message.contains("eth0 has no link"));
    }
}

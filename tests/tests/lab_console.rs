//! The command line as people use it: on a terminal, with completions, watching, and by mistake.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{
    Daemon, HttpLoad, HttpLoadSettings, HttpServer, Lab, Service, Terminal, VIP_V4, require_root,
    try_wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const VIP: SocketAddr = SocketAddr::new(VIP_V4, 80);

#[test]
fn top_shows_traffic_and_drains_a_backend_by_a_key() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = serve(&lab)?;
    let mut daemon = start(&lab)?;
    let traffic =
        HttpLoad::start(lab.client(0), VIP, HttpLoadSettings { threads: 1, ..HttpLoadSettings::default() })?;
    let mut top = terminal(&daemon, &["top", "--interval", "200ms"])?;
    top.wait_for("Services (1)", SOON)?;
    top.wait_until("traffic is on the screen", SOON, |text| {
        // SERVICE ADDRESS STATE HEALTHY PKT/S ...
        let row = text.lines().find(|line| line.starts_with("web "));
        let rate = row.and_then(|row| row.split_whitespace().nth(4));
        rate.is_some_and(|rate| rate != "-" && rate != "0")
    })?;

    top.press("\r")?;
    top.wait_for("Service web (2)", SOON)?;
    top.press("/web-2\r")?;
    top.wait_for("Service web (1 of 2)", SOON)?;
    top.press("d")?;
    top.wait_for("Drain backend web/web-2?", SOON)?;
    // Neither Enter nor a no is a yes.
    top.press("\rn")?;
    top.wait_for("nothing changed", SOON)?;
    assert_eq!(admin(&daemon)?, "active");
    // As a paste comes: all at once.
    top.press("dy")?;
    top.wait_for("y again, if it is", SOON)?;
    assert_eq!(admin(&daemon)?, "active");
    yes(&mut top)?;
    try_wait_until("the backend drains", SOON, || admin(&daemon).map(|admin| admin == "draining"))?;
    top.wait_for("backend web/web-2: active -> draining; revision", SOON)?;
    top.wait_until("the drain is on the screen", SOON, |text| {
        text.contains("draining 29") || text.contains("draining 30") || text.contains("drained")
    })?;
    top.press("e")?;
    top.wait_for("Enable backend web/web-2?", SOON)?;
    yes(&mut top)?;
    try_wait_until("the backend is active", SOON, || admin(&daemon).map(|admin| admin == "active"))?;

    top.resize(120, 40)?;
    top.wait_until("all of a larger terminal is used", SOON, |text| {
        text.lines().nth(39).is_some_and(|line| line.starts_with("q quit") || line.starts_with("backend web"))
    })?;

    daemon.kill9()?;
    top.wait_for("NO ANSWER", SOON)?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    top.wait_until("the daemon is back", SOON, |text| !text.contains("NO ANSWER"))?;
    top.press("q")?;
    ensure!(top.wait_exit(SOON)?.success());

    let mut top = terminal(&daemon, &["top"])?;
    top.wait_for("Services (1)", SOON)?;
    top.signal(Signal::SIGTERM)?;
    ensure!(top.wait_exit(SOON)?.success());
    let failed: Vec<_> = traffic.stop().into_iter().filter(|sample| sample.outcome.is_err()).collect();
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}

#[test]
fn watching_redraws_in_place_and_ends_with_ctrl_c() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = serve(&lab)?;
    let daemon = start(&lab)?;
    let mut status = terminal(&daemon, &["status", "--watch=100ms"])?;
    status.wait_for("every 100ms", SOON)?;
    status.wait_until("rates are on the screen", SOON, |text| text.contains("\n0 packets/s: 0 tx"))?;
    daemon.cli_checked(["backend", "disable", "web", "web-2"])?;
    status.wait_for("backend web/web-2: active -> disabled", SOON)?;
    // It is one picture, not a roll of them.
    assert_eq!(status.text().matches("INTERFACE").count(), 1, "{}", status.text());
    status.press("\u{3}")?;
    ensure!(status.wait_exit(SOON)?.success());
    ensure!(status.text().contains("web-1"), "the last picture is gone: {}", status.text());

    for command in
        [&["status"][..], &["service", "list"], &["service", "show", "web"], &["backend", "list", "web"]]
    {
        // Its reader has seen enough after two looks: that ends it, and is no failure.
        let line =
            format!("{} {} --watch=100ms -o json | head -n 2", daemon.binary().display(), command.join(" "));
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail; {line}")]).env("BALLAST_SOCKET", &daemon.files().socket);
        let output = daemon.node().output(&mut shell)?;
        ensure!(output.status.success(), "{line}: {} {}", output.status, output.stderr);
        let looks: Vec<Value> = output.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        assert_eq!(looks.len(), 2, "{line}");
    }
    Ok(())
}

#[test]
fn a_drain_tells_how_far_it_is() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let _servers = serve(&lab)?;
    let daemon = start(&lab)?;
    let drain = ["backend", "drain", "web", "web-1", "--wait", "--timeout", "300ms"];
    let plain = daemon.cli(drain)?;
    assert_eq!(plain.status.code(), Some(5), "{}", plain.stderr);
    let told: Vec<_> =
        plain.stderr.lines().filter(|line| line.starts_with("waiting for drain web/web-1: ")).collect();
    ensure!(told.len() == 1 && told.iter().all(|line| line.contains("s at most")), "{}", plain.stderr);

    let mut bar = terminal(&daemon, &["backend", "drain", "web", "web-1", "--wait"])?;
    bar.wait_until("there is a bar", SOON, |text| {
        text.contains("drain web/web-1") && text.contains("s at most")
    })?;
    daemon.cli_checked(["backend", "enable", "web", "web-1"])?;
    assert_eq!(bar.wait_exit(SOON)?.code(), Some(5), "{}", bar.text());
    bar.wait_for("set to active meanwhile", SOON)?;
    ensure!(!bar.text().contains("s at most"), "the bar is still there: {}", bar.text());
    Ok(())
}

#[test]
fn the_shell_completes_names_that_the_daemon_has() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(2).build()?;
    let daemon = start(&lab)?;
    for (line, expected) in [
        ("ballast sta", "status"),
        ("ballast service show ", "web"),
        ("ballast service show w", "web"),
        ("ballast service show x", ""),
        ("ballast backend drain ", "web"),
        ("ballast backend drain web ", "web-1 web-2"),
        ("ballast backend set web web-2 --we", "--weight"),
        ("ballast backend drain mail w", ""),
        ("ballast --socket /nowhere backend list w", ""),
        ("ballast completions b", "bash"),
    ] {
        assert_eq!(completions(&daemon, line)?, expected, "{line:?}");
    }

    // And as people meet it.
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("PATH", path(&daemon)?).env("PS1", "$ ");
    bash.env("BALLAST_SOCKET", &daemon.files().socket);
    let mut shell = Terminal::start(daemon.node(), &bash)?;
    shell.press("source <(ballast completions bash)\n")?;
    shell.press("ballast backend drain w\t")?;
    shell.wait_for("$ ballast backend drain web ", SOON)?;
    // What both names begin with; then nothing more; then both.
    shell.press("\t\t\t")?;
    shell.wait_for("web-1  web-2", SOON)?;
    // Takes the line back without a signal, which would take what is typed behind it, too.
    shell.press("\u{15}exit\n")?;
    shell.wait_exit(SOON).map(drop)
}

#[test]
fn every_answer_can_be_had_as_json_and_mistakes_are_understood() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(3).build()?;
    let daemon = start(&lab)?;
    let config = daemon.files().config.display().to_string();
    let manual = lab.directory().join("man").display().to_string();
    let other = SocketAddr::new(VIP_V4, 81).to_string();
    let server = SocketAddr::new(lab.backend(2).address(VIP_V4), 80).to_string();
    let commands: &[&[&str]] = &[
        &["check", "--config", &config],
        &["status"],
        &["status", "--ready"],
        &["service", "list"],
        &["service", "show", "web"],
        &["service", "add", "own", &other, "--health-type", "none"],
        &["service", "set", "own", "--slow-start", "5s"],
        &["service", "remove", "own"],
        &["backend", "list", "web"],
        &["backend", "add", "web", "extra", &server],
        &["backend", "set", "web", "extra", "--weight", "2"],
        &["backend", "drain", "web", "extra"],
        &["backend", "enable", "web", "extra"],
        &["backend", "disable", "web", "extra", "--wait"],
        &["backend", "reset", "web", "extra"],
        &["backend", "remove", "web", "extra"],
        &["plan", "--config", &config],
        &["reload", "--dry-run"],
        &["reload"],
        &["man", &manual],
    ];
    for command in commands {
        let printed = daemon.cli_checked(command.iter().copied().chain(["-o", "json"]))?;
        serde_json::from_str::<Value>(&printed).with_context(|| format!("{command:?} printed {printed}"))?;
    }
    for (command, meant) in [
        (&["service", "show", "wbe"][..], "service \"wbe\" does not exist; did you mean \"web\"?"),
        (&["backend", "drain", "web", "web1"], "backend \"web1\" does not exist; did you mean \"web-1\"?"),
        (&["backend", "list", "weeb"], "did you mean \"web\"?"),
    ] {
        let refused = daemon.cli(command.iter().copied())?;
        ensure!(
            refused.status.code() == Some(1) && refused.stderr.contains(meant),
            "{command:?}: {}",
            refused.stderr
        );
    }
    let coloured = daemon.cli(["--color", "always", "service", "list"])?.stdout;
    ensure!(coloured.contains("\u{1b}["), "{coloured:?}");
    let nothing = daemon.cli(["service", "set", "web"])?;
    ensure!(
        nothing.status.code() == Some(2) && nothing.stderr.contains("nothing to set"),
        "{}",
        nothing.stderr
    );
    let top = daemon.cli(["top"])?;
    ensure!(top.status.code() == Some(2) && top.stderr.contains("status --watch"), "{}", top.stderr);
    Ok(())
}

/// A daemon with the service "web" and its backends "web-1" and "web-2".
fn start(lab: &Lab) -> Result<Daemon> {
    let at = |index: usize| SocketAddr::new(lab.backend(index).address(VIP_V4), 80);
    let service = Service::new("web", VIP, "tcp", "l2-dsr")
        .line("algorithm = \"flow-hash\"")
        .backend("web-1", at(0), 1)
        .backend("web-2", at(1), 1);
    Daemon::start(lab, 0, &service.toml())
}

fn serve(lab: &Lab) -> Result<Vec<HttpServer>> {
    lab.backends().map(|backend| HttpServer::start(backend, &[80])).collect()
}

/// `ballast` on a terminal.
fn terminal(daemon: &Daemon, arguments: &[&str]) -> Result<Terminal> {
    let mut command = Command::new(daemon.binary());
    command.args(arguments).env("BALLAST_SOCKET", &daemon.files().socket).env_remove("NO_COLOR");
    Terminal::start(daemon.node(), &command)
}

/// Answers the question that `top` asks, as somebody does who has read it.
fn yes(top: &mut Terminal) -> Result<()> {
    std::thread::sleep(Duration::from_millis(300));
    top.press("y")
}

fn admin(daemon: &Daemon) -> Result<String> {
    let printed = daemon.cli_checked(["backend", "list", "web", "-o", "json"])?;
    let backends: Value = serde_json::from_str(&printed)?;
    Ok(backends[1]["admin"].as_str().context("admin")?.to_owned())
}

/// Where the shell finds the program under test.
fn path(daemon: &Daemon) -> Result<String> {
    let directory = daemon.binary().parent().context("the program is in a directory")?;
    Ok(format!("{}:{}", directory.display(), std::env::var("PATH")?))
}

/// What bash would offer at the end of a line, separated by spaces.
fn completions(daemon: &Daemon, line: &str) -> Result<String> {
    let script = r#"
source <(ballast completions bash)
function=$(complete -p ballast | sed 's/.* -F \([^ ]*\) .*/\1/')
read -r -a COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )) COMP_TYPE=9 COMP_LINE=$1 COMP_POINT=${#1}
"$function" ballast "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[@]}"
"#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", script, "bash", line]).env("PATH", path(daemon)?);
    bash.env("BALLAST_SOCKET", &daemon.files().socket);
    let output = daemon.node().output(&mut bash)?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{line}: {}", output.stderr);
    Ok(output.stdout.trim().to_owned())
}

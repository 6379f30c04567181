//! `ballast doctor`.

use std::{fmt::Write, net::IpAddr, path::PathBuf};

use clap::Args;

use super::{
    ConfigFile, Format,
    exit::Failure,
    output::{self, Style, plain},
};
use crate::{
    config,
    doctor::{self, Finding, Options, Report, Severity},
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    file: ConfigFile,
    /// Show what is all right, too
    #[arg(short, long)]
    verbose: bool,
    /// Ask nobody on the wire; only the kernel asks for the MAC addresses of backends
    #[arg(long)]
    no_probes: bool,
    /// Address of a client, to see whether answers of dnat's backends to it come back here; may be given more often
    #[arg(long = "client", value_name = "ADDRESS")]
    clients: Vec<IpAddr>,
}

pub(super) fn run(doctor: Doctor, socket: PathBuf, format: Format) -> Result<(), Failure> {
    // Who names none means the one that the configuration names.
    let socket = Some(socket).filter(|socket| socket.as_os_str() != config::DEFAULT_SOCKET);
    let options =
        Options { config: doctor.file.config, socket, probes: !doctor.no_probes, clients: doctor.clients };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(error.into()))?;
    let report = runtime.block_on(doctor::examine(&options));
    output::print(format, &report, |report, style| render(report, doctor.verbose, style))?;
    match report.problems {
        0 => Ok(()),
        count => Err(Failure::Found(output::counted(count, "problem"))),
    }
}

fn render(report: &Report, verbose: bool, style: Style) -> String {
    let mut text = String::new();
    for finding in report.findings.iter().filter(|finding| verbose || finding.severity != Severity::Ok) {
        show(&mut text, finding, style);
    }
    let counts = [
        output::counted(report.problems, "problem"),
        output::counted(report.warnings, "warning"),
        format!("{} skipped", report.skipped),
        format!("{} ok", report.ok),
    ];
    text.push_str(&counts.join(", "));
    text
}

/// Writing to a string does not fail.
fn show(text: &mut String, finding: &Finding, style: Style) {
    let word = match finding.severity {
        Severity::Problem => output::loud("PROBLEM", style),
        severity => severity.as_str().to_owned(),
    };
    let mut lines = finding.message.lines().map(plain);
    let first = lines.next().unwrap_or_default();
    let _ = writeln!(text, "{word} {} {}: {first}", finding.check.as_str(), plain(&finding.subject));
    for line in lines {
        let _ = writeln!(text, "    {line}");
    }
    if let Some(fix) = &finding.fix {
        let on = fix.host.as_ref().map(|host| format!(" on {}", plain(host))).unwrap_or_default();
        let _ = writeln!(text, "  fix{on}:");
        for command in &fix.commands {
            let _ = writeln!(text, "    {}", plain(command));
        }
        if let Some(advice) = &fix.advice {
            let _ = writeln!(text, "    # {}", plain(advice));
        }
    }
    if finding.severity != Severity::Ok {
        text.push('\n');
    }
}

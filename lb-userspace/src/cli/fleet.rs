//! `ballast fleet`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde::Serialize;

use super::{
    ConfigFile, Format,
    exit::Failure,
    output::{self, Grid, Rating, Style, cell, counted, plain, rated},
    watch::{self, Watch, Watched},
};
use crate::{
    api::{client::Client, v1},
    config::{self, FleetConfig, ServiceShape},
    console::news::Notice,
    fleet::{Imported, export, import, kept::KeptFleet},
};

#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// Show the members, and which of them lag behind or differ
    Status(Watch),
    /// Put the services of a file into the fleet; asks etcd and no daemon
    Import {
        /// The file; only its [[service]] are looked at
        #[arg(value_name = "FILE")]
        services: PathBuf,
        /// Services that the fleet has already become what the file says, and what was set over their backends is taken back
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the services of the fleet as a file, secrets included; asks etcd and no daemon
    Export {
        #[command(flatten)]
        file: ConfigFile,
    },
}

pub(super) async fn status(client: &Client, watch: Watch, format: Format) -> Result<(), Failure> {
    watch::show(watch, format, async || client.fleet().await).await
}

impl Watched for v1::Fleet {
    fn render(&self, _: Option<(&Self, std::time::Duration)>, _: bool, style: Style) -> String {
        render(self, style)
    }

    fn news(&self, _: &Self) -> Vec<Notice> {
        Vec::new()
    }
}

pub(super) fn render(fleet: &v1::Fleet, style: Style) -> String {
    let v1::Fleet { member, revision, live_revision, since_seconds, .. } = fleet;
    let mut text = match &fleet.endpoint {
        Some(endpoint) => format!("{member}: connected to {endpoint} for {since_seconds} s\n"),
        None => format!("{member}: CUT OFF from etcd for {since_seconds} s\n"),
    };
    let live = match revision == live_revision {
        true => "live here".to_owned(),
        false => format!("NOT live here, revision {live_revision} is"),
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "services under {} at revision {revision} of etcd, {live}", fleet.prefix);
    if let Some(trouble) = &fleet.trouble {
        let _ = writeln!(text, "\n{}:\n{}", output::loud("TROUBLE", style), lines(trouble));
    }
    if let Some(why) = &fleet.unheard {
        let _ = writeln!(
            text,
            "\n{}:\n{}",
            output::loud("THE OTHERS DON'T HEAR OF THIS MEMBER", style),
            lines(why)
        );
    }
    text += &withdrawals(&fleet.withdrawals, style);
    for v1::RefusedDocument { key, revision, why, goes_on } in &fleet.refused {
        let what = format!("{key} OF REVISION {revision} IS REFUSED");
        let instead = if *goes_on { "what it said before goes on" } else { "nothing of it runs" };
        let _ = writeln!(text, "\n{}, {instead}:\n{}", output::loud(&what, style), lines(why));
    }
    let mut grid = Grid::new(style, &["MEMBER", "VERSION", ">REVISION", "READY", "TABLES", "KEY", "~REMARK"]);
    for one in &fleet.members {
        let (name, rating) =
            (one.name == *member, if one.marks.is_empty() { Rating::Good } else { Rating::Bad });
        grid.row([
            cell(format!("{}{}", one.name, if name { " (here)" } else { "" })),
            cell(&one.version),
            cell(one.revision),
            if one.ready { rated("yes", Rating::Good) } else { rated("no", Rating::Bad) },
            cell(&one.tables),
            cell(one.key.as_deref().unwrap_or("-")),
            rated(if one.remark.is_empty() { "ok" } else { &one.remark }, rating),
        ]);
    }
    if !fleet.connected && !fleet.members.is_empty() {
        text.push_str("\nthe members as etcd had them then:\n");
    }
    let _ = match fleet.members.is_empty() {
        true => writeln!(text, "\nno members are known"),
        false => writeln!(text, "\n{}", grid.render()),
    };
    for one in &fleet.members {
        if let Some(trouble) = one.trouble.as_ref().filter(|_| one.name != *member) {
            let _ = writeln!(text, "{}: {}", one.name, lines(trouble));
        }
    }
    text
}

/// Nothing where nobody withdraws, or wants to.
fn withdrawals(of: &v1::FleetWithdrawals, style: Style) -> String {
    let v1::FleetWithdrawals { limit, members, refused, .. } = of;
    let mut text = String::new();
    if !members.is_empty() {
        let names = members.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "\nwithdrawn for want of backends: {names} ({limit} may be at once)");
    }
    if let Some(why) = refused {
        let what = output::loud("BACKENDS ARE MISSING HERE, AND NOTHING IS WITHDRAWN", style);
        let _ = writeln!(text, "\n{what}:\n{}", lines(why));
    }
    text
}

fn lines(text: &str) -> String {
    text.lines().map(output::plain).collect::<Vec<_>>().join("\n")
}

pub(super) async fn put(
    services: &Path,
    replace: bool,
    config: &Path,
    format: Format,
) -> Result<(), Failure> {
    let settings = settings(config)?;
    let read = config::services_of(services).map_err(Failure::Config)?;
    if read.is_empty() {
        return Err(Failure::Failed(anyhow!("{} has no [[service]]", services.display())));
    }
    let prefix = settings.prefix.clone();
    // Of a host that was a member: what it brings back is what the others know.
    let known = KeptFleet::of_host(config, &settings).and_then(|book| book.id().map(str::to_owned));
    let done = import(settings, read, replace, known).await.map_err(|error| Failure::Failed(error.into()))?;
    let names = |names: &[crate::domain::Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let Imported { added, replaced, same } = &done;
    let printed = Printed { added: names(added), replaced: names(replaced), same: names(same) };
    Ok(output::print(format, &printed, |printed, _| {
        let Printed { added, replaced, same } = printed;
        let mut parts = Vec::new();
        for (what, names) in [("added", added), ("replaced", replaced), ("there already", same)] {
            if !names.is_empty() {
                parts.push(format!("{what}: {}", names.join(", ")));
            }
        }
        let count = added.len() + replaced.len();
        format!("{}\n{} changed under {prefix}", parts.join("\n"), counted(count, "service"))
    })?)
}

pub(super) async fn get(config: &Path, format: Format) -> Result<(), Failure> {
    let (documents, refused) =
        export(settings(config)?).await.map_err(|error| Failure::Failed(error.into()))?;
    for why in &refused {
        output::complain(&format!("left out: {why}"));
    }
    let with_overrides = documents.iter().filter(|document| !document.overrides.is_empty());
    for document in with_overrides {
        let names: Vec<_> = document.overrides.keys().map(ToString::to_string).collect();
        output::complain(&format!(
            "left out: what was set over backends of service {}: {}",
            document.service.name,
            names.join(", ")
        ));
    }
    let services = documents.iter().map(|document| ServiceShape::from(&document.service)).collect();
    let exported = Exported { service: services };
    let text = toml::to_string(&exported).context("the services can't be written as TOML")?;
    Ok(output::print(format, &exported, |_, _| text)?)
}

/// The fleet of a configuration, whatever else is in it: services may still stand beside it.
fn settings(config: &Path) -> Result<FleetConfig, Failure> {
    let fleet = config::fleet_of(config).map_err(Failure::Config)?;
    fleet.ok_or_else(|| {
        Failure::Failed(anyhow!(
            "{} has no [fleet]: name a configuration that has with --config",
            config.display()
        ))
    })
}

/// What `import -o json` prints.
#[derive(Serialize)]
struct Printed {
    added: Vec<String>,
    replaced: Vec<String>,
    same: Vec<String>,
}

#[derive(Serialize)]
struct Exported {
    service: Vec<ServiceShape>,
}

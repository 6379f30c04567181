//! `ballast keepalived`: prints keepalived's configuration for this host.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::{ConfigFile, Format, exit::Failure, output};
use crate::{
    config,
    domain::Service,
    fleet::kept::KeptFleet,
    keepalived::{Pair, Unfit},
};

/// What the other host is, and who of both comes first.
#[derive(Debug, Args)]
pub(super) struct Keepalived {
    #[command(flatten)]
    file: ConfigFile,
    /// The other host's address, of the same network
    #[arg(long, value_name = "ADDRESS")]
    peer: IpAddr,
    /// This host's address that the other one's `--peer` names [default: the interface's first]
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Where the VIPs go [default: the first of `interfaces` in the configuration; the others have to have a link]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Number of the pair, the same on both hosts and no other pair's on the network
    #[arg(long, value_name = "N", default_value_t = 51, value_parser = clap::value_parser!(u8).range(1..))]
    router_id: u8,
    /// Who holds the VIPs where both might: the higher one
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=254))]
    priority: u8,
    /// Between two signs of life; after three that are missing the other host takes over
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = advert)]
    advert: Duration,
    /// Take the VIPs back when this host, of higher priority, has been well for so long; without it they stay where they are
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    preempt_delay: Option<Duration>,
    /// A program that keepalived tells of every change; /usr/share/ballast/keepalived/notify writes them to the system's log
    #[arg(long, value_name = "PATH")]
    notify: Option<PathBuf>,
    /// The program that says whether this host is ready
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/ballast")]
    program: PathBuf,
}

/// Those of the file, or the ones that this member of a fleet had live last.
fn services(path: &Path, of_file: Vec<Service>) -> Result<Vec<Service>, Failure> {
    let Some(settings) = config::fleet_of(path).map_err(Failure::Config)? else { return Ok(of_file) };
    let Some(book) = KeptFleet::of_host(path, &settings) else {
        return Err(Failure::Failed(anyhow!(
            "what services the fleet has is not known here: start the daemon once, so that it asks etcd"
        )));
    };
    Ok(book.declared().services.into_values().collect())
}

pub(super) fn run(command: Keepalived, format: Format) -> Result<(), Failure> {
    let config = config::load(&command.file.config).map_err(Failure::Config)?;
    let mut interfaces = config.daemon.interfaces;
    let interface = command.interface.unwrap_or_else(|| interfaces.first().cloned().unwrap_or_default());
    interfaces.retain(|name| *name != interface);
    let mut ready = vec![command.program.display().to_string(), "status".to_owned(), "--ready".to_owned()];
    ready.extend(["--pinned".to_owned(), config.daemon.pin_dir.display().to_string()]);
    ready.extend(["--socket".to_owned(), config.daemon.socket.display().to_string()]);
    let services = services(&command.file.config, config.services)?;
    let every_port = services.iter().find(|service| service.vip.port.is_none());
    if let Some(service) = every_port {
        output::complain(&format!(
            "warning: service {} is on every port of {}: while this host holds the address the service is refused, because it would \
             take the host's own traffic; give it a port",
            service.name, service.vip.address
        ));
    }
    let vips: BTreeSet<_> = services.iter().map(|service| service.vip.address).collect();
    let pair = Pair {
        vips,
        interface,
        tracked: interfaces,
        own: command.source,
        peer: command.peer,
        router_id: command.router_id,
        priority: command.priority,
        advert: command.advert,
        preempt_delay: command.preempt_delay,
        ready,
        notify: command.notify,
    };
    let text = pair.render().map_err(|unfit: Unfit| Failure::Failed(unfit.into()))?;
    Ok(output::print(format, &Printed { keepalived: text }, |printed, _| printed.keepalived.clone())?)
}

/// What `keepalived -o json` prints.
#[derive(Serialize)]
struct Printed {
    /// The text of keepalived.conf.
    keepalived: String,
}

/// In steps that VRRP has.
fn advert(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let steps = time.as_millis() % 10 == 0;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(10)).contains(&time);
    if steps && fits { Ok(time) } else { Err("a time from 100ms to 10s, in steps of 10ms".to_owned()) }
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = time.subsec_nanos() == 0 && time <= Duration::from_secs(1000);
    if fits { Ok(time) } else { Err("whole seconds up to 1000s".to_owned()) }
}

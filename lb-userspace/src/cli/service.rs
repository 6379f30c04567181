use std::time::Duration;

use super::{
    Format, backend,
    exit::Failure,
    output::{Grid, Rating, Style, cell, plain, rated},
    traffic,
    watch::{self, Watch, Watched},
};
use crate::{
    api::{client::Client, v1},
    console::{
        news::{self, Notice},
        rates::{self, ServiceRates},
    },
    domain::Name,
};

pub(super) async fn list(client: &Client, watch: Watch, format: Format) -> Result<(), Failure> {
    watch::show(watch, format, async || client.services().await).await
}

pub(super) async fn show(client: &Client, name: &Name, watch: Watch, format: Format) -> Result<(), Failure> {
    watch::show(watch, format, async || client.service(name).await).await
}

impl Watched for Vec<v1::Service> {
    fn render(&self, before: Option<(&Self, Duration)>, watched: bool, style: Style) -> String {
        let rates = before.map(|(before, elapsed)| rates::of_services(before, self, elapsed));
        render_list(self, watched.then(|| rates.as_deref().unwrap_or_default()), style)
    }

    fn news(&self, before: &Self) -> Vec<Notice> {
        news::of_services(before, self)
    }
}

impl Watched for v1::Service {
    fn render(&self, before: Option<(&Self, Duration)>, watched: bool, style: Style) -> String {
        let rates = before.map(|(before, elapsed)| rates::of_service(before, self, elapsed));
        render(self, watched.then(|| rates.unwrap_or_default()).as_ref(), style)
    }

    fn news(&self, before: &Self) -> Vec<Notice> {
        news::of_service(before, self)
    }
}

pub(super) fn render_list(services: &[v1::Service], rates: Option<&[ServiceRates]>, style: Style) -> String {
    if services.is_empty() {
        return "no services".to_owned();
    }
    let [packets, bytes, new_flows] = traffic::headings(rates.is_some());
    let headings =
        ["SERVICE", "ADDRESS", "FORWARDING", "ALGORITHM", "STATE", ">BACKENDS", packets, bytes, new_flows];
    let mut grid = Grid::new(style, &headings).expendable(&EXPENDABLE);
    for (at, service) in services.iter().enumerate() {
        let v1::Service { packets, bytes, new_flows, .. } = service;
        let healthy = service.backends.iter().filter(|backend| backend.health == "healthy").count();
        let mut row = vec![
            cell(&service.name),
            cell(endpoint(service)),
            cell(&service.forwarding),
            cell(&service.algorithm),
            rated(&service.state, Rating::of(&service.state)),
            cell(format!("{healthy}/{} healthy", service.backends.len())),
        ];
        let rate = rates.map(|rates| rates.get(at).and_then(|rates| rates.rate));
        row.extend(traffic::cells(*packets, *bytes, *new_flows, rate));
        grid.row(row);
    }
    grid.render()
}

pub(super) fn render(service: &v1::Service, rates: Option<&ServiceRates>, style: Style) -> String {
    let mut grid = Grid::new(style, &["SERVICE", &service.name]).wrapping();
    grid.row([cell("address"), cell(endpoint(service))]);
    grid.row([cell("forwarding"), cell(&service.forwarding)]);
    grid.row([cell("algorithm"), cell(&service.algorithm)]);
    for (name, value) in settings(&service.settings) {
        grid.row([cell(name), cell(value)]);
    }
    grid.row([cell("state"), rated(&service.state, Rating::of(&service.state))]);
    grid.row([cell("packets"), cell(service.packets)]);
    grid.row([cell("bytes"), cell(service.bytes)]);
    grid.row([cell("new flows"), cell(backend::count(service.new_flows))]);
    if let Some(rates) = rates {
        let [packets, bits, new_flows] = traffic::cells(0, 0, None, Some(rates.rate));
        grid.row([cell("packets/s"), packets]);
        grid.row([cell("bits/s"), bits]);
        grid.row([cell("new flows/s"), new_flows]);
    }
    if let (Some(packets), Some(bytes)) = (service.reply_packets, service.reply_bytes) {
        grid.row([cell("reply packets"), cell(packets)]);
        grid.row([cell("reply bytes"), cell(bytes)]);
    }
    grid.row([cell("fingerprint"), cell(&service.fingerprint)]);
    grid.row([cell("origin"), cell(origin(&service.origin))]);
    for of in &service.discovery {
        grid.row([cell("backends from"), cell(lookup(of))]);
        for line in of.trouble.iter().flat_map(|trouble| trouble.lines()) {
            grid.row([cell(""), rated(plain(line), Rating::Bad)]);
        }
        for v1::LeftOut { name, address, why } in &of.left_out {
            grid.row([
                cell(""),
                rated(plain(&format!("{name} at {address} is left out: {why}")), Rating::Doubtful),
            ]);
        }
    }
    format!(
        "{}\n{}",
        grid.render(),
        backend::render(&service.backends, &service.leaving, rates.map(|rates| &*rates.backends), style)
    )
}

/// Those that were told, as `service set` and the configuration file name them.
fn settings(settings: &v1::ServiceSettings) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let mut row = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    row("table size", settings.table_size.map(|size| size.to_string()));
    row("panic threshold", settings.panic_threshold.filter(|part| *part > 0.0).map(|part| part.to_string()));
    row(
        "on panic",
        settings.on_panic.clone().filter(|_| settings.panic_threshold.is_some_and(|part| part > 0.0)),
    );
    row("on all down", settings.on_all_down.clone());
    row("slow start", settings.slow_start.clone().filter(|time| time != "0s"));
    row("withdraw below", settings.withdraw_below.filter(|least| *least > 0).map(|least| least.to_string()));
    row("tracking", settings.tracking.clone());
    row("flow idle timeout", settings.flow_idle_timeout.clone());
    row("unhealthy grace", settings.unhealthy_grace.clone());
    row("drain timeout", settings.drain_timeout.clone());
    let list = |prefixes: &Option<Vec<String>>| {
        prefixes.as_ref().filter(|all| !all.is_empty()).map(|all| all.join(", "))
    };
    row("allow", list(&settings.allow));
    row("deny", list(&settings.deny));
    let rate = settings.new_flow_rate.filter(|rate| *rate != 0);
    row("new flow rate", rate.map(|rate| format!("{rate} a second")));
    row("health check", settings.health.as_ref().map(check));
    rows
}

/// `dns web.example.org:80: 3 found, 12 s ago`.
fn lookup(of: &v1::Discovery) -> String {
    let v1::Discovery { kind, source, backends, answered, age_seconds, .. } = of;
    let when = match (answered, backends) {
        (true, _) => format!("{age_seconds} s ago"),
        (false, 0) => "no answer yet".to_owned(),
        (false, _) => "before the daemon started, and no answer since".to_owned(),
    };
    format!("{kind} {}: {backends} found, {when}", plain(source))
}

/// `http /healthz via vip every 2s`.
fn check(health: &v1::HealthSettings) -> String {
    let kind = health.kind.as_deref().unwrap_or_default();
    if kind == "none" {
        return kind.to_owned();
    }
    let port = health.port.map(|port| format!("port {port}"));
    let every = health.interval.as_ref().map(|interval| format!("every {interval}"));
    let via = health.via.as_ref().map(|via| format!("via {via}"));
    let parts = [Some(kind.to_owned()), health.path.clone(), port, via, every];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Where an object comes from.
pub(super) fn origin(origin: &v1::Origin) -> String {
    match origin {
        v1::Origin::File { file, line } | v1::Origin::Watched { file, line } => {
            format!("{}:{line}", plain(file))
        }
        v1::Origin::Cli => "cli".to_owned(),
        v1::Origin::Fleet => "fleet".to_owned(),
        v1::Origin::Dns { name } => format!("dns {}", plain(name)),
    }
}

/// What a narrow terminal does without, the first first.
const EXPENDABLE: [&str; 8] =
    ["NEW FLOWS", "NEW FLOWS/S", "BYTES", "BITS/S", "ALGORITHM", "FORWARDING", "PACKETS", "PACKETS/S"];

/// `203.0.113.10:80/tcp`.
pub(super) fn endpoint(service: &v1::Service) -> String {
    format!("{}/{}", service.address, service.protocol)
}

use super::{
    Format, backend,
    exit::Failure,
    output::{self, Grid, Rating, Style, cell, plain, rated},
};
use crate::{
    api::{client::Client, v1},
    domain::Name,
};

pub(super) async fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let services = client.services().await?;
    Ok(output::print(format, &services, |services, style| render_list(services, style))?)
}

pub(super) async fn show(client: &Client, name: &Name, format: Format) -> Result<(), Failure> {
    let service = client.service(name).await?;
    Ok(output::print(format, &service, render)?)
}

pub(super) fn render_list(services: &[v1::Service], style: Style) -> String {
    if services.is_empty() {
        return "no services".to_owned();
    }
    let headings =
        ["SERVICE", "ADDRESS", "FORWARDING", "ALGORITHM", "STATE", ">BACKENDS", ">PACKETS", ">BYTES"];
    let mut grid = Grid::new(style, &headings);
    for service in services {
        let healthy = service.backends.iter().filter(|backend| backend.health == "healthy").count();
        grid.row([
            cell(&service.name),
            cell(endpoint(service)),
            cell(&service.forwarding),
            cell(&service.algorithm),
            rated(&service.state, Rating::of(&service.state)),
            cell(format!("{healthy}/{} healthy", service.backends.len())),
            cell(service.packets),
            cell(service.bytes),
        ]);
    }
    grid.render()
}

pub(super) fn render(service: &v1::Service, style: Style) -> String {
    let mut grid = Grid::new(style, &["SERVICE", &service.name]);
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
    format!("{}\n{}", grid.render(), backend::render(&service.backends, &service.leaving, style))
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
        v1::Origin::Dns { name } => format!("dns {}", plain(name)),
    }
}

/// `203.0.113.10:80/tcp`.
pub(super) fn endpoint(service: &v1::Service) -> String {
    format!("{}/{}", service.address, service.protocol)
}

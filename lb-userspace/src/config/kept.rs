//! The state file: what was made over the API and what was found last, in the shape of the configuration file.

use std::{collections::BTreeMap, hash::Hasher as _, path::PathBuf, sync::Arc};

use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::{
    check,
    diagnostic::Diagnostics,
    discovery,
    report::{At, Report, Source, Wrong},
    service,
    shape::{BackendShape, ServiceShape, UNLIMITED, made_here},
    table::Table,
    values,
};
use crate::domain::{Admin, AnnounceOff, Backend, Kept, Name, Origin, Override, Source as Lookup};

/// The text of the state file.
pub fn write(kept: &Kept) -> Result<String, toml::ser::Error> {
    let service = kept.services.values().map(Into::into).collect();
    let mut document = Document { service, ..Document::default() };
    for (service, backends) in &kept.backends {
        document.backend.extend(backends.values().map(|backend| {
            let BackendShape { name, address, weight, backup } = backend.into();
            AddedBackend { service: service.to_string(), name, address, weight, backup }
        }));
    }
    for (service, overrides) in &kept.overrides {
        document.r#override.extend(overrides.iter().map(|(backend, over)| WrittenOverride {
            service: service.to_string(),
            backend: backend.to_string(),
            weight: over.weight,
            admin: over.admin.map(Admin::as_str),
        }));
    }
    for (service, sources) in &kept.found {
        for (source, backends) in sources {
            let of = backends.values().map(|backend| FoundBackend::new(service, source, backend));
            document.found.extend(of);
        }
    }
    document.announce = WrittenAnnounce::of(&kept.announce_off);
    let body = toml::to_string(&document)?;
    Ok(format!("{COMMENT}version = {VERSION}\nchecksum = \"{:016x}\"\n\n{body}", checksum(&body)))
}

/// What the text of the state file says.
///
/// # Errors
///
/// Everything found wrong. A file that is not whole, or not as it was written, is wrong.
pub fn read(path: PathBuf, text: String) -> Result<Kept, Diagnostics> {
    let sources = [Source::new(path, text)];
    let source = &sources[0];
    let mut report = Report::new(&sources);
    let document = source.document(0, &mut report);
    report.stop_at_errors()?;
    let mut table = Table::document(0, &document);
    read_header(&mut table, source.text(), &mut report);
    // Of another version nothing else can be judged.
    report.stop_at_errors()?;
    let services = service::read_all(&mut table, &mut report);
    check::services(&services, UNLIMITED, &mut report);
    let mut kept = Kept::default();
    for backend in table.tables("backend", "[[backend]]", &mut report) {
        if let Some((service, backend)) = read_backend(backend, &mut report) {
            kept.backends.entry(service).or_default().insert(backend.name.clone(), backend);
        }
    }
    for mut over in table.tables("override", "[[override]]", &mut report) {
        let service = name_under("service", &mut over, &mut report);
        if let (Some(service), Some((backend, over))) = (service, read_override(over, &mut report)) {
            kept.set_over(&service.value, &backend, over);
        }
    }
    for found in table.tables("found", "[[found]]", &mut report) {
        if let Some((service, source, backend)) = read_found(found, &mut report) {
            let of = kept.found.entry(service).or_default().entry(source).or_default();
            Arc::make_mut(of).insert(backend.name.clone(), backend);
        }
    }
    if let Some(mut off) = table.table("announce", "[announce]", &mut report) {
        kept.announce_off.all =
            off.get("off").and_then(|item| item.boolean(&mut report)).is_some_and(|off| off.value);
        if let Some(item) = off.get("off_vips") {
            let vips = item.array("such as [\"203.0.113.10\"]", &mut report);
            let vips = vips.iter().filter_map(|vip| vip.parse(&mut report, values::address));
            kept.announce_off.vips = vips.map(|vip| vip.value).collect();
        }
        off.finish(&mut report);
    }
    table.finish(&mut report);
    report.finish()?;
    let services = services.into_iter().filter_map(|service| service.into_domain(&sources)).map(made_here);
    kept.services = services.map(|service| (service.name.clone(), service)).collect::<BTreeMap<_, _>>();
    Ok(kept)
}

fn read_header(table: &mut Table<'_>, text: &str, report: &mut Report<'_>) {
    let version = |version: i128| (version == i128::from(VERSION)).then_some(());
    let Some(item) = table.require("version", report) else { return };
    if item.integer_as(&format!("{VERSION} is the version this daemon reads"), version, report).is_none() {
        return;
    }
    let Some(item) = table.require("checksum", report) else { return };
    let Some(told) = item.text(report) else { return };
    let body = text.split_once("\n\n").map_or("", |(_, body)| body);
    if told != format!("{:016x}", checksum(body)) {
        let message = "the file is not as it was written";
        report.error(item.place, Wrong::new(message, "this is the checksum of something else"));
    }
}

fn read_backend(mut table: Table<'_>, report: &mut Report<'_>) -> Option<(Name, Backend)> {
    let service = name_under("service", &mut table, report);
    let backend = service::read_backend(table, report).into_domain(Origin::Cli);
    Some((service?.value, backend?))
}

fn read_found(mut table: Table<'_>, report: &mut Report<'_>) -> Option<(Name, Lookup, Backend)> {
    let service = name_under("service", &mut table, report);
    let file = table.get("file").map(|item| item.parse(report, values::path));
    let (origin, source) = match file {
        Some(file) => {
            let path = Arc::new(file?.value);
            let line = match table.get("line") {
                Some(item) => item.integer(1, u32::MAX, report)?.value,
                None => 1,
            };
            (Origin::Watched { path: Arc::clone(&path), line }, Lookup::File(path))
        }
        None => {
            let name = |key: &str, text: &str| discovery::dns_name(key, text, 0);
            let name = table.require("dns", report)?.parse(report, name)?.value;
            (Origin::Dns(name.clone()), Lookup::Dns(name))
        }
    };
    let backend = service::read_backend(table, report).into_domain(origin);
    Some((service?.value, source, backend?))
}

/// What is set over a backend of a service that is known.
pub(super) fn read_override(mut table: Table<'_>, report: &mut Report<'_>) -> Option<(Name, Override)> {
    let backend = name_under("backend", &mut table, report);
    let weight = table.get("weight").map(|item| item.integer(0, u32::from(u16::MAX), report));
    let admin = values::choice(&Admin::ALL, Admin::as_str);
    let admin = table.get("admin").map(|item| item.parse(report, admin));
    table.finish(report);
    let weight = match weight {
        Some(weight) => Some(u16::try_from(weight?.value).ok()?),
        None => None,
    };
    let admin = match admin {
        Some(admin) => Some(admin?.value),
        None => None,
    };
    Some((backend?.value, Override { weight, admin }))
}

fn name_under(key: &'static str, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<At<Name>> {
    table.require(key, report)?.parse(report, values::name)
}

fn checksum(body: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(body.as_bytes());
    hasher.finish()
}

#[derive(Default, Serialize)]
struct Document {
    service: Vec<ServiceShape>,
    backend: Vec<AddedBackend>,
    r#override: Vec<WrittenOverride>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found: Vec<FoundBackend>,
    #[serde(skip_serializing_if = "Option::is_none")]
    announce: Option<WrittenAnnounce>,
}

/// VIPs that were taken off the network.
#[derive(Serialize)]
struct WrittenAnnounce {
    off: bool,
    off_vips: Vec<String>,
}

impl WrittenAnnounce {
    fn of(off: &AnnounceOff) -> Option<Self> {
        let off_vips = off.vips.iter().map(ToString::to_string).collect();
        (!off.is_empty()).then_some(Self { off: off.all, off_vips })
    }
}

/// A backend of a service that the configuration file declares.
#[derive(Serialize)]
struct AddedBackend {
    service: String,
    name: Option<String>,
    address: Option<String>,
    weight: Option<i64>,
    backup: Option<bool>,
}

/// A backend of the last good answer of a source.
#[derive(Serialize)]
struct FoundBackend {
    service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<String>,
    name: Option<String>,
    address: Option<String>,
    weight: Option<i64>,
    backup: Option<bool>,
}

impl FoundBackend {
    fn new(service: &Name, source: &Lookup, backend: &Backend) -> Self {
        let BackendShape { name, address, weight, backup } = backend.into();
        let (file, dns) = match source {
            Lookup::File(path) => (Some(path.display().to_string()), None),
            Lookup::Dns(name) => (None, Some(name.to_string())),
        };
        let line = match backend.origin {
            Origin::Watched { line, .. } => Some(line),
            _ => None,
        };
        Self { service: service.to_string(), file, line, dns, name, address, weight, backup }
    }
}

#[derive(Serialize)]
struct WrittenOverride {
    service: String,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<&'static str>,
}

const COMMENT: &str = "# Kept by the daemon: what `ballast service`, `ballast backend` and `ballast announce` made and changed, and what was found last.\n\
                       # Use those commands; an edited file is set aside.\n";
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{name, service};

    fn example() -> Kept {
        let mut kept = Kept::default();
        let own = made_here(service("own", &[("a", 2), ("b", 0)]));
        let added = Backend { name: name("extra"), backup: true, ..own.backends["a"].clone() };
        kept.services.insert(own.name.clone(), own);
        kept.backends.entry(name("web")).or_default().insert(name("extra"), added);
        kept.set_over(&name("web"), &name("x"), Override { weight: Some(9), admin: Some(Admin::Draining) });
        kept.set_over(&name("own"), &name("a"), Override { weight: None, admin: Some(Admin::Disabled) });
        let host = crate::domain::DnsName { host: "web.example.org".into(), port: 80 };
        let path = Arc::new(PathBuf::from("/run/web.toml"));
        let [a, b] = ["a", "b"].map(|backend| kept.services[&name("own")].backends[backend].clone());
        let of_dns = Backend { origin: Origin::Dns(host.clone()), ..a };
        let of_file = Backend { origin: Origin::Watched { path: Arc::clone(&path), line: 7 }, ..b };
        let found = [(Lookup::Dns(host), of_dns), (Lookup::File(path), of_file)];
        let found =
            found.map(|(source, backend)| (source, Arc::new([(backend.name.clone(), backend)].into())));
        kept.found.insert(name("web"), found.into());
        let vips = ["203.0.113.10", "2001:db8::10"].map(|vip| vip.parse().expect("an address"));
        kept.announce_off = AnnounceOff { all: true, vips: vips.into() };
        kept
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for kept in [Kept::default(), example()] {
            let text = write(&kept).expect("written");
            assert_eq!(read("state.toml".into(), text.clone()).expect(&text), kept, "{text}");
        }
    }

    #[test]
    fn no_part_of_a_file_passes_for_the_whole() {
        let text = write(&example()).expect("written");
        for end in 0..text.len() {
            let cut = text.get(..end).unwrap_or_default().to_owned();
            assert!(read("state.toml".into(), cut).is_err(), "cut after {end} bytes");
        }
    }

    #[test]
    fn another_version_is_told_as_such() {
        let text = write(&example()).expect("written").replace("version = 1", "version = 2");
        let errors = read("state.toml".into(), text).expect_err("another version").to_string();
        assert!(errors.contains("`version` can't be 2") && errors.contains("1 is the version"), "{errors}");
        assert!(errors.contains("state.toml:3:11"), "{errors}");
    }

    #[test]
    fn an_edited_file_is_refused() {
        let text = write(&example()).expect("written").replace("weight = 9", "weight = 8");
        let errors = read("state.toml".into(), text).expect_err("edited").to_string();
        assert!(errors.contains("not as it was written"), "{errors}");
    }
}

//! The configuration: files in, a validated [`Config`] or [`Diagnostics`] with file, line and column out.
//!
//! Files are read as TOML trees with positions, not through derived types: that way one pass finds every mistake
//! instead of the first, and each is reported where it stands.

mod admission;
mod announce;
pub mod applied;
mod check;
mod daemon;
mod diagnostic;
mod discovery;
pub mod document;
mod failure;
mod fleet;
mod health;
mod import;
pub mod kept;
mod key;
mod limits;
mod lines;
mod nat;
mod peers;
pub(crate) mod reference;
mod report;
mod secrets;
mod service;
pub mod shape;
mod table;
#[cfg(test)]
mod tests;
mod values;
pub mod watched;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    dataplane::Limits,
    domain::{NatPool, Service},
};

pub use announce::{AnnounceConfig, Carrier, Method, RouteSettings};
pub use daemon::{DEFAULT_PIN_DIR, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DaemonConfig};
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub use discovery::DiscoveryConfig;
pub use fleet::{Endpoint, FleetConfig};
pub use import::{fleet_of, services_of};
pub use peers::PeersConfig;
pub use shape::{BackendShape, DnsShape, HealthShape, ServiceShape};

use report::{Report, Source};
use table::Table;

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/ballast/config.toml";

/// Largest configuration file, in bytes.
pub const MAX_FILE_SIZE: u64 = 16 << 20;

/// Everything the files say, validated and with defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    pub daemon: DaemonConfig,
    pub limits: Limits,
    /// File with the 128-bit hash key.
    pub flow_hash_key_file: PathBuf,
    pub nat: NatPool,
    pub discovery: DiscoveryConfig,
    /// Where services come from instead of the files; `None`: they come from the files.
    pub fleet: Option<FleetConfig>,
    /// `None`: VIPs are announced by nobody here.
    pub announce: Option<AnnounceConfig>,
    /// With whom flows are replicated.
    pub peers: Option<PeersConfig>,
    /// In the order of the files.
    pub services: Vec<Service>,
    /// What is allowed but likely not meant.
    pub warnings: Diagnostics,
    /// What it was read from.
    pub files: Files,
    /// Where `[nat]`, each service, its lists of prefixes and each backend's address stand, by field name.
    places: HashMap<String, Diagnostic>,
}

impl Config {
    /// The diagnostic for a field that is right by itself and was refused all the same, because of what only the
    /// running system knows. `field` is `nat`, `service.NAME`, `service.NAME.admission` or
    /// `service.NAME.backend.NAME.address`.
    pub fn refuse(&self, field: &str, message: &str) -> Option<Diagnostics> {
        let place = self.places.get(field)?.clone();
        Some(Diagnostic { message: message.to_owned(), ..place }.into())
    }
}

/// Paths and texts of files: the main one first, then those of `conf.d`.
pub type Files = Arc<[(PathBuf, String)]>;

/// Reads and validates `path` and the `conf.d/*.toml` next to it.
///
/// # Errors
///
/// Everything found wrong, at most 100 mistakes.
pub fn load(path: &Path) -> Result<Config, Diagnostics> {
    parse(read(path)?)
}

/// The `state_dir` of a configuration that may be wrong everywhere else; the default where it can't be told.
pub fn state_dir_of(path: &Path) -> PathBuf {
    let text = File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_FILE_SIZE).read_to_end(&mut bytes).map(|_| bytes)
    });
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    daemon::state_dir_in(&text)
}

/// Validates the texts of files: the main one first, then those of `conf.d`, which may hold `[[service]]` alone.
///
/// # Errors
///
/// Everything found wrong, at most 100 mistakes.
pub fn parse(files: Vec<(PathBuf, String)>) -> Result<Config, Diagnostics> {
    let sources: Vec<Source> =
        files.iter().map(|(path, text)| Source::new(path.clone(), text.clone())).collect();
    let mut report = Report::new(&sources);
    let documents: Vec<_> =
        sources.iter().enumerate().map(|(file, source)| source.document(file, &mut report)).collect();
    // What a file with broken syntax seems to lack would only bury the reason.
    report.stop_at_errors()?;

    let mut main = None;
    let mut services = Vec::new();
    for (file, document) in documents.iter().enumerate() {
        let mut table = Table::document(file, document);
        if file == 0 {
            main = Some(daemon::read(&mut table, &mut report));
        }
        services.extend(service::read_all(&mut table, &mut report));
        table.finish(&mut report);
    }
    let Some(main) = main else {
        return Err(Diagnostic::of_file(Path::new(DEFAULT_PATH), "there is no configuration file").into());
    };
    if main.fleet.is_some() {
        check::none_beside_fleet(&services, &mut report);
    }
    check::services(&services, main.limits, &mut report);
    check::nat(&services, &main.nat, &mut report);
    check::announce(&services, main.announce.as_ref(), &mut report);
    let warnings = report.finish()?;

    let mut places: HashMap<_, _> = services.iter().flat_map(|service| service.places(&sources)).collect();
    if let Some(source) = sources.first() {
        let place = main.nat.place;
        places.insert("nat".to_owned(), source.diagnostic(place.start..place.end, "", "refused"));
    }
    let services = services.into_iter().filter_map(|service| service.into_domain(&sources)).collect();
    Ok(Config {
        places,
        daemon: main.daemon,
        limits: main.limits,
        flow_hash_key_file: main.flow_hash_key_file,
        nat: main.nat.pool(),
        discovery: main.discovery,
        fleet: main.fleet,
        announce: main.announce,
        peers: main.peers,
        services,
        warnings,
        files: files.into(),
    })
}

/// Texts of `path` and of the `conf.d/*.toml` next to it, in lexical order.
///
/// # Errors
///
/// Those that can't be read.
pub fn read(path: &Path) -> Result<Vec<(PathBuf, String)>, Diagnostics> {
    let mut paths = vec![path.to_path_buf()];
    let directory = path.with_file_name("conf.d");
    let mut errors = Vec::new();
    match fragments(&directory) {
        Ok(fragments) => paths.extend(fragments),
        Err(error) => errors.push(unreadable(&directory, &error)),
    }
    let mut files = Vec::new();
    for path in paths {
        match read_file(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) => errors.push(*error),
        }
    }
    if errors.is_empty() { Ok(files) } else { Err(Diagnostics::new(errors, 0)) }
}

fn fragments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Editors leave hidden files behind.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; use sudo, or be in the group that may read it (of the package's files that is `ballast`)"
        }
        _ => "",
    };
    Diagnostic::of_file(path, format!("can't read: {error}{hint}"))
}

fn read_file(path: &Path) -> Result<String, Box<Diagnostic>> {
    let failed = |error: io::Error| Box::new(unreadable(path, &error));
    let mut bytes = Vec::new();
    // One byte more than allowed tells "too large" from "just right" whatever the file's length claims to be.
    File::open(path).and_then(|file| file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        let message = format!("the file is larger than {} MiB, which is the limit", MAX_FILE_SIZE >> 20);
        return Err(Box::new(Diagnostic::of_file(path, message)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let source = Source::new(path.to_path_buf(), String::from_utf8_lossy(error.as_bytes()).into_owned());
        Box::new(source.diagnostic(valid..valid + 1, "the file is not UTF-8", "this byte is no character"))
    })
}

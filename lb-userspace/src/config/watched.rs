//! A file of backends that other programs write and the daemon watches: `[[backend]]`, as a service has them.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    report::{Place, Report, Source, Wrong},
    service,
    table::Table,
};
use crate::domain::{Backend, Name, Origin};

/// The backends of such a file, as `path` says them.
///
/// # Errors
///
/// Everything found wrong; also if it has none, or more than `most`.
pub fn read(path: &Arc<PathBuf>, text: String, most: u32) -> Result<BTreeMap<Name, Backend>, Diagnostics> {
    let sources = [Source::new(path.to_path_buf(), text)];
    let source = &sources[0];
    let mut report = Report::new(&sources);
    let document = source.document(0, &mut report);
    report.stop_at_errors()?;
    let mut table = Table::document(0, &document);
    let tables = table.tables("backend", "[[backend]]", &mut report);
    if let Some(first) = tables.get(most as usize) {
        let message = format!("too many backends: `discovery.max_backends` is {most}");
        let wrong = Wrong::new(message, "there is room for no more");
        report.error(first.place(), wrong.help("raise it in `[discovery]` and start the daemon again"));
        report.stop_at_errors()?;
    }
    let mut seen = Seen::default();
    let mut backends = BTreeMap::new();
    for table in tables {
        let place = table.place();
        let origin = Origin::Watched { path: Arc::clone(path), line: source.line(place.start) };
        if let Some(backend) = read_backend(table, origin, &mut seen, &mut report) {
            backends.insert(backend.name.clone(), backend);
        }
    }
    table.finish(&mut report);
    report.finish()?;
    if backends.is_empty() {
        // Likely still being written, and in any case not what a pool should become by itself.
        let message =
            "it has no [[backend]]; one that is to take no traffic is disabled over the command line";
        return Err(Diagnostic::of_file(path, message).into());
    }
    Ok(backends)
}

/// What may stand once only, and where it does.
#[derive(Default)]
struct Seen {
    names: HashMap<Name, Place>,
    addresses: HashMap<SocketAddr, Place>,
}

fn read_backend(
    table: Table<'_>,
    origin: Origin,
    seen: &mut Seen,
    report: &mut Report<'_>,
) -> Option<Backend> {
    let draft = service::read_found_backend(table, report);
    if let (Some(name), Some(address)) = (&draft.name, draft.address) {
        let mut once = |first: Option<Place>, place: Place, what: String| {
            let Some(first) = first else { return };
            let message = format!("there already is a backend {what} in this file");
            let wrong = Wrong::new(message, "another one is needed here");
            report.error(place, wrong.help(format!("the first stands at {}", report.locate(first))));
        };
        let known = seen.addresses.insert(address.value, address.place);
        once(known, address.place, format!("at {}", address.value));
        // One that is called by its address would be told twice.
        if name.place != address.place {
            let known = seen.names.insert(name.value.clone(), name.place);
            once(known, name.place, format!("\"{}\"", name.value));
        }
    }
    draft.into_domain(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<BTreeMap<Name, Backend>, Diagnostics> {
        read(&Arc::new(PathBuf::from("/run/web.toml")), text.to_owned(), 3)
    }

    #[test]
    fn a_backend_needs_no_name_and_is_what_it_is_in_a_service() {
        let text = "[[backend]]\naddress = \"10.0.0.1:80\"\n\n[[backend]]\nname = \"web-2\"\naddress = \"[2001:db8::2]:80\"\n\
                    weight = 7\nbackup = true\n";
        let backends = read_text(text).unwrap_or_else(|errors| panic!("{errors}"));
        let [one, two] = ["10.0.0.1-80", "web-2"].map(|name| &backends[name]);
        assert_eq!((one.weight, one.backup, one.origin.to_string().as_str()), (1, false, "/run/web.toml:1"));
        assert_eq!((two.weight, two.backup, two.origin.to_string().as_str()), (7, true, "/run/web.toml:4"));
    }

    #[test]
    fn a_file_that_is_wrong_anywhere_is_refused_whole_and_says_where() {
        let good = "[[backend]]\naddress = \"10.0.0.1:80\"\n";
        let cases = [
            (String::new(), "/run/web.toml", "it has no [[backend]]"),
            ("# nothing\n".to_owned(), "/run/web.toml", "it has no [[backend]]"),
            (format!("{good}[[backend]]\naddress = \"10.0."), "/run/web.toml:4:17", "TOML syntax is broken"),
            (format!("{good}[[backend]]\n"), "/run/web.toml:3:1", "has no `address`"),
            (format!("{good}[[backend]]\naddress = \"10.0.0.2\"\n"), "/run/web.toml:4:11", "there is no port"),
            (format!("{good}[[backend]]\naddress = \"127.0.0.1:80\"\n"), "/run/web.toml:4:11", "loopback"),
            (format!("{good}{good}"), "/run/web.toml:4:11", "already is a backend at 10.0.0.1:80"),
            (format!("{good}port = 3\n"), "/run/web.toml:3:1", "unknown key `port`"),
            (
                "[[backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\n[[backend]]\nname = \"a\"\naddress = \"10.0.0.2:80\"\n"
                    .to_owned(),
                "/run/web.toml:5:8",
                "already is a backend \"a\"",
            ),
            (
                (1..=4).map(|number| format!("[[backend]]\naddress = \"10.0.0.{number}:80\"\n")).collect(),
                "/run/web.toml:7:1",
                "`discovery.max_backends` is 3",
            ),
        ];
        for (text, place, said) in cases {
            let errors = read_text(&text).expect_err(said).to_string();
            assert!(errors.contains(place) && errors.contains(said), "{place} {said}: {errors}");
        }
    }
}

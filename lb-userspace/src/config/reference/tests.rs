//! The tables of `docs/` are what the keys say of themselves, and the keys say what the parser does. A key that is new, or
//! says something else, is written down by `BALLAST_UPDATE_SNAPSHOT=1 cargo test -p lb-userspace --lib reference`.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeSet, path::PathBuf};

use super::{SECTIONS, Section};
use crate::{
    config::{Config, Diagnostics, parse},
    snapshot,
};

const PAGES: [(&str, &str); 2] = [
    ("docs/configuration.md", include_str!("../../../../docs/configuration.md")),
    ("docs/health-checks.md", include_str!("../../../../docs/health-checks.md")),
];

const DAEMON: &str = "[daemon]\ninterfaces = [\"eth0\"]\n";
const SERVICE: &str = "[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n";
const BACKEND: &str = "[[service.backend]]\nname = \"web-1\"\naddress = \"10.0.0.11:80\"\n";

/// What `[service.health]` takes depends on its type: for each heading the types that it describes, with the least that
/// is right.
const CHECKS: [(&str, &[&str]); 10] = [
    ("## `[service.health]`", &["type = \"tcp\"\n", "type = \"icmp\"\n", "type = \"none\"\n"]),
    ("## When", &["type = \"tcp\"\n"]),
    ("## Where", &["type = \"tcp\"\n"]),
    ("### `http`, `https`", &["type = \"http\"\n", "type = \"https\"\n"]),
    (
        "### TLS: `tls`, `https`, and others with `tls = true`",
        &["type = \"tls\"\n", "type = \"https\"\n", "type = \"redis\"\ntls = true\n"],
    ),
    (
        "### `mysql`, `postgres`, `redis`",
        &[
            "type = \"mysql\"\nuser = \"check\"\n",
            "type = \"postgres\"\nuser = \"check\"\n",
            "type = \"redis\"\n",
        ],
    ),
    ("### `grpc`", &["type = \"grpc\"\n"]),
    ("### `dns`", &["type = \"dns\"\nname = \"example.org\"\n"]),
    ("### `agent`", &["type = \"agent\"\nport = 9000\n"]),
    ("### `exec`", &["type = \"exec\"\ncommand = [\"/bin/true\"]\n"]),
];

#[test]
fn the_committed_tables_are_what_the_keys_say() {
    for (path, committed) in PAGES {
        let mut page = committed.to_owned();
        for section in SECTIONS {
            if let Some(made) = described(&page, section) {
                page = made;
            }
        }
        snapshot::check(path, &page);
    }
}

#[test]
fn every_section_has_its_heading_in_one_page() {
    for section in SECTIONS {
        let pages = PAGES.iter().filter(|(_, page)| page.lines().any(|line| line == section.heading));
        assert_eq!(pages.count(), 1, "\"{}\" has to stand in one page of docs/", section.heading);
    }
}

#[test]
fn every_table_of_a_file_has_a_section_with_every_key_that_it_takes() {
    // Tables in tables have sections of their own.
    let mut tables =
        vec!["service.health".to_owned(), "service.backend".to_owned(), "service.dns".to_owned()];
    tables.extend(keys_read("", DAEMON));
    for table in tables.iter().filter(|table| *table != "service.health") {
        let place = place(&heading(table));
        let mut read = keys_read(&place.before, &place.after);
        read.retain(|key| !tables.contains(&format!("{table}.{key}")));
        assert_eq!(keys_described(section(table)), read, "[{table}]");
    }
}

#[test]
fn the_sections_of_checks_have_every_key_that_a_check_takes() {
    let mut described = BTreeSet::new();
    let mut read = BTreeSet::new();
    for (heading, types) in CHECKS {
        described.extend(keys_described(find(heading)));
        for least in types {
            let place = health(least);
            read.extend(keys_read(&place.before, &place.after));
        }
    }
    assert_eq!(described, read);
}

#[test]
fn a_key_without_a_value_is_what_its_default_says() {
    let mut compared = 0;
    for section in SECTIONS {
        let mut of_section: BTreeSet<&str> = BTreeSet::new();
        for place in places(section.heading) {
            let without = shown(&read(&place.file("")).unwrap());
            for key in section.keys {
                // "`15m`; `1m` for udp": what goes for the service in the example comes first.
                let first = key.default().split(';').next().unwrap_or_default();
                let default = first.trim_matches('`').replace("<state_dir>", "/var/lib/ballast");
                let line = format!("{} = {default}", key.name());
                // What depends on other keys, or on the host, is no value. A key that is there already has no default.
                if line.parse::<toml::Table>().is_err() || place.has(key.name()) {
                    continue;
                }
                // Of several types of checks some have no such key.
                if let Ok(config) = read(&place.file(&line)) {
                    assert_eq!(
                        shown(&config),
                        without,
                        "{}: without a value, {line} is not so",
                        section.heading
                    );
                    of_section.insert(key.name());
                }
            }
        }
        compared += of_section.len();
    }
    assert!(compared >= 50, "{compared} defaults were compared");
}

#[test]
fn the_limits_of_a_key_are_those_that_are_said() {
    let mut compared = 0;
    for section in SECTIONS {
        for key in section.keys {
            let takes = key.takes();
            let Some((kind, range)) = takes.split_once(", ") else { continue };
            let Some((lowest, highest)) = range.split_once(" to ") else { continue };
            let number = |text: &str| text.replace(',', "").parse::<i64>().unwrap();
            let values = match kind {
                "integer" => {
                    let (lowest, highest) = (number(lowest), number(highest));
                    [lowest, highest, lowest - 1, highest + 1].map(|number| number.to_string())
                }
                "a power of two" => {
                    let (lowest, highest) = (number(lowest), number(highest));
                    [lowest, highest, lowest / 2, highest * 2].map(|number| number.to_string())
                }
                "time" | "time in whole seconds" => {
                    let time = |text| humantime::parse_duration(text).unwrap().as_millis();
                    let (lowest, highest) = (time(lowest), time(highest));
                    let text = |milliseconds: u128| format!("\"{milliseconds}ms\"");
                    // Less than nothing is no time either.
                    let below = lowest.checked_sub(1).map_or("\"-1s\"".to_owned(), text);
                    [text(lowest), text(highest), below, text(highest + 1000)]
                }
                _ => continue,
            };
            let allowed = values.map(|value| allowed(section, key.name(), &value));
            assert_eq!(allowed, [true, true, false, false], "{} {}: {takes}", section.heading, key.name());
            compared += 1;
        }
    }
    assert!(compared >= 25, "{compared} keys were compared");
}

/// Whether nothing is wrong with the value itself; others may be in its way.
fn allowed(section: &Section, key: &str, value: &str) -> bool {
    let room = match key {
        // Neither is longer than the interval.
        "fast_interval" => "interval = \"1h\"\n",
        "timeout" if section.heading != "## `[discovery]`" => "interval = \"1h\"\n",
        "max_lag" => "role = \"replica\"\n",
        _ => "",
    };
    let line = format!("{room}{key} = {value}\n");
    places(section.heading).iter().any(|place| match read(&place.file(&line)) {
        Ok(_) => true,
        Err(wrong) => {
            let wrong = wrong.to_string();
            !wrong.contains(&format!("`{key}` can't be"))
                && !wrong.contains(&format!("`{key}` means nothing"))
        }
    })
}

/// A file in which a table is right, up to where its next key goes and from there on.
struct Place {
    before: String,
    after: String,
}

impl Place {
    fn file(&self, lines: &str) -> String {
        format!("{}{lines}\n{}", self.before, self.after)
    }

    fn has(&self, key: &str) -> bool {
        self.before.lines().any(|line| line.starts_with(&format!("{key} = ")))
    }
}

fn places(heading: &str) -> Vec<Place> {
    match CHECKS.iter().find(|(of, _)| *of == heading) {
        Some((_, types)) => types.iter().map(|least| health(least)).collect(),
        None => vec![place(heading)],
    }
}

/// That of a table whose keys do not depend on its type. One that has to have some is named here.
fn place(heading: &str) -> Place {
    let table = heading.trim_matches(['#', ' ', '`']);
    let (before, after) = match table {
        "[daemon]" => (DAEMON.to_owned(), String::new()),
        "[[service]]" => (format!("{DAEMON}{SERVICE}"), BACKEND.to_owned()),
        "[[service.backend]]" => (format!("{DAEMON}{SERVICE}{BACKEND}"), String::new()),
        "[peers]" => {
            let least = "listen = [\"192.0.2.1:9650\"]\naddresses = [\"192.0.2.2:9650\"]";
            (format!("{DAEMON}[peers]\n{least}\n"), String::new())
        }
        "[[service.dns]]" => {
            (format!("{DAEMON}{SERVICE}[[service.dns]]\nname = \"web.example.org\"\n"), String::new())
        }
        "[fleet]" => (format!("{DAEMON}[fleet]\nendpoints = [\"https://10.0.0.1\"]\n"), String::new()),
        table => (format!("{DAEMON}{table}\n"), String::new()),
    };
    Place { before, after }
}

fn health(least: &str) -> Place {
    Place { before: format!("{DAEMON}{SERVICE}[service.health]\n{least}"), after: BACKEND.to_owned() }
}

/// `service.dns` is described under its own heading.
fn heading(table: &str) -> String {
    let of = |brackets: [&str; 2]| format!("## `{}{table}{}`", brackets[0], brackets[1]);
    let single = of(["[", "]"]);
    if SECTIONS.iter().any(|section| section.heading == single) { single } else { of(["[[", "]]"]) }
}

fn section(table: &str) -> &'static Section {
    find(&heading(table))
}

fn find(heading: &str) -> &'static Section {
    SECTIONS
        .into_iter()
        .find(|section| section.heading == heading)
        .unwrap_or_else(|| panic!("no section of the configuration's reference has the heading {heading}"))
}

fn keys_described(section: &Section) -> BTreeSet<String> {
    section.keys.iter().map(|key| key.name().to_owned()).collect()
}

/// The keys that are asked for in this place, as the error for one that is not tells them.
fn keys_read(before: &str, after: &str) -> BTreeSet<String> {
    let wrong = read(&format!("{before}no-such-key-at-all = 1\n{after}")).unwrap_err().to_string();
    let takes = wrong.split(" takes ").nth(1).unwrap_or_else(|| panic!("{wrong}"));
    takes.lines().next().unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn read(text: &str) -> Result<Config, Diagnostics> {
    parse(vec![(PathBuf::from("config.toml"), text.to_owned())])
}

/// All that a configuration means, and not where it stands.
fn shown(config: &Config) -> String {
    let mut config = config.clone();
    config.files = [].into();
    config.places.clear();
    format!("{config:#?}")
}

/// The page with what stands between the heading and the end of the first table after it made anew. `None` if it has no such
/// heading.
fn described(page: &str, section: &Section) -> Option<String> {
    let lines: Vec<&str> = page.lines().collect();
    let heading = lines.iter().position(|line| *line == section.heading)?;
    let rest = &lines[heading + 1..];
    let until = rest.iter().position(|line| line.starts_with('#')).unwrap_or(rest.len());
    let is_row = |line: &&str| line.starts_with("| ") || line.starts_with("|-");
    let first = rest[..until].iter().position(|line| line.starts_with("| Key |"));
    let end = first.map_or(0, |first| first + rest[first..].iter().take_while(|line| is_row(line)).count());
    let mut made = vec![section.heading.to_owned(), String::new()];
    if !section.says.is_empty() {
        made.extend([section.says.to_owned(), String::new()]);
    }
    made.extend(["| Key | Takes | Default | |".to_owned(), "|---|---|---|---|".to_owned()]);
    for key in section.keys {
        made.push(format!("| `{}` | {} | {} | {} |", key.name(), key.takes(), key.default(), key.means()));
    }
    let before = lines[..heading].iter().map(|line| (*line).to_owned());
    let after = rest[end..].iter().map(|line| (*line).to_owned());
    Some(before.chain(made).chain(after).collect::<Vec<_>>().join("\n") + "\n")
}

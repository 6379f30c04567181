//! The pages that say which keys there are, what they are without a value and where they stand, held against the code
//! that reads them.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeSet, path::PathBuf};

use super::{Config, Diagnostics, parse};

const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
const HEALTH_CHECKS: &str = include_str!("../../../docs/health-checks.md");

/// A table of the configuration: the headings under which its keys are described, and a file in which it is right, up to
/// where its next key goes and from there on.
struct Place {
    page: &'static str,
    heading: &'static str,
    before: &'static str,
    after: &'static str,
}

const DAEMON: &str = "[daemon]\ninterfaces = [\"eth0\"]\n";
const SERVICE: &str =
    "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n";
const BACKEND: &str = "[[service.backend]]\nname = \"web-1\"\naddress = \"10.0.0.11:80\"\n";

/// The tables that take the same keys in every file.
const TABLES: [Place; 8] = [
    Place { page: CONFIGURATION, heading: "## `[daemon]`", before: DAEMON, after: "" },
    Place {
        page: CONFIGURATION,
        heading: "## `[limits]`",
        before: "[daemon]\ninterfaces = [\"eth0\"]\n[limits]\n",
        after: "",
    },
    Place {
        page: CONFIGURATION,
        heading: "## `[flow_hash]`",
        before: "[daemon]\ninterfaces = [\"eth0\"]\n[flow_hash]\n",
        after: "",
    },
    Place {
        page: CONFIGURATION,
        heading: "## `[nat]`",
        before: "[daemon]\ninterfaces = [\"eth0\"]\n[nat]\n",
        after: "",
    },
    Place {
        page: CONFIGURATION,
        heading: "## `[discovery]`",
        before: "[daemon]\ninterfaces = [\"eth0\"]\n[discovery]\n",
        after: "",
    },
    Place {
        page: CONFIGURATION,
        heading: "## `[peers]`",
        before: "[daemon]\ninterfaces = [\"eth0\"]\n[peers]\nlisten = [\"192.0.2.1:9650\"]\naddresses = [\"192.0.2.2:9650\"]\n",
        after: "",
    },
    Place { page: CONFIGURATION, heading: "## `[[service]]`", before: SERVICE, after: BACKEND },
    Place {
        page: CONFIGURATION,
        heading: "## `[[service.backend]]`",
        before: "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n\
                 [[service.backend]]\nname = \"web-1\"\naddress = \"10.0.0.11:80\"\n",
        after: "",
    },
];

/// What `[service.health]` takes depends on its type; where the page describes what a type takes, and the least that is right.
const CHECKS: [(&str, &str); 14] = [
    ("## When", "type = \"tcp\"\n"),
    ("## Where", "type = \"tcp\"\n"),
    ("### `http`, `https`", "type = \"http\"\n"),
    ("### TLS: `tls`, `https`, and others with `tls = true`", "type = \"https\"\n"),
    ("### `mysql`, `postgres`, `redis`", "type = \"mysql\"\nuser = \"check\"\n"),
    ("### `mysql`, `postgres`, `redis`", "type = \"postgres\"\nuser = \"check\"\n"),
    ("### `mysql`, `postgres`, `redis`", "type = \"redis\"\n"),
    ("### `grpc`", "type = \"grpc\"\n"),
    ("### `dns`", "type = \"dns\"\nname = \"example.org\"\n"),
    ("### `agent`", "type = \"agent\"\nport = 9000\n"),
    ("### `exec`", "type = \"exec\"\ncommand = [\"/bin/true\"]\n"),
    ("## What: `type`", "type = \"icmp\"\n"),
    ("## What: `type`", "type = \"none\"\n"),
    ("## What: `type`", "type = \"tls\"\n"),
];

#[test]
fn the_reference_names_every_key_and_no_other() {
    for table in TABLES {
        // Tables have headings of their own.
        let mut read = keys_read(table.before, table.after);
        for inner in ["health", "backend", "dns"] {
            if table.heading == "## `[[service]]`" {
                assert!(
                    CONFIGURATION.contains(&format!("\n## `[service.{inner}]`"))
                        || CONFIGURATION.contains(&format!("\n## `[[service.{inner}]]`")),
                    "no heading for {inner}"
                );
                assert!(read.remove(inner), "[[service]] does not take {inner}");
            }
        }
        assert_eq!(documented(table.page, table.heading), read, "{}", table.heading);
    }
}

#[test]
fn the_reference_of_health_checks_names_every_key_and_no_other() {
    let read: BTreeSet<_> = CHECKS.iter().flat_map(|(_, least)| keys_read(&health(least), BACKEND)).collect();
    let mut said: BTreeSet<_> =
        CHECKS.iter().flat_map(|(heading, _)| documented(HEALTH_CHECKS, heading)).collect();
    // Described in sentences.
    for key in ["type", "tls", "send"] {
        assert!(HEALTH_CHECKS.contains(&format!("`{key}")), "{key} is described nowhere");
        said.insert(key.to_owned());
    }
    assert_eq!(said, read);
    let overview = documented(CONFIGURATION, "## `[service.health]`");
    assert!(overview.is_subset(&read), "{overview:?}");
}

#[test]
fn what_a_key_is_without_a_value_is_what_the_reference_says() {
    let mut compared = 0;
    for table in TABLES {
        compared += compare_defaults(table.page, table.heading, table.before, table.after);
    }
    for (heading, least) in CHECKS {
        compared += compare_defaults(HEALTH_CHECKS, heading, &health(least), BACKEND);
    }
    compared +=
        compare_defaults(CONFIGURATION, "## `[service.health]`", &health("type = \"tcp\"\n"), BACKEND);
    assert!(compared >= 45, "{compared} defaults were found in the pages");
}

fn health(least: &str) -> String {
    format!("{SERVICE}[service.health]\n{least}")
}

/// Gives each key the default that the page tells, and expects what there is without. How many there were.
fn compare_defaults(page: &str, heading: &str, before: &str, after: &str) -> usize {
    let without = meaning(&format!("{before}#\n{after}"), heading);
    let mut compared = 0;
    for (key, default) in rows(page, heading) {
        // What depends on other keys, or on the host, is no value. A key that is there already has no default.
        let line =
            format!("{key} = {}", default.trim_matches('`').replace("<state_dir>", "/var/lib/ballast"));
        if line.parse::<toml::Table>().is_err() || before.contains(&format!("\n{key} = ")) {
            continue;
        }
        let Ok(config) = read(&format!("{before}{line}\n{after}")) else {
            // Not a key of this type of check.
            assert!(CHECKS.iter().any(|(of_check, _)| *of_check == heading), "{heading}: {line}");
            continue;
        };
        assert_eq!(shown(&config), without, "{heading}: `{key}` is not `{default}` without a value");
        compared += 1;
    }
    compared
}

fn meaning(text: &str, heading: &str) -> String {
    read(text).map(|config| shown(&config)).unwrap_or_else(|wrong| panic!("{heading}: {wrong}"))
}

/// All that a configuration means, and not where it stands.
fn shown(config: &Config) -> String {
    let Config { daemon, limits, flow_hash_key_file, nat, discovery, peers, services, .. } = config;
    format!(
        "{daemon:#?}\n{limits:#?}\n{flow_hash_key_file:?}\n{nat:#?}\n{discovery:#?}\n{peers:#?}\n{services:#?}"
    )
}

fn read(text: &str) -> Result<Config, Diagnostics> {
    parse(vec![(PathBuf::from("config.toml"), text.to_owned())])
}

/// The keys that are asked for in this place, as the error for one that is not tells them.
fn keys_read(before: &str, after: &str) -> BTreeSet<String> {
    let wrong = read(&format!("{before}no-such-key-at-all = 1\n{after}")).unwrap_err().to_string();
    let takes = wrong.split(" takes ").nth(1).unwrap_or_else(|| panic!("{wrong}"));
    quoted(takes.lines().next().unwrap_or_default()).collect()
}

/// The keys that a page describes under a heading.
fn documented(page: &str, heading: &str) -> BTreeSet<String> {
    rows(page, heading).into_iter().map(|(key, _)| key).collect()
}

/// Key and default of each row of the tables `| Key | Default | |` under a heading, up to the next one.
fn rows(page: &str, heading: &str) -> Vec<(String, String)> {
    let from = page.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<_> = from.take_while(|line| !line.starts_with('#')).collect();
    assert!(!lines.is_empty(), "no heading {heading}");
    let mut rows = Vec::new();
    for line in lines.iter().skip_while(|line| !line.starts_with("| Key | Default |")).skip(2) {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (Some(keys), Some(defaults)) = (cells.next(), cells.next()) else { break };
        let keys: Vec<_> = quoted(keys).collect();
        // "`15m`; `1m` for udp": what goes for the service in the example comes first.
        let first = defaults.split(';').next().unwrap_or_default();
        let split: Vec<_> = first.split(", ").collect();
        for (at, key) in keys.iter().enumerate() {
            let default = if keys.len() == split.len() { split[at] } else { first };
            rows.push((key.clone(), default.trim().to_owned()));
        }
    }
    rows
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

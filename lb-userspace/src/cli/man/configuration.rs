//! ballast-config(5): the keys of the configuration, as they describe themselves.

use std::io;

use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::{Page, SOURCE, tidy};
use crate::config::{DEFAULT_PATH, reference::SECTIONS};

pub(super) fn page(date: &str) -> io::Result<Page> {
    let mut page = Roff::new();
    page.control("TH", ["BALLAST-CONFIG", "5", date, SOURCE, "Ballast"]);
    page.control("SH", ["NAME"]);
    page.text([roman("ballast-config - configuration of the load balancer Ballast")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text(inline(DESCRIPTION));
    let mut told: Vec<&str> = Vec::new();
    for section in SECTIONS {
        // What every check takes is in `docs/` twice.
        let keys = section.keys.iter().filter(|key| !told.contains(&key.means())).collect::<Vec<_>>();
        if keys.is_empty() {
            continue;
        }
        page.control("SH", [title(section.heading).as_str()]);
        if !section.says.is_empty() {
            page.text(inline(section.says));
        }
        for key in &keys {
            page.control("TP", []);
            let mut term = vec![bold(key.name()), roman(" (")];
            term.extend(inline(&key.takes()));
            term.push(roman("; "));
            if key.default() != "required" {
                term.push(roman("default: "));
            }
            term.extend(inline(key.default()));
            term.push(roman(")"));
            page.text(term);
            page.text(inline(key.means()));
        }
        told.extend(keys.iter().map(|key| key.means()));
    }
    page.control("SH", ["FILES"]);
    super::item(&mut page, [bold(DEFAULT_PATH)], "The configuration, unless --config names another.");
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("ballast"), roman("(1), "), bold("ballast-check"), roman("(1)")]);
    let mut text = Vec::new();
    page.to_writer(&mut text)?;
    Ok(Page { name: "ballast-config.5".to_owned(), text: tidy(text) })
}

const DESCRIPTION: &str = "A file of TOML, and every `conf.d/*.toml` next to it, which may hold `[[service]]` alone. `ballast \
                           check` validates it, and tells a mistake with its place and what is allowed. Times are written \
                           `\"500ms\"`, `\"2s\"`, `\"5m\"`.";

/// `[daemon]`; what only some types of checks take has their names for a heading.
fn title(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().replace('`', "");
    if heading.starts_with('[') { heading } else { format!("[service.health]: {heading}") }
}

/// Markdown's code and links.
fn inline(markdown: &str) -> Vec<Inline> {
    let mut inlines = Vec::new();
    for (at, part) in markdown.split('`').enumerate() {
        match at % 2 {
            0 => inlines.push(roman(without_targets(part))),
            _ => inlines.push(bold(part)),
        }
    }
    inlines
}

/// `[text](target)` is the text.
fn without_targets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        out.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    out + &rest.replace('[', "")
}

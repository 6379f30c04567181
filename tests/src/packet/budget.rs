//! The verifier's budget: how many instructions it may walk, on all paths together, until it accepts a program. Kernels
//! differ in that, so every series has its own figures, in a file that is committed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Instructions by program.
pub type Measured = BTreeMap<String, u32>;

/// The verifier gives up at a million instructions; what adds a door must leave room for the next.
pub const CEILING: u32 = 250_000;

/// The figures of all series there are any of.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Budget(BTreeMap<String, BTreeMap<String, Entry>>);

/// One program's figures on one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// When the entry was written.
    measured: u32,
    /// The most that is allowed.
    limit: u32,
}

impl Entry {
    /// Leaves room for other compilers and for the kernel's stable updates, and none for a new feature.
    fn new(measured: u32) -> Self {
        Self { measured, limit: (measured + measured / 10).min(CEILING - 1) }
    }
}

impl Budget {
    /// # Errors
    ///
    /// If the text is no budget, or allows too much.
    pub fn parse(text: &str) -> Result<Self> {
        let budget: Self = toml::from_str(text).context("understand the verifier's budget")?;
        for (series, programs) in &budget.0 {
            for (program, Entry { measured, limit }) in programs {
                ensure!(
                    measured <= limit && *limit < CEILING,
                    "Linux {series}, {program}: measured {measured}, limit {limit}, and none may be {CEILING} or more"
                );
            }
        }
        Ok(budget)
    }

    /// What is wrong with these figures, a line each. A series without any entry is held to [`CEILING`] alone.
    #[must_use]
    pub fn objections(&self, series: &str, measured: &Measured) -> Vec<String> {
        let mut objections = Vec::new();
        for (program, &walked) in measured {
            if walked >= CEILING {
                objections.push(format!(
                    "{program}: {walked} instructions walked, {CEILING} is too many on any kernel"
                ));
            }
        }
        let Some(programs) = self.0.get(series) else { return objections };
        for (program, walked) in measured {
            match programs.get(program) {
                None => objections.push(format!("{program}: {walked} instructions walked, and it has no entry")),
                Some(Entry { measured, limit }) if walked > limit => objections.push(format!(
                    "{program}: {walked} instructions walked, the limit is {limit}, it was written at {measured}"
                )),
                Some(_) => {}
            }
        }
        let unknown = programs.keys().filter(|program| !measured.contains_key(*program));
        objections.extend(unknown.map(|program| format!("{program}: it has an entry, and is not loaded")));
        objections
    }

    /// Replaces the entries of a series.
    pub fn set(&mut self, series: &str, measured: &Measured) {
        let entries = measured.iter().map(|(program, walked)| (program.clone(), Entry::new(*walked)));
        self.0.insert(series.into(), entries.collect());
    }

    /// The entries of one series, as the file has them.
    #[must_use]
    pub fn table(series: &str, measured: &Measured) -> String {
        let mut budget = Self(BTreeMap::new());
        budget.set(series, measured);
        budget.text()
    }

    /// As [`parse`](Self::parse) reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let tables = self.0.iter().map(|(series, programs)| {
            let mut table = format!("[\"{series}\"]\n");
            for (program, Entry { measured, limit }) in programs {
                let line = format!("\"{program}\" = {{ measured = {measured}, limit = {limit} }}\n");
                table.push_str(&line);
            }
            table
        });
        tables.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[\"6.1\"]\n\"b\" = { measured = 1000, limit = 1100 }\n\n[\"6.12\"]\n\
        \"b\" = { measured = 2000, limit = 2200 }\n";

    fn measured(figures: &[(&str, u32)]) -> Measured {
        figures.iter().map(|&(program, walked)| (program.into(), walked)).collect()
    }

    fn objections(series: &str, figures: &[(&str, u32)]) -> Vec<String> {
        Budget::parse(TEXT).expect("a budget").objections(series, &measured(figures))
    }

    #[test]
    fn a_figure_may_reach_its_limit_and_not_pass_it() {
        assert_eq!(objections("6.1", &[("b", 1100)]), [""; 0]);
        let found = objections("6.1", &[("b", 1101)]);
        assert_eq!(found, ["b: 1101 instructions walked, the limit is 1100, it was written at 1000"]);
        assert_eq!(objections("6.12", &[("b", 1101)]), [""; 0]);
    }

    #[test]
    fn programs_and_entries_belong_together() {
        let found = objections("6.1", &[("c", 5)]);
        assert_eq!(
            found,
            ["c: 5 instructions walked, and it has no entry", "b: it has an entry, and is not loaded"]
        );
    }

    #[test]
    fn a_series_without_entries_is_held_to_the_ceiling() {
        assert_eq!(objections("6.18", &[("b", CEILING - 1)]), [""; 0]);
        assert_eq!(objections("6.18", &[("b", CEILING)]).len(), 1);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut budget = Budget::parse(TEXT).expect("a budget");
        assert_eq!(budget.text(), TEXT);
        budget.set("6.12", &measured(&[("c", 240_000)]));
        let written = Budget::parse(&budget.text()).expect("a budget");
        assert_eq!(written, budget);
        assert_eq!(written.0["6.12"]["c"].limit, CEILING - 1);
        assert_eq!(written.0["6.1"]["b"].limit, 1100);
    }

    #[test]
    fn a_limit_beyond_the_ceiling_is_refused() {
        assert!(Budget::parse("[\"6.1\"]\n\"b\" = { measured = 1, limit = 250000 }\n").is_err());
        assert!(Budget::parse("[\"6.1\"]\n\"b\" = { measured = 3, limit = 2 }\n").is_err());
    }
}

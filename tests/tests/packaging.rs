//! What is shipped beside the program agrees with it and with its documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Words of `text` that begin like this.
fn words<'a>(text: &'a str, begin: &str) -> BTreeSet<&'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_part(letter)).filter(|word| word.starts_with(begin)).collect()
}

fn promtool(arguments: &[&str]) -> Result<()> {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("packaging/prometheus"))
        .output()
        .context("run promtool (`cargo xtask setup` installs it)")?;
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !told.contains("FAILED"), "promtool {arguments:?}:\n{told}");
    Ok(())
}

#[test]
fn alert_rules_are_right_and_fire_when_they_should() -> Result<()> {
    promtool(&["check", "rules", "ballast.rules.yml"])?;
    promtool(&["test", "rules", "ballast.rules.test.yml"])
}

#[test]
fn every_alert_has_a_test_and_a_section_in_the_runbook_and_no_section_is_of_none() -> Result<()> {
    let rules = read("packaging/prometheus/ballast.rules.yml")?;
    let alerts: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let runbook = read("docs/runbook.md")?;
    let sections: BTreeSet<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, alerts);
    for alert in &alerts {
        let link = format!("runbook: \"docs/runbook.md#{}\"", alert.to_lowercase());
        ensure!(rules.contains(&link), "{alert} has no link to its section");
    }
    let tests = read("packaging/prometheus/ballast.rules.test.yml")?;
    assert_eq!(words(&tests, "Ballast").intersection(&alerts).copied().collect::<BTreeSet<_>>(), alerts);
    Ok(())
}

/// Every query of a dashboard, its variables put in.
fn queries(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(|query| {
                query.replace("$__rate_interval", "1m").replace("$__interval", "1m").replace('$', "")
            }));
            fields.values().for_each(|part| queries(part, found));
        }
        Value::Array(parts) => parts.iter().for_each(|part| queries(part, found)),
        _ => {}
    }
}

fn dashboard() -> Result<Value> {
    serde_json::from_str(&read("packaging/grafana/ballast.json")?).context("the dashboard is no JSON")
}

#[test]
fn the_dashboards_queries_are_understood() -> Result<()> {
    let mut found = Vec::new();
    queries(&dashboard()?, &mut found);
    ensure!(found.len() > 20, "{} queries", found.len());
    let rules: Vec<_> = (0..)
        .zip(&found)
        .map(|(number, query)| json!({ "record": format!("q{number}"), "expr": query }))
        .collect();
    // JSON is YAML.
    let file = tempfile::Builder::new().suffix(".yml").tempfile()?;
    serde_json::to_writer(&file, &json!({ "groups": [{ "name": "dashboard", "rules": rules }] }))?;
    promtool(&["check", "rules", &file.path().display().to_string()])
}

#[test]
fn panels_lie_beside_each_other_and_have_names_of_their_own() -> Result<()> {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let mut taken = BTreeSet::new();
    let mut names = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().context("a title")?;
        ensure!(names.insert(title), "{title} twice");
        let at = |key: &str| panel["gridPos"][key].as_u64().with_context(|| format!("{title}: {key}"));
        let (x, y, w, h) = (at("x")?, at("y")?, at("w")?, at("h")?);
        ensure!(x + w <= 24, "{title} is too wide");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(taken.insert(place), "{title} lies on another panel");
        }
    }
    Ok(())
}

#[test]
fn alerts_and_dashboard_are_about_metrics_that_there_are() -> Result<()> {
    let known = read("docs/metrics.md")?;
    // A histogram's series have the names of their parts, and the page names some by their ends.
    let known: BTreeSet<_> = words(&known, "ballast_").into_iter().collect();
    let is_known = |name: &str| known.contains(name.strip_suffix("_bucket").unwrap_or(name));
    for path in ["packaging/prometheus/ballast.rules.yml", "packaging/grafana/ballast.json"] {
        let text = read(path)?;
        let unknown: Vec<_> = words(&text, "ballast_").into_iter().filter(|name| !is_known(name)).collect();
        assert_eq!(unknown, [""; 0], "{path}");
    }
    Ok(())
}

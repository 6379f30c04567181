//! What is shipped beside the program agrees with it and with its documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

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

#[test]
fn alerts_are_about_metrics_that_there_are() -> Result<()> {
    let rules = read("packaging/prometheus/ballast.rules.yml")?;
    let known = read("docs/metrics.md")?;
    let unknown: Vec<_> = words(&rules, "ballast_").difference(&words(&known, "ballast_")).copied().collect();
    assert_eq!(unknown, [""; 0]);
    Ok(())
}

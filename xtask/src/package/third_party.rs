//! Whose code is in the program, and on which terms: they ask to be told with every copy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::build;

/// Packages whose code ships: the program, and the one for the kernel inside it.
const ROOTS: [&str; 2] = [build::PACKAGE, "lb-ebpf"];
/// What the files begin with that state the terms.
const NAMES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// A list of packages, then every text once, with the packages that come under it.
pub(super) fn list(metadata: &Value) -> Result<String> {
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let mut list = String::from("Ballast holds code of these packages, each under its own terms.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in &shipped(metadata)? {
        let package =
            packages.iter().find(|package| package["id"] == **id).context("a package is unknown")?;
        // Ballast's own come from no registry.
        if package["source"].is_null() {
            continue;
        }
        let text = |key: &str| package[key].as_str().unwrap_or("unknown");
        let name = format!("{} {}", text("name"), text("version"));
        list += &format!("{name}: {}\n", text("license"));
        for terms in terms(Path::new(text("manifest_path")))? {
            texts.entry(terms).or_default().push(name.clone());
        }
    }
    for (text, names) in texts {
        list += &format!("\n{}\n{}:\n\n{}\n", "=".repeat(80), names.join(", "), text.trim_end());
    }
    Ok(list)
}

/// Ids of everything that the roots are linked with, in order.
fn shipped(metadata: &Value) -> Result<BTreeSet<&str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo resolves nothing")?;
    let is_root = |id: &&str| {
        ROOTS.iter().any(|root| id.contains(&format!("{root}#")) || id.contains(&format!("#{root}@")))
    };
    let mut open: Vec<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).filter(is_root).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"] == id).context("a package is not resolved")?;
        let linked = |dependency: &&Value| {
            let kinds = dependency["dep_kinds"].as_array();
            // Neither what tests nor what build scripts use.
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        let dependencies = node["deps"].as_array().into_iter().flatten().filter(linked);
        open.extend(dependencies.filter_map(|dependency| dependency["pkg"].as_str()));
    }
    Ok(found)
}

/// What the files beside a manifest say.
fn terms(manifest: &Path) -> Result<Vec<String>> {
    let directory = manifest.parent().context("a manifest has no directory")?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("could not list {}", directory.display()))? {
        let path = entry.context("could not list a package")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            let bytes = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    texts.sort();
    Ok(texts)
}

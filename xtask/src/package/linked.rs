//! Code in the program that comes with the compiler and not from cargo's packages: Rust's own library, and in the static
//! program the C library and what the C compiler adds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Linking;
use crate::{process, toolchain};

/// Where distributions put the terms of what they link statically.
const DOCUMENTS: &str = "/usr/share/doc";
const LGPL: &str = "/usr/share/common-licenses/LGPL-2.1";
/// The LGPL asks for it: that a user can put another version of the library in.
const RELINKING: &str = "The program in the tarball holds the GNU C Library (https://sourceware.org/glibc/), under the GNU Lesser General Public \
                         License, version 2.1 or later, and GCC's runtime library. With the sources of Ballast, which are under terms that \
                         allow it, `cargo xtask package` links the program with any version of them.";

/// The terms of each, as they come with it.
pub(super) fn list(linking: Linking) -> Result<String> {
    let mut list = section("Rust's standard library", &plain(&read(&rust_library()?)?));
    if let Linking::Static = linking {
        list += &section("The C library and GCC's runtime library", RELINKING);
        list += &section("GNU C Library", &read(&found(&["libc6-dev", "libc6"])?)?);
        list += &section("GNU Lesser General Public License", &read(Path::new(LGPL))?);
        list += &section("GCC's runtime library", &read(&gcc_runtime()?)?);
    }
    Ok(list)
}

fn section(title: &str, text: &str) -> String {
    format!("\n{}\n{title}:\n\n{}\n", "=".repeat(80), text.trim())
}

/// As rustup has it, or a distribution's package of the compiler.
fn rust_library() -> Result<PathBuf> {
    let sysroot =
        process::output(Command::new("rustc").args(["--print", "sysroot"]).env("PATH", toolchain::path()))
            .context("`rustc --print sysroot` failed")?;
    let own = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    if own.is_file() { Ok(own) } else { found(&["rustc", "rustc-web"]) }
}

/// The terms of the first of these packages that is here.
fn found(packages: &[&str]) -> Result<PathBuf> {
    let paths = packages.iter().map(|package| Path::new(DOCUMENTS).join(package).join("copyright"));
    let Some(path) = paths.into_iter().find(|path| path.is_file()) else {
        bail!(
            "nothing under {DOCUMENTS} tells the terms of {}, which are shipped with it",
            packages.join(" or ")
        );
    };
    Ok(path)
}

/// Of the newest version that is here.
fn gcc_runtime() -> Result<PathBuf> {
    let entries = fs::read_dir(DOCUMENTS).with_context(|| format!("could not list {DOCUMENTS}"))?;
    let version = |name: &str| name.strip_prefix("gcc-")?.strip_suffix("-base")?.parse::<u32>().ok();
    let versions = entries.flatten().filter_map(|entry| version(entry.file_name().to_str()?));
    let newest = versions.max().context("no package of GCC tells the terms of its runtime library")?;
    found(&[&format!("gcc-{newest}-base")])
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// HTML without its tags; other text as it is.
fn plain(text: &str) -> String {
    if !text.trim_start().starts_with("<!DOCTYPE html>") {
        return text.to_owned();
    }
    let mut plain = String::new();
    for part in text.split('<') {
        let (tag, words) = part.split_once('>').unwrap_or(("", part));
        plain += words;
        if tag == "/title" || tag == "/head" {
            plain.push('\n');
        }
    }
    for (entity, letter) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")] {
        plain = plain.replace(entity, letter);
    }
    let mut lines: Vec<&str> = plain.lines().map(str::trim_end).collect();
    lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_and_text_stays() {
        let page =
            "<!DOCTYPE html>\n<h1>Terms</h1>\n\n\n<p>of &lt;a@b&gt; &amp; <a href=\"#x\">others</a></p>";
        assert_eq!(plain(page).trim(), "Terms\n\nof <a@b> & others");
        assert_eq!(plain("1 < 2"), "1 < 2");
    }

    #[test]
    fn what_is_linked_in_is_told_with_its_terms() {
        let list = list(Linking::Dynamic).expect("the terms of Rust's library");
        assert!(list.contains("Apache") && list.contains("MIT"), "{list}");
        assert!(!list.contains("</p>"), "{list}");
    }
}

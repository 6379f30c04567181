//! The manual that `ballast man` writes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::binary;

#[test]
fn every_page_is_sound_and_can_be_read() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let written = Command::new(binary()?).args(["-o", "json", "man"]).arg(directory.path()).output()?;
    ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let written: serde_json::Value = serde_json::from_slice(&written.stdout)?;
    let files: Vec<_> =
        written["files"].as_array().context("files")?.iter().filter_map(|file| file.as_str()).collect();
    ensure!(files.len() > 20, "{files:?}");
    let mandoc = |arguments: &[&str]| {
        Command::new("mandoc")
            .args(arguments)
            .output()
            .context("run mandoc (`cargo xtask setup` installs it)")
    };
    // Styles are matters of taste, and of the page format that clap_mangen has chosen.
    let checked = mandoc(&[&["-T", "lint", "-W", "warning"], files.as_slice()].concat())?;
    let told = String::from_utf8_lossy(&checked.stdout);
    ensure!(
        checked.status.success() && told.is_empty(),
        "{told}{}",
        String::from_utf8_lossy(&checked.stderr)
    );

    let shown = |name: &str| -> Result<String> {
        let page = files.iter().find(|file| file.ends_with(name)).context("no such page")?;
        read_by_man(&mandoc(&["-T", "ascii", page])?.stdout)
    };
    let text = shown("/man1/ballast.1")?;
    for part in
        ["EXIT STATUS", "EXAMPLES", "/run/ballast/control.sock", "ballast backend drain web web-1 --wait"]
    {
        ensure!(text.contains(part), "no {part} in\n{text}");
    }
    let text = shown("/man5/ballast-config.5")?;
    for part in ["[daemon]", "interfaces (list of 1 to 16 names; required)", "[service.health]: exec"] {
        ensure!(text.contains(part), "no {part} in\n{text}");
    }
    Ok(())
}

/// The page as it is read on a terminal.
fn read_by_man(shown: &[u8]) -> Result<String> {
    // Bold letters are printed twice, one over the other.
    let text = String::from_utf8(shown.to_vec())?;
    let mut letters = Vec::new();
    for letter in text.chars() {
        match letter {
            '\u{8}' => drop(letters.pop()),
            letter => letters.push(letter),
        }
    }
    Ok(letters.into_iter().collect())
}

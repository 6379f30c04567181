//! Examples in documentation: there are none, because compiling them would take as long as compiling all tests of the
//! program. What is worth showing is shown by a test.

use std::{fs, path::Path};

use crate::cargo;

#[test]
fn no_documentation_has_examples_that_nobody_runs() {
    let examples: Vec<_> = ["lb-common", "lb-userspace", "xtask"]
        .into_iter()
        .flat_map(|package| examples_in(&cargo::workspace().join(package).join("src")))
        .collect();
    assert_eq!(examples, [""; 0], "their packages have `doctest = false`");
}

fn examples_in(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(examples_in(&path));
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.extend(examples(&text).map(|line| format!("{}:{line}", path.display())));
        }
    }
    found
}

/// The lines that begin a block of Rust, which is what a block is unless it says otherwise.
fn examples(text: &str) -> impl Iterator<Item = usize> {
    let comments = text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.trim_start();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
        Some((number + 1, comment.trim_start().strip_prefix("```")?))
    });
    comments.step_by(2).filter(|(_, language)| *language != "text").map(|(number, _)| number)
}

#[test]
fn a_block_is_an_example_unless_it_is_text() {
    let text = "//! ```text\n//! a b\n//! ```\n\n    /// ```\n    /// let x = 1;\n    /// ```\n/// ```no_run\n/// ```\n";
    assert_eq!(examples(text).collect::<Vec<_>>(), [5, 8]);
}

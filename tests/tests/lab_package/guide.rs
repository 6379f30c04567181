//! The commands of `docs/install.md`, each of which is run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use lb_tests::lab::Root;

/// Makes the packages, by the code that made the ones here.
const MADE: &str = "cargo xtask package";

pub(super) struct Guide {
    /// Commands that were not run yet.
    left: BTreeSet<String>,
    text: String,
}

impl Guide {
    pub(super) fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/install.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let left = blocks.flat_map(str::lines).filter(|line| *line != MADE).map(str::to_owned).collect();
        Ok(Self { left, text })
    }

    /// The guide has this command, and it is run now.
    pub(super) fn has(&mut self, line: &str) -> Result<()> {
        ensure!(self.text.lines().any(|command| command == line), "docs/install.md has no `{line}`");
        self.left.remove(line);
        Ok(())
    }

    /// Runs a command of the guide, which must succeed.
    pub(super) fn run(&mut self, root: &Root, line: &str) -> Result<String> {
        self.has(line)?;
        root.run(line)
    }

    pub(super) fn is_done(&self) -> Result<()> {
        ensure!(self.left.is_empty(), "commands of docs/install.md that no test runs: {:#?}", self.left);
        Ok(())
    }
}

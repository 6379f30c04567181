//! Programs that must succeed.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs a command to its end and returns what it printed.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>> {
    filter(command, &[])
}

/// The same with `input` to read.
pub(super) fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    // What is made must not depend on who makes it.
    command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("GZIP").env_remove("XZ_OPT");
    let shown = format!("{command:?}");
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().with_context(|| format!("could not start {shown}"))?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    let input = input.to_owned();
    // In a thread of its own: it may print before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().with_context(|| format!("could not wait for {shown}"))?;
    // Where it did not read to the end its exit status tells more.
    let _ = writer.join();
    if !output.status.success() {
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// Compressed without name or time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    filter(Command::new("gzip").args(["--best", "--no-name", "--stdout"]), bytes)
}

//! Running other programs: as root where that is needed, and with errors that say what was run.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// Says what is about to happen.
pub(crate) fn say(message: impl AsRef<str>) {
    eprintln!("xtask: {}", message.as_ref());
}

/// Runs a command with our own input and output, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to its output; none if it failed or isn't there.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// When the output of a command is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// While it is written; what goes to the error output is ours.
    AtOnce,
    /// In one piece when the command has ended, what went to the error output first.
    AtItsEnd,
}

/// Runs a command, shows what it writes, and gives each line of its output to `each`.
pub(crate) fn follow(command: &mut Command, show: Show, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    if show == Show::AtItsEnd {
        let output = command.output().with_context(|| format!("could not start `{}`", shown(command)))?;
        String::from_utf8_lossy(&output.stdout).lines().for_each(each);
        // Both locked, so that those of two commands don't mix.
        let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
        err.write_all(&output.stderr)
            .and_then(|()| out.write_all(&output.stdout))
            .context("could not write")?;
        out.flush().context("could not write")?;
        return Ok(output.status);
    }
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("could not start `{}`", shown(command)))?;
    let mut output = child.stdout.take().context("it has no output")?;
    let mut lines = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let length =
            output.read(&mut chunk).with_context(|| format!("could not read from `{}`", shown(command)))?;
        let chunk = chunk.get(..length).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        // By chunk, not by line: a test's name is shown while it runs.
        io::stdout().write_all(chunk).and_then(|()| io::stdout().flush()).context("could not write")?;
        lines.extend_from_slice(chunk);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = lines.drain(..=end).collect();
            each(String::from_utf8_lossy(&line).trim_end());
        }
    }
    child.wait().with_context(|| format!("could not wait for `{}`", shown(command)))
}

/// A command that runs `program` as root: as it is for root, else through sudo, which keeps the environment.
pub(crate) fn as_root(program: impl AsRef<Path>) -> Result<Command> {
    let Some(mut command) = sudo()? else {
        return Ok(Command::new(program.as_ref()));
    };
    command.arg(program.as_ref());
    Ok(command)
}

/// `sudo -E`, or none when we are root already.
pub(crate) fn sudo() -> Result<Option<Command>> {
    if is_root()? {
        return Ok(None);
    }
    let sudo = toolchain::find_program("sudo")
        .context("this needs root, and there is no sudo: run the same command as root")?;
    let mut command = Command::new(sudo);
    command.arg("-E");
    Ok(Some(command))
}

fn is_root() -> Result<bool> {
    // The owner of a process's directory is its effective user.
    Ok(fs::metadata("/proc/self").context("/proc has to be mounted")?.uid() == 0)
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = program.file_name().into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Removes a file, which may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

//! `cargo xtask test --kernel SERIES`: the packet tests on one of Debian's kernels, in an emulated machine.
//!
//! The tests are those that run on this host's kernel, the very same executables.

mod debian;
mod image;
mod listen;
mod machine;
mod says;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    debian::Kernel,
    image::Image,
    listen::Listener,
    machine::{DEADLINE, End, Machine},
};
use crate::{
    apt::Apt,
    cargo::{self, Executable},
    demo,
    libtest::Report,
    process::{self, say},
    setup, toolchain,
};

/// Packages of what runs a machine and unpacks its kernel.
const PACKAGES: [&str; 2] = ["qemu-system-x86", "xz-utils"];
/// The guest's `/init`, in the package of the tests.
const INIT: &str = "kernel-guest";
/// The tests that need no more than a kernel.
const SUITES: &str = "packet_*";
/// Programs that the packet tests run.
const PROGRAMS: [&str; 1] = ["ip"];
/// Random frames that a test may take at most.
const PACKETS_VAR: &str = "BALLAST_PACKETS";
/// A machine takes a minute for them; a host runs 500,000.
const PACKETS: u32 = 100_000;

/// A series of kernels, such as 6.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series(String);

impl FromStr for Series {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_series =
            text.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor));
        if is_series { Ok(Self(text.into())) } else { Err("a series is two numbers, such as 6.1 or 6.12") }
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Boots the series' newest kernel and runs the packet tests whose name contains `filter`.
pub(crate) fn test(series: &Series, filter: Option<&str>) -> Result<Report> {
    ensure!(env::consts::ARCH == "x86_64", "only the kernels for x86-64 are tested, on a host of that kind");
    setup::ready()?;
    let Some(mut apt) = Apt::find() else {
        bail!("Debian's kernels come from its archive, and this machine has no apt");
    };
    apt.install(&PACKAGES.map(str::to_owned))?;
    let (init, suites) = build()?;
    // `<target>/<profile>/<init>`.
    let target = init.ancestors().nth(2).context("cargo builds into a directory")?;
    let directory = target.join("kernels").join(&series.0);
    let kernel = debian::kernel(series, &mut apt, &directory)?;

    let image = directory.join("initramfs");
    pack(&init, &suites, &kernel, &directory.join("stripped"))?.write(&image)?;
    let machine = Machine {
        kernel: &kernel,
        image: &image,
        environment: &[(PACKETS_VAR, PACKETS.to_string())],
        arguments: &Vec::from_iter(filter.map(str::to_owned)),
        log: directory.join("kernel.log"),
    };
    let names = suites.into_iter().map(|suite| suite.target).collect();
    run(&machine, Listener::new(&format!("Linux {series}"), names))
}

fn run(machine: &Machine<'_>, mut listener: Listener) -> Result<Report> {
    let release = &machine.kernel.release;
    say(format!("booting {release}; its messages go to {}", machine.log.display()));
    let started = Instant::now();
    let end = machine.run(|line| listener.line(line))?;
    say(format!("{release}: {} s", started.elapsed().as_secs()));
    if !listener.is_done() {
        eprintln!("{}\n", machine.last_words()?);
        say(match end {
            End::Deadline => format!("{release} was not done after {} s", DEADLINE.as_secs()),
            End::Stopped => format!("{release} stopped before it was done; its last words are above"),
            End::Failed => "qemu failed; what it said is above".into(),
        });
    }
    Ok(listener.finish())
}

/// Builds `/init` and the suites.
fn build() -> Result<(PathBuf, Vec<Executable>)> {
    let mut command = cargo::command("test");
    command.args(["--no-run", "--package", demo::PACKAGE, "--test", SUITES]);
    let built = cargo::build(&mut command)?;
    let init = cargo::binary(&built, INIT)?.to_owned();
    let mut suites: Vec<_> = built.into_iter().filter(|executable| executable.is_test).collect();
    suites.sort_by(|a, b| a.target.cmp(&b.target));
    Ok((init, suites))
}

/// What the guest finds: itself, the suites, the programs they run, the files they compare with, and its modules.
fn pack(init: &Path, suites: &[Executable], kernel: &Kernel, stripped: &Path) -> Result<Image> {
    let mut image = Image::default();
    fs::create_dir_all(stripped).with_context(|| format!("could not make {}", stripped.display()))?;
    image.program("/init", init)?;
    for suite in suites {
        image.program(
            format!("/suites/{}", suite.target),
            &strip(&suite.path, &stripped.join(&suite.target))?,
        )?;
        data(&suite.package_dir.join("tests"), &mut image)?;
    }
    for name in PROGRAMS {
        let program =
            toolchain::find_program(name).with_context(|| format!("this machine has no `{name}`"))?;
        image.program(format!("/bin/{name}"), &program)?;
    }
    for module in &kernel.modules {
        image.add(Path::new("/modules").join(module.file_name().unwrap_or_default()), module);
    }
    Ok(image)
}

/// Copies an executable without its debugging information, which is most of it and would fill the guest's memory.
fn strip(executable: &Path, to: &Path) -> Result<PathBuf> {
    process::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(executable))?;
    Ok(to.into())
}

/// Adds the files next to the tests' sources, at the same place: some are read when the tests run.
fn data(directory: &Path, image: &mut Image) -> Result<()> {
    let list = fs::read_dir(directory).with_context(|| format!("could not list {}", directory.display()))?;
    for entry in list {
        let file = entry.with_context(|| format!("could not list {}", directory.display()))?.path();
        if file.is_file() && file.extension().is_none_or(|extension| extension != "rs") {
            image.add(&file, &file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!("6.12".parse(), Ok(Series("6.12".into())));
        for wrong in ["6", "6.", ".1", "6.1.0", "v6.1", ""] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }
}

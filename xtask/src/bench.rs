//! `cargo xtask bench`: builds the benchmark and its eBPF programs, and runs them. The benchmark itself is
//! `tests/src/bench/`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Error, Result, ensure};
use clap::Args;

use crate::{
    apt::Apt,
    build, cargo,
    demo::PACKAGE,
    ebpf::Build,
    process::{self, say},
    setup,
    toolchain::{self, Toolchain},
};

const BINARY: &str = "bench";

/// Objects by the names under which the benchmark looks for them: package and features.
const OBJECTS: [(&str, &str, &[&str]); 3] = [
    ("harness", "lb-bench-ebpf", &[]),
    ("lru", "lb-ebpf", &["flows-in-lru"]),
    ("percpu-lru", "lb-ebpf", &["flows-in-percpu-lru"]),
];

/// Programs that Ballast is compared with, and the Debian packages they (or, for nginx, the part that is needed) come in.
const CONTENDERS: [(&str, &str); 2] = [("haproxy", "haproxy"), ("nginx", "libnginx-mod-stream")];

#[derive(Args, Default)]
pub(crate) struct Options {
    /// What to print: a table, or json
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Measure this many rounds of each group; by default 21, and 10 live and end to end
    #[arg(long)]
    rounds: Option<u32>,
    /// Measure this build of the program too (an object of lb-ebpf); may be given more than once
    #[arg(long, value_name = "OBJECT")]
    against: Vec<PathBuf>,
    /// Run only the group of this name, or all groups whose name contains this: packets/v4/1, packets/v6/1048576, tables,
    /// publish, live, scrape, end-to-end/connections, end-to-end/requests, end-to-end/death
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let toolchain = setup::ready()?;
    install_contenders()?;
    let mut command = cargo::command("build");
    command.args(["--release", "--package", build::PACKAGE, "--bin", build::BINARY]);
    command.args(["--package", PACKAGE, "--bin", BINARY]);
    let built = cargo::build(&mut command)?;
    let (ballast, bench) = (cargo::binary(&built, build::BINARY)?, cargo::binary(&built, BINARY)?);
    let objects = objects(&toolchain, bench)?;

    let mut command = process::as_root(bench)?;
    command.arg("--objects").arg(&objects).arg("--ballast").arg(ballast).args(&options.filter);
    for object in &options.against {
        command.arg("--against").arg(object);
    }
    if let Some(output) = &options.output {
        command.args(["--output", output]);
    }
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    say(format!("starting {}", process::shown(&command)));
    process::run(&mut command).context("the benchmark failed; what went wrong is said above")
}

/// What Ballast is compared with, from the distribution; programs from elsewhere will do as well.
fn install_contenders() -> Result<()> {
    if let Some(mut apt) = Apt::find() {
        return apt.install(&CONTENDERS.map(|(_, package)| package.to_owned()));
    }
    for (program, _) in CONTENDERS {
        ensure!(
            toolchain::find_program(program).is_some(),
            "end to end, Ballast is compared with {program}: install it with this machine's package manager"
        );
    }
    Ok(())
}

/// Builds the programs that only the benchmark runs; returns the directory they are in.
fn objects(toolchain: &Toolchain, bench: &Path) -> Result<PathBuf> {
    // `bench` is `<target>/release/bench`. Not the directory of the product's object: its build script would find
    // another program there than it built.
    let target = bench.ancestors().nth(2).context("the benchmark lies in a target directory")?;
    let (build_dir, objects) = (target.join("ebpf-bench"), target.join("ebpf-bench/objects"));
    fs::create_dir_all(&objects).with_context(|| format!("could not make {}", objects.display()))?;
    for (name, package, features) in OBJECTS {
        say(format!("building eBPF object {name}"));
        let build = Build {
            package,
            features,
            workspace: cargo::workspace(),
            target_dir: &build_dir,
            arch: env::consts::ARCH,
        };
        let (object, warnings) = build.run(toolchain).map_err(Error::msg)?;
        warnings.iter().for_each(|line| eprintln!("{line}"));
        fs::copy(&object, objects.join(name))
            .with_context(|| format!("could not copy {} to {}", object.display(), objects.display()))?;
    }
    Ok(objects)
}

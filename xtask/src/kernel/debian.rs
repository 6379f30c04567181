//! Debian's kernels: fetched from its archive, which apt verifies, and unpacked into a cache. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::Series;
use crate::{
    apt::Apt,
    process::{self, say},
};

/// What the packet tests need of a kernel that Debian builds as modules.
const MODULES: [&str; 1] = ["veth"];

/// One kernel, unpacked.
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// In the order to load them in.
    pub(crate) modules: Vec<PathBuf>,
}

/// The newest kernel of this series that Debian offers.
///
/// # Errors
///
/// If this machine's apt knows none, or can't fetch it.
pub(crate) fn kernel(series: &Series, apt: &mut Apt, cache: &Path) -> Result<Kernel> {
    if let Some(package) = newest(series)
        && let Some(kernel) = cached(cache, &package)?
    {
        return Ok(kernel);
    }
    apt.update()?;
    let package =
        newest(series).with_context(|| format!("this machine's apt offers no Linux {series} for amd64"))?;
    say(format!("fetching {package}"));
    fetch(cache, &package).with_context(|| format!("could not fetch {package}"))?;
    cached(cache, &package)?.with_context(|| format!("{package} was unpacked and is not there"))
}

/// The plain flavour, neither for clouds nor for real time.
fn newest(series: &Series) -> Option<String> {
    let pattern = format!(r"^linux-image-{}\.([0-9.+-]|deb|bpo)+-amd64$", series.0.replace('.', r"\."));
    let found = process::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    names.max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// What orders versions: `6.12.9+deb12` is older than `6.12.10+deb12`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn cached(cache: &Path, package: &str) -> Result<Option<Kernel>> {
    let directory = cache.join(package);
    if !directory.is_dir() {
        return Ok(None);
    }
    let release = release(package)?.to_owned();
    let mut modules = files(&directory)?;
    modules.retain(|file| file.extension().is_some_and(|extension| extension == "ko"));
    modules.sort();
    Ok(Some(Kernel { image: directory.join(format!("vmlinuz-{release}")), release, modules }))
}

fn release(package: &str) -> Result<&str> {
    package.strip_prefix("linux-image-").with_context(|| format!("{package} is no kernel"))
}

/// Downloads a package and unpacks what we need of it, all or nothing.
fn fetch(cache: &Path, package: &str) -> Result<()> {
    let directory = cache.join(format!("{package}.new"));
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("could not remove {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
    let mut download = Command::new("apt-get");
    // As root apt would hand the download to a user who can't write there.
    download.args(["-qq", "--option=APT::Sandbox::User=root", "download", package]);
    process::run(download.current_dir(&directory))?;
    let archive = files(&directory)?.pop().context("apt-get left no package")?;

    let mut unpacked = Unpacking { archive: &archive, directory: &directory, modules: Vec::new() };
    unpacked.take(&format!("*/vmlinuz-{}", release(package)?))?;
    for module in MODULES {
        unpacked.module(module)?;
    }
    process::remove_file(&archive)?;
    fs::rename(&directory, cache.join(package))
        .with_context(|| format!("could not rename {}", directory.display()))
}

/// A package being unpacked into a flat directory.
struct Unpacking<'a> {
    archive: &'a Path,
    directory: &'a Path,
    /// Those that are there, what each needs before it.
    modules: Vec<String>,
}

impl Unpacking<'_> {
    /// Unpacks a module and what it depends on, numbered in the order to load them in.
    fn module(&mut self, name: &str) -> Result<()> {
        if self.modules.iter().any(|known| known == name) {
            return Ok(());
        }
        // File names have either of the two where the module's name has an underscore.
        self.take(&format!("*/{}.ko*", name.replace('_', "[_-]")))?;
        let is_it = |file: &PathBuf| {
            let stem = file.file_name().and_then(|name| name.to_str()?.split_once(".ko"));
            stem.is_some_and(|(stem, _)| stem.replace('-', "_") == name)
        };
        let mut file = files(self.directory)?.into_iter().find(is_it).context("tar unpacked no such file")?;
        if file.extension().is_some_and(|extension| extension == "xz") {
            process::run(Command::new("xz").arg("--decompress").arg(&file))?;
            file.set_extension("");
        }
        let bytes = fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
        for dependency in dependencies(&bytes) {
            self.module(&dependency)?;
        }
        let numbered = self.directory.join(format!("{:02}-{name}.ko", self.modules.len()));
        fs::rename(&file, numbered).with_context(|| format!("could not rename {}", file.display()))?;
        self.modules.push(name.into());
        Ok(())
    }

    /// Unpacks the files that match, without their directories.
    fn take(&self, pattern: &str) -> Result<()> {
        let mut read = Command::new("dpkg-deb");
        read.arg("--fsys-tarfile").arg(self.archive).stdout(Stdio::piped());
        let mut reader = read.spawn().context("could not start dpkg-deb")?;
        let archive = reader.stdout.take().context("dpkg-deb has no output")?;
        let mut unpack = Command::new("tar");
        unpack.args(["--extract", "--wildcards", "--transform=s,.*/,,", pattern]);
        process::run(unpack.current_dir(self.directory).stdin(archive))?;
        let status = reader.wait().context("could not wait for dpkg-deb")?;
        ensure!(status.success(), "`{}` failed: {status}", process::shown(&read));
        Ok(())
    }
}

/// The modules that have to be loaded before this one, as it says itself.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0);
    let list = strings.find_map(|string| string.strip_prefix(b"depends=")).unwrap_or_default();
    let names = String::from_utf8_lossy(list);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    list().with_context(|| format!("could not list {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut names = ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-56-amd64"];
        names.sort_by_key(|name| std::cmp::Reverse(numbers(name)));
        assert_eq!(names[0], "linux-image-6.1.0-56-amd64");
        assert!(numbers("linux-image-6.12.9+deb12-amd64") < numbers("linux-image-6.12.10+deb12-amd64"));
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            dependencies(b"\0license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0"),
            ["udp_tunnel", "ip6_udp_tunnel"]
        );
        assert_eq!(dependencies(b"\0depends=\0name=veth\0"), [""; 0]);
    }
}

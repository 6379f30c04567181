//! The guest's files: an archive that the kernel unpacks into memory and starts `/init` from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use cpio::{NewcBuilder, newc};

use crate::process;

/// An image to be.
#[derive(Default)]
pub(crate) struct Image {
    /// The guest's path and the host's.
    files: BTreeMap<PathBuf, PathBuf>,
}

impl Image {
    pub(crate) fn add(&mut self, path: impl AsRef<Path>, file: impl Into<PathBuf>) {
        self.files.insert(path.as_ref().into(), file.into());
    }

    /// Adds a program together with the shared libraries it needs, which lie where they do on the host.
    pub(crate) fn program(&mut self, path: impl AsRef<Path>, program: &Path) -> Result<()> {
        let listed = process::output(Command::new("ldd").arg(program));
        let listed =
            listed.with_context(|| format!("could not list the libraries of {}", program.display()))?;
        libraries(&listed).for_each(|library| self.add(library, library));
        self.add(path, program);
        Ok(())
    }

    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let archive = File::create(to).with_context(|| format!("could not write {}", to.display()))?;
        let mut archive = BufWriter::new(archive);
        let parents = self.files.keys().flat_map(|file| file.ancestors().skip(1));
        // Sorted: a directory comes before what is in it.
        let directories: BTreeSet<_> = parents.filter(|directory| directory.parent().is_some()).collect();
        for directory in directories {
            entry(directory, 0o040_755)?.write(&mut archive, 0).finish()?;
        }
        for (path, file) in &self.files {
            let content = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
            let length = u32::try_from(content.len()).context("too large for an initramfs")?;
            let mut writer = entry(path, 0o100_755)?.write(&mut archive, length);
            io::copy(&mut content.as_slice(), &mut writer)?;
            writer.finish()?;
        }
        newc::trailer(archive)?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }
}

fn entry(path: &Path, mode: u32) -> Result<NewcBuilder> {
    let name = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
    Ok(NewcBuilder::new(name.trim_start_matches('/')).mode(mode))
}

/// The paths in what `ldd` lists.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f2a)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2b)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}

//! A directory that is filled with files of given modes.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// What is to be the root of a file system, or a part of one.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one; what was at `root` is removed.
    pub(super) fn create(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("could not remove {}", root.display()))?;
        }
        let tree = Self { root };
        tree.directory("")?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a directory and those above it, for everybody to see.
    pub(super) fn directory(&self, path: &str) -> Result<()> {
        let mut made = self.root.clone();
        fs::create_dir_all(&made).with_context(|| format!("could not make {}", made.display()))?;
        set_mode(&made, 0o755)?;
        for part in Path::new(path) {
            made.push(part);
            if !made.is_dir() {
                fs::create_dir(&made).with_context(|| format!("could not make {}", made.display()))?;
                set_mode(&made, 0o755)?;
            }
        }
        Ok(())
    }

    pub(super) fn file(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
            self.directory(parent)?;
        }
        let path = self.root.join(path);
        fs::write(&path, bytes).with_context(|| format!("could not write {}", path.display()))?;
        set_mode(&path, mode)
    }

    /// A copy of a file that everybody may read.
    pub(super) fn copy(&self, from: &Path, path: &str) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
        self.file(path, &bytes, 0o644)
    }

    /// Paths of all files, relative to the root, in order.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        walk(&self.root, &mut files)?;
        files.sort();
        files.into_iter().map(|file| Ok(file.strip_prefix(&self.root)?.to_owned())).collect()
    }
}

/// Files in `directory` and those in it.
pub(super) fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("could not list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry.file_type().with_context(failed)?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Whatever the umask is.
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("could not set the mode of {}", path.display()))
}

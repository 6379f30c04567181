//! What a look from outside tells, without a daemon and without touching anything: what is pinned, what interfaces run.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use super::{
    bpffs::is_bpffs,
    pins::{self, PinError},
    sys, xdp_query,
};

/// What an earlier daemon, or one that runs, has pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Layouts of maps, by the names of their directories.
    pub layouts: Vec<String>,
    /// Programs on interfaces.
    pub programs: Vec<PinnedProgram>,
    /// The daemon that holds the lock.
    pub holder: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedProgram {
    /// 0 once the interface is gone.
    pub ifindex: u32,
    pub program: u32,
}

/// A program on an interface, whoever attached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub program: u32,
    /// `native`, `generic`, or what else the kernel knows.
    pub mode: &'static str,
}

/// Looks at a pin directory; empty where there is none.
///
/// # Errors
///
/// It can't be read.
pub fn pinned(pin_dir: &Path) -> Result<Pinned, PinError> {
    let mut found = Pinned::default();
    if !pin_dir.try_exists().map_err(pins::failed(pin_dir, "look for it"))? {
        return Ok(found);
    }
    let metadata = fs::metadata(pin_dir).map_err(pins::failed(pin_dir, "inspect it"))?;
    found.holder = pins::holder(&metadata);
    for path in pins::entries(pin_dir)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.starts_with(pins::ABI_PREFIX) {
            continue;
        }
        found.layouts.push(name.to_owned());
        for pinned in pins::links(&path)? {
            let info = sys::link_info(pinned.link.as_fd());
            let info = info.map_err(pins::failed(&pinned.path, "inspect the link"))?;
            found.programs.push(PinnedProgram { ifindex: info.ifindex, program: info.program });
        }
    }
    Ok(found)
}

/// Whether a path that exists is on a BPF file system.
///
/// # Errors
///
/// It can't be asked for.
pub fn on_bpffs(path: &Path) -> Result<bool, PinError> {
    is_bpffs(path)
}

/// The directory of this version's layout.
pub fn own_layout() -> String {
    pins::abi_name()
}

/// The program that an interface runs, whoever attached it.
///
/// # Errors
///
/// The interface is gone.
pub fn running(ifindex: u32) -> io::Result<Option<Running>> {
    let running = xdp_query::running(ifindex)?;
    Ok(running.map(|running| Running { program: running.program, mode: running.mode }))
}

/// Makes a map as those that programs and controller share, and forgets it.
///
/// # Errors
///
/// The kernel's.
pub fn try_map() -> io::Result<()> {
    sys::create_mappable().map(drop)
}

/// Whether frames of several buffers get to programs.
pub fn takes_multi_buffer() -> bool {
    sys::takes_multi_buffer()
}

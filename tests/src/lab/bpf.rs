//! The few `bpf(2)` calls the lab needs. The only `unsafe` code about BPF in the lab is here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::assembler::Instruction;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_ATTACH_TYPE_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// Where a program is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// XDP, taking frames of several buffers (so that it attaches at any MTU).
    Xdp,
    /// A tc classifier.
    Classifier,
}

/// A loaded program. Pin it or attach it before it is dropped.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// `union bpf_attr` as BPF_PROG_LOAD reads it (Linux 5.15 and later know all of these fields).
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` as BPF_OBJ_PIN and BPF_OBJ_GET read it.
#[repr(C)]
#[derive(Default)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

impl Program {
    /// Loads a program. If the verifier refuses it, the error holds what it said.
    pub fn load(kind: Kind, name: &str, instructions: &[Instruction]) -> Result<Self> {
        let license = c"Dual MIT/GPL";
        let mut log = vec![0u8; 64 * 1024];
        let mut attributes = LoadAttributes {
            prog_type: if kind == Kind::Xdp { BPF_PROG_TYPE_XDP } else { BPF_PROG_TYPE_SCHED_CLS },
            instruction_count: u32::try_from(instructions.len()).context("count the instructions")?,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 1,
            log_size: u32::try_from(log.len()).context("size of the log")?,
            log_buffer: log.as_mut_ptr() as u64,
            flags: if kind == Kind::Xdp { BPF_F_XDP_HAS_FRAGS } else { 0 },
            expected_attach_type: if kind == Kind::Xdp { BPF_ATTACH_TYPE_XDP } else { 0 },
            ..Default::default()
        };
        // The kernel takes 15 characters and a zero.
        for (to, from) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: the attributes are what BPF_PROG_LOAD reads, their pointers are to a slice, a C string and a vector
        // that live through the call, and the sizes given are theirs.
        let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) };
        let fd = fd.map_err(|error| {
            let said = String::from_utf8_lossy(&log);
            anyhow!("load the program {name}: {error}: {}", said.trim_end_matches('\0').trim_end())
        })?;
        // SAFETY: the kernel has just handed this descriptor to us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Gives the program a name in bpffs, by which `ip` and `tc` can attach it.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let text = CString::new(path.as_os_str().as_bytes()).context("a path holds no zero")?;
        let fd = u32::try_from(self.fd.as_raw_fd()).context("a descriptor is not negative")?;
        let mut attributes = PinAttributes { path: text.as_ptr() as u64, fd, flags: 0 };
        // SAFETY: the attributes are what BPF_OBJ_PIN reads and the path they point to lives through the call.
        let done = unsafe { bpf(BPF_OBJ_PIN, &mut attributes) };
        if let Err(error) = done {
            bail!("pin a program at {}: {error}", path.display());
        }
        Ok(())
    }
}

/// `union bpf_attr` as BPF_MAP_LOOKUP_ELEM reads it.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The first value of a pinned map whose keys have 32 bits and whose values are `size` bytes long: behind the
/// controller's back. Of a per-CPU map there is a value for each CPU, one behind the other.
pub(super) fn first_value(pin: &Path, size: usize) -> Result<Vec<u8>> {
    let fd = open(pin)?;
    let (key, mut value) = (0u32, vec![0; size.next_multiple_of(8) * possible_cpus()?]);
    let mut attributes = Element {
        map: u32::try_from(fd.as_raw_fd()).context("a descriptor is not negative")?,
        key: &raw const key as u64,
        value: value.as_mut_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: the attributes are what BPF_MAP_LOOKUP_ELEM reads; the key is 32 bits, and the value has room for one of
    // the map's for each CPU (the caller's promise; a wrong size is a wrong test, found by what it reads).
    let done = unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) };
    done.with_context(|| format!("look into {}", pin.display()))?;
    Ok(value)
}

/// `struct bpf_link_info` up to the program.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _padding: u32,
}

/// `union bpf_attr` as BPF_OBJ_GET_INFO_BY_FD reads it.
#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// `union bpf_attr` as BPF_PROG_GET_FD_BY_ID reads it.
#[repr(C)]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next: u32,
    flags: u32,
}

/// `union bpf_attr` as BPF_LINK_DETACH reads it.
#[repr(C)]
#[derive(Default)]
struct DetachAttributes {
    link: u32,
}

/// The program that a pinned link runs now.
pub(super) fn program_of_link(pin: &Path) -> Result<OwnedFd> {
    let link = open(pin)?;
    loop {
        let id = running(&link).with_context(|| format!("ask what runs by {}", pin.display()))?;
        match program_by_id(id) {
            // Replaced meanwhile, and gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.with_context(|| format!("open the program {id}")),
        }
    }
}

/// Takes the program of a pinned link off its interface.
pub(super) fn detach_link(pin: &Path) -> Result<()> {
    let link = open(pin)?;
    let mut attributes = DetachAttributes { link: u32::try_from(link.as_raw_fd())? };
    // SAFETY: the attributes are what BPF_LINK_DETACH reads, and hold no pointers.
    let done = unsafe { bpf(BPF_LINK_DETACH, &mut attributes) };
    done.map(drop).with_context(|| format!("detach {}", pin.display()))
}

/// The number of the program that a link runs.
fn running(link: &OwnedFd) -> Result<u32> {
    let mut info = LinkInfo::default();
    let mut attributes = InfoAttributes {
        fd: u32::try_from(link.as_raw_fd()).context("a descriptor is not negative")?,
        length: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the attributes are what BPF_OBJ_GET_INFO_BY_FD reads, and `info` has the length they say.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.program)
}

fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = IdAttributes { id, ..IdAttributes::default() };
    // SAFETY: the attributes are what BPF_PROG_GET_FD_BY_ID reads, and hold no pointers.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) }?;
    // SAFETY: the kernel has just handed this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens what is pinned there.
fn open(pin: &Path) -> Result<OwnedFd> {
    let text = CString::new(pin.as_os_str().as_bytes()).context("a path holds no zero")?;
    let mut attributes = PinAttributes { path: text.as_ptr() as u64, ..Default::default() };
    // SAFETY: the attributes are what BPF_OBJ_GET reads and the path they point to lives through the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) };
    let fd = fd.with_context(|| format!("open {}", pin.display()))?;
    // SAFETY: the kernel has just handed this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn possible_cpus() -> Result<usize> {
    let text =
        std::fs::read_to_string("/sys/devices/system/cpu/possible").context("read the possible CPUs")?;
    let last = text.trim().rsplit(['-', ',']).next().unwrap_or_default();
    Ok(last.parse::<usize>().with_context(|| format!("understand the possible CPUs {text:?}"))? + 1)
}

/// The system call.
///
/// # Safety
///
/// `attributes` must be laid out as `command` reads them, and what they point to must be valid.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the size is the attributes' own; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

//! The `bpf(2)` calls that packet tests and the benchmark need: running a program on a frame, and reaching into maps
//! behind the controller's back. The only `unsafe` code of the packet tests is here and below.

mod run;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};

pub use run::Classified;
pub(crate) use run::{Run, send_live_frames, test_run_at, test_run_repeatedly};
pub(super) use run::{classify, test_run};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `union bpf_attr` as the map element commands read it.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map. Where keys are numbers, they have 32 bits.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
    entries: u32,
}

impl Map {
    /// Takes the map over.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        let mut info = [0u8; 80];
        get_info(&fd, &mut info).context("ask for a map's info")?;
        let len = |at| read_u32(&info, at) as usize;
        let (key_len, value_len) = (len(MAP_KEY_LEN), len(MAP_VALUE_LEN));
        Ok(Self { fd, key_len, value_len, entries: read_u32(&info, MAP_ENTRIES) })
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Writes the value at `key`, as long as the map's values are. Not for per-CPU maps.
    pub(crate) fn update(&self, key: u32, value: &[u8]) -> Result<()> {
        ensure!(value.len() == self.value_len, "a value of {} bytes for {}", value.len(), self.value_len);
        let mut value = value.to_vec();
        self.element(BPF_MAP_UPDATE_ELEM, key, value.as_mut_ptr()).context("write a map entry")
    }

    /// Writes a per-CPU map's values at `key`, one a CPU, one behind the other.
    pub(super) fn update_all(&self, key: u32, values: &[u8]) -> Result<()> {
        let mut values = values.to_vec();
        self.element(BPF_MAP_UPDATE_ELEM, key, values.as_mut_ptr()).context("write a per-CPU map entry")
    }

    /// The value at `key`; of a per-CPU map one value a CPU, one behind the other.
    pub(super) fn lookup(&self, key: u32, cpus: usize) -> Result<Vec<u8>> {
        // Per-CPU values are rounded up to eight bytes.
        let mut value = vec![0; self.value_len.next_multiple_of(8) * cpus];
        self.element(BPF_MAP_LOOKUP_ELEM, key, value.as_mut_ptr()).context("look up a map entry")?;
        Ok(value)
    }

    pub(super) fn delete(&self, key: u32) -> Result<()> {
        self.element(BPF_MAP_DELETE_ELEM, key, std::ptr::null_mut()).context("delete a map entry")
    }

    /// Whether there is an entry, for maps with holes.
    pub(super) fn has(&self, key: u32) -> bool {
        self.lookup(key, 1).is_ok()
    }

    /// The value at a key that is no number, if there is an entry.
    pub(super) fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check_key(key)?;
        let mut value = vec![0; self.value_len];
        match self.keyed(BPF_MAP_LOOKUP_ELEM, key, value.as_mut_ptr()) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error).context("find a map entry"),
        }
    }

    /// Writes the value at such a key.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_key(key)?;
        ensure!(value.len() == self.value_len, "a value of {} bytes for {}", value.len(), self.value_len);
        let mut value = value.to_vec();
        self.keyed(BPF_MAP_UPDATE_ELEM, key, value.as_mut_ptr()).context("write a map entry")
    }

    /// Removes the entry at such a key, if there is one.
    pub(super) fn remove(&self, key: &[u8]) -> Result<()> {
        self.check_key(key)?;
        match self.keyed(BPF_MAP_DELETE_ELEM, key, std::ptr::null_mut()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(error).context("remove a map entry")
            }
            _ => Ok(()),
        }
    }

    /// All keys; nobody else changes the map meanwhile.
    pub(super) fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key_len];
            // Of no key the next is the first.
            let key = keys.last().map_or(std::ptr::null(), |key| key.as_ptr());
            match self.pointed(BPF_MAP_GET_NEXT_KEY, key, next.as_mut_ptr()) {
                Ok(()) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error).context("go through a map's keys"),
            }
        }
    }

    fn check_key(&self, key: &[u8]) -> Result<()> {
        ensure!(key.len() == self.key_len, "a key of {} bytes for {}", key.len(), self.key_len);
        Ok(())
    }

    fn element(&self, command: libc::c_long, key: u32, value: *mut u8) -> io::Result<()> {
        self.keyed(command, &key.to_ne_bytes(), value)
    }

    fn keyed(&self, command: libc::c_long, key: &[u8], value: *mut u8) -> io::Result<()> {
        self.pointed(command, key.as_ptr(), value)
    }

    fn pointed(&self, command: libc::c_long, key: *const u8, value: *mut u8) -> io::Result<()> {
        let mut attributes = Element {
            map: self.fd.as_raw_fd() as u32,
            key: key as u64,
            value: value as u64,
            ..Element::default()
        };
        // SAFETY: the attributes are what element commands read. The key is as long as the map's, which those who take
        // one of any length have checked; the value too, times the CPUs where it is per CPU.
        unsafe { bpf(command, &mut attributes) }
    }
}

/// A map mapped into memory, word by word.
#[derive(Debug)]
pub(crate) struct Words {
    memory: NonNull<AtomicU64>,
    count: usize,
}

impl Words {
    /// Maps the program's map of this name, which must be mmapable and have values of whole words.
    pub(crate) fn open(program: &ProgramInfo, name: &str) -> Result<Self> {
        let map = open_map(program, name)?;
        ensure!(map.value_len.is_multiple_of(WORD), "values of {name} are not whole words");
        let bytes = map.value_len * map.entries as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a descriptor we own, wherever the kernel likes.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.fd.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).with_context(|| format!("map {name} into memory"));
        }
        let memory = NonNull::new(memory.cast()).context("a mapping at address 0")?;
        Ok(Self { memory, count: bytes / WORD })
    }

    pub(crate) fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, page aligned, and lives until `self` is dropped; whoever else writes it does
        // so atomically.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.count) }
    }

    pub(super) fn load(&self, at: usize) -> u64 {
        self.all()[at].load(Ordering::Acquire)
    }

    pub(super) fn store(&self, at: usize, word: u64) {
        self.all()[at].store(word, Ordering::Release);
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, with its length; no reference to it outlives `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.count * WORD) };
    }
}

const WORD: usize = size_of::<u64>();

/// What the kernel tells about a loaded program.
#[derive(Debug)]
pub(crate) struct ProgramInfo {
    /// As far as the kernel keeps it: 15 characters.
    pub(crate) name: String,
    /// Instructions the verifier looked at, on all paths together.
    pub(crate) verified_instructions: u32,
    /// Instructions of the program.
    pub(crate) instructions: u32,
    /// Bytes of machine code.
    pub(crate) machine_code: u32,
    map_ids: Vec<u32>,
}

/// `union bpf_attr` as BPF_OBJ_GET_INFO_BY_FD reads it.
#[repr(C)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// Offsets in `struct bpf_prog_info` and `struct bpf_map_info` (stable: fields are only ever added at the end).
const PROG_JITED_LEN: usize = 16;
const PROG_XLATED_LEN: usize = 20;
const PROG_MAPS: usize = 52;
const PROG_MAP_IDS: usize = 56;
const PROG_NAME: std::ops::Range<usize> = 64..80;
const PROG_VERIFIED: usize = 216;
const MAP_KEY_LEN: usize = 8;
const MAP_VALUE_LEN: usize = 12;
const MAP_ENTRIES: usize = 16;
const MAP_NAME: std::ops::Range<usize> = 24..40;

pub(crate) fn program_info(program: &OwnedFd) -> Result<ProgramInfo> {
    let mut ids = vec![0u32; 64];
    let mut info = [0u8; 232];
    info[PROG_MAPS..PROG_MAPS + 4].copy_from_slice(&(ids.len() as u32).to_ne_bytes());
    info[PROG_MAP_IDS..PROG_MAP_IDS + 8].copy_from_slice(&(ids.as_mut_ptr() as u64).to_ne_bytes());
    get_info(program, &mut info).context("ask for the program's info")?;
    ids.truncate(read_u32(&info, PROG_MAPS) as usize);
    let name = info[PROG_NAME].split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(ProgramInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        verified_instructions: read_u32(&info, PROG_VERIFIED),
        instructions: read_u32(&info, PROG_XLATED_LEN) / 8,
        machine_code: read_u32(&info, PROG_JITED_LEN),
        map_ids: ids,
    })
}

/// `union bpf_attr` as BPF_MAP_GET_FD_BY_ID reads it.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
    _padding: u32,
}

/// Opens the program's map of this name.
pub(super) fn open_map(program: &ProgramInfo, name: &str) -> Result<Map> {
    // The kernel keeps 15 characters of a name.
    let kept = &name.as_bytes()[..name.len().min(15)];
    for &id in &program.map_ids {
        let mut attributes = ById { id, ..ById::default() };
        // SAFETY: the attributes are what BPF_MAP_GET_FD_BY_ID reads.
        let fd = unsafe { bpf_fd(BPF_MAP_GET_FD_BY_ID, &mut attributes) }.context("open a map by its id")?;
        let mut info = [0u8; 80];
        get_info(&fd, &mut info).context("ask for a map's info")?;
        let found = info[MAP_NAME].split(|&byte| byte == 0).next().unwrap_or_default();
        if found == kept {
            return Map::new(fd);
        }
    }
    bail!("the program uses no map named {name}")
}

/// CPUs that per-CPU maps have values for: the possible ones.
pub(super) fn possible_cpus() -> Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").context("read the possible CPUs")?;
    let last = text.trim().rsplit(['-', ',']).next().unwrap_or_default();
    Ok(last.parse::<usize>().with_context(|| format!("understand the possible CPUs {text:?}"))? + 1)
}

fn get_info(fd: &OwnedFd, info: &mut [u8]) -> io::Result<()> {
    let mut attributes =
        GetInfo { fd: fd.as_raw_fd() as u32, len: info.len() as u32, info: info.as_mut_ptr() as u64 };
    // SAFETY: the attributes are what BPF_OBJ_GET_INFO_BY_FD reads; the buffer is as long as stated, and what the
    // caller wrote into it points to a vector that outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// # Safety
///
/// As [`bpf`], and the command must return a descriptor.
unsafe fn bpf_fd<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(command, attributes) }?;
    // SAFETY: the kernel has just handed this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
///
/// `attributes` must be laid out as `command` reads them, and what they point to must be valid.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the caller's promise.
    unsafe { call(command, attributes) }.map(|_| ())
}

/// # Safety
///
/// As [`bpf`].
unsafe fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the size is the attributes' own; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

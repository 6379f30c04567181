//! The bpf(2) calls and the mappings that aya does not offer. All unsafe code of the data plane's user side is here.
//!
//! Links are made here too: aya 0.14 keeps their file descriptors to itself, so which interface a link belongs to
//! can't be asked, and where the kernel refuses a link aya attaches without one, which could not be pinned.

mod keyed;
mod per_cpu;

use std::{
    ffi::CString,
    fs, io,
    ops::RangeInclusive,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

pub(crate) use keyed::Keyed;
pub(crate) use per_cpu::PerCpu;

use aya_obj::generated::{
    BPF_F_MMAPABLE, BPF_F_XDP_HAS_FRAGS, bpf_attach_type, bpf_cmd, bpf_map_type, bpf_prog_type,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the kernel says of a map: the start of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel says of an XDP link: the start of `struct bpf_link_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    _padding: u32,
    /// 0 once the interface is gone.
    pub(crate) ifindex: u32,
    _tail: u32,
}

pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    object_info(map)
}

pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    object_info(link)
}

/// The id of a program.
pub(crate) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // The start of `struct bpf_prog_info`: its type and its id.
    let [_kind, id]: [u32; 2] = object_info(program)?;
    Ok(id)
}

/// Opens a pinned map or link.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjectAttr { path: path.as_ptr() as u64, ..ObjectAttr::default() };
    new_fd(bpf(bpf_cmd::BPF_OBJ_GET, attr)?)
}

pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjectAttr { path: path.as_ptr() as u64, fd: raw(object), ..ObjectAttr::default() };
    bpf(bpf_cmd::BPF_OBJ_PIN, attr).map(drop)
}

/// Whether the kernel loads XDP programs that take frames of several buffers. `false` only where it does not know them.
pub(crate) fn takes_multi_buffer() -> bool {
    // r0 = XDP_PASS; exit
    const PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let attr = ProgLoadAttr {
        kind: bpf_prog_type::BPF_PROG_TYPE_XDP as u32,
        instructions: PROGRAM.len() as u32,
        program: PROGRAM.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        flags: BPF_F_XDP_HAS_FRAGS,
        ..ProgLoadAttr::default()
    };
    match bpf(bpf_cmd::BPF_PROG_LOAD, attr).and_then(new_fd) {
        Ok(_) => true,
        // Whatever else it has against this one it will say of the real one.
        Err(error) => error.raw_os_error() != Some(libc::EINVAL),
    }
}

/// Makes an array of one word that can be mapped into memory (since 5.5).
pub(crate) fn create_mappable() -> io::Result<OwnedFd> {
    let attr = MapCreateAttr {
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: BPF_F_MMAPABLE,
    };
    new_fd(bpf(bpf_cmd::BPF_MAP_CREATE, attr)?)
}

/// Attaches an XDP program by a link; `flags` are `XDP_FLAGS_*_MODE`.
pub(crate) fn create_xdp_link(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let attach_type = bpf_attach_type::BPF_XDP as u32;
    let attr = LinkCreateAttr { program: raw(program), ifindex, attach_type, flags };
    new_fd(bpf(bpf_cmd::BPF_LINK_CREATE, attr)?)
}

/// Replaces a link's program atomically: each packet meets the old one or the new one.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdateAttr { link: raw(link), program: raw(program), ..LinkUpdateAttr::default() };
    bpf(bpf_cmd::BPF_LINK_UPDATE, attr).map(drop)
}

/// Takes a link's program off its interface; what is left of the link does nothing.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(bpf_cmd::BPF_LINK_DETACH, LinkDetachAttr { link: raw(link) }).map(drop)
}

/// Reads or writes one entry. Private, because the kernel goes by the map's value size and not by the length of `value`.
fn element(command: bpf_cmd, map: BorrowedFd<'_>, index: u32, value: *mut u64) -> io::Result<()> {
    let key = ptr::from_ref(&index) as u64;
    bpf(command, ElementAttr { map: raw(map), _padding: 0, key, value: value as u64, flags: 0 }).map(drop)
}

/// The map of egress interfaces (`BPF_MAP_TYPE_DEVMAP` of `bpf_devmap_val`).
#[derive(Debug)]
pub(crate) struct DeviceMap {
    map: OwnedFd,
    entries: u32,
}

impl DeviceMap {
    pub(crate) fn new(map: OwnedFd) -> io::Result<Self> {
        let info = map_info(map.as_fd())?;
        if info.value_size as usize != WORD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its values are not interface and program",
            ));
        }
        Ok(Self { map, entries: info.max_entries })
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Sets an entry to an interface of this network namespace; 0 clears it.
    pub(crate) fn set(&self, index: u32, ifindex: u32) -> io::Result<()> {
        // Interface in the first half; no program in the second, so frames leave as they are.
        let mut value = u64::from(ifindex);
        element(bpf_cmd::BPF_MAP_UPDATE_ELEM, self.map.as_fd(), index, &mut value)
    }
}

/// An array map's values in this process's memory, shared with the data plane.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<AtomicU64>,
    /// Words a value.
    stride: usize,
    entries: u32,
    /// Length of the mapping in bytes.
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only accessed as atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps an array made with `BPF_F_MMAPABLE`.
    pub(crate) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        let info = map_info(map)?;
        // The kernel rounds values up to words and the array up to pages.
        let stride = info.value_size.div_ceil(WORD as u32) as usize;
        let length = (stride * WORD * info.max_entries as usize).next_multiple_of(page_size());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, stride, entries: info.max_entries, length })
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// The words of `count` consecutive values, `None` if not all are inside the array.
    pub(crate) fn values(&self, first: u32, count: u32) -> Option<&[AtomicU64]> {
        let end = first.checked_add(count)?;
        (end <= self.entries).then(|| &self.words()[first as usize * self.stride..end as usize * self.stride])
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, holds this many words, lives as long as `self`, and every access in
        // this process is through these atomics. The data plane writes none of these maps but with whole words.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.stride * self.entries as usize) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no borrow outlives `self`. The only error would be a wrong address.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Reads a value word by word; each word is whole, the value as such need not be of one moment.
pub(crate) fn load<T: FromBytes + IntoBytes>(words: &[AtomicU64]) -> T {
    let mut value = T::new_zeroed();
    for (bytes, word) in value.as_mut_bytes().chunks_mut(WORD).zip(words) {
        bytes.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes()[..bytes.len()]);
    }
    value
}

/// Stores those words of a value that differ, from the first to the last; returns how many.
pub(crate) fn store<T: IntoBytes + Immutable + ?Sized>(words: &[AtomicU64], value: &T) -> u32 {
    let mut stored = 0;
    for (bytes, word) in value.as_bytes().chunks(WORD).zip(words) {
        let mut new = [0; WORD];
        new[..bytes.len()].copy_from_slice(bytes);
        let new = u64::from_ne_bytes(new);
        if word.load(Ordering::Relaxed) != new {
            word.store(new, Ordering::Release);
            stored += 1;
        }
    }
    stored
}

/// Returns once no XDP program that was running when this was called still is.
pub(crate) fn synchronize() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes numbers and touches no memory of ours. The command is the kernel's synchronize_rcu().
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // EINVAL where a CPU runs without the tick (nohz_full), and sandboxes may forbid the call. A program runs for
        // microseconds and cannot sleep, so a tenth of a second is longer than any that is under way.
        thread::sleep(Duration::from_millis(100));
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: writes at most `N` bytes into `bytes`.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    match usize::try_from(written) {
        Ok(written) if written == N => Ok(bytes),
        // Up to 256 bytes come whole or not at all.
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn object_info<T: FromBytes + IntoBytes>(object: BorrowedFd<'_>) -> io::Result<T> {
    // The kernel fills as much as it is given room for, and older ones leave the rest as it was.
    let mut info = T::new_zeroed();
    let attr = InfoAttr {
        fd: raw(object),
        length: size_of::<T>() as u32,
        info: info.as_mut_bytes().as_mut_ptr() as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, attr)?;
    Ok(info)
}

/// Numbers that CPUs may have are below this. There may be gaps.
pub(crate) fn cpu_numbers() -> io::Result<u32> {
    Ok(possible()?.iter().map(|range| *range.end()).max().map_or(0, |highest| highest.saturating_add(1)))
}

/// Possible CPUs: as many values as a per-CPU entry has.
fn possible_cpus() -> io::Result<usize> {
    Ok(possible()?.into_iter().map(Iterator::count).sum())
}

/// Numbers of the CPUs that this machine may come to have.
fn possible() -> io::Result<Vec<RangeInclusive<u32>>> {
    let list = fs::read_to_string(POSSIBLE)?;
    ranges(list.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{POSSIBLE} holds {list:?}")))
}

/// Those of a list such as `0-3,8`.
fn ranges(list: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let range: RangeInclusive<u32> = first.parse().ok()?..=last.parse().ok()?;
        (!range.is_empty()).then_some(range)
    };
    list.split(',').map(range).collect()
}

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

fn page_size() -> usize {
    // SAFETY: takes a number and returns one; this name is always known.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn new_fd(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Runs a program on a frame, once; returns its code.
pub(crate) fn run_program(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let mut attr = TestRunAttr {
        program: raw(program),
        frame_length: u32::try_from(frame.len()).map_err(io::Error::other)?,
        frame: frame.as_ptr() as u64,
        ..TestRunAttr::default()
    };
    bpf_inout(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.code)
}

/// Runs an XDP program on a frame, once, as if it had come in by an interface of this network namespace; returns its code
/// and the frame that it leaves, which is at most `room` bytes longer. Kernels before 5.14 can't.
pub(crate) fn run_xdp(
    program: BorrowedFd<'_>,
    frame: &[u8],
    ifindex: u32,
    room: usize,
) -> io::Result<(u32, Vec<u8>)> {
    let mut output = vec![0; frame.len() + room];
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut context = XdpMd { data_end: length, ifindex, ..XdpMd::default() };
    let mut attr = TestRunAttr {
        program: raw(program),
        frame_length: length,
        frame_room: u32::try_from(output.len()).map_err(io::Error::other)?,
        frame: frame.as_ptr() as u64,
        frame_after: output.as_mut_ptr() as u64,
        context_length: size_of::<XdpMd>() as u32,
        context: ptr::from_mut(&mut context) as u64,
        ..TestRunAttr::default()
    };
    bpf_inout(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    output.truncate(attr.frame_room as usize);
    Ok((attr.code, output))
}

/// Calls bpf(2). `attr` is the front of `union bpf_attr`; the kernel takes what is missing for zero. Pointers in it
/// have to be good for what `command` does with them: the callers above, all in this file, take them from references.
fn bpf<A: IntoBytes + FromBytes>(command: bpf_cmd, mut attr: A) -> io::Result<libc::c_long> {
    bpf_inout(command, &mut attr)
}

/// As [`bpf`], where the kernel leaves an answer in `attr`, also if it fails.
fn bpf_inout<A: IntoBytes + FromBytes>(command: bpf_cmd, attr: &mut A) -> io::Result<libc::c_long> {
    let attr = attr.as_mut_bytes();
    // SAFETY: `attr` is initialised memory of this size, good for reading and writing, and any bytes the kernel leaves
    // there are; its pointers are good by the requirement above.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_uint, attr.as_mut_ptr(), attr.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct MapCreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct ElementAttr {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// See `generic_map_lookup_batch` and `__htab_map_lookup_and_delete_batch` in the kernel; of hash maps since 5.6, of per-CPU arrays since 5.13.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct BatchAttr {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    /// Room, and then how many there were.
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct TestRunAttr {
    program: u32,
    code: u32,
    frame_length: u32,
    frame_room: u32,
    frame: u64,
    frame_after: u64,
    repeat: u32,
    duration: u32,
    context_length: u32,
    context_room: u32,
    context: u64,
    context_after: u64,
}

/// `struct xdp_md`.
#[derive(Default, IntoBytes, FromBytes)]
#[repr(C)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ifindex: u32,
    queue: u32,
    egress: u32,
}

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct ProgLoadAttr {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    expected: u32,
}

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct LinkDetachAttr {
    link: u32,
}

const WORD: usize = size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(ranges("0"), Some(vec![0..=0]));
        assert_eq!(ranges("0-3,8,10-11"), Some(vec![0..=3, 8..=8, 10..=11]));
        assert_eq!(ranges("3-1"), None);
        assert_eq!(ranges(""), None);
        assert!(possible_cpus().expect("this machine's") <= cpu_numbers().expect("this machine's") as usize);
    }

    #[test]
    fn only_words_that_differ_are_stored() {
        let words = [1u64, 2, 3].map(AtomicU64::new);
        assert_eq!(store(&words, &[1u64, 5, 6]), 2);
        assert_eq!(load::<[u64; 3]>(&words), [1, 5, 6]);
    }
}

//! From the embedded object to a program that runs on interfaces: load, adopt or make maps, attach, pin.

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use lb_common::{
    abi::{limits, names},
    hash::HashKey,
};
use log::{info, warn};

use super::{
    Limits,
    bpf::BpfDataplane,
    capture::{CaptureLoader, CaptureProgram},
    maps,
    pins::{self, PinDir},
    probe_filter::ProbeFilters,
    probe_stamps::ProbeStamps,
    sys,
};
pub use super::{
    attach::{AttachError, AttachedInterface, Attachments, Standing, lock},
    bpffs::provide_bpffs,
    key::{KeyError, load_or_create_key},
    maps::Mismatch,
    pins::PinError,
};
use crate::domain::XdpMode;

/// What a start needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub pin_dir: PathBuf,
    pub interfaces: Vec<String>,
    pub mode: XdpMode,
    pub limits: Limits,
    pub hash_key: HashKey,
    /// Whether packets are counted.
    pub side_effects: bool,
    /// Whether it tells of flows that peers have to know.
    pub replicates: bool,
}

/// A program that runs.
#[derive(Debug)]
pub struct Loaded {
    pub dataplane: BpfDataplane,
    /// Those that are attached; [`Attachments::missing`] has the rest.
    pub interfaces: Vec<AttachedInterface>,
    /// Whether the maps are those of an earlier daemon.
    pub adopted: bool,
    /// What carries health checks over the real path.
    pub filters: ProbeFilters,
    /// Keep it: it holds the lock of the pin directory.
    pub attachments: Attachments,
}

/// Why the program doesn't run. Whatever ran before still does.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("could not load the eBPF object: {0}")]
    Object(#[from] EbpfError),
    #[error("the kernel refused the eBPF program{}: {source}", permission_hint(source))]
    Program { source: ProgramError },
    /// A device map takes programs of one kind only, those for frames of one buffer or those for several, and goes by the
    /// first that used it.
    #[error(
        "the kernel refused the eBPF program with the maps pinned at {}, which keep forwarding: {source}. If an earlier \
         daemon found a kernel without XDP for frames of several buffers, or with it, and this one does not, `ballast detach` \
         (which stops forwarding) and start again",
        pin_dir.display()
    )]
    OtherKind { pin_dir: PathBuf, source: ProgramError },
    #[error("could not ask the kernel about the program for health checks: {0}")]
    Probe(#[source] std::io::Error),
    /// The operator's fault: the key file was lost or replaced.
    #[error(
        "the tables pinned at {} are in use with another hash key than the one in flow_hash.key_file, which would send \
         clients to other backends: put the old key file back, or give the old flows up with `ballast detach`",
        pin_dir.display()
    )]
    OtherHashKey { pin_dir: PathBuf },
    /// A bug: the object was not built from this version's sources.
    #[error("the eBPF object {0}")]
    Malformed(String),
    #[error(transparent)]
    Dataplane(#[from] super::Error),
}

/// Loads the program and attaches it, with the pinned maps of an earlier daemon where there are some.
///
/// # Errors
///
/// If another daemon uses the pin directory, the pinned maps are not what `options` ask for, the kernel refuses the
/// program, or an interface runs a foreign one. A first start that fails leaves nothing behind; any other leaves what
/// was there forwarding.
pub fn start(options: &Options) -> Result<Loaded, LoadError> {
    let pins = PinDir::open(&options.pin_dir)?;
    let object = aya_obj::Object::parse(OBJECT).map_err(EbpfError::from)?;
    let adopted = pins.adoptable(&maps::expected(&object, options.limits))?;
    let (dataplane, programs) = match load_pinned(&pins, options) {
        Ok(loaded) => loaded,
        Err(LoadError::Program { source }) if adopted && is_invalid(&source) => {
            return Err(LoadError::OtherKind { pin_dir: options.pin_dir.clone(), source });
        }
        Err(error) => return Err(give_up(pins, adopted, error)),
    };
    // 0 after a first start that did not get this far.
    if ![0, options.hash_key.fingerprint()].contains(&dataplane.hash_key()?) {
        return Err(LoadError::OtherHashKey { pin_dir: options.pin_dir.clone() });
    }
    if !adopted {
        dataplane.scatter_nat_ports()?;
    }
    dataplane.store_hash_key(options.hash_key.fingerprint())?;
    let filters = match ProbeFilters::new(programs.probe, programs.probe_stamps, &options.pin_dir) {
        Ok(filters) => filters,
        Err(error) => return Err(give_up(pins, adopted, LoadError::Probe(error))),
    };
    match Attachments::new(pins, programs.balancer, options.mode, &options.interfaces) {
        Ok((attachments, interfaces)) => Ok(Loaded { dataplane, interfaces, adopted, filters, attachments }),
        Err((pins, error)) => Err(give_up(pins, adopted, error.into())),
    }
}

/// A program that is attached nowhere, beside the one that runs and on its maps.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) program: OwnedFd,
    /// Its own [`names::TRACE`].
    pub(super) trace: OwnedFd,
}

/// Loads a program that says what becomes of each packet, on the maps that a daemon has pinned, and changes none of them.
///
/// # Errors
///
/// If the pinned maps are not what `limits` ask for, or the kernel refuses the program.
pub(super) fn load_beside(pin_dir: &Path, limits: Limits, hash_key: HashKey) -> Result<Beside, LoadError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(EbpfError::from)?;
    pins::verify(pin_dir, &maps::expected(&object, limits))?;
    let buffers = Buffers::of_this_kernel();
    let settings = Settings::new(buffers, limits, hash_key, false, true).traced();
    let mut ebpf = load_object(&mut pinned(pin_dir), OBJECT, &settings)?;
    let program = load_program(&mut ebpf, buffers.program());
    let trace = map_fd(&ebpf, names::TRACE)?;
    Ok(Beside { program: program.map_err(|source| LoadError::Program { source })?, trace })
}

/// What a program that copies packets is made of.
pub(super) struct CaptureParts {
    pub(super) program: OwnedFd,
    pub(super) settings: OwnedFd,
    pub(super) counters: OwnedFd,
    pub(super) captured: RingBuf<MapData>,
}

/// Loads a program that copies packets, on the maps that a daemon has pinned.
pub(super) fn load_capturing(from: &CaptureLoader) -> Result<CaptureParts, LoadError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(EbpfError::from)?;
    pins::verify(&from.pin_dir, &maps::expected(&object, from.limits))?;
    let settings = Settings::new(Buffers::of_this_kernel(), from.limits, from.hash_key, true, true);
    let settings = settings.traced().capturing().replicating(from.replicates);
    let mut ebpf = load_copying(&mut pinned(&from.pin_dir), &settings)?;
    let program = load_program(&mut ebpf, settings.buffers.program());
    capture_parts(&mut ebpf, program.map_err(|source| LoadError::Program { source })?)
}

/// Loads a program that copies packets, and tells of flows that peers have to know, with maps of its own, neither pinned nor
/// attached: for test runs, as [`load_for_test`]; if that is asked for the program for kernels that hand over frames of one buffer only.
///
/// # Errors
///
/// If the kernel refuses the program.
pub fn load_capturing_for_test(
    limits: Limits,
    hash_key: HashKey,
    linear: bool,
) -> Result<(Programs, BpfDataplane, CaptureProgram), LoadError> {
    let buffers = if linear { Buffers::One } else { Buffers::of_this_kernel() };
    let settings = Settings::new(buffers, limits, hash_key, true, false);
    let settings = settings.traced().capturing().replicating(true);
    let mut loader = EbpfLoader::new();
    let mut ebpf = load_copying(&mut loader, &settings)?;
    let (dataplane, programs) = take_apart(&mut ebpf, &settings)?;
    let program = programs
        .balancer
        .try_clone()
        .map_err(|source| super::Error::Program { program: names::PROGRAM, source })?;
    Ok((programs, dataplane, CaptureProgram::new(capture_parts(&mut ebpf, program)?)?))
}

/// Makes or opens the maps, with room for what is copied.
fn load_copying<'a>(loader: &mut EbpfLoader<'a>, settings: &'a Settings) -> Result<Ebpf, LoadError> {
    let failed = |source| super::Error::Map { map: names::CAPTURE_SCRATCH, operation: "size", source };
    loader
        .map_max_entries(names::CAPTURE_SCRATCH, sys::cpu_numbers().map_err(failed)?)
        .map_max_entries(names::CAPTURED, CAPTURED_BYTES);
    load_object(loader, OBJECT, settings)
}

fn capture_parts(ebpf: &mut Ebpf, program: OwnedFd) -> Result<CaptureParts, LoadError> {
    let (settings, counters) =
        (map_fd(ebpf, names::CAPTURE_SETTINGS)?, map_fd(ebpf, names::CAPTURE_COUNTERS)?);
    let captured = ebpf.take_map(names::CAPTURED);
    let captured = captured.ok_or_else(|| LoadError::Malformed(format!("has no map {}", names::CAPTURED)))?;
    let captured = RingBuf::try_from(captured).map_err(|error| super::Error::Map {
        map: names::CAPTURED,
        operation: "mmap",
        source: io::Error::other(error),
    })?;
    Ok(CaptureParts { program, settings, counters, captured })
}

/// Loads the program with maps of its own, neither pinned nor attached: for test runs. The program lives as long as its
/// descriptor. Without `self_clock` it is what time the clock cell says, and nobody but the caller writes that.
///
/// # Errors
///
/// If the kernel refuses the program.
pub fn load_for_test(
    limits: Limits,
    hash_key: HashKey,
    side_effects: bool,
    self_clock: bool,
) -> Result<(OwnedFd, BpfDataplane), LoadError> {
    let (programs, dataplane) = load_all_for_test(limits, hash_key, side_effects, self_clock)?;
    Ok((programs.balancer, dataplane))
}

/// The same of all programs that run on interfaces.
///
/// # Errors
///
/// If the kernel refuses a program.
pub fn load_all_for_test(
    limits: Limits,
    hash_key: HashKey,
    side_effects: bool,
    self_clock: bool,
) -> Result<(Programs, BpfDataplane), LoadError> {
    let settings = Settings::new(Buffers::of_this_kernel(), limits, hash_key, side_effects, self_clock);
    let (dataplane, programs) = load(&mut EbpfLoader::new(), OBJECT, &settings)?;
    Ok((programs, dataplane))
}

/// As [`load_all_for_test`], with maps that are pinned, where [`Tracer`](super::Tracer) finds them, and that stay until
/// [`detach`].
///
/// # Errors
///
/// If the place is no good for pins, or the kernel refuses a program.
pub fn load_pinned_for_test(
    pin_dir: &Path,
    limits: Limits,
    hash_key: HashKey,
    self_clock: bool,
) -> Result<(Programs, BpfDataplane), LoadError> {
    let pins = PinDir::open(pin_dir)?;
    let object = aya_obj::Object::parse(OBJECT).map_err(EbpfError::from)?;
    pins.adoptable(&maps::expected(&object, limits))?;
    let settings = Settings::new(Buffers::of_this_kernel(), limits, hash_key, true, self_clock);
    let (dataplane, programs) = load(&mut pinned(pin_dir), OBJECT, &settings)?;
    Ok((programs, dataplane))
}

/// As [`load_for_test`], with the program for kernels that hand over frames of one buffer only, whatever this kernel does.
///
/// # Errors
///
/// If the kernel refuses the program.
pub fn load_linear_for_test(
    limits: Limits,
    hash_key: HashKey,
    side_effects: bool,
    self_clock: bool,
) -> Result<(OwnedFd, BpfDataplane), LoadError> {
    let settings = Settings::new(Buffers::One, limits, hash_key, side_effects, self_clock);
    let (dataplane, programs) = load(&mut EbpfLoader::new(), OBJECT, &settings)?;
    Ok((programs.balancer, dataplane))
}

/// As [`load_all_for_test`], with the program that tells of flows that peers have to know.
///
/// # Errors
///
/// If the kernel refuses the program.
pub fn load_replicating_for_test(
    limits: Limits,
    hash_key: HashKey,
    self_clock: bool,
) -> Result<(Programs, BpfDataplane), LoadError> {
    let settings = Settings::new(Buffers::of_this_kernel(), limits, hash_key, true, self_clock);
    let settings = settings.replicating(true);
    let (dataplane, programs) = load(&mut EbpfLoader::new(), OBJECT, &settings)?;
    Ok((programs, dataplane))
}

/// As [`load_for_test`], with the program that notes what becomes of each packet.
///
/// # Errors
///
/// If the kernel refuses the program.
pub fn load_traced_for_test(
    limits: Limits,
    hash_key: HashKey,
    side_effects: bool,
) -> Result<(OwnedFd, BpfDataplane), LoadError> {
    let settings = Settings::new(Buffers::of_this_kernel(), limits, hash_key, side_effects, true).traced();
    let (dataplane, programs) = load(&mut EbpfLoader::new(), OBJECT, &settings)?;
    Ok((programs.balancer, dataplane))
}

/// Loads a variant of the program as [`load_for_test`] does: for comparing it with the one that ships.
///
/// # Errors
///
/// If `object` lacks one of the program's maps, or the kernel refuses it.
pub fn load_variant(
    object: &[u8],
    limits: Limits,
    hash_key: HashKey,
) -> Result<(OwnedFd, BpfDataplane), LoadError> {
    let settings = Settings::new(Buffers::of_this_kernel(), limits, hash_key, true, true);
    let (dataplane, programs) = load(&mut EbpfLoader::new(), object, &settings)?;
    Ok((programs.balancer, dataplane))
}

/// What [`detach`] did, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachReport {
    pub pin_dir: PathBuf,
    /// `None`: there was nothing.
    pub interfaces: Option<Vec<String>>,
}

/// Stops forwarding: detaches the program from every interface and removes all pins. `first` is done when it is sure that no
/// daemon runs, and before anything is detached.
///
/// # Errors
///
/// If a daemon uses the pin directory.
pub fn detach(pin_dir: &Path, first: impl FnOnce()) -> Result<DetachReport, LoadError> {
    let pins = PinDir::existing(pin_dir)?;
    first();
    let interfaces = match pins {
        Some(pins) => Some(pins.clear()?),
        // Filters need no pins to stay.
        None => {
            pins::remove_filters(pin_dir)?;
            None
        }
    };
    Ok(DetachReport { pin_dir: pin_dir.into(), interfaces })
}

impl fmt::Display for DetachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin_dir = self.pin_dir.display();
        match self.interfaces.as_deref() {
            None => write!(f, "nothing to detach: nothing is pinned at {pin_dir}"),
            Some([]) => write!(f, "no interface was attached; removed the pins at {pin_dir}"),
            Some(interfaces) => {
                write!(f, "detached from {}; removed the pins at {pin_dir}", interfaces.join(", "))
            }
        }
    }
}

/// How many buffers a frame may have, and so which of the two programs runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffers {
    One,
    Several,
}

impl Buffers {
    /// Kernels before 5.18 hand over none of several: c2f2cdbeffda ("bpf: introduce BPF_F_XDP_HAS_FRAGS flag in prog_flags
    /// loading the ebpf program"). By the kernel alone: a device map takes programs of one kind only, so whatever uses the
    /// pinned one has to choose like this.
    fn of_this_kernel() -> Self {
        if sys::takes_multi_buffer() { Self::Several } else { Self::One }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::One => names::PROGRAM_LINEAR,
            Self::Several => names::PROGRAM,
        }
    }
}

/// Load-time constants and sizes.
struct Settings {
    buffers: Buffers,
    limits: Limits,
    hash_key: HashKey,
    service_mask: u32,
    flow_mask: u32,
    multi_buffer: u32,
    self_clock: u32,
    side_effects: u32,
    tracing: u32,
    capture: u32,
    replication: u32,
}

impl Settings {
    fn new(
        buffers: Buffers,
        limits: Limits,
        hash_key: HashKey,
        side_effects: bool,
        self_clock: bool,
    ) -> Self {
        Self {
            buffers,
            limits,
            hash_key,
            service_mask: limits::service_table_capacity(limits.services) - 1,
            flow_mask: limits::flow_buckets(limits.flow_entries) - 1,
            multi_buffer: (buffers == Buffers::Several).into(),
            self_clock: self_clock.into(),
            side_effects: side_effects.into(),
            tracing: 0,
            capture: 0,
            replication: 0,
        }
    }

    /// Of a program that notes what becomes of each packet.
    const fn traced(self) -> Self {
        Self { tracing: 1, ..self }
    }

    /// Of a program that tells of flows that peers have to know, if there are peers.
    fn replicating(self, replicates: bool) -> Self {
        Self { replication: replicates.into(), ..self }
    }

    /// Of a program that copies packets.
    const fn capturing(self) -> Self {
        Self { capture: 1, ..self }
    }
}

fn load_pinned(pins: &PinDir, options: &Options) -> Result<(BpfDataplane, Programs), LoadError> {
    let buffers = Buffers::of_this_kernel();
    let settings = Settings::new(buffers, options.limits, options.hash_key, options.side_effects, true);
    let settings = settings.replicating(options.replicates);
    let loaded = load(&mut pinned(pins.root()), OBJECT, &settings)?;
    match buffers {
        Buffers::Several => info!("program {}: takes jumbo frames", buffers.program()),
        Buffers::One => info!(
            "program {}: this kernel has no XDP for frames of several buffers (5.18 has), so drivers refuse it at MTUs \
             above one page",
            buffers.program()
        ),
    }
    Ok(loaded)
}

/// Opens what is pinned there, or pins what it makes.
fn pinned<'a>(root: &Path) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    for name in names::PINNED_MAPS {
        loader.map_pin_path(name, pins::map_path(root, name));
    }
    loader
}

fn load<'a>(
    loader: &mut EbpfLoader<'a>,
    object: &[u8],
    settings: &'a Settings,
) -> Result<(BpfDataplane, Programs), LoadError> {
    take_apart(&mut load_object(loader, object, settings)?, settings)
}

/// Loads the programs.
fn take_apart(ebpf: &mut Ebpf, settings: &Settings) -> Result<(BpfDataplane, Programs), LoadError> {
    let refused = |source| LoadError::Program { source };
    for program in [names::PROGRAM_SWEEP, names::PROGRAM_PROBE] {
        if ebpf.program(program).is_none() {
            return Err(LoadError::Malformed(format!("has no program {program}")));
        }
    }
    let sweep = load_program(ebpf, names::PROGRAM_SWEEP).map_err(refused)?;
    let balancer = load_program(ebpf, settings.buffers.program()).map_err(refused)?;
    let probe = load_classifier(ebpf, names::PROGRAM_PROBE).map_err(refused)?;
    let dataplane = BpfDataplane::new(map_fds(ebpf)?, sweep, settings.limits)?;
    let stamps = map_fd(ebpf, names::PROBE_STAMPS)?;
    let failed = |source| super::Error::Map { map: names::PROBE_STAMPS, operation: "mmap", source };
    let probe_stamps = ProbeStamps::new(stamps.as_fd()).map_err(failed)?;
    Ok((dataplane, Programs { balancer, probe, probe_stamps }))
}

/// Makes or opens the maps, and sets the constants. No program is loaded yet.
fn load_object<'a>(
    loader: &mut EbpfLoader<'a>,
    object: &[u8],
    settings: &'a Settings,
) -> Result<Ebpf, LoadError> {
    for (map, entries, ..) in maps::sizes(settings.limits) {
        loader.map_max_entries(map, entries);
    }
    loader
        .override_global(names::HASH_KEY_0, &settings.hash_key.k0, true)
        .override_global(names::HASH_KEY_1, &settings.hash_key.k1, true)
        .override_global(names::SERVICE_MASK, &settings.service_mask, true)
        .override_global(names::FLOW_MASK, &settings.flow_mask, true)
        .override_global(names::MULTI_BUFFER, &settings.multi_buffer, true)
        .override_global(names::SELF_CLOCK, &settings.self_clock, true)
        .override_global(names::SIDE_EFFECTS, &settings.side_effects, true)
        .override_global(names::TRACING, &settings.tracing, true)
        .override_global(names::CAPTURE, &settings.capture, true)
        .override_global(names::REPLICATION, &settings.replication, true);
    Ok(loader.load(object)?)
}

/// Programs that run on interfaces. Each lives as long as its descriptor.
#[derive(Debug)]
pub struct Programs {
    /// Clients' packets, by XDP.
    pub balancer: OwnedFd,
    /// Health checks over the real path, by tc on the way out.
    pub probe: OwnedFd,
    /// What of them came to it.
    pub probe_stamps: ProbeStamps,
}

/// Runs the verifier. The program holds its maps itself, so nothing else of `ebpf` is needed.
fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd, ProgramError> {
    let program: &mut Xdp = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// The same for a classifier of tc.
fn load_classifier(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd, ProgramError> {
    let program: &mut SchedClassifier = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

fn map_fds(ebpf: &Ebpf) -> Result<HashMap<&'static str, OwnedFd>, LoadError> {
    names::PINNED_MAPS.into_iter().map(|name| Ok((name, map_fd(ebpf, name)?))).collect()
}

fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let map = ebpf.map(name).and_then(data);
    let map = map.ok_or_else(|| LoadError::Malformed(format!("has no map {name}")))?;
    let fd = map.fd().as_fd().try_clone_to_owned();
    Ok(fd.map_err(|source| super::Error::Map { map: name, operation: "open", source })?)
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::DevMap(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// After a failed first start nothing forwards, and the next start is a first one again.
fn give_up(pins: PinDir, adopted: bool, error: LoadError) -> LoadError {
    if !adopted && let Err(error) = pins.clear() {
        warn!("while giving up: {error}");
    }
    error
}

fn is_invalid(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EINVAL))
}

fn permission_hint(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::LoadError { io_error, .. }
            if io_error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            " (it takes root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)"
        }
        _ => "",
    }
}

/// Room for captured packets that have not been fetched yet: some 1,300 of 1,500 bytes.
const CAPTURED_BYTES: u32 = 4 << 20;

/// Built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

//! The program that runs during a capture: as the one that runs at other times, on the same maps, and it copies packets.

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::{CaptureCounters, CaptureSettings, CapturedPacket, names};
use zerocopy::FromBytes as _;

use super::{
    Error, Limits, failed,
    loader::{self, CaptureParts, LoadError, Options},
    per_cpu::PerCpuMap,
    sys::{self, Mapped},
};

/// What it takes to load it.
#[derive(Clone, Debug)]
pub struct CaptureLoader {
    pub(super) pin_dir: PathBuf,
    pub(super) limits: Limits,
    pub(super) hash_key: lb_common::hash::HashKey,
    pub(super) replicates: bool,
}

/// The loaded program. Its maps go with it.
pub struct CaptureProgram {
    program: OwnedFd,
    settings: Mapped,
    counters: PerCpuMap,
    captured: RingBuf<MapData>,
}

/// A packet as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    pub packet: CapturedPacket,
    /// As much of the frame as was kept, as it came.
    pub frame: Vec<u8>,
    /// The same of the one that leaves; empty where none does.
    pub frame_after: Vec<u8>,
}

impl CaptureLoader {
    pub fn new(options: &Options) -> Self {
        Self {
            pin_dir: options.pin_dir.clone(),
            limits: options.limits,
            hash_key: options.hash_key,
            replicates: options.replicates,
        }
    }

    /// Loads the program on the maps that are pinned. It captures nothing until it is told what.
    ///
    /// # Errors
    ///
    /// If the pinned maps are not those of the program that runs, or the kernel refuses the program.
    pub fn load(&self) -> Result<CaptureProgram, LoadError> {
        CaptureProgram::new(loader::load_capturing(self)?)
    }
}

impl CaptureProgram {
    pub(super) fn new(parts: CaptureParts) -> Result<Self, LoadError> {
        let CaptureParts { program, settings, counters, captured } = parts;
        let settings = Mapped::new(settings.as_fd()).map_err(failed(names::CAPTURE_SETTINGS, "mmap"))?;
        let counters = PerCpuMap::new(names::CAPTURE_COUNTERS, counters)?;
        Ok(Self { program, settings, counters, captured })
    }

    /// For links to run.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Says what to capture from now on.
    ///
    /// # Errors
    ///
    /// None on a map of this version's layout.
    pub fn set(&self, settings: &CaptureSettings) -> Result<(), Error> {
        let words = self.settings.values(0, 1).ok_or(Error::OutOfRange {
            map: names::CAPTURE_SETTINGS,
            index: 0,
            entries: 0,
        })?;
        sys::store(words, settings);
        Ok(())
    }

    /// The next captured packet, if there is one; see [`AsRawFd`] for when.
    ///
    /// # Errors
    ///
    /// A record that is none.
    pub fn fetch(&mut self) -> Result<Option<Captured>, Error> {
        match self.captured.next() {
            None => Ok(None),
            Some(record) => parse(&record).map(Some).ok_or_else(|| {
                failed(names::CAPTURED, "read")(io::Error::new(io::ErrorKind::InvalidData, "no such record"))
            }),
        }
    }

    /// Wanted packets that were not captured, since the program was loaded.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn missed(&self) -> Result<CaptureCounters, Error> {
        self.counters.sum(0)
    }
}

impl fmt::Debug for CaptureProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureProgram").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Readable when there are packets.
impl AsRawFd for CaptureProgram {
    fn as_raw_fd(&self) -> RawFd {
        self.captured.as_raw_fd()
    }
}

fn parse(record: &[u8]) -> Option<Captured> {
    let (packet, frames) = CapturedPacket::read_from_prefix(record).ok()?;
    let (frame, rest) = frames.split_at_checked(packet.kept as usize)?;
    let frame_after = rest.get(..packet.kept_after as usize)?;
    Some(Captured { packet, frame: frame.to_vec(), frame_after: frame_after.to_vec() })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn a_record_is_a_packet_and_its_frames_and_what_is_cut_short_is_none() {
        let packet = CapturedPacket { kept: 3, kept_after: 2, ..CapturedPacket::default() };
        // The kernel rounds a record's place up, and its length is as it was made.
        let record = [packet.as_bytes(), &[1, 2, 3, 4, 5]].concat();
        let captured = parse(&record).expect("a record");
        assert_eq!((captured.frame, captured.frame_after), (vec![1, 2, 3], vec![4, 5]));
        for length in [0, size_of::<CapturedPacket>() - 1, record.len() - 1] {
            assert_eq!(parse(&record[..length]), None, "{length}");
        }
    }
}

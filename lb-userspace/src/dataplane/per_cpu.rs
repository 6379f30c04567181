//! A map of counters, or of notes, that each CPU has for itself.

use std::{io, os::fd::OwnedFd};

use zerocopy::{FromBytes, IntoBytes as _};

use super::{Error, failed, in_range, sys};

/// It knows its name.
#[derive(Debug)]
pub(super) struct PerCpuMap {
    name: &'static str,
    values: sys::PerCpu,
}

impl PerCpuMap {
    pub(super) fn new(name: &'static str, map: OwnedFd) -> Result<Self, Error> {
        let values = sys::PerCpu::new(map).map_err(failed(name, "describe"))?;
        Ok(Self { name, values })
    }

    /// An entry, summed over all CPUs word by word.
    pub(super) fn sum<T: FromBytes>(&self, index: u32) -> Result<T, Error> {
        self.in_range(index)?;
        self.value(&self.values.sum(index).map_err(failed(self.name, "lookup"))?)
    }

    /// Many of them, in the order of `indexes`.
    pub(super) fn sums<T: FromBytes>(&self, indexes: &[u32]) -> Result<Vec<T>, Error> {
        indexes.iter().try_for_each(|index| self.in_range(*index))?;
        let sums = self.values.sums(indexes).map_err(failed(self.name, "lookup"))?;
        sums.chunks_exact(size_of::<T>() / size_of::<u64>()).map(|words| self.value(words)).collect()
    }

    pub(super) fn clear(&self, index: u32) -> Result<(), Error> {
        self.in_range(index)?;
        self.values.clear(index).map_err(failed(self.name, "update"))
    }

    fn value<T: FromBytes>(&self, words: &[u64]) -> Result<T, Error> {
        T::read_from_bytes(words.as_bytes()).map_err(|_| {
            let error = io::Error::new(io::ErrorKind::InvalidData, "its values have another size");
            failed(self.name, "lookup")(error)
        })
    }

    fn in_range(&self, index: u32) -> Result<(), Error> {
        in_range(self.name, index, self.values.entries())
    }
}

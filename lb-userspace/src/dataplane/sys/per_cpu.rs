//! Counters that each CPU has for itself.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    ptr,
};

use aya_obj::generated::bpf_cmd;

use super::{BatchAttr, WORD, bpf_inout, element, map_info, possible_cpus, raw};

/// A per-CPU array whose values are whole words.
#[derive(Debug)]
pub(crate) struct PerCpu {
    map: OwnedFd,
    words: usize,
    cpus: usize,
    entries: u32,
}

impl PerCpu {
    pub(crate) fn new(map: OwnedFd) -> io::Result<Self> {
        let info = map_info(map.as_fd())?;
        let words = info.value_size.div_ceil(WORD as u32) as usize;
        Ok(Self { map, words, cpus: possible_cpus()?, entries: info.max_entries })
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// The sum over all CPUs, word by word.
    pub(crate) fn sum(&self, index: u32) -> io::Result<Vec<u64>> {
        self.sums(&[index])
    }

    /// The sums of many entries, one after the other, in the order of `indexes`. Neighbours are read in one call.
    pub(crate) fn sums(&self, indexes: &[u32]) -> io::Result<Vec<u64>> {
        let mut sums = vec![0u64; indexes.len() * self.words];
        let mut sorted: Vec<_> = indexes.iter().copied().zip(sums.chunks_exact_mut(self.words)).collect();
        sorted.sort_unstable_by_key(|(index, _)| *index);
        let each = self.words * self.cpus;
        let room = (MOST_BYTES / (each * WORD)).max(1);
        let mut values = Vec::new();
        let mut rest = &mut sorted[..];
        while let Some(&(first, _)) = rest.first() {
            let within = rest.partition_point(|(index, _)| ((index - first) as usize) < room);
            let (now, later) = rest.split_at_mut(within);
            let last = now.last().map_or(first, |(index, _)| *index);
            self.read(first, last - first + 1, &mut values)?;
            for (index, sum) in now {
                let of_cpus = values.chunks_exact(self.words).skip((*index - first) as usize * self.cpus);
                for value in of_cpus.take(self.cpus) {
                    sum.iter_mut().zip(value).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
                }
            }
            rest = later;
        }
        Ok(sums)
    }

    pub(crate) fn clear(&self, index: u32) -> io::Result<()> {
        let mut zeros = vec![0; self.words * self.cpus];
        element(bpf_cmd::BPF_MAP_UPDATE_ELEM, self.map.as_fd(), index, zeros.as_mut_ptr())
    }

    /// Fills `values` with those of all CPUs of consecutive entries.
    fn read(&self, first: u32, count: u32, values: &mut Vec<u64>) -> io::Result<()> {
        values.clear();
        values.resize(count as usize * self.words * self.cpus, 0);
        if count == 1 {
            return element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, self.map.as_fd(), first, values.as_mut_ptr());
        }
        // The kernel begins behind the entry it is given, and tells the last one that it has read.
        let before = first.checked_sub(1);
        let mut last = 0u32;
        let mut keys = vec![0u32; count as usize];
        let mut attr = BatchAttr {
            from: before.as_ref().map_or(0, |index| ptr::from_ref(index) as u64),
            next: ptr::from_mut(&mut last) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count,
            map: raw(self.map.as_fd()),
            element_flags: 0,
            flags: 0,
        };
        bpf_inout(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr)?;
        if attr.count == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Values read in one call: enough that calls don't count, little enough to stay in a cache.
const MOST_BYTES: usize = 64 * 1024;

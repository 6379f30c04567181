//! Maps whose keys are not numbers.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    ptr,
};

use aya_obj::generated::bpf_cmd;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{BatchAttr, ElementAttr, bpf, bpf_inout, map_info, raw};

/// A hash map or a trie.
#[derive(Debug)]
pub(crate) struct Keyed<K, V> {
    map: OwnedFd,
    types: PhantomData<(K, V)>,
}

impl<K, V> Keyed<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    pub(crate) fn new(map: OwnedFd) -> io::Result<Self> {
        let info = map_info(map.as_fd())?;
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its keys or values have another size"));
        }
        Ok(Self { map, types: PhantomData })
    }

    pub(crate) fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::new_zeroed();
        let found = self.call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, key, value.as_mut_bytes().as_mut_ptr() as u64);
        Ok(found_or_none(found)?.map(|()| value))
    }

    pub(crate) fn update(&self, key: &K, value: &V) -> io::Result<()> {
        self.call(bpf_cmd::BPF_MAP_UPDATE_ELEM, key, value.as_bytes().as_ptr() as u64)
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, key: &K) -> io::Result<bool> {
        Ok(found_or_none(self.call(bpf_cmd::BPF_MAP_DELETE_ELEM, key, 0))?.is_some())
    }

    /// The key behind this one, or the first; also if this one is not there any more.
    pub(crate) fn next(&self, key: Option<&K>) -> io::Result<Option<K>> {
        let mut next = K::new_zeroed();
        let attr = ElementAttr {
            map: raw(self.map.as_fd()),
            _padding: 0,
            key: key.map_or(0, |key| key.as_bytes().as_ptr() as u64),
            value: next.as_mut_bytes().as_mut_ptr() as u64,
            flags: 0,
        };
        let found = bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, attr).map(drop);
        Ok(found_or_none(found)?.map(|()| next))
    }

    /// Reads whole buckets of a hash map, from the given one on, that hold about `count` entries.
    pub(crate) fn page(&self, bucket: Option<u32>, count: u32) -> io::Result<Buckets<K, V>> {
        let mut keys: Vec<K> = (0..count).map(|_| K::new_zeroed()).collect();
        let mut values: Vec<V> = (0..count).map(|_| V::new_zeroed()).collect();
        let mut next = 0u32;
        let mut attr = BatchAttr {
            from: bucket.as_ref().map_or(0, |bucket| ptr::from_ref(bucket) as u64),
            next: ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_slice().as_mut_bytes().as_mut_ptr() as u64,
            values: values.as_mut_slice().as_mut_bytes().as_mut_ptr() as u64,
            count,
            map: raw(self.map.as_fd()),
            element_flags: 0,
            flags: 0,
        };
        let more = match bpf_inout(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => Some(next),
            // Those were the last.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let entries = keys.into_iter().zip(values).take(attr.count as usize);
        Ok(Buckets { entries: entries.collect(), next: more })
    }

    /// `value` is the address of as many bytes as a value has, good for what `command` does with them.
    fn call(&self, command: bpf_cmd, key: &K, value: u64) -> io::Result<()> {
        let key = key.as_bytes().as_ptr() as u64;
        bpf(command, ElementAttr { map: raw(self.map.as_fd()), _padding: 0, key, value, flags: 0 }).map(drop)
    }
}

/// Part of a hash map.
#[derive(Debug)]
pub(crate) struct Buckets<K, V> {
    pub(crate) entries: Vec<(K, V)>,
    /// The first of the rest; `None` where there is no more.
    pub(crate) next: Option<u32>,
}

fn found_or_none(result: io::Result<()>) -> io::Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

//! What the data plane tells of flows that peers have to know.

use std::{
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{Map, MapData, RingBuf};
use lb_common::abi::names;

use super::{Error, failed};

/// Buckets of the flow table in which a flow has just been confirmed, to be fetched.
pub(super) struct FlowNews(RingBuf<MapData>);

impl FlowNews {
    pub(super) fn new(map: OwnedFd) -> Result<Self, Error> {
        let open = |map| RingBuf::try_from(Map::RingBuf(MapData::from_fd(map)?));
        let ring = open(map).map_err(|error| failed(names::FLOW_NEWS, "mmap")(io::Error::other(error)))?;
        Ok(Self(ring))
    }

    /// Readable when there is something.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, Error> {
        self.0.as_fd().try_clone_to_owned().map_err(failed(names::FLOW_NEWS, "open"))
    }

    pub(super) fn take(&mut self) -> Vec<u32> {
        let mut buckets = Vec::new();
        while buckets.len() < AT_ONCE
            && let Some(record) = self.0.next()
        {
            buckets.extend(bucket(&record));
        }
        distinct(buckets)
    }
}

/// `None` for what no program of ours says.
fn bucket(record: &[u8]) -> Option<u32> {
    let bucket = record.first_chunk().map(|bucket| u64::from_ne_bytes(*bucket))?;
    u32::try_from(bucket).ok()
}

/// A connection may be confirmed by several packets at once.
fn distinct(mut buckets: Vec<u32>) -> Vec<u32> {
    buckets.sort_unstable();
    buckets.dedup();
    buckets
}

impl fmt::Debug for FlowNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowNews").finish_non_exhaustive()
    }
}

/// More than there is room for: whoever tells meanwhile must not keep us for ever. The next turn of the clock takes the rest.
const AT_ONCE: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_bucket_or_nothing() {
        assert_eq!(bucket(&7u64.to_ne_bytes()), Some(7));
        assert_eq!(bucket(&(1u64 << 32).to_ne_bytes()), None);
        assert_eq!(bucket(&[7, 0, 0, 0]), None);
        assert_eq!(bucket(&[]), None);
    }

    #[test]
    fn a_bucket_is_looked_at_once() {
        assert_eq!(distinct(vec![5, 2, 5, 2, 9]), [2, 5, 9]);
    }
}

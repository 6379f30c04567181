//! All that is in a program's maps, byte by byte.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use lb_common::abi::names;

use super::sys::{self, Map, ProgramInfo, Words};

/// Every pinned map of a program, held open.
#[derive(Debug)]
pub(super) struct Dumped {
    maps: Vec<(&'static str, Kept)>,
    cpus: usize,
}

#[derive(Debug)]
enum Kept {
    Words(Words),
    PerCpu(Map),
    /// Interfaces by number, of which it matters whether they are there.
    Devices(Map),
    Keyed(Map),
}

/// What a map holds: its words, or its entries by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Words(Vec<u64>),
    Entries(BTreeMap<Vec<u8>, Vec<u8>>),
}

impl Dumped {
    pub(super) fn open(info: &ProgramInfo) -> Result<Self> {
        let open = |name: &'static str| {
            let map = || sys::open_map(info, name);
            let kept = match name {
                names::COUNTERS | names::SERVICE_COUNTERS | names::BACKEND_COUNTERS => Kept::PerCpu(map()?),
                names::NAT_FLOWS | names::NAT_REPLIES | names::FRAGMENTS | names::SOURCES => {
                    Kept::Keyed(map()?)
                }
                names::EGRESS_DEVICES => Kept::Devices(map()?),
                _ => Kept::Words(Words::open(info, name)?),
            };
            Ok((name, kept))
        };
        // A ring holds nothing that anybody goes by.
        let maps: Result<Vec<_>> =
            names::PINNED_MAPS.into_iter().filter(|name| *name != names::FLOW_NEWS).map(open).collect();
        Ok(Self { maps: maps?, cpus: sys::possible_cpus()? })
    }

    pub(super) fn read(&self) -> Result<BTreeMap<&'static str, Content>> {
        let read = |(name, kept): &(&'static str, Kept)| {
            let content = self.content(kept).with_context(|| format!("read {name}"))?;
            Ok((*name, content))
        };
        self.maps.iter().map(read).collect()
    }

    fn content(&self, kept: &Kept) -> Result<Content> {
        let number = |key: &[u8]| Ok::<_, anyhow::Error>(u32::from_ne_bytes(key.try_into()?));
        Ok(match kept {
            Kept::Words(words) => {
                Content::Words(words.all().iter().map(|word| word.load(Ordering::Acquire)).collect())
            }
            Kept::PerCpu(map) => Content::Entries(
                map.keys()?
                    .into_iter()
                    .map(|key| Ok((key.clone(), map.lookup(number(&key)?, self.cpus)?)))
                    .collect::<Result<_>>()?,
            ),
            Kept::Devices(map) => Content::Entries(
                map.keys()?
                    .into_iter()
                    .map(|key| Ok((key.clone(), vec![map.has(number(&key)?).into()])))
                    .collect::<Result<_>>()?,
            ),
            Kept::Keyed(map) => Content::Entries(
                map.keys()?
                    .into_iter()
                    .map(|key| Ok((key.clone(), map.find(&key)?.context("an entry that was just there")?)))
                    .collect::<Result<_>>()?,
            ),
        })
    }
}

//! Slots and flows. Backends stand once in a body, and are named by their place from there on.

use super::{CHUNK, Chunk, Flows, MAX_BODY, Record, ServiceId, Shape, Slots, Told, Wrong, reader::Reader};

/// Bodies that say this of a service's slots; as many as it takes.
pub fn slots(service: ServiceId, version: u64, chunks: &[Chunk]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut page = Page::new(SLOTS_FRONT);
    for chunk in chunks {
        let named = |chunk: &Chunk| {
            chunk
                .slots
                .into_iter()
                .flatten()
                .flat_map(|told| [told.current, told.previous])
                .collect::<Vec<_>>()
        };
        let told = chunk.slots.iter().flatten().count();
        if !page.fits(&named(chunk), CHUNK_FRONT + 2 * told) {
            bodies.push(page.slots(service, version));
            page = Page::new(SLOTS_FRONT);
        }
        let mask = |is: &dyn Fn(&Told) -> bool| {
            let bits = chunk.slots.iter().enumerate().filter(|(_, slot)| slot.as_ref().is_some_and(is));
            bits.fold(0u32, |mask, (bit, _)| mask | 1 << bit)
        };
        let (all, tracked) = (mask(&|_| true), mask(&|told| told.tracked));
        for word in [chunk.number, all, tracked] {
            page.items.extend(word.to_be_bytes());
        }
        for told in chunk.slots.iter().flatten() {
            let pair = [page.name(told.current), page.name(told.previous)];
            page.items.extend(pair);
        }
        page.count += 1;
    }
    if page.count > 0 {
        bodies.push(page.slots(service, version));
    }
    bodies
}

/// Bodies with flows of a service, in the making.
#[derive(Debug)]
pub struct FlowBodies {
    service: ServiceId,
    bucket_bits: u8,
    /// Those that are full.
    whole: Vec<(Vec<u8>, usize)>,
    page: Page,
}

impl FlowBodies {
    pub const fn new(service: ServiceId, bucket_bits: u8) -> Self {
        Self { service, bucket_bits, whole: Vec::new(), page: Page::new(FLOWS_FRONT) }
    }

    /// Whether it takes one body more than there are to say this, too.
    pub fn needs_another(&self, record: &Record) -> bool {
        self.page.count == 0 || !self.page.fits(&[record.backend], RECORD)
    }

    pub fn push(&mut self, record: &Record) {
        if self.page.count > 0 && self.needs_another(record) {
            self.close();
        }
        let page = &mut self.page;
        let flags = [(record.closing, CLOSING), (record.changed, CHANGED), (record.doubtful, DOUBTFUL)];
        let flags = flags.iter().filter(|(is, _)| *is).fold(0, |flags, (_, flag)| flags | flag);
        page.items.extend((record.hash & HASH | flags).to_be_bytes());
        page.items.extend(record.age.to_be_bytes());
        let backend = page.name(record.backend);
        page.items.push(backend);
        page.count += 1;
    }

    /// All of them, each with the number of flows in it.
    pub fn finish(mut self) -> Vec<(Vec<u8>, usize)> {
        if self.page.count > 0 {
            self.close();
        }
        self.whole
    }

    fn close(&mut self) {
        let page = std::mem::replace(&mut self.page, Page::new(FLOWS_FRONT));
        let count = page.count;
        self.whole.push((page.flows(self.service, self.bucket_bits), count));
    }
}

impl Slots {
    /// # Errors
    ///
    /// If it is no such body.
    pub fn decode(body: &[u8]) -> Result<Self, Wrong> {
        let mut reader = Reader::new(body);
        let service = service(&mut reader)?;
        let version = reader.long()?;
        let names = names(&mut reader)?;
        let count = reader.byte()?;
        let mut chunks = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (number, all, tracked) = (reader.word()?, reader.word()?, reader.word()?);
            let is_outside = u64::from(number) * CHUNK as u64 >= 1 << service.shape.slots_log2.min(32);
            if tracked & !all != 0 || is_outside {
                return Err(Wrong::Malformed);
            }
            let mut slots = [None; CHUNK];
            for (bit, slot) in slots.iter_mut().enumerate().filter(|(bit, _)| all & 1 << bit != 0) {
                let (current, previous) = (named(&names, reader.byte()?)?, named(&names, reader.byte()?)?);
                *slot = Some(Told { current, previous, tracked: tracked & 1 << bit != 0 });
            }
            chunks.push(Chunk { number, slots });
        }
        reader.finish()?;
        Ok(Self { service, version, chunks })
    }
}

impl Flows {
    /// # Errors
    ///
    /// If it is no such body.
    pub fn decode(body: &[u8]) -> Result<Self, Wrong> {
        let mut reader = Reader::new(body);
        let service = service(&mut reader)?;
        let bucket_bits = reader.byte()?;
        if bucket_bits > MAX_BUCKET_BITS {
            return Err(Wrong::Malformed);
        }
        let names = names(&mut reader)?;
        let count = reader.byte()?;
        let mut records = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (word, age) = (reader.long()?, reader.short()?);
            let backend = named(&names, reader.byte()?)?;
            if word & !(HASH | CLOSING | CHANGED | DOUBTFUL) != 0 || backend == 0 {
                return Err(Wrong::Malformed);
            }
            let is = |flag| word & flag != 0;
            let (closing, changed, doubtful) = (is(CLOSING), is(CHANGED), is(DOUBTFUL));
            records.push(Record { hash: word & HASH, backend, age, closing, changed, doubtful });
        }
        reader.finish()?;
        Ok(Self { service, bucket_bits, records })
    }
}

/// A body in the making.
#[derive(Debug)]
struct Page {
    names: Vec<u64>,
    items: Vec<u8>,
    count: usize,
    /// Bytes before the names.
    front: usize,
}

impl Page {
    const fn new(front: usize) -> Self {
        Self { names: Vec::new(), items: Vec::new(), count: 0, front }
    }

    /// Whether there is room for an item of so many bytes that names these backends.
    fn fits(&self, named: &[u64], length: usize) -> bool {
        let mut new: Vec<_> = named.iter().filter(|id| **id != 0 && !self.names.contains(id)).collect();
        new.sort_unstable();
        new.dedup();
        let names = self.names.len() + new.len();
        names <= MAX_NAMES && self.front + names * 8 + self.items.len() + length <= MAX_BODY
    }

    /// The place of a backend's name; 0 for none.
    fn name(&mut self, id: u64) -> u8 {
        if id == 0 {
            return 0;
        }
        let at = self.names.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.names.push(id);
            self.names.len() - 1
        });
        u8::try_from(at + 1).unwrap_or_default()
    }

    fn slots(self, service: ServiceId, version: u64) -> Vec<u8> {
        let mut body = front(service);
        body.extend(version.to_be_bytes());
        self.close(body)
    }

    fn flows(self, service: ServiceId, bucket_bits: u8) -> Vec<u8> {
        let mut body = front(service);
        body.push(bucket_bits);
        self.close(body)
    }

    fn close(self, mut body: Vec<u8>) -> Vec<u8> {
        body.push(self.names.len() as u8);
        body.extend(self.names.iter().flat_map(|id| id.to_be_bytes()));
        body.push(self.count as u8);
        body.extend(self.items);
        body
    }
}

fn front(service: ServiceId) -> Vec<u8> {
    let Shape { forwarding, hash_key, selection, slots_log2, idle } = service.shape;
    let mut body = Vec::with_capacity(MAX_BODY);
    body.extend(service.address);
    body.extend(service.port.to_be_bytes());
    body.extend([service.protocol, forwarding, hash_key, selection, slots_log2]);
    body.extend(idle.to_be_bytes());
    body
}

fn service(reader: &mut Reader<'_>) -> Result<ServiceId, Wrong> {
    let (address, port, protocol) = (reader.array()?, reader.short()?, reader.byte()?);
    let [forwarding, hash_key, selection, slots_log2] = reader.array()?;
    let shape = Shape { forwarding, hash_key, selection, slots_log2, idle: reader.short()? };
    Ok(ServiceId { address, port, protocol, shape })
}

fn names(reader: &mut Reader<'_>) -> Result<Vec<u64>, Wrong> {
    let count = reader.byte()?;
    let mut names = Vec::with_capacity(count.into());
    for _ in 0..count {
        names.push(reader.long()?);
    }
    if names.contains(&0) { Err(Wrong::Malformed) } else { Ok(names) }
}

fn named(names: &[u64], place: u8) -> Result<u64, Wrong> {
    match usize::from(place).checked_sub(1) {
        None => Ok(0),
        Some(at) => names.get(at).copied().ok_or(Wrong::Malformed),
    }
}

/// Bytes of a service, then what else stands before the names and the number of items.
const SERVICE: usize = 25;
const SLOTS_FRONT: usize = SERVICE + 8 + 1 + 1;
const FLOWS_FRONT: usize = SERVICE + 1 + 1 + 1;
const CHUNK_FRONT: usize = 12;
const RECORD: usize = 11;
/// Places are bytes, and one chunk's are at most 64.
const MAX_NAMES: usize = 100;
/// A table of flows has at most this many buckets, as a power of two.
const MAX_BUCKET_BITS: u8 = 23;

const HASH: u64 = (1 << 52) - 1;
const CLOSING: u64 = 1 << 52;
const CHANGED: u64 = 1 << 53;
const DOUBTFUL: u64 = 1 << 54;

//! What load balancers say to each other, as bytes: docs/flow-replication.md is the format. Decoding takes any bytes.

mod body;
mod reader;
#[cfg(test)]
mod tests;

pub use body::{FlowBodies, slots};
#[cfg(test)]
pub(crate) use tests::flows;

use crate::dataplane::KeyFingerprint;
use reader::Reader;

/// A datagram's largest size: it fits into the smallest packet that IPv6 promises, so none is ever fragmented.
pub const MAX_DATAGRAM: usize = 1200;
/// Bytes of a header.
pub const HEADER: usize = 48;
/// Bytes of a datagram's authentication, its last.
pub const TAG: usize = 32;
/// What is left for a body.
pub const MAX_BODY: usize = MAX_DATAGRAM - HEADER - TAG;
/// Slots of a [`Chunk`].
pub const CHUNK: usize = 32;

const MAGIC: [u8; 4] = *b"BLPR";
/// Another layout or meaning is another version: load balancers of different versions tell, and don't talk.
pub const VERSION: u8 = 1;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Hello,
    Ack,
    Slots,
    Flows,
    /// All that was there when the peers found each other has been sent, and has come.
    Complete,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Hello, Self::Ack, Self::Slots, Self::Flows, Self::Complete];

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Ack => "ack",
            Self::Slots => "slots",
            Self::Flows => "flows",
            Self::Complete => "complete",
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 + 1 == code)
    }
}

/// The first bytes of each datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Of the sender's hash key.
    pub fingerprint: KeyFingerprint,
    /// A number that the receiver chose; 0 in a hello of somebody who does not know it.
    pub session: u64,
    /// Grows with each datagram of a session.
    pub sequence: u64,
    /// Milliseconds on the sender's clock, which counts from any moment.
    pub sent: u64,
    /// Milliseconds since the body was made; ages in it are of that moment.
    pub held: u32,
}

/// Says that the sender lives, and how to speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which life of the sender's end of this link it is: another with each process, and each time the sender has given the
    /// receiver up.
    pub life: u64,
    /// The life of the receiver's end that the sender hears; 0 while it hears nothing.
    pub hears: u64,
    /// The session that the receiver is to use.
    pub offer: u64,
    /// Hash over the lookup tables of all services.
    pub tables: u64,
    /// For how many seconds the sender has had its maps, 255 for that long or longer: where flows without an entry go is a
    /// matter of who has been there longer.
    pub age: u8,
}

/// Says what has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub session: u64,
    pub sequences: Vec<u64>,
}

/// Identity of a service and all of it that has to be equal for a slot to mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    pub port: u16,
    pub protocol: u8,
    pub shape: Shape,
}

/// How a service hashes and forwards, in the numbers of the map ABI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    pub forwarding: u8,
    pub hash_key: u8,
    pub selection: u8,
    pub slots_log2: u8,
    /// Idle timeout of its flows in seconds.
    pub idle: u16,
}

/// [`CHUNK`] slots of a service that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first slot, divided by [`CHUNK`].
    pub number: u32,
    /// `None`: there is nothing to say of it.
    pub slots: [Option<Told>; CHUNK],
}

/// A slot as another load balancer has it. Backends are named by `encode::peer_id` of their addresses; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub current: u64,
    pub previous: u64,
    /// Whether flows are tracked there.
    pub tracked: bool,
}

/// A flow as another load balancer's table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The low 52 bits of the flow hash, as far as the table keeps them: its bucket's and its tag's.
    pub hash: u64,
    pub backend: u64,
    /// Whole seconds since its last packet.
    pub age: u16,
    pub closing: bool,
    /// The flow had another backend before.
    pub changed: bool,
    /// Nobody knows when its last packet came.
    pub doubtful: bool,
}

/// Bodies of [`Kind::Slots`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    pub service: ServiceId,
    /// Grows with each change at the sender: of two states of a chunk the one with the greater counts.
    pub version: u64,
    pub chunks: Vec<Chunk>,
}

/// Bodies of [`Kind::Flows`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    pub service: ServiceId,
    /// How many low bits of the hash are a bucket's number.
    pub bucket_bits: u8,
    pub records: Vec<Record>,
}

/// The bytes are none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("it is malformed")]
    Malformed,
    #[error("it is of another version")]
    Version,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8 + 1;
        bytes[8..16].copy_from_slice(&self.fingerprint.bytes());
        bytes[16..24].copy_from_slice(&self.session.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.sent.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.held.to_be_bytes());
        bytes
    }

    /// The header of a whole datagram.
    ///
    /// # Errors
    ///
    /// If it is not one, by its size, its first bytes or its version.
    pub fn decode(datagram: &[u8]) -> Result<Self, Wrong> {
        if !(HEADER + TAG..=MAX_DATAGRAM).contains(&datagram.len()) {
            return Err(Wrong::Malformed);
        }
        let mut reader = Reader::new(datagram);
        if reader.array()? != MAGIC {
            return Err(Wrong::Malformed);
        }
        if reader.byte()? != VERSION {
            return Err(Wrong::Version);
        }
        let kind = Kind::from_code(reader.byte()?).ok_or(Wrong::Malformed)?;
        if reader.array()? != [0; 2] {
            return Err(Wrong::Malformed);
        }
        let fingerprint = KeyFingerprint::from_bytes(reader.array()?);
        let (session, sequence, sent) = (reader.long()?, reader.long()?, reader.long()?);
        let held = u32::from_be_bytes(reader.array()?);
        if reader.array()? != [0; 4] {
            return Err(Wrong::Malformed);
        }
        Ok(Self { kind, fingerprint, session, sequence, sent, held })
    }
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let words = [self.life, self.hears, self.offer, self.tables];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        body.push(self.age);
        body
    }

    /// # Errors
    ///
    /// If it is none.
    pub fn decode(body: &[u8]) -> Result<Self, Wrong> {
        let mut reader = Reader::new(body);
        let (life, hears) = (reader.long()?, reader.long()?);
        let (offer, tables) = (reader.long()?, reader.long()?);
        let age = reader.byte()?;
        reader.finish()?;
        Ok(Self { life, hears, offer, tables, age })
    }
}

impl Ack {
    /// Sequences of one ack.
    pub const MOST: usize = 100;

    pub fn encode(&self) -> Vec<u8> {
        let words = std::iter::once(&self.session).chain(self.sequences.iter().take(Self::MOST));
        words.flat_map(|word| word.to_be_bytes()).collect()
    }

    /// # Errors
    ///
    /// If it is none.
    pub fn decode(body: &[u8]) -> Result<Self, Wrong> {
        if body.len() > 8 * (Self::MOST + 1) {
            return Err(Wrong::Malformed);
        }
        let mut reader = Reader::new(body);
        let session = reader.long()?;
        let mut sequences = Vec::with_capacity(body.len() / 8);
        while !reader.is_empty() {
            sequences.push(reader.long()?);
        }
        Ok(Self { session, sequences })
    }
}

//! What a capture asks of the data plane, and what it gets. All of it is the business of one loaded program and of who loaded
//! it: nothing here is pinned.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Trace;

/// The only entry of `CAPTURE_SETTINGS`: which packets are wanted, and how fast they may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CaptureSettings {
    /// `CLOCK_MONOTONIC` in ns: from then on nothing is captured. Who listens moves it on, so that it ends with him.
    pub deadline: u64,
    /// Time between two packets at the rate that is allowed, in ns.
    pub interval: u64,
    /// How far ahead of the rate packets may come, in ns.
    pub burst: u64,
    /// Prefix of the clients whose packets are wanted, as in a service key, and the bits of it that count; all zeros: of any.
    pub client: [u8; 16],
    pub client_mask: [u8; 16],
    /// Kernel's index of the interface that packets come by; 0: any.
    pub ifindex: u32,
    /// Of `SERVICES`, or [`CAPTURE_ANY_SERVICE`].
    pub service: u32,
    /// A bit for each XDP action whose packets are wanted.
    pub actions: u32,
    /// Bytes of a frame that are kept, from its first on; at most [`MAX_SNAPLEN`].
    pub snaplen: u32,
}

const _: () = assert!(size_of::<CaptureSettings>() == 72);

pub const CAPTURE_ANY_SERVICE: u32 = u32::MAX;

/// Room for any jumbo frame with an outer header.
pub const MAX_SNAPLEN: u32 = 9216;

/// The only entry of `CAPTURE_RATE`: one word that all CPUs change by compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CaptureRate {
    /// `CLOCK_MONOTONIC` in ns at which the next packet would come if all came at the rate that is allowed (the generic cell
    /// rate algorithm, ITU-T I.371).
    pub next: u64,
}

/// The only entry of `CAPTURE_COUNTERS`, by CPU: wanted packets that were not captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CaptureCounters {
    /// They came faster than is allowed.
    pub beyond_rate: u64,
    /// Nobody fetched the earlier ones in time.
    pub no_room: u64,
}

/// A record of `CAPTURED`. The frame as it came follows, then the one that leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapturedPacket {
    /// `CLOCK_MONOTONIC` in ns when it came, and when it was decided about.
    pub received: u64,
    pub decided: u64,
    pub trace: Trace,
    /// Kernel's index of the interface it came by, and the queue.
    pub ifindex: u32,
    pub queue: u32,
    /// XDP action.
    pub action: u32,
    /// A `DropReason`, of a packet that is dropped.
    pub reason: u32,
    /// Length of the frame in bytes as it came, without FCS, and how many of them follow.
    pub length: u32,
    pub kept: u32,
    /// Likewise of the frame that leaves; zeros where none does, or the same.
    pub length_after: u32,
    pub kept_after: u32,
}

/// What a CPU knows of the packet at hand. An entry of `CAPTURE_SCRATCH` a CPU.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CaptureScratch {
    /// `WANTED_*`.
    pub wanted: u64,
    pub packet: CapturedPacket,
    pub frames: [u8; 2 * MAX_SNAPLEN as usize],
}

/// Whether the packet at hand is wanted, as far as that can be said before it is handled.
pub const WANTED_NOT: u64 = 0;
pub const WANTED: u64 = 1;
/// If it turns out to be a reply to a client that is.
pub const WANTED_AS_REPLY: u64 = 2;

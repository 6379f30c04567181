//! What the data plane notes of a packet's way where it is loaded to (`TRACING`): for people, and no part of any decision.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only entry of `TRACE`, by CPU: the packet at hand, or the last one. All zeros when a packet comes.
///
/// Numbers of services, backends and slots are those of the maps. The map belongs to its program alone and is never pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Trace {
    /// `TRACE_*` bits: what of all this is known.
    pub known: u32,
    /// Of `SERVICES`; [`TRACE_SERVICE`].
    pub service: u32,
    /// Of `BACKENDS`; 0 for none.
    pub backend: u32,
    /// `CHOSEN_*`: why that backend.
    pub chosen: u32,
    /// The slot's word before the packet; [`TRACE_SLOT`].
    pub slot_word: u64,
    /// The flow's entry before the packet, 0 for none; [`TRACE_TRACKED`].
    pub flow_entry: u64,
    /// Of least-connections: what the two candidates were reckoned with.
    pub loads: [u64; 2],
    pub candidates: [u32; 2],
    /// The slot that the packet's hash names, counted from the service's first; [`TRACE_SLOT`].
    pub slot: u32,
    /// Of round-robin: the slot whose turn it was, likewise.
    pub turn: u32,
    /// `NOTE_*` bits of flow tracking.
    pub notes: u32,
    /// The backend that the flow had and that did not take this packet; 0 for none.
    pub left: u32,
    /// Ports that were tried for a new NAT flow, the last one with success; 0 where none was needed.
    pub tries: u32,
    /// Coarse time, low bits.
    pub time: u32,
    /// `PASSED_*`: why the packet is the host's.
    pub passed: u32,
    /// `DropReason` plus one of a packet that goes no further, also where its sender is told instead; 0 for none.
    pub refused: u32,
    /// Largest packet that would have fitted, of one refused as too big.
    pub mtu: u32,
    /// `ANSWER_*`: what was made of the packet instead of forwarding it.
    pub answer: u32,
    /// XDP code; [`TRACE_ENDED`].
    pub action: u32,
    /// Kernel's index of the interface that the packet is redirected to.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<Trace>() == 104);

/// It was handled to its end.
pub const TRACE_ENDED: u32 = 1;
pub const TRACE_SERVICE: u32 = 2;
pub const TRACE_SLOT: u32 = 4;
/// The flow table was asked.
pub const TRACE_TRACKED: u32 = 8;
/// It is a reply through NAT, or an error about a packet that NAT sent: it goes to a client.
pub const TRACE_REPLY: u32 = 16;

/// Nobody has chosen yet.
pub const CHOSEN_NOT: u32 = 0;
/// The current backend of a slot in which flows are not tracked.
pub const CHOSEN_TABLE: u32 = 1;
/// The flow's entry in the flow table.
pub const CHOSEN_FLOW: u32 = 2;
/// A flow without an entry that takes it: the slot's previous backend if that takes existing flows, else its current one.
pub const CHOSEN_FALLBACK: u32 = 3;
/// A new flow: the slot's current backend.
pub const CHOSEN_NEW: u32 = 4;
/// A new flow: whose turn it is.
pub const CHOSEN_ROTATION: u32 = 5;
/// A new flow: the less loaded of two.
pub const CHOSEN_LEAST_LOADED: u32 = 6;
/// The flow's entry in NAT's tables.
pub const CHOSEN_NAT_FLOW: u32 = 7;
/// Where the packet's first fragment went.
pub const CHOSEN_FRAGMENT: u32 = 8;

/// Nothing that could be for a service: not TCP, UDP or ICMP over IP, or too short to say.
pub const PASSED_OTHER: u32 = 0;
/// The frame is for another host, or a group of them.
pub const PASSED_MAC: u32 = 1;
/// No service lives there.
pub const PASSED_NO_SERVICE: u32 = 2;
/// No service lives there, and no flow through NAT has such replies.
pub const PASSED_NO_FLOW: u32 = 3;
/// Its first fragment was the host's.
pub const PASSED_FRAGMENT: u32 = 4;
/// ICMP that is about no flow, or that can't be answered.
pub const PASSED_ICMP: u32 = 5;

/// What has been sent in the place of the packet: an echo reply, an error, an RST.
pub const ANSWER_ECHO: u32 = 1;
pub const ANSWER_TOO_BIG: u32 = 2;
pub const ANSWER_TIME_EXCEEDED: u32 = 3;
pub const ANSWER_PORT_UNREACHABLE: u32 = 4;
pub const ANSWER_RESET: u32 = 5;
/// An error was due, and this CPU has made enough of them.
pub const ANSWER_LIMITED: u32 = 6;
/// The packet is an error about a flow, and was handed on.
pub const ANSWER_RELAYED: u32 = 7;
/// It was an error about a tunnel packet, and became one about the client's.
pub const ANSWER_TUNNEL: u32 = 8;

impl Trace {
    #[inline(always)]
    pub const fn knows(&self, bit: u32) -> bool {
        self.known & bit != 0
    }

    /// It is for this service.
    #[inline(always)]
    pub const fn service(&mut self, service: u32) {
        self.known |= TRACE_SERVICE;
        self.service = service;
    }

    /// It goes to this backend, for that reason.
    #[inline(always)]
    pub const fn backend(&mut self, backend: u32, chosen: u32) {
        self.backend = backend;
        self.chosen = chosen;
    }
}

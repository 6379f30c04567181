//! Keys and entries of the NAT maps as the data plane makes and reads them: the ABI's structures with words for bytes.

use core::{
    mem::{offset_of, size_of},
    ptr::from_ref,
};

use lb_common::{
    abi::{BackendValue, NatFlow, NatFlowKey, NatReply, NatReplyKey, NatSeen},
    wire::ne64,
};

/// A [`NatFlowKey`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FlowKey {
    pub client: [u64; 2],
    /// The packet's: source and destination, four bytes in memory order, as everywhere.
    pub ports: u32,
    pub service: u32,
}

/// A [`NatFlow`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Flow {
    pub seen: NatSeen,
    pub backend: u32,
    /// Those of replies: the backend's, then ours.
    pub reply_ports: u32,
    pub our_address: [u64; 2],
    pub came_by: u64,
}

/// A [`NatReplyKey`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ReplyKey {
    pub backend: [u64; 2],
    pub our_address: [u64; 2],
    pub ports: u32,
    /// In its first byte.
    pub protocol: u32,
}

/// A [`NatReply`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Reply {
    pub seen: NatSeen,
    pub client: [u64; 2],
    pub vip: [u64; 2],
    pub ports: u32,
    pub service: u32,
    pub backend: u32,
    pub ifindex: u32,
    pub next_hop: u64,
    pub source_mac: u64,
}

impl FlowKey {
    // Without a call and without a branch, which the verifier would walk both ways of.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        differ(&self.client, &other.client)
            | (self.ports ^ other.ports) as u64
            | (self.service ^ other.service) as u64
            == 0
    }
}

impl Flow {
    /// Whether this is the other entry of the flow whose backend's side has this key.
    #[inline(always)]
    pub const fn is_answered_by(&self, key: &ReplyKey) -> bool {
        differ(&self.our_address, &key.our_address) | (self.reply_ports ^ key.ports) as u64 == 0
    }
}

impl Reply {
    /// Key of the flow's other entry.
    #[inline(always)]
    pub const fn flow_key(&self) -> FlowKey {
        FlowKey { client: self.client, ports: swapped(self.ports), service: self.service }
    }
}

#[inline(always)]
const fn differ([a, b]: &[u64; 2], [c, d]: &[u64; 2]) -> u64 {
    (*a ^ *c) | (*b ^ *d)
}

/// Source and destination port the other way round.
#[inline(always)]
pub const fn swapped(ports: u32) -> u32 {
    ports.rotate_left(16)
}

/// An address of the ABI's.
#[inline(always)]
pub const fn address(bytes: &[u8; 16]) -> [u64; 2] {
    [ne64(bytes, 0), ne64(bytes, 8)]
}

/// A backend's, where it is.
#[inline(always)]
pub const fn backend_address(backend: &BackendValue) -> &[u64; 2] {
    const _: () = assert!(offset_of!(BackendValue, address) % 8 == 0);
    // SAFETY: two aligned words, and every bit pattern is one.
    unsafe { &*from_ref(&backend.address).cast() }
}

const _: () = assert!(size_of::<FlowKey>() == size_of::<NatFlowKey>());
const _: () = assert!(offset_of!(FlowKey, ports) == offset_of!(NatFlowKey, ports));
const _: () = assert!(offset_of!(FlowKey, service) == offset_of!(NatFlowKey, service));

const _: () = assert!(size_of::<Flow>() == size_of::<NatFlow>());
const _: () = assert!(offset_of!(Flow, backend) == offset_of!(NatFlow, backend));
const _: () = assert!(offset_of!(Flow, reply_ports) == offset_of!(NatFlow, backend_port));
const _: () = assert!(offset_of!(Flow, reply_ports) + 2 == offset_of!(NatFlow, our_port));
const _: () = assert!(offset_of!(Flow, our_address) == offset_of!(NatFlow, our_address));
const _: () = assert!(offset_of!(Flow, came_by) == offset_of!(NatFlow, came_by));

const _: () = assert!(size_of::<ReplyKey>() == size_of::<NatReplyKey>());
const _: () = assert!(offset_of!(ReplyKey, our_address) == offset_of!(NatReplyKey, our_address));
const _: () = assert!(offset_of!(ReplyKey, ports) == offset_of!(NatReplyKey, ports));
const _: () = assert!(offset_of!(ReplyKey, protocol) == offset_of!(NatReplyKey, protocol));

const _: () = assert!(size_of::<Reply>() == size_of::<NatReply>());
const _: () = assert!(offset_of!(Reply, client) == offset_of!(NatReply, client));
const _: () = assert!(offset_of!(Reply, vip) == offset_of!(NatReply, vip));
const _: () = assert!(offset_of!(Reply, ports) == offset_of!(NatReply, ports));
const _: () = assert!(offset_of!(Reply, service) == offset_of!(NatReply, service));
const _: () = assert!(offset_of!(Reply, backend) == offset_of!(NatReply, backend));
const _: () = assert!(offset_of!(Reply, ifindex) == offset_of!(NatReply, ifindex));
const _: () = assert!(offset_of!(Reply, next_hop) == offset_of!(NatReply, next_hop));
const _: () = assert!(offset_of!(Reply, source_mac) == offset_of!(NatReply, source_mac));

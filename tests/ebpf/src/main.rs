//! The benchmark's own programs.
//!
//! `entry_v4` and `entry_v6` make a new packet of the one that the last run left behind, and tail-call the program under
//! test: they take the outer header off, restore what programs rewrite, and give the packet the next of N flows' source
//! address and port. `reply_v4` and `reply_v6` do the same with packets that answer those flows. `tx`, `encap_v4` and `encap_v6` are the floors: the least that a program can do that sends a packet
//! back, and that encapsulates it.

#![no_std]
#![no_main]

mod turn;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_TX},
    helpers::generated::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};

use turn::{FLOWS, Reply, Turn};

#[map]
static TURN: Array<Turn> = Array::with_max_entries(1, aya_ebpf::bindings::BPF_F_MMAPABLE);

/// What answers a flow, by its number.
#[map]
static REPLIES: Array<Reply> = Array::with_max_entries(FLOWS, 0);

/// The program under test, at 0.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[xdp(frags)]
pub fn entry_v4(ctx: XdpContext) -> u32 {
    enter::<42>(&ctx, |frame, turn, flow| {
        // Each store is as wide as the loads of who reads it, or a load would have to wait for two stores.
        frame.write(22, turn.ttl);
        frame.write(24, turn.checksum);
        frame.write(26, source(flow));
        frame.write(30, turn.destination[0] as u32);
        frame.write(34, ports(turn, flow));
    })
}

#[xdp(frags)]
pub fn entry_v6(ctx: XdpContext) -> u32 {
    enter::<62>(&ctx, |frame, turn, flow| {
        frame.write(20, turn.ttl);
        frame.write(22, turn.source_high);
        frame.write(30, u64::from(source(flow)) << 32);
        frame.write(38, turn.destination[0]);
        frame.write(46, turn.destination[1]);
        frame.write(54, ports(turn, flow));
    })
}

#[xdp(frags)]
pub fn reply_v4(ctx: XdpContext) -> u32 {
    enter::<42>(&ctx, |frame, turn, flow| {
        let Some(reply) = REPLIES.get(flow as u32) else { return };
        frame.write(22, turn.ttl);
        frame.write(24, turn.checksum);
        frame.write(26, reply.source[0] as u32);
        frame.write(30, reply.destination[0] as u32);
        frame.write(34, reply.ports);
    })
}

#[xdp(frags)]
pub fn reply_v6(ctx: XdpContext) -> u32 {
    enter::<62>(&ctx, |frame, turn, flow| {
        let Some(reply) = REPLIES.get(flow as u32) else { return };
        frame.write(20, turn.ttl);
        frame.write(22, reply.source[0]);
        frame.write(30, reply.source[1]);
        frame.write(38, reply.destination[0]);
        frame.write(46, reply.destination[1]);
        frame.write(54, reply.ports);
    })
}

#[xdp(frags)]
pub fn tx(_ctx: XdpContext) -> u32 {
    XDP_TX
}

#[xdp(frags)]
pub fn encap_v4(ctx: XdpContext) -> u32 {
    encapsulate::<34>(&ctx, 20, |frame| {
        frame.write(12, u16::from_ne_bytes([0x08, 0]));
        frame.write(14, u64::from_ne_bytes([0x45, 0, 0, 68, 0, 0, 0x40, 0]));
        frame.write(22, u64::from_ne_bytes([64, 4, 0x66, 0x99, 10, 9, 0, 1]));
        frame.write(30, u32::from_ne_bytes([10, 9, 0, 2]));
    })
}

#[xdp(frags)]
pub fn encap_v6(ctx: XdpContext) -> u32 {
    encapsulate::<54>(&ctx, 40, |frame| {
        frame.write(12, u16::from_ne_bytes([0x86, 0xdd]));
        frame.write(14, u64::from_ne_bytes([0x60, 0, 0, 0, 0, 68, 41, 64]));
        frame.write(22, u64::from_ne_bytes([0xfd, 0, 0, 9, 0, 0, 0, 0]));
        frame.write(30, u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 1]));
        frame.write(38, u64::from_ne_bytes([0xfd, 0, 0, 9, 0, 0, 0, 0]));
        frame.write(46, u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 2]));
    })
}

/// `LEN` is how much of the frame `restore` writes.
#[inline(always)]
fn enter<const LEN: usize>(ctx: &XdpContext, restore: impl FnOnce(Frame, &Turn, u64)) -> u32 {
    let Some(turn) = TURN.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the map's only entry; the benchmark writes it between runs.
    let turn = unsafe { &mut *turn };
    // The first run of a series gets the frame as it is, the others what the program under test made of it.
    let has_grown = (ctx.data_end() - ctx.data()) as u64 != turn.frame_len;
    // SAFETY: a live context, and no pointer into the frame exists.
    if has_grown && unsafe { bpf_xdp_adjust_head(ctx.ctx, turn.outer_len) } != 0 {
        return XDP_ABORTED;
    }
    let number = turn.packet;
    turn.packet = number + 1;
    let flow = turn.flow(number);
    let Some(frame) = Frame::of::<LEN>(ctx) else { return XDP_ABORTED };
    frame.write(0, turn.macs);
    frame.write(8, turn.macs_rest);
    frame.write(12, turn.ethertype);
    restore(frame, turn, flow);
    // SAFETY: leaves this program for good, or comes back if there is no other.
    unsafe { UNDER_TEST.tail_call(ctx, 0) };
    XDP_ABORTED
}

/// Grows the frame by `outer` bytes and has `LEN` of its bytes written.
#[inline(always)]
fn encapsulate<const LEN: usize>(ctx: &XdpContext, outer: i32, write: impl FnOnce(Frame)) -> u32 {
    // SAFETY: a live context, and no pointer into the frame exists.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -outer) } != 0 {
        return XDP_ABORTED;
    }
    let Some(frame) = Frame::of::<LEN>(ctx) else { return XDP_ABORTED };
    frame.write(0, u64::from_ne_bytes([2, 0, 0, 0, 0, 2, 2, 0]));
    frame.write(8, u32::from_ne_bytes([0, 0, 0, 1]));
    write(frame);
    XDP_TX
}

/// The bits of a flow's number that are in its address.
#[inline(always)]
fn source(flow: u64) -> u32 {
    0x0a | (flow as u32) << 8
}

/// Flows beyond 2^24 differ by their port.
#[inline(always)]
fn ports(turn: &Turn, flow: u64) -> u32 {
    u32::from(turn.destination_port) << 16 | u32::from((flow >> 24) as u16).wrapping_add(0x1f90)
}

/// The start of a frame, whose length has been looked at.
#[derive(Clone, Copy)]
struct Frame(usize);

impl Frame {
    #[inline(always)]
    fn of<const LEN: usize>(ctx: &XdpContext) -> Option<Self> {
        let start = ctx.data();
        (start + LEN <= ctx.data_end()).then_some(Self(start))
    }

    /// The verifier refuses what lies behind the length that was looked at.
    #[inline(always)]
    fn write<T>(self, offset: usize, value: T) {
        // SAFETY: inside the frame, as the verifier makes sure.
        unsafe { ((self.0 + offset) as *mut T).write_unaligned(value) };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! What a backend needs for the tunnel modes, where the kernel has no tunnels of its own.

use super::super::assembler::{Assembler, Instruction, Register, Width};
use super::{ETHERNET, network_order};

use Register::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};

const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;

const HELPER_SKB_LOAD_BYTES: i32 = 26;
const HELPER_SKB_CHANGE_PROTO: i32 = 31;
const HELPER_SKB_ADJUST_ROOM: i32 = 50;

/// `BPF_ADJ_ROOM_MAC`: room is taken between the Ethernet header and the rest.
const ADJUST_ROOM_MAC: i32 = 1;
/// `offsetof(struct __sk_buff, protocol)`
const SKB_PROTOCOL: i16 = 16;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV4_HEADER: i32 = 20;
const IPV6_HEADER: i32 = 40;
const UDP_HEADER: i32 = 8;
/// Generic UDP Encapsulation, as IANA has it.
const GUE_PORT: u16 = 6080;

/// tc: takes the outer header off IPv4 or IPv6 in IPv4 or IPv6 (RFC 2003, 2473, 4213), and the UDP header behind it where
/// there is one: GUE of variant 1, whose first four bits are the inner packet's version.
///
/// Whatever the addresses. An outer header with options or extension headers stays: no forwarding mode makes one.
#[must_use]
pub fn decapsulate() -> Vec<Instruction> {
    let mut program = Assembler::default();
    // The helpers are called with the context in r1 and spoil r1 to r5. r7 is the outer EtherType.
    program.copy(R6, R1).load(Width::Word, R7, R6, SKB_PROTOCOL);
    outer_header(&mut program);
    gue_header(&mut program);

    program.label("tunnel").unless_equal(R8, libc::IPPROTO_IPIP, "inner IPv6");
    program.unless_equal(R7, network_order(IPV4), "IPv4 in IPv6").jump("same family");
    program.label("inner IPv6").unless_equal(R8, libc::IPPROTO_IPV6, "ok");
    program.unless_equal(R7, network_order(IPV6), "IPv6 in IPv4");

    program.label("same family");
    take_off(&mut program);
    program.exit(TC_ACT_OK);

    // Turning one family into the other takes away or adds, behind the Ethernet header, what their headers differ by;
    // and a frame is never cut below its family's header, so what grows does so first.
    program.label("IPv4 in IPv6").add(R9, IPV4_HEADER - IPV6_HEADER);
    take_off(&mut program);
    turn_into(&mut program, IPV4);
    program.exit(TC_ACT_OK);

    program.label("IPv6 in IPv4").add(R9, IPV6_HEADER - IPV4_HEADER);
    turn_into(&mut program, IPV6);
    take_off(&mut program);
    program.exit(TC_ACT_OK);

    program.label("ok").exit(TC_ACT_OK);
    program.label("drop").exit(TC_ACT_SHOT);
    program.finish()
}

/// Leaves the outer protocol in r8 and the header's length in r9.
fn outer_header(program: &mut Assembler) {
    program.unless_equal(R7, network_order(IPV4), "outer IPv6").set(R2, ETHERNET);
    load_bytes(program, Width::Byte);
    program.unless_equal(R8, 0x45, "ok").set(R2, ETHERNET + 9);
    load_bytes(program, Width::Byte);
    program.set(R9, IPV4_HEADER).jump("outer");

    program.label("outer IPv6").unless_equal(R7, network_order(IPV6), "ok").set(R2, ETHERNET + 6);
    load_bytes(program, Width::Byte);
    program.set(R9, IPV6_HEADER).label("outer");
}

/// Turns UDP in r8 into the protocol that an IP header would name for what follows.
fn gue_header(program: &mut Assembler) {
    program.unless_equal(R8, libc::IPPROTO_UDP, "tunnel").copy(R2, R9).add(R2, ETHERNET + 2);
    load_bytes(program, Width::Half);
    program.unless_equal(R8, network_order(GUE_PORT), "ok").add(R9, UDP_HEADER);
    program.copy(R2, R9).add(R2, ETHERNET);
    load_bytes(program, Width::Byte);
    program.and(R8, 0xf0).unless_equal(R8, 0x40, "not IPv4").set(R8, libc::IPPROTO_IPIP).jump("tunnel");
    program.label("not IPv4").unless_equal(R8, 0x60, "ok").set(R8, libc::IPPROTO_IPV6);
}

/// Loads what is at r2 in the frame to r8; a frame too short for it goes to the label `ok`.
fn load_bytes(program: &mut Assembler, width: Width) {
    let length = match width {
        Width::Byte => 1,
        Width::Half => 2,
        Width::Word => 4,
    };
    program
        .copy(R1, R6)
        .copy(R3, R10)
        .add(R3, -8)
        .set(R4, length)
        .call(HELPER_SKB_LOAD_BYTES)
        .unless_equal(R0, 0, "ok")
        .load(width, R8, R10, -8);
}

/// Shrinks the frame by r9 bytes behind its Ethernet header; goes to `drop` if it can't be.
fn take_off(program: &mut Assembler) {
    program
        .copy(R1, R6)
        .copy(R2, R9)
        .negate(R2)
        .set(R3, ADJUST_ROOM_MAC)
        .set(R4, 0)
        .call(HELPER_SKB_ADJUST_ROOM)
        .unless_equal(R0, 0, "drop");
}

/// Makes it a packet of this EtherType to the kernel; goes to `drop` if it can't be.
fn turn_into(program: &mut Assembler, ether_type: u16) {
    program
        .copy(R1, R6)
        .set(R2, network_order(ether_type))
        .set(R3, 0)
        .set(R4, 0)
        .set(R5, 0)
        .call(HELPER_SKB_CHANGE_PROTO)
        .unless_equal(R0, 0, "drop");
}

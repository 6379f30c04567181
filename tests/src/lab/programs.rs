//! The lab's own BPF programs: what the far ends of a load balancer's interfaces need, the decapsulator that backends
//! run for tunnel modes, and two tiny forwarders that prove the lab's wiring without any of Ballast.

use super::assembler::{Assembler, Instruction, Register, Width};

use Register::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};

/// EtherType for local experiments (IEEE 802): what [`reflect`] and [`redirect`] act on, so that ARP and NDP go on.
pub const EXPERIMENTAL_ETHERTYPE: u16 = 0x88b5;

const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;

const HELPER_REDIRECT: i32 = 23;
const HELPER_SKB_LOAD_BYTES: i32 = 26;
const HELPER_SKB_ADJUST_ROOM: i32 = 50;

/// `BPF_ADJ_ROOM_MAC`: room is taken between the Ethernet header and the rest.
const ADJUST_ROOM_MAC: i32 = 1;
/// `offsetof(struct __sk_buff, protocol)`
const SKB_PROTOCOL: i16 = 16;
const ETHERNET: i32 = 14;
const IPV4_HEADER: i32 = 20;
const IPV6_HEADER: i32 = 40;

/// XDP: passes everything. veth takes frames from XDP only if its far end runs a program.
pub(super) fn pass() -> Vec<Instruction> {
    Assembler::default().exit(XDP_PASS).finish()
}

/// XDP: sends frames of [`EXPERIMENTAL_ETHERTYPE`] back to where they came from, passes the rest.
#[must_use]
pub fn reflect() -> Vec<Instruction> {
    let mut program = Assembler::default();
    experimental_only(&mut program);
    // Swap the addresses: 4 + 2 bytes each.
    program
        .load(Width::Word, R4, R2, 0)
        .load(Width::Half, R5, R2, 4)
        .load(Width::Word, R6, R2, 6)
        .load(Width::Half, R7, R2, 10)
        .store(Width::Word, R2, 0, R6)
        .store(Width::Half, R2, 4, R7)
        .store(Width::Word, R2, 6, R4)
        .store(Width::Half, R2, 10, R5)
        .exit(XDP_TX);
    program.label("pass").exit(XDP_PASS);
    program.finish()
}

/// XDP: sends frames of [`EXPERIMENTAL_ETHERTYPE`] out of the interface with this index as they are, passes the rest.
#[must_use]
pub fn redirect(interface: u32) -> Vec<Instruction> {
    let mut program = Assembler::default();
    experimental_only(&mut program);
    program.set(R1, interface.cast_signed()).set(R2, 0).call(HELPER_REDIRECT).exit_r0();
    program.label("pass").exit(XDP_PASS);
    program.finish()
}

/// tc: takes the outer header off IPv4-in-IPv4 (RFC 2003) and IPv6-in-IPv6 (RFC 2473), whatever its addresses.
///
/// An outer header with options or extension headers stays: no forwarding mode makes one.
#[must_use]
pub fn decapsulate() -> Vec<Instruction> {
    let mut program = Assembler::default();
    // The helpers are called with the context in r1 and spoil r1 to r5.
    program.copy(R6, R1).load(Width::Word, R7, R6, SKB_PROTOCOL);

    program.unless_equal(R7, network_order(0x0800), "ipv6");
    load_bytes(&mut program, ETHERNET, 1);
    program.load(Width::Byte, R8, R10, -8).unless_equal(R8, 0x45, "ok");
    load_bytes(&mut program, ETHERNET + 9, 1);
    program.load(Width::Byte, R8, R10, -8).unless_equal(R8, libc::IPPROTO_IPIP, "ok");
    program.set(R9, -IPV4_HEADER);
    take_off(&mut program);

    program.label("ipv6").unless_equal(R7, network_order(0x86dd), "ok");
    load_bytes(&mut program, ETHERNET + 6, 1);
    program.load(Width::Byte, R8, R10, -8).unless_equal(R8, libc::IPPROTO_IPV6, "ok");
    program.set(R9, -IPV6_HEADER);
    take_off(&mut program);

    program.label("ok").exit(TC_ACT_OK);
    program.label("drop").exit(TC_ACT_SHOT);
    program.finish()
}

/// Leaves the start of the frame in r2; other frames go to the label `pass`.
fn experimental_only(program: &mut Assembler) {
    program
        .load(Width::Word, R2, R1, 0)
        .load(Width::Word, R3, R1, 4)
        .copy(R4, R2)
        .add(R4, ETHERNET)
        .if_greater(R4, R3, "pass")
        .load(Width::Half, R5, R2, 12)
        .unless_equal(R5, network_order(EXPERIMENTAL_ETHERTYPE), "pass");
}

/// Loads bytes of the frame to the stack at r10 - 8; a frame too short for it goes to the label `ok`.
fn load_bytes(program: &mut Assembler, offset: i32, length: i32) {
    program
        .copy(R1, R6)
        .set(R2, offset)
        .copy(R3, R10)
        .add(R3, -8)
        .set(R4, length)
        .call(HELPER_SKB_LOAD_BYTES)
        .unless_equal(R0, 0, "ok");
}

/// Shrinks the frame by -r9 bytes behind its Ethernet header and lets it go on; goes to `drop` if it can't be.
fn take_off(program: &mut Assembler) {
    program
        .copy(R1, R6)
        .copy(R2, R9)
        .set(R3, ADJUST_ROOM_MAC)
        .set(R4, 0)
        .call(HELPER_SKB_ADJUST_ROOM)
        .unless_equal(R0, 0, "drop")
        .exit(TC_ACT_OK);
}

/// What a 16-bit field of a packet reads as.
fn network_order(value: u16) -> i32 {
    i32::from(value.to_be())
}

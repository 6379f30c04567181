//! The lab's own BPF programs: what the far ends of a load balancer's interfaces need, the decapsulator that backends
//! run for tunnel modes, and two tiny forwarders that prove the lab's wiring without any of Ballast.

mod decapsulate;

pub use decapsulate::decapsulate;

use super::assembler::{Assembler, Instruction, Register, Width};

use Register::{R1, R2, R3, R4, R5, R6, R7};

/// EtherType for local experiments (IEEE 802): what [`reflect`] and [`redirect`] act on, so that ARP and NDP go on.
pub const EXPERIMENTAL_ETHERTYPE: u16 = 0x88b5;

const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

const HELPER_REDIRECT: i32 = 23;
const ETHERNET: i32 = 14;

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

/// What a 16-bit field of a packet reads as.
fn network_order(value: u16) -> i32 {
    i32::from(value.to_be())
}

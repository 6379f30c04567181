//! The way of an error that goes elsewhere than back.

use core::{mem::offset_of, ptr::read_volatile};

use aya_ebpf::{
    bindings::{
        self, BPF_FIB_LKUP_RET_SUCCESS,
        xdp_action::{XDP_REDIRECT, XDP_TX},
        xdp_md,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect},
    programs::XdpContext,
};
use lb_common::abi::DropReason;

use super::draft::Draft;
use crate::{
    cursor::CursorMut,
    forward::write_mac_words,
    journey::unmapped,
    refusal::{self, Outcome},
    trace,
};

/// Sends the error that has been made of this CPU's [`Draft`] by the host's route to its destination, or back where the frame
/// came from.
#[inline(always)]
pub fn to_destination(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_route(ctx.ctx) })
}

/// [`to_destination`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_route(ctx: *mut xdp_md) -> u64 {
    refusal::to_word(send(&mut XdpContext::new(ctx)))
}

#[inline(always)]
fn send(ctx: &mut XdpContext) -> Outcome {
    let draft = Draft::of_this_cpu()?;
    let ingress = ctx.ingress_ifindex() as u32;
    let mut lookup = lookup(draft, ingress);
    let at = (&raw mut lookup).cast();
    // SAFETY: a live context, and a structure of the length given.
    if unsafe { bpf_fib_lookup(ctx.ctx.cast(), at, LEN as i32, 0) } != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        return Ok(XDP_TX);
    }
    // SAFETY: elements of it. Volatile, or the compiler would load addresses from where they lie.
    let (vlan_and_source, source_and_destination) =
        unsafe { (read_volatile(&raw const lookup[6]), read_volatile(&raw const lookup[7])) };
    let source = (vlan_and_source >> 32) | (source_and_destination << 32);
    write_mac_words(&mut CursorMut::new(ctx), source_and_destination >> 16, source)?;
    let egress = lookup[1] as u32;
    if egress == ingress {
        return Ok(XDP_TX);
    }
    // SAFETY: takes numbers only.
    if unsafe { bpf_redirect(egress, 0) } == i64::from(XDP_REDIRECT) {
        trace::redirected(egress);
        Ok(XDP_REDIRECT)
    } else {
        Err(DropReason::NoEgress.into())
    }
}

/// A `bpf_fib_lookup`, in words, because the verifier takes none that lie across their boundaries on a stack: the last two
/// are `vlan:32, source mac:48, destination mac:48`, the first byte lowest.
type Words = [u64; LEN / 8];

const LEN: usize = size_of::<bindings::bpf_fib_lookup>();
const _: () = assert!(LEN == 64 && offset_of!(bindings::bpf_fib_lookup, ifindex) == 8);
const _: () = assert!(offset_of!(bindings::bpf_fib_lookup, __bindgen_anon_3) == 16);
const _: () = assert!(offset_of!(bindings::bpf_fib_lookup, __bindgen_anon_4) == 32);
const _: () = assert!(offset_of!(bindings::bpf_fib_lookup, smac) == 52);
const _: () = assert!(offset_of!(bindings::bpf_fib_lookup, dmac) == 58);

#[inline(always)]
fn lookup(draft: &Draft, ingress: u32) -> Words {
    let (source, destination) = (draft.source, draft.destination);
    if draft.family == 4 {
        [AF_INET, ingress.into(), unmapped(source).into(), 0, unmapped(destination).into(), 0, 0, 0]
    } else {
        [AF_INET6, ingress.into(), source[0], source[1], destination[0], destination[1], 0, 0]
    }
}

const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;

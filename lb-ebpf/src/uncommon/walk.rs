//! IPv6 extension headers: walked one by one, up to the transport header.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    abi::DropReason,
    wire::{
        extension::{EXTENSION_LEN, Extension, MAX_EXTENSION_BYTES, MAX_EXTENSIONS, is_extension},
        ipv6,
    },
};

use crate::{
    cursor::Cursor,
    journey::{FRAGMENT_FIRST, FRAGMENT_LATER, Journey},
};

/// Takes this CPU's [`Journey`] from its first extension header to what is behind the last, or to the one that can't be
/// walked, for which there is a drop reason.
#[inline(always)]
pub fn walk(ctx: &XdpContext) -> Option<u32> {
    let mut count = 0;
    while count <= MAX_EXTENSIONS {
        // SAFETY: a live context.
        match unsafe { ballast_extension(ctx.ctx, count) } {
            WALKED => count += 1,
            ARRIVED => return None,
            reason => return Some(reason as u32),
        }
    }
    None
}

const WALKED: u64 = 0x100;
const ARRIVED: u64 = 0x101;

/// A step of [`walk`], over the header after the first `count`. A global function: the verifier, which does not know
/// where that stands, walks it once.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_extension(ctx: *mut xdp_md, count: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(journey) = Journey::of_this_cpu() else { return ARRIVED };
    if !is_extension(journey.protocol) {
        return ARRIVED;
    }
    if count >= MAX_EXTENSIONS {
        return DropReason::ExtensionHeader as u64;
    }
    let at = journey.transport_at();
    let Some(bytes) = Cursor::new(&ctx).at::<EXTENSION_LEN>(at) else {
        return DropReason::TruncatedHeader as u64;
    };
    let header = Extension { kind: journey.protocol, bytes };
    let behind = at + header.byte_len();
    if (at + EXTENSION_LEN) as u32 > journey.end() {
        return DropReason::TruncatedHeader as u64;
    }
    if behind > journey.ip_at() + ipv6::HEADER_LEN + MAX_EXTENSION_BYTES || header.says_another_destination()
    {
        return DropReason::ExtensionHeader as u64;
    }
    journey.protocol = header.next_header();
    journey.l4 = behind as u32;
    if header.is_authentication() {
        journey.authenticated = 1;
    }
    if header.is_fragment() {
        journey.identification = header.identification();
        journey.fragment_header = at as u32;
        journey.fragment = if header.is_later_fragment() { FRAGMENT_LATER } else { FRAGMENT_FIRST };
        if header.is_later_fragment() {
            // What the header announces begins elsewhere.
            return ARRIVED;
        }
    }
    WALKED
}

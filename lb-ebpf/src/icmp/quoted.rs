//! The packet that an ICMP error is about, as far as it is quoted.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    abi::DropReason,
    wire::{
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        ne32,
    },
};

use crate::{
    cursor::Cursor,
    journey::Journey,
    maps,
    parse::{self, Address as _},
};

/// Bytes behind the quoted IP header that are there at least (RFC 792): enough for the ports.
const QUOTED_LEN: usize = 8;

#[repr(C)]
pub struct Quoted {
    /// As in the [`Journey`].
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// As sent: source and destination port. Of TCP and UDP.
    pub ports: u32,
    /// Where its IP header starts, and what follows that.
    pub l3: u32,
    pub l4: u32,
    /// Where that ends which there is of it.
    pub end: u32,
    /// 4 or 6.
    pub family: u8,
    pub protocol: u8,
    pub _padding: [u8; 6],
}

impl Quoted {
    /// This CPU's.
    #[inline(always)]
    pub fn of_this_cpu() -> Result<&'static mut Self, DropReason> {
        let quoted = maps::QUOTED.get_ptr_mut(0).ok_or(DropReason::BadMapEntry)?;
        // SAFETY: this CPU's entry, which lives as long as the map. Whoever holds another reference has handed control
        // over, and reads again what it needs afterwards.
        Ok(unsafe { &mut *quoted })
    }

    /// Whether the ports are any.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        parse::is_balanced(self.protocol)
    }
}

/// Reads the packet quoted at `at` in this CPU's [`Journey`], of any protocol. `None`: it is a later fragment, or too little
/// of it is there.
#[inline(always)]
pub fn read(ctx: &XdpContext, at: usize) -> Option<&'static mut Quoted> {
    // SAFETY: a live context.
    if unsafe { ballast_quoted(ctx.ctx, at as u32) } == 0 {
        return None;
    }
    Quoted::of_this_cpu().ok()
}

/// [`read`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_quoted(ctx: *mut xdp_md, at: u32) -> u64 {
    // Behind 512 bytes of extension headers, and two tunnel headers at most.
    read_at(&Cursor::new(&XdpContext::new(ctx)), (at & 0x3ff) as usize).is_some().into()
}

#[inline(always)]
fn read_at(cursor: &Cursor<'_>, at: usize) -> Option<()> {
    let (journey, quoted) = (Journey::of_this_cpu().ok()?, Quoted::of_this_cpu().ok()?);
    // All of the shorter header: of a single byte's check the verifier learns nothing.
    let [version, ..] = *cursor.at::<{ ipv4::HEADER_LEN }>(at)?;
    quoted.family = version >> 4;
    let header_len = match quoted.family {
        4 => {
            let header = Ipv4(cursor.at(at)?);
            if header.header_len() < ipv4::HEADER_LEN || header.is_later_fragment() {
                return None;
            }
            quoted.source = header.source().service_words();
            quoted.destination = header.destination().service_words();
            quoted.protocol = header.protocol();
            header.header_len()
        }
        6 => {
            let header = Ipv6(cursor.at(at)?);
            // Nobody's on the wire, and would be taken for IPv4's.
            if parse::is_mapped(header.source()) || parse::is_mapped(header.destination()) {
                return None;
            }
            quoted.source = header.source();
            quoted.destination = header.destination();
            quoted.protocol = header.next_header();
            ipv6::HEADER_LEN
        }
        _ => return None,
    };
    let l4 = at + header_len;
    let first_len = cursor.first_len() as u32;
    let end = if journey.end() < first_len { journey.end() } else { first_len };
    quoted.ports = ne32(cursor.at::<QUOTED_LEN>(l4)?, 0);
    quoted.l3 = at as u32;
    quoted.l4 = l4 as u32;
    quoted.end = end;
    ((l4 + QUOTED_LEN) as u32 <= end).then_some(())
}

//! RSTs to TCP segments of a service that rejects them because it has no backend. Datagrams are told by ICMP
//! (`icmp/error.rs`).

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_xdp_adjust_tail,
    programs::XdpContext,
};
use lb_common::{
    abi::{ANSWER_RESET, DropReason, PROTOCOL_TCP, PROTOCOL_UDP},
    checksum,
    wire::{
        ethernet::{self, ETHERTYPE_IPV4, HEADER_LEN},
        icmp::{is_hosts_v4, is_hosts_v6},
        ipv4::{self, DONT_FRAGMENT, Ipv4},
        ipv6::{self, Ipv6},
        reset::{CHECKSUM_AT, Reset},
        transport::{self, TCP_HEADER_LEN},
    },
};

use crate::{
    cursor::{Cursor, CursorMut},
    forward::{read_mac_words, write_mac_words},
    icmp::count,
    journey::{FRAGMENT_NONE, Journey, unmapped},
    parse::{self, Address as _},
    refusal::{self, Outcome},
    trace,
};

/// Makes the frame an RST to its sender. `XDP_PASS`: it is not TCP, and untouched. After an error it may be cut and must
/// be dropped.
#[inline(always)]
pub fn reset(ctx: &XdpContext) -> Outcome {
    // SAFETY: a live context.
    refusal::from_word(unsafe { ballast_reset(ctx.ctx) })
}

/// [`reset`] for the verifier.
///
/// # Safety
///
/// A live context.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn ballast_reset(ctx: *mut xdp_md) -> u64 {
    let mut ctx = XdpContext::new(ctx);
    let made = match Segment::read(&ctx) {
        Read::Other => Ok(XDP_PASS),
        Read::Untold => Err(DropReason::Rejected),
        Read::Answered(segment) => segment.answer(&mut ctx).ok_or(DropReason::Rejected).map(|()| XDP_TX),
    };
    if let Ok(XDP_TX) = made {
        count(|counters| &mut counters.resets_sent);
        trace::answered(ANSWER_RESET);
    }
    refusal::to_word(made.map_err(Into::into))
}

enum Read {
    /// Not TCP.
    Other,
    /// A reset itself, a fragment, whose length nobody knows, or from nobody.
    Untold,
    Answered(Segment),
}

/// What an RST has to say, and to whom.
struct Segment {
    l3: usize,
    is_v4: bool,
    /// As a service key has it.
    source: [u64; 2],
    destination: [u64; 2],
    header: [u32; TCP_HEADER_LEN / 4],
    frame_len: usize,
}

impl Segment {
    #[inline(always)]
    fn read(ctx: &XdpContext) -> Read {
        read(ctx).unwrap_or(Read::Untold)
    }

    #[inline(always)]
    fn answer(&self, ctx: &mut XdpContext) -> Option<()> {
        let headers = if self.is_v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN } + TCP_HEADER_LEN;
        let surplus = self.frame_len as i32 - (self.l3 + headers) as i32;
        // SAFETY: a live context. No header reference exists: they borrow the context, which is borrowed mutably here.
        if surplus > 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, -surplus) } != 0 {
            return None;
        }
        let mut cursor = CursorMut::new(ctx);
        let (destination, source) = read_mac_words(&cursor)?;
        write_mac_words(&mut cursor, source, destination).ok()?;
        let mut cursor = cursor.skip(ethernet::tags_len(self.l3));
        let at = if self.is_v4 {
            let header = ipv4::outer_header(ipv4::Outer {
                traffic_class: 0,
                total_len: (ipv4::HEADER_LEN + TCP_HEADER_LEN) as u16,
                identification: 0,
                dont_fragment: DONT_FRAGMENT,
                protocol: PROTOCOL_TCP,
                source: unmapped(self.destination),
                destination: unmapped(self.source),
            });
            cursor.write(HEADER_LEN, header)?;
            HEADER_LEN + ipv4::HEADER_LEN
        } else {
            cursor.write(HEADER_LEN, ipv6::outer_head(0, 0, TCP_HEADER_LEN as u16, PROTOCOL_TCP))?;
            let [a, b] = self.destination;
            let [c, d] = self.source;
            cursor.write(HEADER_LEN + 8, [a, b, c, d])?;
            HEADER_LEN + ipv6::HEADER_LEN
        };
        cursor.write(at, self.header)?;
        cursor.write(at + CHECKSUM_AT, checksum::of(self.sum()))
    }

    /// Of header and pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
    #[inline(always)]
    fn sum(&self) -> u64 {
        let [a, b, c, d, _] = self.header;
        let header = u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d);
        let pseudo = u64::from((TCP_HEADER_LEN as u32).to_be()) + u64::from(u32::from(PROTOCOL_TCP).to_be());
        let addresses = if self.is_v4 {
            u64::from(unmapped(self.source)) + u64::from(unmapped(self.destination))
        } else {
            halves(self.source) + halves(self.destination)
        };
        header + pseudo + addresses
    }
}

#[inline(always)]
fn read(ctx: &XdpContext) -> Option<Read> {
    let cursor = Cursor::new(ctx);
    let (l3, ethertype) = parse::behind_tags(&cursor)?;
    let is_v4 = ethertype == ETHERTYPE_IPV4;
    let (source, destination, l4, end, is_fragment, protocol) = if is_v4 {
        let header = Ipv4(cursor.at(l3)?);
        let (source, destination) = (header.source().service_words(), header.destination().service_words());
        let end = l3 as u32 + u32::from(header.total_len());
        (source, destination, l3 + header.header_len(), end, header.is_fragment(), header.protocol())
    } else {
        let header = Ipv6(cursor.at(l3)?);
        let end = (l3 + ipv6::HEADER_LEN) as u32 + u32::from(header.payload_len());
        let (l4, is_fragment, protocol) = match header.next_header() {
            plain @ (PROTOCOL_TCP | PROTOCOL_UDP) => (l3 + ipv6::HEADER_LEN, false, plain),
            // Behind extension headers, so this CPU's journey is this packet's.
            _ => {
                let journey = Journey::of_this_cpu().ok()?;
                (journey.transport_at(), journey.fragment != FRAGMENT_NONE, journey.protocol)
            }
        };
        (header.source(), header.destination(), l4, end, is_fragment, protocol)
    };
    if protocol != PROTOCOL_TCP {
        return Some(Read::Other);
    }
    let is_hosts = if is_v4 { is_hosts_v4(unmapped(source)) } else { is_hosts_v6(source) };
    if is_fragment || !is_hosts {
        return Some(Read::Untold);
    }
    let segment = cursor.at::<TCP_HEADER_LEN>(l4)?;
    let reset = Reset::to(segment, end.saturating_sub(l4 as u32))?;
    let header = reset.header(transport::ports(segment));
    let frame_len = cursor.whole_len();
    Some(Read::Answered(Segment { l3, is_v4, source, destination, header, frame_len }))
}

#[inline(always)]
const fn halves([high, low]: [u64; 2]) -> u64 {
    (high & 0xffff_ffff) + (high >> 32) + (low & 0xffff_ffff) + (low >> 32)
}

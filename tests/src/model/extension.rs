//! IPv6 extension headers (RFC 8200 section 4).

use lb_common::abi::DropReason;

use super::headers::{Fragment, Frame, word};

/// How far the headers of a packet could be followed.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// What the last of them announces; `None` where nobody can tell.
    pub(super) next: Option<u8>,
    /// Where that begins.
    pub(super) end: usize,
    /// Why it could be followed no further.
    pub(super) refused: Option<DropReason>,
    /// Of a packet in several parts.
    pub(super) fragment: Option<Fragment>,
    /// What follows is not the beginning of the packet's payload.
    pub(super) later: bool,
    pub(super) authenticated: bool,
}

/// Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, shim6. (ESP is an end: nobody but
/// its receiver knows what it carries.)
const EXTENSIONS: [u8; 8] = [0, ROUTING, FRAGMENT, AUTHENTICATION, 60, 135, 139, 140];
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

const MOST_HEADERS: usize = 8;
const MOST_BYTES: usize = 512;

/// Goes through the headers behind the IP header at `l3` of a packet that ends at `packet_end`.
pub(super) fn walk(frame: Frame<'_>, l3: usize, packet_end: usize) -> Walk {
    let head = frame.head();
    let start = l3 + 40;
    let mut walk = Walk { end: start, ..Walk::default() };
    let mut next = head[l3 + 6];
    let mut count = 0;
    while EXTENSIONS.contains(&next) {
        count += 1;
        let refuse = |walk: Walk, reason| Walk { refused: Some(reason), ..walk };
        if count > MOST_HEADERS {
            return refuse(walk, DropReason::ExtensionHeader);
        }
        let header = head.get(walk.end..walk.end + 8).filter(|_| walk.end + 8 <= packet_end);
        let Some(header) = header else { return refuse(walk, DropReason::TruncatedHeader) };
        let len = match next {
            FRAGMENT => 8,
            AUTHENTICATION => 4 * (usize::from(header[1]) + 2),
            _ => 8 * (usize::from(header[1]) + 1),
        };
        if walk.end + len - start > MOST_BYTES || next == ROUTING && header[3] > 0 {
            return refuse(walk, DropReason::ExtensionHeader);
        }
        if next == FRAGMENT {
            let offset = word(header, 2).unwrap_or_default();
            if offset & !6 != 0 {
                let identification = [header[4], header[5], header[6], header[7]];
                walk.fragment = Some(Fragment {
                    identification,
                    at: walk.end + 4,
                    is_first: offset >> 3 == 0,
                    offset: usize::from(offset & !7),
                    len: packet_end - (walk.end + 8),
                    more: offset & 1 != 0,
                });
            }
            if offset >> 3 != 0 {
                walk.later = true;
                // What the header announces is the beginning of a payload that is elsewhere, and may be extension
                // headers still.
                walk.next = Some(header[0]).filter(|next| !EXTENSIONS.contains(next));
                walk.end += len;
                return walk;
            }
        }
        walk.authenticated |= next == AUTHENTICATION;
        next = header[0];
        walk.end += len;
    }
    walk.next = Some(next);
    walk
}

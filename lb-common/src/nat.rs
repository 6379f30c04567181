//! NAT flows: what a packet leaves on its side of one, and when one is over (docs/packet-path.md, "NAT").

use crate::{
    abi::{NAT_CLOSED_AGE, NAT_CONFIRMED, NAT_FIN, NAT_RESET_AGE, NAT_RST, NatSeen},
    wire::transport::{TCP_FIN, TCP_RST, opens_connection},
};

/// Whether the flow has been ended by one who could. Its client's SYN starts it anew.
#[inline(always)]
pub const fn is_closed(flow: NatSeen, reply: NatSeen) -> bool {
    is_ended(flow, reply) || flow.has(NAT_RST)
}

/// Whether the flow may be taken away, `idle` being its service's timeout in time units.
#[inline(always)]
pub const fn is_over(flow: NatSeen, reply: NatSeen, tcp: bool, idle: u32, now: u64) -> bool {
    let got_going = flow.has(NAT_CONFIRMED) && (!tcp || reply.has(NAT_CONFIRMED));
    let allowed = if is_ended(flow, reply) || !got_going {
        NAT_CLOSED_AGE
    } else if flow.has(NAT_RST) {
        NAT_RESET_AGE
    } else {
        idle
    };
    smaller(flow.age(now), reply.age(now)) > smaller(allowed, idle)
}

/// Whether a backend's entry without a client's may be taken away: it is being made, or something went wrong long ago.
#[inline(always)]
pub const fn is_abandoned(seen: NatSeen, now: u64) -> bool {
    seen.age(now) > NAT_CLOSED_AGE
}

/// What is seen of the client after a packet from it; the first one of the flow leaves nothing but its time. `flags` are
/// TCP's, 0 of a datagram.
#[inline(always)]
pub const fn client_sent(seen: NatSeen, flags: u8, now: u64) -> NatSeen {
    let bits = if opens_connection(flags) { 0 } else { NAT_CONFIRMED | ends(flags) };
    NatSeen::new(now, seen.bits() | bits)
}

/// What is seen of the backend after a packet from it.
#[inline(always)]
pub const fn backend_sent(seen: NatSeen, flags: u8, now: u64) -> NatSeen {
    NatSeen::new(now, seen.bits() | NAT_CONFIRMED | ends(flags))
}

/// What is seen of either side when a SYN has started the flow anew.
#[inline(always)]
pub const fn anew(now: u64) -> NatSeen {
    NatSeen::new(now, 0)
}

#[inline(always)]
const fn is_ended(flow: NatSeen, reply: NatSeen) -> bool {
    reply.has(NAT_RST) || (flow.has(NAT_FIN) && reply.has(NAT_FIN))
}

#[inline(always)]
const fn ends(flags: u8) -> u32 {
    let fin = if flags & TCP_FIN != 0 { NAT_FIN } else { 0 };
    let rst = if flags & TCP_RST != 0 { NAT_RST } else { 0 };
    fin | rst
}

/// `Ord::min` is not const.
#[inline(always)]
const fn smaller(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::NAT_DEAD;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    const FIN: u8 = 0x11;
    const RST: u8 = 0x04;
    const DATAGRAM: u8 = 0;

    /// What is left of a flow whose packets all came at time 1000.
    fn after(client: &[u8], backend: &[u8]) -> (NatSeen, NatSeen) {
        let none = NatSeen::new(1000, 0);
        let flow = client.iter().skip(1).fold(none, |seen, &flags| client_sent(seen, flags, 1000));
        (flow, backend.iter().fold(none, |seen, &flags| backend_sent(seen, flags, 1000)))
    }

    /// The largest age at which it is not over.
    fn life((flow, reply): (NatSeen, NatSeen), tcp: bool, idle: u32) -> u32 {
        (0..1000).take_while(|age| !is_over(flow, reply, tcp, idle, 1000 + age)).count() as u32 - 1
    }

    #[test]
    fn a_flow_lives_as_long_as_what_was_seen_of_it_says() {
        let table: [(&str, &[u8], &[u8], u32); 11] = [
            ("a SYN", &[SYN], &[], 5),
            ("SYNs that nobody answers", &[SYN, SYN, SYN], &[], 5),
            ("a client that goes on without an answer", &[SYN, ACK], &[], 5),
            ("half a handshake", &[SYN], &[ACK], 5),
            ("a handshake", &[SYN, ACK], &[ACK], 300),
            ("one FIN of two", &[SYN, ACK, FIN], &[ACK], 300),
            ("the other FIN", &[SYN, ACK], &[ACK, FIN], 300),
            ("both", &[SYN, FIN], &[ACK, FIN], 5),
            ("a backend that refuses", &[SYN], &[RST], 5),
            ("a backend that resets", &[SYN, ACK], &[ACK, RST], 5),
            ("a client that resets", &[SYN, ACK, RST], &[ACK], 60),
        ];
        for (name, client, backend, wanted) in table {
            assert_eq!(life(after(client, backend), true, 300), wanted, "{name}");
        }
        assert_eq!(life(after(&[DATAGRAM], &[DATAGRAM]), false, 300), 5, "a question");
        assert_eq!(life(after(&[DATAGRAM, DATAGRAM], &[]), false, 300), 300, "a stream");
    }

    #[test]
    fn a_timeout_that_is_shorter_counts() {
        for (flow, reply) in [after(&[SYN], &[]), after(&[SYN, FIN], &[FIN]), after(&[SYN, ACK, RST], &[ACK])]
        {
            assert_eq!(life((flow, reply), true, 2), 2);
        }
    }

    #[test]
    fn a_packet_of_either_side_keeps_it() {
        let (flow, reply) = after(&[SYN, ACK], &[ACK]);
        assert!(is_over(flow, reply, true, 30, 1031));
        assert!(!is_over(flow, backend_sent(reply, ACK, 1001), true, 30, 1031));
        assert!(!is_over(client_sent(flow, ACK, 1001), reply, true, 30, 1031));
    }

    #[test]
    fn a_closed_flow_is_one_that_a_syn_starts_anew() {
        for (client, backend, wanted) in [
            (&[SYN, ACK][..], &[ACK, RST][..], true),
            (&[SYN, FIN], &[FIN], true),
            (&[SYN, ACK, RST], &[ACK], true),
            (&[SYN, FIN], &[ACK], false),
            (&[SYN, ACK], &[ACK, FIN], false),
            (&[SYN], &[], false),
        ] {
            let (flow, reply) = after(client, backend);
            assert_eq!(is_closed(flow, reply), wanted, "{client:?} {backend:?}");
        }
    }

    proptest! {
        #[test]
        fn a_packet_takes_nothing_away_and_is_the_last_one(
            old: u32, bits in 0..16_u32, flags: u8, now: u64,
        ) {
            let seen = NatSeen::new(old.into(), bits);
            for after in [client_sent(seen, flags, now), backend_sent(seen, flags, now)] {
                prop_assert_eq!(after.bits() & bits, bits);
                prop_assert_eq!(after.has(NAT_DEAD), seen.has(NAT_DEAD));
                prop_assert_eq!(after.age(now), 0);
            }
        }

        #[test]
        fn a_flow_that_is_over_stays_so_and_none_is_before_its_time(
            client in 0..16_u32, backend in 0..16_u32, tcp: bool, idle in 0..100_u32, age in 0..200_u64, start: u32,
        ) {
            let start = u64::from(start);
            let (flow, reply) = (NatSeen::new(start, client), NatSeen::new(start, backend));
            if is_over(flow, reply, tcp, idle, start + age) {
                prop_assert!(age > u64::from(idle.min(NAT_CLOSED_AGE)));
                prop_assert!(is_over(flow, reply, tcp, idle, start + age + 1));
            } else {
                prop_assert!(age <= u64::from(idle));
            }
        }
    }
}

//! What an operator would meet on a real edge host, with real sockets, in every forwarding mode and both families.

/// A test for each mode of a check that takes one, so that a failure says which and the others go on.
macro_rules! tests {
    ($check:ident in $($test:ident $mode:ident),*) => {
        mod $check {
            $(
                #[test]
                fn $test() -> anyhow::Result<()> {
                    lb_tests::lab::require_root!(Ok(()));
                    super::$check(lb_tests::lab::Mode::$mode)
                }
            )*
        }
    };
}

macro_rules! in_every_mode {
    ($($check:ident)*) => {
        $(tests! { $check in
            l2_dsr L2Dsr, ipip Ipip, ipip_mixed IpipMixed, gue Gue, gue_mixed GueMixed, dnat Dnat, nat Nat
        })*
    };
}

/// Behind a router.
macro_rules! in_every_mode_beyond_the_link {
    ($($check:ident)*) => {
        $(tests! { $check in
            ipip Ipip, ipip_mixed IpipMixed, gue Gue, gue_mixed GueMixed, dnat Dnat, nat Nat
        })*
    };
}

macro_rules! in_every_tunnel {
    ($($check:ident)*) => {
        $(tests! { $check in ipip Ipip, ipip_mixed IpipMixed, gue Gue, gue_mixed GueMixed })*
    };
}

macro_rules! in_both_nat_modes {
    ($($check:ident)*) => {
        $(tests! { $check in dnat Dnat, nat Nat })*
    };
}

mod errors;
mod exchange;
mod fragments;
mod path_mtu;
mod scene;
mod sharing;
mod sockets;
mod trace;

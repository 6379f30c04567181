//! The controller's hand: takes one NAT flow away if it is over, or what is left of one, by the same steps as packets do.

use aya_ebpf::{macros::xdp, programs::XdpContext};
use lb_common::abi::{SWEEP_KEPT, SWEEP_LONE_REPLY, SWEPT};

use crate::{cursor::CursorMut, nat};

/// Run on a `SweepRequest` in the place of a frame, by `BPF_PROG_TEST_RUN`; attached nowhere.
#[xdp]
pub fn ballast_sweep(mut ctx: XdpContext) -> u32 {
    let request: Option<[u64; 9]> = CursorMut::new(&mut ctx).read(0);
    // A structure's words: a flow's key, force and what, a reply's key.
    let Some([client_high, client_low, ports_and_service, force_and_what, reply @ ..]) = request else {
        return SWEEP_KEPT;
    };
    let gone = if (force_and_what >> 32) as u32 == SWEEP_LONE_REPLY {
        let [backend_high, backend_low, our_high, our_low, ports_and_protocol] = reply;
        nat::sweep_lone(&nat::ReplyKey {
            backend: [backend_high, backend_low],
            our_address: [our_high, our_low],
            ports: ports_and_protocol as u32,
            protocol: (ports_and_protocol >> 32) as u32,
        })
    } else {
        let key = nat::FlowKey {
            client: [client_high, client_low],
            ports: ports_and_service as u32,
            service: (ports_and_service >> 32) as u32,
        };
        nat::sweep(&key, force_and_what as u32 != 0)
    };
    if let Ok(true) = gone { SWEPT } else { SWEEP_KEPT }
}

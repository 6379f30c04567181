//! The controller's hand: takes one NAT flow away if it is over, by the same steps as packets do.

use aya_ebpf::{macros::xdp, programs::XdpContext};
use lb_common::abi::{SWEEP_KEPT, SWEPT};

use crate::{cursor::CursorMut, nat};

/// Run on a `SweepRequest` in the place of a frame, by `BPF_PROG_TEST_RUN`; attached nowhere.
#[xdp]
pub fn ballast_sweep(mut ctx: XdpContext) -> u32 {
    let request: Option<[u64; 6]> = CursorMut::new(&mut ctx).read(0);
    // A structure's words: client, ports and service, force and padding.
    let Some([high, low, ports_and_service, force, ..]) = request else { return SWEEP_KEPT };
    let key = nat::FlowKey {
        client: [high, low],
        ports: ports_and_service as u32,
        service: (ports_and_service >> 32) as u32,
    };
    match nat::sweep(&key, force as u32 != 0) {
        Ok(true) => SWEPT,
        _ => SWEEP_KEPT,
    }
}

//! From the numbers of the maps and of the kernel to names.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lb_common::abi::{CapturedPacket, TRACE_SERVICE};
use nix::time::ClockId;

use super::{Backend, Frame, Packet, filter::now, words};
use crate::{
    control::{Handle, Snapshot},
    dataplane::Captured,
    interfaces,
    trace::Verdict,
};

/// Names as they are now.
pub(super) struct Names {
    control: Handle,
    /// What the next two were made from.
    snapshot: Arc<Snapshot>,
    services: HashMap<u32, String>,
    backends: HashMap<u32, Backend>,
    interfaces: HashMap<u32, String>,
    /// What the data plane's clock has to be set forward by to tell the time since 1970.
    since_1970: Duration,
}

impl Names {
    pub(super) fn new(control: Handle) -> Self {
        let mut this = Self {
            snapshot: control.snapshot(),
            control,
            services: HashMap::new(),
            backends: HashMap::new(),
            interfaces: HashMap::new(),
            since_1970: Duration::ZERO,
        };
        this.read();
        this.look_again();
        this
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.control.snapshot()
    }

    /// Interfaces may have other names by now, and the host another time.
    pub(super) fn look_again(&mut self) {
        self.interfaces.clear();
        // Whoever is interrupted between two looks at clocks must not move the packets' times: the quickest counts.
        let read = || {
            let (before, real) = (now(ClockId::CLOCK_MONOTONIC), now(ClockId::CLOCK_REALTIME));
            (now(ClockId::CLOCK_MONOTONIC) - before, real.saturating_sub(before))
        };
        self.since_1970 = [read(), read(), read()].into_iter().min().unwrap_or_default().1;
    }

    /// A packet with everything's name, before which others were `missed`.
    pub(super) fn name(&mut self, captured: Captured, missed: u64) -> Packet {
        let current = self.control.snapshot();
        if !Arc::ptr_eq(&current, &self.snapshot) {
            self.snapshot = current;
            self.read();
        }
        let Captured { packet, frame, frame_after } = captured;
        let CapturedPacket { trace, .. } = packet;
        let verdict = Verdict::of(packet.action);
        let reason = (verdict == Verdict::Drop).then(|| words::reason(packet.reason));
        let came = Frame { interface: self.interface(packet.ifindex), length: packet.length, bytes: frame };
        let frame_after = (packet.length_after > 0).then(|| {
            let ifindex = if verdict == Verdict::Redirect { trace.ifindex } else { packet.ifindex };
            Frame { interface: self.interface(ifindex), length: packet.length_after, bytes: frame_after }
        });
        let service = trace.knows(TRACE_SERVICE).then(|| {
            let name = self.services.get(&trace.service).cloned();
            name.unwrap_or_else(|| format!("service {}", trace.service))
        });
        let backend = (trace.backend != 0).then(|| {
            let known = self.backends.get(&trace.backend).cloned();
            known.unwrap_or_else(|| Backend { name: format!("backend {}", trace.backend), address: None })
        });
        Packet {
            received: self.since_1970 + Duration::from_nanos(packet.received),
            decided: self.since_1970 + Duration::from_nanos(packet.decided),
            verdict,
            reason,
            service,
            backend,
            trace,
            queue: packet.queue,
            frame: came,
            frame_after,
            missed,
        }
    }

    fn interface(&mut self, ifindex: u32) -> String {
        self.interfaces.entry(ifindex).or_insert_with(|| interfaces::name(ifindex)).clone()
    }

    fn read(&mut self) {
        let services = &self.snapshot.services;
        self.services = services.iter().map(|view| (view.id, view.service.name.to_string())).collect();
        let named = services.iter().flat_map(|view| &view.backends).map(|backend| {
            (backend.index, Backend { name: backend.name.to_string(), address: Some(backend.address) })
        });
        let leaving = services.iter().flat_map(|view| &view.leaving).map(|backend| {
            let name = backend.name.as_ref().map_or_else(|| backend.address.to_string(), ToString::to_string);
            (backend.index, Backend { name, address: Some(backend.address) })
        });
        self.backends = named.chain(leaving).collect();
    }
}

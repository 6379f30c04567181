//! From the numbers of the maps and of the kernel to names.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lb_common::abi::{CapturedPacket, TRACE_SERVICE};
use nix::{net::if_::if_indextoname, time::ClockId};

use super::{Backend, Frame, Packet, Verdict, filter::now};
use crate::{
    control::{Handle, Snapshot},
    dataplane::Captured,
};

/// Names as they are now.
pub(super) struct Names {
    control: Handle,
    /// What the next two were made from.
    snapshot: Arc<Snapshot>,
    services: HashMap<u32, String>,
    backends: HashMap<u32, Backend>,
    interfaces: HashMap<u32, String>,
}

impl Names {
    pub(super) fn new(control: Handle) -> Self {
        let mut this = Self {
            snapshot: control.snapshot(),
            control,
            services: HashMap::new(),
            backends: HashMap::new(),
            interfaces: HashMap::new(),
        };
        this.read();
        this
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.control.snapshot()
    }

    /// Interfaces may have other names by now.
    pub(super) fn look_again(&mut self) {
        self.interfaces.clear();
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
        let verdict = Verdict::new(packet.action, packet.reason);
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
        // Both clocks may be set apart while it runs.
        let began = now(ClockId::CLOCK_REALTIME).saturating_sub(now(ClockId::CLOCK_MONOTONIC));
        Packet {
            received: began + Duration::from_nanos(packet.received),
            decided: began + Duration::from_nanos(packet.decided),
            verdict,
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
        let name = self.interfaces.entry(ifindex).or_insert_with(|| {
            let name = if_indextoname(ifindex).map(|name| name.to_string_lossy().into_owned());
            name.unwrap_or_else(|_| format!("if{ifindex}"))
        });
        name.clone()
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

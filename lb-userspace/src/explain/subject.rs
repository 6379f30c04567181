//! A packet that was asked about: what is known of it, and by which names.

use lb_common::abi::{TRACE_SERVICE, TRACE_SLOT, TRACE_TRACKED, Trace};

use super::{Explanation, headers, interface::Interface, read::Reading, reason, words};
use crate::{
    control::{BackendView, ServiceView, Snapshot},
    dataplane::Traced,
    interfaces,
    telemetry::drops,
    trace::Verdict,
};

#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) interface: &'a Interface,
    pub(super) input: &'a [u8],
    pub(super) traced: &'a Traced,
}

impl Subject<'_> {
    pub(super) fn explained(&self) -> Explanation {
        let trace = *self.trace();
        let verdict = Verdict::of(trace.action);
        let before = Reading::of(self.input);
        let output = (verdict != Verdict::Drop).then(|| self.traced.frame.clone());
        let after = output.as_deref().map(Reading::of);
        let drop = reason::refused(&trace);
        Explanation {
            interface: self.interface.name.clone(),
            input: self.input.to_vec(),
            verdict,
            reason: reason::word(&trace, verdict),
            drop,
            service: trace.knows(TRACE_SERVICE).then(|| self.service_name()),
            backend: (trace.backend != 0).then(|| self.backend_name(trace.backend)),
            slot: trace.knows(TRACE_SLOT).then_some(trace.slot),
            tracked: trace.knows(TRACE_TRACKED),
            sentences: words::sentences(self, verdict, &before),
            advice: drop.map(drops::advice),
            egress: match verdict {
                Verdict::Tx => Some(self.interface.name.clone()),
                Verdict::Redirect => Some(interfaces::name(trace.ifindex)),
                Verdict::Pass | Verdict::Drop => None,
            },
            headers: headers::compare(&before, after.as_ref()),
            output,
            trace,
        }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.traced.trace
    }

    /// As far as the daemon still has it.
    pub(super) fn service(&self) -> Option<&ServiceView> {
        let trace = self.trace();
        let known = trace.knows(TRACE_SERVICE);
        self.snapshot.services.iter().find(|view| known && view.id == trace.service)
    }

    pub(super) fn service_name(&self) -> String {
        let name = self.service().map(|view| view.service.name.to_string());
        name.unwrap_or_else(|| format!("number {}", self.trace().service))
    }

    /// Of a backend that is declared.
    pub(super) fn backend(&self, index: u32) -> Option<&BackendView> {
        self.service()?.backends.iter().find(|backend| backend.index == index)
    }

    pub(super) fn backend_name(&self, index: u32) -> String {
        let declared = self.backend(index).map(|backend| backend.name.to_string());
        let leaving = || {
            let backend = self.service()?.leaving.iter().find(|backend| backend.index == index)?;
            Some(backend.name.as_ref().map_or_else(|| backend.address.to_string(), ToString::to_string))
        };
        declared.or_else(leaving).unwrap_or_else(|| format!("number {index}"))
    }

    /// Whether it is gone from its service and keeps its flows for a while.
    pub(super) fn is_leaving(&self, index: u32) -> bool {
        self.service().is_some_and(|view| view.leaving.iter().any(|backend| backend.index == index))
    }
}

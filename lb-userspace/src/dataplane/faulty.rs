//! A data plane that fails on demand, for tests.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lb_common::abi::{
    BackendValue, EgressValue, NatFlow, NatFlowKey, NatPool, NatReply, NatReplyKey, NextHop, ServiceEntry,
    ServiceRecord, Slot, SweepRequest,
};

use super::{
    CounterReader, Dataplane, Error, Limits,
    nat::{NatCursor, NatPage},
    scan::Words,
    sources::SourcePrefix,
};

/// Passes everything through, but the `n`-th call that can fail, counted from 0, fails without being made.
pub struct Faulty<D> {
    inner: D,
    fails_at: usize,
    /// Whether NAT's flows can't be read, ever.
    no_pages: bool,
    error: fn() -> Error,
    calls: Arc<AtomicUsize>,
}

impl<D: Dataplane> Faulty<D> {
    /// Fails with an input/output error.
    pub fn new(inner: D, fails_at: usize) -> Self {
        Self::with_error(inner, fails_at, || Error::Map {
            map: "FAULTY",
            operation: "call",
            source: io::Error::from_raw_os_error(libc::EIO),
        })
    }

    pub fn with_error(inner: D, fails_at: usize, error: fn() -> Error) -> Self {
        Self { inner, fails_at, no_pages: false, error, calls: Arc::default() }
    }

    /// Fails whenever NAT's flows are to be read.
    pub fn on_page(inner: D) -> Self {
        Self { no_pages: true, ..Self::new(inner, usize::MAX) }
    }

    /// How many calls were made: more than `fails_at` once it has failed. Stays readable after the data plane is given
    /// away.
    pub fn calls(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.calls)
    }

    fn page(&self) -> Result<(), Error> {
        if self.no_pages { Err((self.error)()) } else { self.call() }
    }

    fn call(&self) -> Result<(), Error> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.fails_at { Err((self.error)()) } else { Ok(()) }
    }
}

impl<D: Dataplane> Dataplane for Faulty<D> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn service_records(&self) -> Result<Vec<(u32, ServiceRecord)>, Error> {
        self.call()?;
        self.inner.service_records()
    }

    fn backend_records(&self) -> Result<Vec<(u32, BackendValue)>, Error> {
        self.call()?;
        self.inner.backend_records()
    }

    fn egress_records(&self) -> Result<Vec<(u32, EgressValue)>, Error> {
        self.call()?;
        self.inner.egress_records()
    }

    fn revision(&self) -> Result<u64, Error> {
        self.call()?;
        self.inner.revision()
    }

    fn write_service_record(&mut self, service: u32, record: &ServiceRecord) -> Result<(), Error> {
        self.call()?;
        self.inner.write_service_record(service, record)
    }

    fn write_backend(&mut self, index: u32, value: &BackendValue) -> Result<(), Error> {
        self.call()?;
        self.inner.write_backend(index, value)
    }

    fn update_backend_bookkeeping(&mut self, index: u32, value: &BackendValue) -> Result<(), Error> {
        self.call()?;
        self.inner.update_backend_bookkeeping(index, value)
    }

    fn store_next_hop(&mut self, index: u32, next_hop: NextHop) -> Result<(), Error> {
        self.call()?;
        self.inner.store_next_hop(index, next_hop)
    }

    fn store_backend_state(&mut self, index: u32, state: u32) -> Result<(), Error> {
        self.call()?;
        self.inner.store_backend_state(index, state)
    }

    fn store_backend_weight(&mut self, index: u32, weight: u16) -> Result<(), Error> {
        self.call()?;
        self.inner.store_backend_weight(index, weight)
    }

    fn write_egress(&mut self, number: u32, value: &EgressValue) -> Result<(), Error> {
        self.call()?;
        self.inner.write_egress(number, value)
    }

    fn load_slots(&self, base: u32, count: u32) -> Result<Vec<Slot>, Error> {
        self.call()?;
        self.inner.load_slots(base, count)
    }

    fn store_slots(&mut self, base: u32, slots: &[Slot], now: u64) -> Result<u32, Error> {
        self.call()?;
        self.inner.store_slots(base, slots, now)
    }

    fn words(&self) -> Words<'_> {
        self.inner.words()
    }

    fn take_flow_news(&mut self) -> Vec<u32> {
        self.inner.take_flow_news()
    }

    fn store_clock(&mut self, now: u64) {
        self.inner.store_clock(now);
    }

    fn publish_services(&mut self, entries: &[ServiceEntry], every_port: bool) -> Result<(), Error> {
        self.call()?;
        self.inner.publish_services(entries, every_port)
    }

    fn nat_pool(&self) -> Result<NatPool, Error> {
        self.call()?;
        self.inner.nat_pool()
    }

    fn publish_nat_pool(&mut self, pool: &NatPool) -> Result<(), Error> {
        self.call()?;
        self.inner.publish_nat_pool(pool)
    }

    fn publish_own_macs(&mut self, macs: &[u64]) -> Result<(), Error> {
        self.call()?;
        self.inner.publish_own_macs(macs)
    }

    fn nat_flows(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatFlowKey, NatFlow>, Error> {
        self.page()?;
        self.inner.nat_flows(cursor, count)
    }

    fn nat_flow(&self, key: &NatFlowKey) -> Result<Option<NatFlow>, Error> {
        self.call()?;
        self.inner.nat_flow(key)
    }

    fn nat_replies(&self, cursor: NatCursor, count: u32) -> Result<NatPage<NatReplyKey, NatReply>, Error> {
        self.page()?;
        self.inner.nat_replies(cursor, count)
    }

    fn nat_reply(&self, key: &NatReplyKey) -> Result<Option<NatReply>, Error> {
        self.call()?;
        self.inner.nat_reply(key)
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<bool, Error> {
        self.call()?;
        self.inner.sweep(request)
    }

    fn sources(&self) -> Result<Vec<(u32, SourcePrefix, u32)>, Error> {
        self.call()?;
        self.inner.sources()
    }

    fn live_services(&self) -> Result<Vec<ServiceEntry>, Error> {
        self.call()?;
        self.inner.live_services()
    }

    fn write_source(&mut self, list: u32, prefix: SourcePrefix, verdict: u32) -> Result<(), Error> {
        self.call()?;
        self.inner.write_source(list, prefix, verdict)
    }

    fn remove_source(&mut self, list: u32, prefix: SourcePrefix) -> Result<(), Error> {
        self.call()?;
        self.inner.remove_source(list, prefix)
    }

    fn store_revision(&mut self, revision: u64) -> Result<(), Error> {
        self.call()?;
        self.inner.store_revision(revision)
    }

    fn clear_service_counters(&mut self, service: u32) -> Result<(), Error> {
        self.call()?;
        self.inner.clear_service_counters(service)
    }

    fn clear_backend_counters(&mut self, index: u32) -> Result<(), Error> {
        self.call()?;
        self.inner.clear_backend_counters(index)
    }

    fn quiesce(&mut self) {
        self.inner.quiesce();
    }

    fn counters(&self) -> Arc<dyn CounterReader> {
        self.inner.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{Fake, Operation};

    #[test]
    fn faulty_fails_one_call_without_making_it() {
        let fake = Fake::default();
        let mut faulty = Faulty::new(fake.clone(), 1);
        let calls = faulty.calls();
        assert!(faulty.store_revision(1).is_ok());
        assert!(faulty.store_revision(2).is_err());
        assert_eq!(fake.operations(), [Operation::StoreRevision(1)]);
        assert!(faulty.store_revision(3).is_ok());
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }
}

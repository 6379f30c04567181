//! What becomes of one packet, and why, in words. It is the program that runs which says so, on the maps that are live:
//! a copy of it that leaves no trace ([`Tracer`]) is asked. Nothing here decides where a packet goes.

mod headers;
mod interface;
mod question;
mod read;
mod reason;
mod subject;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use lb_common::abi::{DropReason, TRACE_SERVICE, Trace};

use crate::{
    control::Snapshot,
    dataplane::{self, Traced, Tracer, loader::LoadError},
    domain::{Name, Service},
    similar,
};

pub use crate::trace::Verdict;
pub use headers::Header;
pub use question::{Packet, Question, What};

/// Answers questions, one at a time.
pub struct Explainer {
    /// The program is loaded when the first question comes, and kept.
    tracer: Mutex<Option<Tracer>>,
    load: Box<Load>,
}

type Load = dyn Fn() -> Result<Tracer, LoadError> + Send + Sync;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// By which it seems to come.
    pub interface: String,
    pub input: Vec<u8>,
    /// The frame that leaves, unless it is dropped.
    pub output: Option<Vec<u8>>,
    pub verdict: Verdict,
    /// A word: why this backend, why it is dropped, or why it is none of the load balancer's business.
    pub reason: &'static str,
    pub drop: Option<DropReason>,
    pub service: Option<String>,
    pub backend: Option<String>,
    pub slot: Option<u32>,
    /// Whether the flow table was asked.
    pub tracked: bool,
    /// The same in words, and more.
    pub sentences: Vec<String>,
    /// What to do about a packet that is dropped, or answered instead of being forwarded.
    pub advice: Option<&'static str>,
    /// By which it leaves.
    pub egress: Option<String>,
    /// Headers as they come, and as they leave.
    pub headers: Vec<Header>,
    /// What the program noted; numbers are those of the maps.
    pub trace: Trace,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("{}", similar::missing("service", .name, .similar.as_deref()))]
    NoSuchService { name: String, similar: Option<String> },
    /// The question's fault.
    #[error("{message}")]
    Invalid { field: &'static str, message: String },
    /// The environment's fault.
    #[error("the program can't be loaded a second time, to ask it: {0}")]
    NotLoaded(#[from] LoadError),
    #[error(transparent)]
    NotRun(#[from] dataplane::Error),
}

impl Explainer {
    /// `load` loads the copy of the program that runs.
    pub fn new(load: impl Fn() -> Result<Tracer, LoadError> + Send + Sync + 'static) -> Self {
        Self { tracer: Mutex::new(None), load: Box::new(load) }
    }

    /// Takes a moment, the first time some tenths of a second: not for an asynchronous task.
    ///
    /// # Errors
    ///
    /// See [`ExplainError`].
    pub fn explain(&self, snapshot: &Snapshot, question: &Question) -> Result<Explanation, ExplainError> {
        let asked = question.what.sensible(snapshot)?;
        let interface = interface::of(snapshot, question.interface.as_deref())?;
        let input = asked.frame(&interface)?;
        let traced = self.run(&input, interface.index)?;
        Ok(subject::Subject { snapshot, interface: &interface, input: &input, traced: &traced }.explained())
    }

    /// The services whose packets the program does not take for theirs, whatever would become of them. As slow as [`Self::explain`],
    /// the number of services apart.
    ///
    /// # Errors
    ///
    /// See [`ExplainError`]; without a service there is nothing to ask.
    pub fn services_not_known(&self, snapshot: &Snapshot) -> Result<BTreeSet<Name>, ExplainError> {
        let mut unknown = BTreeSet::new();
        if snapshot.services.is_empty() {
            return Ok(unknown);
        }
        let interface = interface::of(snapshot, None)?;
        for view in &snapshot.services {
            let frame = What::Packet(packet_to(&view.service)).sensible(snapshot)?.frame(&interface)?;
            let trace = self.run(&frame, interface.index)?.trace;
            if !trace.knows(TRACE_SERVICE) || trace.service != view.id {
                unknown.insert(view.service.name.clone());
            }
        }
        Ok(unknown)
    }

    fn run(&self, frame: &[u8], ifindex: u32) -> Result<Traced, ExplainError> {
        // Where another question ended badly, the program is as good as before.
        let mut tracer = self.tracer.lock().unwrap_or_else(PoisonError::into_inner);
        let tracer = match &mut *tracer {
            Some(tracer) => tracer,
            none => none.insert((self.load)()?),
        };
        Ok(tracer.run(frame, ifindex)?)
    }
}

/// One that a client might send.
fn packet_to(service: &Service) -> Packet {
    let from = if service.vip.address.is_ipv4() { IpAddr::V4(CLIENT_V4) } else { IpAddr::V6(CLIENT_V6) };
    Packet {
        from: SocketAddr::new(from, CLIENT_PORT),
        service: Some(service.name.to_string()),
        to: None,
        port: service.vip.port.is_none().then_some(ANY_PORT),
        protocol: None,
        syn: false,
        length: None,
    }
}

/// Addresses that nobody has (RFC 5737, RFC 3849).
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1);
const CLIENT_PORT: u16 = 40_000;
/// Of a service that has every port.
const ANY_PORT: u16 = 9;

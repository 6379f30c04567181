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

use std::sync::{Mutex, PoisonError};

use lb_common::abi::{DropReason, Trace};

use crate::{
    control::Snapshot,
    dataplane::{self, Traced, Tracer, loader::LoadError},
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

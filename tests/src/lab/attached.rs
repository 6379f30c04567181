//! The program that is attached, whether or not a daemon runs: what it does with a frame, and where its slots lead.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use lb_common::abi::{ABI_VERSION, Slot, names};
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::bpf::{detach_link, program_of_link};
use super::daemon::Daemon;
use super::node::Node;
use crate::packet::sys::{Words, program_info, test_run_at};

/// A program as it is attached to the first interface of a load balancer.
#[derive(Debug)]
pub struct Attached {
    node: Node,
    program: OwnedFd,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// `XDP_TX` and its like.
    pub code: u32,
    pub frame: Vec<u8>,
}

impl Passage {
    /// Whether the frame was sent on.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        const XDP_TX: u32 = 3;
        const XDP_REDIRECT: u32 = 4;
        [XDP_TX, XDP_REDIRECT].contains(&self.code)
    }

    /// Whether the frame was left to the host.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        const XDP_PASS: u32 = 2;
        self.code == XDP_PASS
    }
}

/// What an interface runs, as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpProgram {
    pub id: u64,
    /// `native` or `generic`.
    pub mode: &'static str,
}

impl Node {
    /// The XDP program of an interface, if it has one.
    pub fn xdp_program(&self, interface: &str) -> Result<Option<XdpProgram>> {
        let shown = self.run("ip", ["-j", "link", "show", "dev", interface])?.stdout;
        let links: Value = serde_json::from_str(&shown)?;
        let Some(xdp) = links.pointer("/0/xdp") else { return Ok(None) };
        let id =
            xdp.pointer("/prog/id").and_then(Value::as_u64).with_context(|| format!("no id in {shown}"))?;
        let mode = match xdp.get("mode").and_then(Value::as_u64) {
            Some(1) => "native",
            Some(2) => "generic",
            other => bail!("XDP mode {other:?}"),
        };
        Ok(Some(XdpProgram { id, mode }))
    }
}

impl Daemon {
    /// The program that is attached now; the next daemon replaces it.
    pub fn attached(&self) -> Result<Attached> {
        let interface = &self.node().first_leg().interface;
        let pin = self.files().pin_dir.join(format!("abi-{ABI_VERSION}")).join(format!("link-{interface}"));
        Ok(Attached { node: self.node().clone(), program: program_of_link(&pin)? })
    }
}

impl Daemon {
    /// Takes the program off the first interface, as somebody with the rights for it might. The link stays, and leads nowhere.
    pub fn detach_by_hand(&self) -> Result<()> {
        let interface = &self.node().first_leg().interface;
        detach_link(
            &self.files().pin_dir.join(format!("abi-{ABI_VERSION}")).join(format!("link-{interface}")),
        )
    }
}

impl Attached {
    /// Empties the table of services behind the controller's back. What is returned puts it right again.
    pub fn forget_services(&self) -> Result<impl FnOnce() + use<>> {
        let table = Words::open(&program_info(&self.program)?, names::SERVICE_TABLE)?;
        let before: Vec<_> = table.all().iter().map(|word| word.swap(0, Ordering::AcqRel)).collect();
        Ok(move || {
            for (word, value) in table.all().iter().zip(before) {
                word.store(value, Ordering::Release);
            }
        })
    }

    /// Has the program judge each of these frames, in this order, as if they came in at the interface. They leave the
    /// traces that packets leave, but are not sent.
    pub fn judge(&self, frames: &[Vec<u8>]) -> Result<Vec<Passage>> {
        self.node.enter(|| {
            let interface = self.node.first_leg().interface.as_str();
            let index = if_nametoindex(interface).with_context(|| format!("find {interface}"))?;
            let judge = |frame: &Vec<u8>| {
                let run = test_run_at(&self.program, frame, index).context("run the attached program")?;
                Ok(Passage { code: run.code, frame: run.frame })
            };
            frames.iter().map(judge).collect()
        })
    }

    /// How many instructions it has, without those that the kernel took out as dead.
    pub fn instructions(&self) -> Result<u32> {
        Ok(program_info(&self.program)?.instructions)
    }

    /// All slots of the lookup map.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let words = Words::open(&program_info(&self.program)?, names::LOOKUP)?;
        Ok(words.all().iter().map(|word| Slot::from_word(word.load(Ordering::Acquire))).collect())
    }
}

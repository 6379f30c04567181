//! Another program in the place of the one that runs, for a while.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{AttachError, Attachments, failed};
use crate::dataplane::sys;

impl Attachments {
    /// Has every interface run `program` instead, also those that come back meanwhile. No packet is lost: each meets the one
    /// program or the other.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it on an interface; then none runs it.
    pub fn substitute(&mut self, program: OwnedFd) -> Result<(), AttachError> {
        self.substitute = Some(program);
        self.set_right().inspect_err(|_| {
            if let Err(error) = self.restore() {
                log::warn!("while giving up: {error}");
            }
        })
    }

    /// Puts the program itself back.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the other interfaces run it, and [`Self::set_right`] tries again.
    pub fn restore(&mut self) -> Result<(), AttachError> {
        self.substitute = None;
        self.set_right()
    }

    /// Sees to it that every interface runs the program that it is meant to.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; those that it allows are done.
    pub fn set_right(&self) -> Result<(), AttachError> {
        let mut outcome = Ok(());
        let mut known = None;
        for attachment in &self.interfaces {
            if let Some(link) = &attachment.link {
                let name = &attachment.name;
                let program = match known {
                    Some(program) => program,
                    None => *known.insert(
                        sys::program_id(self.running()).map_err(failed(name, "ask what it is to run"))?,
                    ),
                };
                outcome = outcome.and(self.set_right_one(name, link.link.as_fd(), program));
            }
        }
        outcome
    }

    /// `program`: the number of what it is meant to run.
    fn set_right_one(&self, name: &str, link: BorrowedFd<'_>, program: u32) -> Result<(), AttachError> {
        let is_done = || {
            let on = sys::link_info(link)?;
            // One that is gone is attached anew when it is back.
            Ok::<_, io::Error>(on.ifindex == 0 || on.program == program)
        };
        if is_done().map_err(failed(name, "ask what it runs"))? {
            return Ok(());
        }
        match sys::update_link(link, self.running()) {
            // It may have gone just now.
            Err(_) if is_done().unwrap_or(false) => Ok(()),
            updated => updated.map_err(failed(name, "replace its program")),
        }
    }

    /// What interfaces are meant to run.
    pub(super) fn running(&self) -> BorrowedFd<'_> {
        self.substitute.as_ref().unwrap_or(&self.program).as_fd()
    }
}

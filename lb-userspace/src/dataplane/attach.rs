//! Getting the program onto interfaces, and keeping it there.
//!
//! Every attachment is a pinned BPF link: it outlives the daemon, and a new daemon replaces its program atomically.

mod substitute;

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use log::{info, warn};
use nix::net::if_::{if_nameindex, if_nametoindex};

use super::{
    pins::{PinDir, PinError, PinnedLink},
    sys,
    xdp_query::{self, Running},
};
use crate::{domain::XdpMode, interfaces};

/// An interface that runs the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    pub name: String,
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
}

/// Why an interface doesn't run the program.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The configuration's fault, or the interface went away.
    #[error("there is no interface {name}; there are: {known}")]
    NoInterface { name: String, known: String },
    /// Somebody else is there.
    #[error(
        "interface {interface} already runs XDP program id {program} ({mode}), which is not Ballast's; it was left \
         untouched. See what it is with `bpftool prog show id {program}`; then remove it, or take {interface} out of \
         `[daemon] interfaces`"
    )]
    Foreign { interface: String, program: u32, mode: &'static str },
    #[error("interface {interface}: the kernel refused the program in {mode} mode: {source}{hint}")]
    Refused { interface: String, mode: &'static str, source: io::Error, hint: &'static str },
    #[error("interface {interface}: could not {operation}: {source}")]
    Interface { interface: String, operation: &'static str, source: io::Error },
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// Locks the attachments, also after a panic: nothing panics half-way while it holds the lock.
pub fn lock(attachments: &Mutex<Attachments>) -> MutexGuard<'_, Attachments> {
    attachments.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program's attachments and the lock of the pin directory. Dropping this leaves the program where it is.
#[derive(Debug)]
pub struct Attachments {
    pins: PinDir,
    program: OwnedFd,
    /// Runs in the place of `program` while there is one.
    substitute: Option<OwnedFd>,
    mode: XdpMode,
    interfaces: Vec<Attachment>,
    /// Links of interfaces that are no longer configured.
    unwanted: Vec<PinnedLink>,
}

/// How an interface is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub name: String,
    /// Packets that arrive meet the program that should run; if not, why. `None`: that could not be found out.
    pub attached: Option<Result<(), String>>,
    /// It is up, and the other end of its cable, too. `None` likewise.
    pub carrier: Option<bool>,
}

#[derive(Debug)]
struct Attachment {
    name: String,
    /// Of no effect while the interface is gone; `None` after an attempt to attach failed.
    link: Option<PinnedLink>,
}

impl Attachment {
    /// `program`: the id of the one that should run.
    fn standing(&self, program: Option<u32>) -> Standing {
        let index = interfaces::index(&self.name);
        let carrier = index.and_then(|index| interfaces::carrier(index).ok()).map(|carrier| carrier.up);
        Standing { name: self.name.clone(), attached: self.runs(index, program), carrier }
    }

    fn runs(&self, index: Option<u32>, program: Option<u32>) -> Option<Result<(), String>> {
        let (index, program) = (index?, program?);
        let Some(link) = &self.link else {
            return Some(Err(format!("the program is not attached to {}", self.name)));
        };
        let on = sys::link_info(link.link.as_fd()).ok()?;
        Some(if on.ifindex == 0 || on.ifindex != index {
            Err(format!("the program is not attached to {}", self.name))
        } else if on.program != program {
            Err(format!("{} runs program id {} and not id {program}", self.name, on.program))
        } else {
            Ok(())
        })
    }
}

/// What has to be done, found out before anything is.
struct Plan {
    steps: Vec<(String, Step)>,
    /// Links of interfaces that are no longer configured.
    unwanted: Vec<PinnedLink>,
}

/// For one interface.
enum Step {
    /// Replace the program of a link that is on it.
    Update(PinnedLink, &'static str),
    /// It is on it, but in this mode, which is no longer wanted.
    Remake(PinnedLink, u32, &'static str),
    Attach(u32),
    /// It had a link, and is gone for now. The pin stays, so that the next daemon waits for it too.
    Wait(PinnedLink),
}

impl Attachments {
    /// Attaches `program` to `names`, taking over the links that an earlier daemon left; those that are not wanted any
    /// more stay until [`Self::detach_unwanted`]. An error leaves no new link behind.
    pub(super) fn new(
        pins: PinDir,
        program: OwnedFd,
        mode: XdpMode,
        names: &[String],
    ) -> Result<(Self, Vec<AttachedInterface>), (PinDir, AttachError)> {
        let mut this =
            Self { pins, program, substitute: None, mode, interfaces: Vec::new(), unwanted: Vec::new() };
        let mut attached = Vec::new();
        let result = this.plan(names).and_then(|Plan { steps, unwanted }| {
            this.unwanted = unwanted;
            this.carry_out(steps, &mut attached)
        });
        match result {
            Ok(()) => Ok((this, attached)),
            Err(error) => Err((this.pins, error)),
        }
    }

    /// Takes the program off its interfaces and removes all pins, as if it had never been started.
    ///
    /// # Errors
    ///
    /// If a pin can't be removed.
    pub fn abandon(self) -> Result<(), PinError> {
        self.pins.clear().map(drop)
    }

    /// Detaches what an earlier daemon left on interfaces that are no longer configured. For when the new ones serve.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the rest stays attached.
    pub fn detach_unwanted(&mut self) -> Result<(), AttachError> {
        detach(std::mem::take(&mut self.unwanted))
    }

    /// The interfaces that should run the program and don't: deleted, or deleted and made again.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.interfaces.iter().filter(|attachment| {
            let on = attachment.link.as_ref().and_then(|link| sys::link_info(link.link.as_fd()).ok());
            let on = on.map_or(0, |info| info.ifindex);
            on == 0 || ifindex(&attachment.name) != Some(on)
        });
        missing.map(|attachment| attachment.name.clone()).collect()
    }

    /// How each configured interface is. What can't be asked for, for want of a descriptor, say, is not told.
    pub fn standing(&self) -> Vec<Standing> {
        let running = sys::program_id(self.running());
        self.interfaces.iter().map(|attachment| attachment.standing(running.as_ref().ok().copied())).collect()
    }

    /// Attaches to an interface of [`Self::missing`] that is there again.
    ///
    /// # Errors
    ///
    /// If it is not, or can't be attached to; trying again later is all right.
    pub fn reattach(&mut self, name: &str) -> Result<AttachedInterface, AttachError> {
        let now = ifindex(name).ok_or_else(|| no_interface(name))?;
        let Some(at) = self.interfaces.iter().position(|attachment| attachment.name == name) else {
            return Err(no_interface(name));
        };
        if let Some(mut stale) = self.interfaces[at].link.take() {
            // Another interface may go by that name now, and the old one under another name: it is not ours to serve.
            stale.ifindex = sys::link_info(stale.link.as_fd()).map_or(0, |info| info.ifindex);
            stale.detach()?;
        }
        refuse_foreign(name, now)?;
        let (link, attached) = self.attach(name, now, self.mode)?;
        self.interfaces[at].link = Some(link);
        Ok(attached)
    }

    fn plan(&self, names: &[String]) -> Result<Plan, AttachError> {
        let mut links = self.pins.links()?;
        let mut steps = Vec::new();
        for name in names {
            let step = match ifindex(name) {
                None => match links.iter().position(|link| link.interface == *name) {
                    Some(at) => Step::Wait(links.remove(at)),
                    None => return Err(no_interface(name)),
                },
                Some(now) => match links.iter().position(|link| link.ifindex == now) {
                    Some(at) => {
                        let running = xdp_query::running(now).map_err(failed(name, "ask what it runs"))?;
                        match (self.mode, running.map_or("unknown", |running| running.mode)) {
                            (XdpMode::Auto, mode) | (XdpMode::Native, mode @ "native") => {
                                Step::Update(links.remove(at), mode)
                            }
                            (XdpMode::Generic, mode @ "generic") => Step::Update(links.remove(at), mode),
                            (_, mode) => Step::Remake(links.remove(at), now, mode),
                        }
                    }
                    None => {
                        refuse_foreign(name, now)?;
                        Step::Attach(now)
                    }
                },
            };
            steps.push((name.clone(), step));
        }
        Ok(Plan { steps, unwanted: links })
    }

    fn carry_out(
        &mut self,
        steps: Vec<(String, Step)>,
        attached: &mut Vec<AttachedInterface>,
    ) -> Result<(), AttachError> {
        let mut made = Vec::new();
        for (name, step) in steps {
            let is_new = matches!(step, Step::Attach(_));
            match self.carry_out_one(&name, step) {
                Ok((link, interface)) => {
                    if is_new {
                        made.push(self.interfaces.len());
                    }
                    self.interfaces.push(Attachment { name, link: Some(link) });
                    attached.extend(interface);
                }
                Err(error) => {
                    for at in made {
                        if let Some(link) = self.interfaces[at].link.take()
                            && let Err(error) = link.detach()
                        {
                            warn!("while giving up: {error}");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn carry_out_one(
        &self,
        name: &str,
        step: Step,
    ) -> Result<(PinnedLink, Option<AttachedInterface>), AttachError> {
        let attach =
            |ifindex| self.attach(name, ifindex, self.mode).map(|(link, attached)| (link, Some(attached)));
        match step {
            Step::Update(link, mode) => {
                sys::update_link(link.link.as_fd(), self.program.as_fd())
                    .map_err(failed(name, "replace its program"))?;
                let link = self.renamed(link, name)?;
                let attached = AttachedInterface { name: name.into(), ifindex: link.ifindex, mode };
                Ok((link, Some(attached)))
            }
            Step::Remake(link, ifindex, mode) => {
                warn!("interface {name}: changing the XDP mode; packets pass unbalanced for a moment");
                link.detach()?;
                attach(ifindex).inspect_err(|_| self.put_back(name, ifindex, mode))
            }
            Step::Attach(ifindex) => attach(ifindex),
            Step::Wait(link) => {
                if link.ifindex != 0 {
                    // It goes by another name now, which nobody asked to serve.
                    sys::detach_link(link.link.as_fd()).map_err(failed(name, "detach it"))?;
                }
                warn!("interface {name} is gone; it will be attached when it is back");
                Ok((PinnedLink { ifindex: 0, ..link }, None))
            }
        }
    }

    /// After the mode that is wanted was refused: what ran goes on, in the mode it had.
    fn put_back(&self, name: &str, ifindex: u32, mode: &str) {
        let mode = if mode == "generic" { XdpMode::Generic } else { XdpMode::Native };
        if let Err(error) = self.attach(name, ifindex, mode) {
            warn!("while giving up: {error}");
        }
    }

    /// The interface was renamed: its pin follows.
    fn renamed(&self, link: PinnedLink, name: &str) -> Result<PinnedLink, AttachError> {
        if link.interface == name {
            return Ok(link);
        }
        let path = self.pins.link_path(name);
        pin(link.link.as_fd(), &path, name)?;
        link.unpin()?;
        Ok(PinnedLink { path, interface: name.into(), ..link })
    }

    fn attach(
        &self,
        name: &str,
        ifindex: u32,
        mode: XdpMode,
    ) -> Result<(PinnedLink, AttachedInterface), AttachError> {
        let (link, mode) = self.create_link(name, ifindex, mode)?;
        let path = self.pins.link_path(name);
        pin(link.as_fd(), &path, name)?;
        let link = PinnedLink { path, interface: name.into(), link, ifindex };
        Ok((link, AttachedInterface { name: name.into(), ifindex, mode }))
    }

    fn create_link(
        &self,
        name: &str,
        ifindex: u32,
        mode: XdpMode,
    ) -> Result<(OwnedFd, &'static str), AttachError> {
        let create = |flags| sys::create_xdp_link(self.running(), ifindex, flags);
        let refused = |mode, source| refusal(name, ifindex, mode, source);
        match mode {
            XdpMode::Generic => create(XDP_FLAGS_SKB_MODE)
                .map(|link| (link, "generic"))
                .map_err(|error| refused("generic", error)),
            XdpMode::Native => create(XDP_FLAGS_DRV_MODE)
                .map(|link| (link, "native"))
                .map_err(|error| refused("native", error)),
            XdpMode::Auto => match create(XDP_FLAGS_DRV_MODE) {
                Ok(link) => Ok((link, "native")),
                Err(error) if is_final(&error) => Err(refused("native", error)),
                Err(error) => {
                    let link = create(XDP_FLAGS_SKB_MODE).map_err(|error| refused("generic", error))?;
                    warn!(
                        "interface {name}: the driver refused the program ({error}); it runs in generic mode, which \
                         is several times slower"
                    );
                    Ok((link, "generic"))
                }
            },
        }
    }
}

/// Detaches what is no longer wanted, last, so that no packet meets neither the old nor the new.
fn detach(unwanted: Vec<PinnedLink>) -> Result<(), AttachError> {
    for link in unwanted {
        let (name, was_there) = (link.interface.clone(), link.ifindex != 0);
        link.detach()?;
        if was_there {
            info!("interface {name} is no longer in the configuration: detached");
        }
    }
    Ok(())
}

fn pin(link: BorrowedFd<'_>, path: &Path, name: &str) -> Result<(), AttachError> {
    // What may be there is the link of an interface that had this name. Whoever wants it gone holds it open.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(name, "remove the old pin of its link")(error));
        }
        _ => {}
    }
    sys::pin(link, path).map_err(failed(name, "pin its link"))
}

fn refuse_foreign(name: &str, ifindex: u32) -> Result<(), AttachError> {
    match xdp_query::running(ifindex).map_err(failed(name, "ask what it runs"))? {
        Some(running) => Err(foreign(name, running)),
        None => Ok(()),
    }
}

fn foreign(name: &str, running: Running) -> AttachError {
    AttachError::Foreign { interface: name.into(), program: running.program, mode: running.mode }
}

/// Puts a refusal into words: somebody may have been quicker.
fn refusal(name: &str, ifindex: u32, mode: &'static str, source: io::Error) -> AttachError {
    if is_taken(&source)
        && let Ok(Some(running)) = xdp_query::running(ifindex)
    {
        return foreign(name, running);
    }
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => "; it takes root, or CAP_BPF and CAP_NET_ADMIN",
        Some(libc::EOPNOTSUPP) if mode == "native" => {
            "; its driver has no native XDP: set `xdp_mode` to \"generic\""
        }
        Some(libc::EINVAL | libc::ERANGE) if mode == "native" => {
            "; a driver may want a smaller MTU, or offloads such as LRO turned off"
        }
        _ => "",
    };
    AttachError::Refused { interface: name.into(), mode, source, hint }
}

/// Errors that the generic mode would not get around.
fn is_final(error: &io::Error) -> bool {
    is_taken(error) || matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENODEV))
}

/// EBUSY: another program, in the mode asked for. EEXIST: in another mode, or on a device above.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

fn ifindex(name: &str) -> Option<u32> {
    if_nametoindex(name).ok().filter(|&index| index != 0)
}

fn no_interface(name: &str) -> AttachError {
    let known = if_nameindex().map(|interfaces| {
        let names = interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned());
        names.collect::<Vec<_>>().join(", ")
    });
    AttachError::NoInterface { name: name.into(), known: known.unwrap_or_default() }
}

fn failed(name: &str, operation: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    let interface = name.to_owned();
    move |source| AttachError::Interface { interface, operation, source }
}

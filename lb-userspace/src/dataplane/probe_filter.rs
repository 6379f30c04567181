//! The egress program, where the host's routes to VIPs lead: it carries marked health checks to their backends.
//!
//! Filters outlive the daemon, as all it leaves in the kernel does, and do nothing without it: no socket of a dead daemon
//! sends. They bear the pin directory's name, so that every daemon knows its own from another's and an operator's.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use log::{info, warn};
use nix::net::if_::if_nameindex;

use super::{
    probe_stamps::ProbeStamps,
    sys,
    tc::{self, Filter, Place},
};
use crate::interfaces;

/// Why probes that leave by an interface can't be carried to their backends. The environment's fault.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("{interface} is no Ethernet interface")]
    NotEthernet { interface: String },
    #[error(
        "{interface} has a qdisc `{kind}` where `clsact` is needed, which can do all that it does; replace it, with its \
         filters"
    )]
    NoClsact { interface: String, kind: String },
    #[error("could not {operation} on {interface}: {source}")]
    Interface { interface: String, operation: &'static str, source: io::Error },
}

/// The egress program and the interfaces it is attached to.
#[derive(Debug)]
pub struct ProbeFilters {
    program: OwnedFd,
    /// Its id, by which filters say what they run.
    id: u32,
    stamps: ProbeStamps,
    name: String,
    /// Interfaces that were found to run it, and when. Never locked for longer than it takes to look.
    seen: Mutex<HashMap<u32, Instant>>,
    /// Interfaces whose `clsact` was made for it. One at a time attaches: two would do it twice.
    made: Mutex<HashSet<u32>>,
}

impl ProbeFilters {
    /// Takes over what an earlier daemon with the same pin directory left: its filters get this program.
    pub(super) fn new(program: OwnedFd, stamps: ProbeStamps, pin_dir: &Path) -> io::Result<Self> {
        let (id, name) = (sys::program_id(program.as_fd())?, name(pin_dir));
        let mut this = Self { program, id, stamps, name, seen: Mutex::default(), made: Mutex::default() };
        // Where that fails the first check by that interface tries again.
        match own(&this.name) {
            Ok(filters) => filters.iter().for_each(|filter| {
                if filter.handle % 2 == MADE_CLSACT % 2 {
                    this.made.get_mut().unwrap_or_else(PoisonError::into_inner).insert(filter.ifindex);
                }
                if let Err(error) = tc::set_filter(filter, this.program.as_fd(), false) {
                    warn!("the filter for health checks on {}: {error}", interfaces::name(filter.ifindex));
                }
            }),
            Err(error) => warn!("could not look for filters of an earlier daemon: {error}"),
        }
        Ok(this)
    }

    /// Whether the program was found on the interface a moment ago.
    pub fn is_fresh(&self, ifindex: u32) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&ifindex).is_some_and(|at| at.elapsed() < FRESH)
    }

    /// When the program last met a probe of the backend with this index: see [`ProbeStamps::last`].
    pub fn last_met(&self, index: u32) -> u64 {
        self.stamps.last(index)
    }

    /// Sees to it that what leaves by the interface meets the program. Whether it did already. Blocks for a moment.
    ///
    /// # Errors
    ///
    /// If it can't be attached: the interface is gone, or has no Ethernet header.
    pub fn ensure(&self, ifindex: u32) -> Result<bool, FilterError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |operation| {
            move |source| FilterError::Interface { interface: interfaces::name(ifindex), operation, source }
        };
        let all = tc::filters(ifindex).map_err(failed("look for filters"))?;
        let was_there = match all.iter().find(|filter| filter.name == self.name) {
            Some(filter) if filter.program == self.id => true,
            Some(filter) => {
                tc::set_filter(filter, self.program.as_fd(), false)
                    .map_err(failed("replace the filter for health checks"))?;
                false
            }
            None => {
                self.attach(ifindex, &all, &mut made)?;
                info!(
                    "interface {}: attached a filter that carries health checks",
                    interfaces::name(ifindex)
                );
                false
            }
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(ifindex, Instant::now());
        Ok(was_there)
    }

    fn attach(&self, ifindex: u32, all: &[Filter], made: &mut HashSet<u32>) -> Result<(), FilterError> {
        let failed = |operation| {
            move |source| FilterError::Interface { interface: interfaces::name(ifindex), operation, source }
        };
        if !tc::is_ethernet(ifindex).map_err(failed("ask for its kind"))? {
            return Err(FilterError::NotEthernet { interface: interfaces::name(ifindex) });
        }
        match tc::add_clsact(ifindex).map_err(failed("add the qdisc clsact"))? {
            Place::Empty => drop(made.insert(ifindex)),
            Place::Clsact => {}
            Place::Other(kind) => {
                return Err(FilterError::NoClsact { interface: interfaces::name(ifindex), kind });
            }
        }
        // Whoever takes it away again has to know whose it is.
        let first = if made.contains(&ifindex) { MADE_CLSACT } else { FOUND_CLSACT };
        let is_free =
            |handle: &u32| !all.iter().any(|filter| (filter.priority, filter.handle) == (PRIORITY, *handle));
        let handle = (0..).map(|number| first + 2 * number).find(is_free).unwrap_or(first);
        let filter =
            Filter { ifindex, priority: PRIORITY, handle, name: self.name.clone(), program: self.id };
        let attached = tc::set_filter(&filter, self.program.as_fd(), true);
        // Nothing would say any more that it was made for it.
        if attached.is_err()
            && made.remove(&ifindex)
            && let Err(error) = tc::remove_empty_clsact(ifindex)
        {
            warn!("interface {}: the qdisc clsact stays: {error}", interfaces::name(ifindex));
        }
        attached.map_err(failed("attach the filter for health checks"))
    }
}

/// Removes the filters of the daemon with this pin directory from every interface, and the qdiscs that were made for them
/// and hold nothing else.
pub(super) fn remove(pin_dir: &Path) -> io::Result<()> {
    let mut outcome = Ok(());
    for filter in own(&name(pin_dir))? {
        let mut removed = tc::remove_filter(&filter);
        if removed.is_ok() && filter.handle % 2 == MADE_CLSACT % 2 {
            removed = tc::remove_empty_clsact(filter.ifindex);
        }
        // What went meanwhile is gone. The others are to go whatever one of them says.
        if let Err(error) = removed
            && !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
        {
            outcome = Err(error);
        }
    }
    outcome
}

/// The filters of this name on all interfaces.
fn own(name: &str) -> io::Result<Vec<Filter>> {
    let mut own = Vec::new();
    for interface in &if_nameindex()? {
        match tc::filters(interface.index()) {
            Ok(filters) => own.extend(filters.into_iter().filter(|filter| filter.name == name)),
            // Gone meanwhile, with all that was on it; or a kernel without filters.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(own)
}

/// Of a daemon's filters. The kernel takes 255 bytes; the end of a path says more than its beginning.
fn name(pin_dir: &Path) -> String {
    let path = pin_dir.to_string_lossy();
    let end: Vec<char> = path.chars().rev().take(60).collect();
    format!("ballast:{}", end.into_iter().rev().collect::<String>())
}

/// Before most others: a filter that ends the search must not hide it.
const PRIORITY: u16 = 2;
/// Handles say whether the qdisc was made for the filter: odd, it was there; even, it was made.
const FOUND_CLSACT: u32 = 1;
const MADE_CLSACT: u32 = 2;
/// Somebody may remove a filter at any time.
const FRESH: Duration = Duration::from_secs(1);

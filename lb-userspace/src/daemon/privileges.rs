//! What the daemon may do beyond what its user may: taken down to what it needs before it has a second thread.

use std::fmt;

use capctl::{
    caps::{Cap, CapSet, CapState, bounding},
    prctl::{self, Secbits},
};
use nix::unistd::geteuid;

/// What the process was started with, until it is given up.
pub(super) struct Privileges {
    started_with: CapSet,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PrivilegeError {
    /// Whoever starts it is at fault.
    #[error(
        "the daemon has no {missing}: start it as root, or as another user with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and with \
         CAP_NET_RAW for checks of type \"icmp\""
    )]
    Missing { missing: String },
    #[error("could not {operation}: {source}")]
    Refused { operation: &'static str, source: capctl::Error },
}

impl Privileges {
    /// Lays aside what the daemon can do without, and goes on having it: what it may read from now on, for one, is what it
    /// may read at a reload.
    ///
    /// # Errors
    ///
    /// It lacks what it can't do without.
    pub(super) fn lay_aside() -> Result<Self, PrivilegeError> {
        let state = CapState::get_current().map_err(refused("read its capabilities"))?;
        let this = Self { started_with: state.permitted };
        let missing = NEEDED.into_iter().filter(|cap| !this.started_with.has(*cap));
        let missing: Vec<_> = missing.map(|cap| format!("CAP_{}", Named(cap))).collect();
        if !missing.is_empty() {
            return Err(PrivilegeError::Missing { missing: missing.join(", ") });
        }
        if !this.started_with.has(Cap::NET_RAW) {
            log::warn!("without CAP_NET_RAW checks of type \"icmp\" are skipped");
        }
        this.have(this.kept(), this.started_with)?;
        Ok(this)
    }

    /// Does `work` with everything that the process was started with.
    pub(super) fn with_all<T>(&self, work: impl FnOnce() -> T) -> Result<T, PrivilegeError> {
        self.have(self.started_with, self.started_with)?;
        let done = work();
        self.have(self.kept(), self.started_with)?;
        Ok(done)
    }

    /// Gives up what was laid aside, for this process and all that it will start: those get no capabilities at all, whatever
    /// their user or their file.
    pub(super) fn give_up(self) -> Result<(), PrivilegeError> {
        if self.started_with.has(Cap::SETPCAP) {
            self.with_all(|| self.bind())??;
        } else if geteuid().is_root() {
            log::warn!(
                "without CAP_SETPCAP the programs of checks of type \"exec\" have the daemon's capabilities, because it runs as root"
            );
        }
        prctl::set_no_new_privs().map_err(refused("forswear new privileges"))?;
        self.have(self.kept(), self.kept())
    }

    /// Takes from root what makes it special, and from everybody what is not kept.
    fn bind(&self) -> Result<(), PrivilegeError> {
        let bits = prctl::get_securebits().map_err(refused("read its secure bits"))?;
        prctl::set_securebits(bits | Secbits::NOROOT | Secbits::NOROOT_LOCKED)
            .map_err(refused("set its secure bits"))?;
        let kept = self.kept();
        // Those that the kernel knows and this version does not are dropped apart.
        for cap in Cap::iter().filter(|cap| !kept.has(*cap) && bounding::read(*cap) == Some(true)) {
            bounding::drop(cap).map_err(refused("bound its capabilities"))?;
        }
        bounding::clear_unknown().map_err(refused("bound its capabilities"))
    }

    fn kept(&self) -> CapSet {
        let kept = NEEDED.into_iter().chain([Cap::NET_RAW]);
        kept.filter(|cap| self.started_with.has(*cap)).collect()
    }

    /// Nothing is inheritable, and so nothing ambient.
    fn have(&self, effective: CapSet, permitted: CapSet) -> Result<(), PrivilegeError> {
        let state = CapState { effective, permitted, inheritable: CapSet::empty() };
        state.set_current().map_err(refused("set its capabilities"))
    }
}

/// `NET_ADMIN`
struct Named(Cap);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn refused(operation: &'static str) -> impl FnOnce(capctl::Error) -> PrivilegeError {
    move |source| PrivilegeError::Refused { operation, source }
}

/// Maps and programs; interfaces, routes and socket marks; and without the last one the verifier refuses the program.
const NEEDED: [Cap; 3] = [Cap::BPF, Cap::NET_ADMIN, Cap::PERFMON];

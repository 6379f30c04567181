use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many checks may be under way at the same time: half of the descriptors that the process may have, so that
/// checks never take those of the control socket or the state file. Raises the process's limit to what it may be.
///
/// A check takes one descriptor, one of type `exec` a few.
pub(super) fn budget() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard.min(ENOUGH) => {
            let raised = hard.min(ENOUGH);
            setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map_or(soft, |()| raised)
        }
        Ok((soft, _)) => soft,
        // What a process is given where nobody says otherwise.
        Err(_) => 1024,
    };
    usize::try_from(limit / 2).unwrap_or(MOST).clamp(LEAST, MOST)
}

/// 4,000 silent backends, say, at an interval of 2 s and a timeout of 1 s have 2,000 checks under way.
const MOST: usize = 4096;
const LEAST: usize = 16;
const ENOUGH: u64 = 2 * MOST as u64;

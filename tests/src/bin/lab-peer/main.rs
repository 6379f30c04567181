//! One side of the lab's live connections: `lb_tests::lab::{LiveServers, LiveClients}` start it.
//!
//! ```text
//! lab-peer serve PORT NAME=NETNS ...
//!     answers each line with NAME, in each of the namespaces
//! lab-peer hold TO FIRST-ADDRESS ADDRESSES PROCESSES
//!     holds connections from these addresses in turn, as one of so many processes
//! ```

mod hold;
mod input;
mod serve;

use std::env;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn main() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port, backends @ ..] => {
            let backends = backends.iter().map(|backend| backend.split_once('=').context("NAME=NETNS"));
            serve::run(port.parse()?, &backends.collect::<Result<Vec<_>>>()?)
        }
        ["hold", to, first, count, processes] => {
            hold::run(to.parse()?, first.parse()?, count.parse()?, processes.parse()?)
        }
        _ => bail!("a helper of the lab; tests start it"),
    }
}

//! What another version left.

use std::fs;

use anyhow::{Result, ensure};
use lb_common::abi::ABI_VERSION;
use lb_tests::lab::{Daemon, Lab, require_root};

use crate::scene::{SOON, flows, same_flows, serve, services};

#[test]
fn maps_of_another_versions_layout_are_refused_untouched_and_forward_on() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().build()?;
    let _servers = serve(&lab)?;
    let mut daemon = Daemon::start(&lab, 0, &services(&lab, 2))?;
    let before = flows(&lab)?;
    daemon.sigterm()?;
    let ours = daemon.files().pin_dir.join(format!("abi-{ABI_VERSION}"));
    for other in [ABI_VERSION - 1, ABI_VERSION + 1] {
        let theirs = daemon.files().pin_dir.join(format!("abi-{other}"));
        fs::rename(&ours, &theirs)?;
        fs::write(&daemon.files().log, "")?;
        daemon.launch()?;
        ensure!(daemon.wait_exit(SOON)?.code() == Some(1), "{}", daemon.log());
        for part in [&format!("maps of layout abi-{other}"), "they keep forwarding", "ballast detach"] {
            ensure!(daemon.log().contains(part), "{part:?} in {}", daemon.log());
        }
        let there: Vec<_> = fs::read_dir(&daemon.files().pin_dir)?.collect::<Result<_, _>>()?;
        ensure!(there.len() == 1 && there[0].path() == theirs, "{there:?}");
        same_flows(&flows(&lab)?, &before)?;
        fs::rename(&theirs, &ours)?;
    }
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    same_flows(&flows(&lab)?, &before)
}

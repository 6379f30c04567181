//! What is wrong with everything, and not with one object: `status` and `top` say the same.

use super::plain;
use crate::api::v1;

/// What is wrong, and why; the gravest first.
pub fn of_status(status: &v1::Status) -> Vec<(String, &str)> {
    let mut alarms = Vec::new();
    // First, because everything else is about something else than the file.
    if let Some(error) = &status.config_error {
        alarms.push(("THE CONFIGURATION IS NOT WHAT RUNS".to_owned(), error.as_str()));
    }
    if let Some(error) = &status.state_error {
        alarms.push(("WHAT WAS MADE OVER THE COMMAND LINE IS NOT ALL THERE".to_owned(), error));
    }
    if let Some(fleet) = &status.fleet {
        if let Some(trouble) = &fleet.trouble {
            let what = if fleet.connected {
                "THE FLEET'S SERVICES ARE NOT WHAT RUNS"
            } else {
                "CUT OFF FROM THE FLEET"
            };
            alarms.push((what.to_owned(), trouble));
        }
        if let Some(why) = &fleet.unheard {
            alarms.push(("THE FLEET DOES NOT HEAR OF THIS HOST".to_owned(), why));
        }
        let refused = |of: &'_ v1::RefusedDocument| format!("{} MAKES NO SENSE", plain(&of.key));
        alarms.extend(fleet.refused.iter().map(|of| (refused(of), of.why.as_str())));
    }
    if let Some(why) = &status.checks_held {
        alarms.push(("FAILED HEALTH CHECKS DON'T COUNT".to_owned(), why));
    }
    for clash in &status.nat_clashes {
        alarms.push(("REPLIES THROUGH NAT MAY GET LOST".to_owned(), clash));
    }
    for peer in status.peers.iter().flat_map(|of| &of.peers) {
        let address = plain(&peer.address).to_uppercase();
        if peer.hash_key_equal == Some(false) {
            let why = "it maps clients differently, and flows are not replicated: docs/operations.md, one hash key on every load balancer";
            alarms.push((format!("PEER {address} HAS ANOTHER HASH KEY"), why));
        } else if !peer.up {
            alarms.push((format!("PEER {address} IS SILENT"), "flows are not replicated with it"));
        }
    }
    for (service, of) in status.services.iter().flat_map(|of| of.discovery.iter().map(move |one| (of, one))) {
        if let Some(trouble) = &of.trouble {
            let (kind, source) = (of.kind.to_uppercase(), plain(&of.source));
            let what = format!("{kind} {source} OF SERVICE {} DOES NOT ANSWER AS IT SHOULD", service.name);
            alarms.push((what, trouble));
        }
    }
    let announced = status.announce.iter();
    if let Some(trouble) = announced.clone().find_map(|announce| announce.trouble.as_ref()) {
        alarms.push(("WHAT IS ANNOUNCED MAY NOT BE WHAT SHOULD BE".to_owned(), trouble));
    }
    let vips = announced.flat_map(|announce| &announce.vips);
    for (one, kept) in vips.clone().filter_map(|one| Some((one, one.kept.as_ref()?))) {
        alarms.push((format!("{} LACKS BACKENDS, AND IS NOT WITHDRAWN", plain(&one.vip)), kept));
    }
    for one in vips.filter(|one| is_missed(one)) {
        let what = if one.announced { "IS ANNOUNCED, AND NOT AS IT SHOULD BE" } else { "IS NOT ANNOUNCED" };
        alarms.push((format!("{} {what}", plain(&one.vip)), &one.detail));
    }
    for held in &status.held_vips {
        if let Some(rival) = &held.rival {
            alarms.push((
                format!(
                    "SPLIT BRAIN: {} IS ON THIS HOST AND ON THE ONE WITH THE MAC ADDRESS",
                    plain(&held.vip)
                ),
                rival,
            ));
        }
    }
    alarms
}

/// Whether it is not announced, and nobody wants that.
fn is_missed(one: &v1::AnnouncedVip) -> bool {
    match one.reason.as_deref() {
        None => false,
        Some("administrator" | "starting") => one.announced,
        Some(_) => true,
    }
}

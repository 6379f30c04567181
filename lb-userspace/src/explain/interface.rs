//! By which interface a packet comes.

use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

use super::ExplainError;
use crate::control::Snapshot;

/// One that the program is attached to.
pub(super) struct Interface {
    pub(super) name: String,
    /// The kernel's, in the daemon's network namespace.
    pub(super) index: u32,
    /// Its own address, as far as it has one; one that nobody has where it doesn't.
    pub(super) mac: [u8; 6],
}

/// The interface asked for; the first that the program is attached to where none is.
pub(super) fn of(snapshot: &Snapshot, asked: Option<&str>) -> Result<Interface, ExplainError> {
    let attached = || snapshot.interfaces.iter().filter(|interface| interface.attached);
    let invalid = |message| ExplainError::Invalid { field: "interface", message };
    let name = match asked {
        Some(name) => match attached().find(|interface| interface.name == name) {
            Some(interface) => interface.name.clone(),
            None => {
                let all: Vec<_> = attached().map(|interface| interface.name.as_str()).collect();
                return Err(invalid(format!(
                    "the program is not attached to {name:?}, but to {}",
                    listed(&all)
                )));
            }
        },
        None => match attached().next() {
            Some(interface) => interface.name.clone(),
            None => return Err(invalid("the program is attached to no interface".to_owned())),
        },
    };
    let index = if_nametoindex(name.as_str())
        .map_err(|errno| invalid(format!("interface {name:?} can't be found: {errno}")))?;
    let mac = mac(&name).unwrap_or(NOBODYS_MAC);
    Ok(Interface { name, index, mac })
}

fn mac(name: &str) -> Option<[u8; 6]> {
    let mut all = getifaddrs().ok()?.filter(|address| address.interface_name == name);
    let mac = all.find_map(|address| address.address?.as_link_addr()?.addr())?;
    // What has none, such as `lo`, says zeros.
    Some(mac).filter(|mac| *mac != [0; 6])
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Locally administered.
const NOBODYS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

//! Which XDP program an interface runs, asked over rtnetlink: the error of an attempt to attach does not say.

use std::io;

use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

use crate::interfaces;

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) program: u32,
    /// `native`, `generic`, or what else the kernel knows.
    pub(super) mode: &'static str,
}

/// Asks for the program that interface `ifindex` runs.
pub(super) fn running(ifindex: u32) -> io::Result<Option<Running>> {
    interfaces::link(ifindex).map(|link| program(&link))
}

fn program(link: &LinkMessage) -> Option<Running> {
    let attributes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    })?;
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("offloaded"),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("several"),
        _ => None,
    })?;
    // With several programs there is no ProgId, but one for each mode.
    let program = attributes.iter().find_map(|attribute| match *attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(id)
        }
        _ => None,
    })?;
    Some(Running { program, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_a_program_runs_none() {
        assert_eq!(running(1).expect("every namespace has a loopback"), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert_eq!(running(0x7fff_fff0).expect_err("no such index").raw_os_error(), Some(libc::ENODEV));
    }
}

//! Who is at the other end of a connection.

use std::{io, os::fd::AsRawFd as _};

use nix::unistd::{Gid, Uid};
use tokio::net::UnixStream;

/// User and groups of the process that connected, as they were then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    uid: Uid,
    gid: Gid,
    supplementary: Vec<Gid>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let (uid, gid) = (Uid::from_raw(credentials.uid()), Gid::from_raw(credentials.gid()));
        Ok(Self { uid, gid, supplementary: supplementary(stream)? })
    }

    /// Whether it is root, the daemon's own user, or in `group`: those whom a socket of mode 0660 lets in. This holds even
    /// where somebody widened the mode.
    pub(super) fn may_use_socket_of(&self, group: Gid) -> bool {
        let own = self.uid.is_root() || self.uid == Uid::effective();
        own || self.gid == group || self.supplementary.contains(&group)
    }
}

/// The kernel's word, and not that of a user database, which may be far away and know other groups than those the process has.
fn supplementary(stream: &UnixStream) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let room = size_of_val(groups.as_slice());
        let mut size = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `size` bytes to `groups`, which has as many, and then their number to `size`.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = size as usize / size_of::<libc::gid_t>();
        if result == 0 {
            return Ok(groups.into_iter().take(count).map(Gid::from_raw).collect());
        }
        let error = io::Error::last_os_error();
        // It has told how much room it takes.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_has_the_groups_of_its_process() {
        let (stream, _other) = UnixStream::pair().expect("two sockets");
        let peer = Peer::of(&stream).expect("the kernel knows");
        assert_eq!((peer.uid, peer.gid), (Uid::effective(), Gid::effective()));
        assert_eq!(peer.supplementary, nix::unistd::getgroups().expect("our own"));
        assert!(peer.may_use_socket_of(Gid::from_raw(u32::MAX - 1)), "the daemon's own user");
    }

    #[test]
    fn only_root_the_daemons_user_and_its_group_are_let_in() {
        let other = Uid::from_raw(Uid::effective().as_raw() + 1);
        let group = Gid::from_raw(7);
        let peer = |uid, gid, supplementary: &[u32]| Peer {
            uid,
            gid: Gid::from_raw(gid),
            supplementary: supplementary.iter().copied().map(Gid::from_raw).collect(),
        };
        assert!(peer(Uid::from_raw(0), 1, &[]).may_use_socket_of(group));
        assert!(peer(Uid::effective(), 1, &[]).may_use_socket_of(group));
        assert!(peer(other, 7, &[]).may_use_socket_of(group));
        assert!(peer(other, 1, &[5, 7]).may_use_socket_of(group));
        assert!(!peer(other, 1, &[5]).may_use_socket_of(group));
    }
}

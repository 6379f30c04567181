use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::Gid;
use tokio::net::{UnixListener, UnixStream};

use super::peer::Peer;

/// The control socket, ready for clients.
pub struct Listener {
    listener: UnixListener,
    group: Gid,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another daemon answers on {}; stop it first, or give this one another `socket`", .0.display())]
    InUse(PathBuf),
    #[error("{} is not a socket; move it away, or give the daemon another `socket`", .0.display())]
    NotASocket(PathBuf),
    #[error("{operation} {}: {source}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

/// Makes the socket at `path`, mode 0660, and its directory, mode 0750, where there is none. What a daemon left there
/// that answers no more is replaced. Needs a Tokio runtime.
///
/// # Errors
///
/// Somebody answers on it, something else is in its place, or the system refuses.
pub fn bind(path: &Path) -> Result<Listener, BindError> {
    let failed = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |source| BindError::Io { operation, path, source }
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(parent);
        made.map_err(failed("can't make directory", parent))?;
    }
    make_way(path)?;

    // Made under another name and moved, so that nobody meets it before its mode is right.
    // The short name leaves room: a socket's address is 107 bytes at most.
    let draft = path.with_file_name(format!(".{}", std::process::id()));
    if let Err(source) = fs::remove_file(&draft)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(failed("can't remove", &draft)(source));
    }
    let listener = UnixListener::bind(&draft).map_err(failed("can't make socket", &draft))?;
    let group = fs::set_permissions(&draft, Permissions::from_mode(0o660))
        .and_then(|()| fs::metadata(&draft))
        .and_then(|metadata| fs::rename(&draft, path).map(|()| Gid::from_raw(metadata.gid())))
        .map_err(|source| {
            // The error to report is the first one.
            let _ = fs::remove_file(&draft);
            failed("can't make socket", path)(source)
        })?;
    Ok(Listener { listener, group })
}

impl Listener {
    /// The next client, and whether it may use the socket.
    pub(super) async fn accept(&self) -> io::Result<(UnixStream, bool)> {
        let (stream, _) = self.listener.accept().await?;
        // Whose credentials are not known is not let in.
        let allowed = Peer::of(&stream).is_ok_and(|peer| peer.may_use_socket_of(self.group));
        Ok((stream, allowed))
    }
}

/// Makes sure that a socket at `path`, if any, is one that nobody answers on.
fn make_way(path: &Path) -> Result<(), BindError> {
    let failed = |operation, source| BindError::Io { operation, path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("can't look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_path_buf()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_path_buf())),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(error) => Err(failed("can't tell whether a daemon answers on", error)),
    }
}

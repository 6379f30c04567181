//! Databases that have roles.

mod mysql;
mod postgres;
mod redis;
mod scram;

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{Target, Trouble, apart, stream, talk::Talk, tls};
use crate::{
    domain::{Database, Engine, Role},
    secret_file::warn_if_exposed,
};

/// Logs in, and asks for the role if the service needs one.
pub(super) async fn ask(database: &Database, target: &Target) -> Result<String, Trouble> {
    let talk = Talk::new(Box::new(stream::connect(target).await?));
    match database.engine {
        Engine::Mysql => mysql::ask(database, target, talk).await,
        Engine::Postgres => postgres::ask(database, target, talk).await,
        Engine::Redis => redis::ask(database, target, talk).await,
    }
}

/// What a server says of its role.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    role: Role,
    /// In words.
    detail: String,
    /// What keeps a replica from serving.
    trouble: Option<String>,
}

impl Standing {
    /// Whether a service that needs `wanted` can use the server.
    fn judge(self, wanted: Role) -> Result<String, Trouble> {
        if wanted != Role::Any && wanted != self.role {
            return Err(Trouble::Misfit(self.detail));
        }
        match self.trouble {
            // A replica is all right for a service to which it is all the same as long as it answers.
            Some(trouble) if wanted == Role::Replica => Err(Trouble::Backend(trouble)),
            _ => Ok(self.detail),
        }
    }
}

/// The password in the file, empty without one. It is read each time, so that a new one counts at once.
async fn password(file: Option<&Path>) -> Result<Vec<u8>, Trouble> {
    let Some(path) = file else { return Ok(Vec::new()) };
    let path = path.to_path_buf();
    // A file system may hang, and shall hold up nobody else.
    apart(move || {
        read_password(&path)
            .map_err(|error| Trouble::Ours(format!("password_file {}: {error}", path.display())))
    })
    .await
}

fn read_password(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for whoever writes to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    warn_if_exposed(path, &metadata);
    let mut password = Vec::new();
    file.take(MAX_PASSWORD + 1).read_to_end(&mut password)?;
    if password.len() as u64 > MAX_PASSWORD {
        return Err(io::Error::other(format!("longer than {MAX_PASSWORD} bytes")));
    }
    while matches!(password.last(), Some(b'\n' | b'\r')) {
        password.pop();
    }
    Ok(password)
}

/// Puts TLS around the conversation if the check asks for it.
async fn secured(talk: Talk, database: &Database, target: &Target) -> Result<Talk, Trouble> {
    match &database.tls {
        Some(settings) => {
            let stream = tls::wrap(talk.into_stream()?, settings, None, target, tls::NO_ALPN).await?;
            Ok(Talk::new(Box::new(stream)))
        }
        None => Ok(talk),
    }
}

/// That the server says what its protocol does not allow.
fn garbled(protocol: &str) -> Trouble {
    Trouble::Backend(format!("not what a {protocol} server says"))
}

const MAX_PASSWORD: u64 = 1024;

//! What `[fleet]` takes.

use std::{path::PathBuf, time::Duration};

use crate::{
    config::{
        key::{Boolean, Key, List, Printable, Seconds, Text},
        reference::Section,
        report::Wrong,
        table::shortened,
        values,
    },
    domain::Name,
};

pub(in crate::config) const FLEET: Section = Section {
    heading: "## `[fleet]`",
    says: "Where there is one, services are in etcd and in no file, the same for every member of the [fleet](fleet.md); a \
           `[[service]]` beside it is an error. Everything else of the file is this host's own. What a start takes from here \
           stays until the next start.",
    keys: &[
        &ENDPOINTS,
        &PREFIX,
        &MEMBER,
        &USER,
        &PASSWORD_FILE,
        &CA_FILE,
        &CERT_FILE,
        &KEY_FILE,
        &TTL,
        &LOCAL_FILES,
    ],
};

pub(super) const ENDPOINTS: Key<List> = Key {
    name: "endpoints",
    takes: List("1 to 16 URLs"),
    default: "required",
    means: "members of an etcd cluster (3.4 or later), such as `[\"https://10.0.0.1:2379\"]`; the port is 2379 unless named. \
            One is asked for as long as it answers, then the next",
};
pub(super) const PREFIX: Key<Text<String>> = Key {
    name: "prefix",
    takes: Text("path of at most 255 bytes", prefix),
    default: "`\"/ballast\"`",
    means: "what the fleet's keys begin with: another one is another fleet",
};
pub(super) const MEMBER: Key<Text<Name>> = Key {
    name: "member",
    takes: Text("`[a-z0-9][a-z0-9.-]{0,62}`", values::name),
    default: "the host's name",
    means: "what this load balancer is called; no two are called the same",
};
pub(super) const USER: Key<Printable> = Key {
    name: "user",
    takes: Printable(1, 255),
    default: "none",
    means: "a user of etcd, who needs to read and write what begins with `prefix`; goes with `password_file`",
};
pub(super) const PASSWORD_FILE: Key<Text<PathBuf>> = Key {
    name: "password_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "a file whose first line is the password; the log warns where everybody may read it",
};
pub(super) const CA_FILE: Key<Text<PathBuf>> = Key {
    name: "ca_file",
    takes: Text("absolute path", values::path),
    default: "what the host trusts",
    means: "the authorities, as PEM, that vouch for `https://` endpoints",
};
pub(super) const CERT_FILE: Key<Text<PathBuf>> = Key {
    name: "cert_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "the certificate that this load balancer shows, as PEM; read at each connection. Goes with `key_file`",
};
pub(super) const KEY_FILE: Key<Text<PathBuf>> = Key {
    name: "key_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "its key, as PEM",
};
pub(super) const TTL: Key<Seconds> = Key {
    name: "ttl",
    takes: Seconds(MIN_TTL, MAX_TTL),
    default: "`\"10s\"`",
    means: "a member that etcd has not heard of for so long is gone from `ballast fleet status`, and nobody \
            [counts on it](fleet.md#who-may-withdraw-for-want-of-backends) any more",
};
pub(super) const LOCAL_FILES: Key<Boolean> = Key {
    name: "local_files",
    takes: Boolean,
    default: "`false`",
    means: "whether services of the fleet may name programs and files of this host: checks of type `exec`, `password_file`, \
            `ca_file`, `backends_file`. Whoever may write to etcd has the daemon's rights then",
};

/// `/ballast`, with or without a `/` at the end.
fn prefix(key: &str, text: &str) -> Result<String, Wrong> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    match trimmed.strip_prefix('/') {
        Some(rest) if text.len() <= MAX_PREFIX && rest.split('/').all(part) => Ok(trimmed.to_owned()),
        _ => {
            let message = format!("`{key}` can't be \"{}\"", shortened(text));
            let label =
                "such as \"/ballast\": parts of letters, digits, \".\", \"-\" and \"_\", each after a \"/\"";
            Err(Wrong::new(message, label))
        }
    }
}

/// What etcd gives at the least depends on its election timeout.
const MIN_TTL: Duration = Duration::from_secs(3);
const MAX_TTL: Duration = Duration::from_secs(300);
const MAX_PREFIX: usize = 255;

//! The text of `fleet.toml`.

use std::{fmt, hash::Hasher as _};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{
    config::document::{Document, Reading},
    domain::Name,
    fleet::book::{Book, Good, Revision, Rules},
};

/// # Errors
///
/// It is not whole, or not as it was written. `None`: it is of another fleet.
pub(super) fn read(text: &str, rules: &Rules) -> Result<Option<Book>, String> {
    let wrong = |error: &dyn fmt::Display| error.to_string().trim_end().replace('\n', "; ");
    let Header { version, checksum: told } = toml::from_str(text).map_err(|error| wrong(&error))?;
    if version != VERSION {
        return Err(format!("it is of version {version}, and this daemon reads {VERSION}"));
    }
    let Fleet { keys, id, revision, document } = toml::from_str(text).map_err(|error| wrong(&error))?;
    if told != checksum(&keys, &id, revision, &document) {
        return Err("it is not as it was written".to_owned());
    }
    if keys != rules.keys.all() {
        return Ok(None);
    }
    let mut pages = Vec::new();
    for WrittenDocument { service, revision, text } in document {
        let name: Name = service.parse().map_err(|error| wrong(&error))?;
        let reading = Reading { name: &name, local_files: rules.local_files };
        match Document::read(rules.keys.service(&service).into(), text.clone(), reading) {
            Ok(document) => pages.push((service, Good { revision, text, document })),
            // Of an earlier version, or allowed no more. The others are right.
            Err(diagnostics) => log::error!("what was kept of service {name} is refused: {diagnostics}"),
        }
    }
    Ok(Some(Book::of(revision, id, pages)))
}

pub(super) fn write(book: &Book, rules: &Rules) -> Result<String, toml::ser::Error> {
    let document = |(service, good): (&str, &Good)| WrittenDocument {
        service: service.to_owned(),
        revision: good.revision,
        text: good.text.clone(),
    };
    let document: Vec<_> = book.good().map(document).collect();
    let (keys, revision) = (rules.keys.all(), book.head_revision());
    let id = book.id().unwrap_or_default().to_owned();
    let header = Header { version: VERSION, checksum: checksum(&keys, &id, revision, &document) };
    let fleet = Fleet { keys, id, revision, document };
    Ok(format!("{COMMENT}{}\n{}", toml::to_string(&header)?, toml::to_string(&fleet)?))
}

fn checksum(keys: &str, id: &str, revision: Revision, documents: &[WrittenDocument]) -> String {
    let mut hasher = SipHasher13::new();
    let mut part = |bytes: &[u8]| {
        hasher.write(&(bytes.len() as u64).to_le_bytes());
        hasher.write(bytes);
    };
    part(keys.as_bytes());
    part(id.as_bytes());
    part(&revision.to_le_bytes());
    for WrittenDocument { service, revision, text } in documents {
        part(service.as_bytes());
        part(&revision.to_le_bytes());
        part(text.as_bytes());
    }
    format!("{:016x}", hasher.finish())
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    checksum: String,
}

#[derive(Serialize, Deserialize)]
struct Fleet {
    /// What its keys begin with.
    keys: String,
    /// Which fleet it is.
    id: String,
    /// Of the head.
    revision: Revision,
    #[serde(default)]
    document: Vec<WrittenDocument>,
}

#[derive(Serialize, Deserialize)]
struct WrittenDocument {
    service: String,
    revision: Revision,
    text: String,
}

const COMMENT: &str = "# Kept by the daemon: what its fleet had when it last heard of it. A start that can't reach etcd goes on with it.\n";
const VERSION: u32 = 1;

//! Services that move into a fleet and out of it, without a daemon.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    book::{Book, Declared, Good, Rules, head, new_id},
    etcd::{Client, Compare, EtcdError, Operation, Outcome},
    keys::Keys,
};
use crate::{
    config::{FleetConfig, document::Document, shape::of_origin},
    control::{Command, State},
    dataplane::scan::Moment,
    domain::{Name, NatPool, Origin, Service},
};

/// What became of the services of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: Vec<Name>,
    pub replaced: Vec<Name>,
    /// They were so already.
    pub same: Vec<Name>,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the fleet has {}, and not as the file says; --replace puts those of the file in their place", .names.join(", "))]
    Exists { names: Vec<String> },
    #[error("service {name}: {why}")]
    Refused { name: Name, why: String },
    #[error("{0}")]
    NoFleet(String),
    #[error("together with what the fleet has: {0}")]
    Misfit(String),
    #[error("somebody else changes the fleet's services; try again")]
    Overtaken,
    #[error("etcd: {0}")]
    Etcd(#[from] EtcdError),
}

/// Puts services into the fleet. With `replace` those that are there become what these say, and what was set over their
/// backends is taken back.
///
/// A fleet that has none yet begins with it; `known` is the one that this host was a member of.
///
/// Of more than 100 each hundred is a transaction of its own.
///
/// # Errors
///
/// Nothing changed, as long as it is the first hundred.
pub async fn import(
    config: FleetConfig,
    services: Vec<Service>,
    replace: bool,
    known: Option<String>,
) -> Result<Imported, ImportError> {
    let rules = Rules::of(&config);
    let client = Client::new(Arc::new(config));
    let book = look(&client, &rules).await?;
    let checked_head = book.check(&rules.keys, known.as_deref());
    if book.head_revision() > 0 && !(replace && known.is_some()) {
        checked_head.map_err(ImportError::NoFleet)?;
    }
    let mut together = book.declared();
    let mut imported = Imported::default();
    let mut others = Vec::new();
    let mut changes = Vec::new();
    for service in services {
        let name = service.name.clone();
        let document = Document { service: of_origin(service, &Origin::Fleet), overrides: BTreeMap::new() };
        let text = checked(&document, &rules)?;
        together.services.insert(name.clone(), document.service.clone());
        let page = book.page(name.as_str());
        let known = page
            .and_then(|page| page.good.as_ref())
            .filter(|_| page.is_some_and(|page| page.wrong.is_none()));
        match (page, known) {
            (None, _) => imported.added.push(name.clone()),
            (_, Some(good)) if good.document == document => {
                imported.same.push(name);
                continue;
            }
            (_, Some(good)) if !replace => {
                let overridden = Document { overrides: good.document.overrides.clone(), ..document.clone() };
                if overridden == good.document {
                    imported.same.push(name);
                } else {
                    others.push(name.to_string());
                }
                continue;
            }
            (_, None) if !replace => {
                others.push(name.to_string());
                continue;
            }
            (_, known) => {
                if let Some(why) =
                    known.and_then(|good| disruption(&good.document.service, &document.service))
                {
                    return Err(ImportError::Refused { name, why });
                }
                imported.replaced.push(name.clone());
            }
        }
        changes.push((rules.keys.service(name.as_str()), page.map_or(0, |page| page.revision), text));
    }
    if !others.is_empty() {
        return Err(ImportError::Exists { names: others });
    }
    check_together(together)?;
    let id = known.or(book.id().map(str::to_owned)).unwrap_or_else(new_id);
    let head_text = head(&id).map_err(|error| ImportError::Misfit(error.to_string()))?;
    let mut revision = book.head_revision();
    let mut chunks: Vec<_> = changes.chunks(AT_ONCE).collect();
    if chunks.is_empty() && book.id() != Some(id.as_str()) {
        // The services are those of the fleet, and etcd takes them for another one's.
        chunks.push(&[]);
    }
    for chunk in chunks {
        let compare =
            chunk.iter().map(|(key, revision, _)| Compare::At { key: key.clone(), revision: *revision });
        let compare: Vec<_> = compare.chain([Compare::At { key: rules.keys.head(), revision }]).collect();
        let put = |key: &String, value: &str| Operation::Put {
            key: key.clone(),
            value: value.to_owned(),
            lease: None,
        };
        let operations = chunk.iter().map(|(key, _, text)| put(key, text));
        let operations: Vec<_> = operations.chain([put(&rules.keys.head(), &head_text)]).collect();
        match client.transact(&compare, &operations).await? {
            Outcome::Done(now) => revision = now,
            Outcome::Lost => return Err(ImportError::Overtaken),
        }
    }
    Ok(imported)
}

/// Every document of the fleet, by service, with those that are refused.
///
/// # Errors
///
/// etcd can't be asked, or has no such fleet.
pub async fn export(config: FleetConfig) -> Result<(Vec<Document>, Vec<String>), ImportError> {
    let rules = Rules { keys: Keys::new(config.prefix.clone()), local_files: true };
    let client = Client::new(Arc::new(config));
    let book = look(&client, &rules).await?;
    book.check(&rules.keys, None).map_err(ImportError::NoFleet)?;
    let refused = book.refused(&rules.keys).into_iter().map(|refused| refused.why).collect();
    Ok((book.good().map(|(_, Good { document, .. })| document.clone()).collect(), refused))
}

async fn look(client: &Client, rules: &Rules) -> Result<Book, EtcdError> {
    let mut tries = 1;
    loop {
        match client.list(&rules.keys.all()).await {
            Ok(listing) => return Ok(Book::default().listed(&listing.entries, rules)),
            Err(error) if tries >= client.endpoints() => return Err(error),
            Err(_) => {
                client.turn();
                tries += 1;
            }
        }
    }
}

/// What every member would refuse, all of it: two services at one address, a backend that is a VIP.
fn check_together(Declared { services, overrides }: Declared) -> Result<(), ImportError> {
    let services = services.into_values().collect();
    let command = Command::Fleet { services, overrides, nat: NatPool::default(), ways: Vec::new() };
    let outcome = State::default().apply(&command, &Default::default(), Moment::default());
    outcome.map(drop).map_err(|refused| ImportError::Misfit(refused.to_string()))
}

/// The text that every member will take.
fn checked(document: &Document, rules: &Rules) -> Result<String, ImportError> {
    let name = &document.service.name;
    let refused = |why: String| ImportError::Refused { name: name.clone(), why };
    let text = document.write().map_err(|error| refused(error.to_string()))?;
    let reading = crate::config::document::Reading { name, local_files: rules.local_files };
    match Document::read("the document".into(), text.clone(), reading) {
        Ok(read) if read == *document => Ok(text),
        Ok(_) => Err(refused("it is not read as it is written".to_owned())),
        Err(diagnostics) => {
            let first = diagnostics.iter().next();
            Err(refused(
                first
                    .map(|first| match &first.help {
                        Some(help) => format!("{} ({help})", first.message),
                        None => first.message.clone(),
                    })
                    .unwrap_or_default(),
            ))
        }
    }
}

/// What a live service can't become.
fn disruption(known: &Service, new: &Service) -> Option<String> {
    let translates = known.forwarding.translates() || new.forwarding.translates();
    let what = if known.table_size != new.table_size {
        "table_size"
    } else if known.algorithm != new.algorithm {
        "algorithm"
    } else if translates && known.forwarding != new.forwarding {
        "forwarding to or from dnat and nat"
    } else {
        return None;
    };
    Some(format!(
        "another {what} would end its flows: remove it from the fleet first, or give it another name"
    ))
}

/// etcd takes 128 operations at once by default.
const AT_ONCE: usize = 100;

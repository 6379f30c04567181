//! What is asked of etcd, and what it answers.

use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time;

use super::{
    ANSWER_TIMEOUT, Client, EtcdError, broken, garbled,
    wire::{self, encode},
};
use crate::{
    config::Endpoint,
    fleet::{
        book::{Entry, Event, Revision},
        keys::range_end,
    },
};

/// Keys as they were at one revision of the whole store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

/// What keeps keys alive. They go when it has not been renewed for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease(i64);

impl Lease {
    pub fn number(self) -> i64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn of(number: i64) -> Self {
        Self(number)
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was changed last at this revision; 0: it is not there.
    At { key: String, revision: Revision },
    /// Of all keys that begin with `prefix` none was changed after this revision.
    NoneAfter { prefix: String, revision: Revision },
}

/// What is done if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Put { key: String, value: String, lease: Option<Lease> },
    Delete { key: String },
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done, at this revision.
    Done(Revision),
    /// Nothing was: a condition does not hold.
    Lost,
}

impl Client {
    /// Everything that begins with `prefix`, as the majority of the cluster has it.
    ///
    /// # Errors
    ///
    /// Also where there is no majority.
    pub async fn list(&self, prefix: &str) -> Result<Listing, EtcdError> {
        let body = json!({ "key": encode(prefix), "range_end": encode(range_end(prefix)) });
        self.range(body).await
    }

    /// One key, likewise.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    pub async fn read(&self, key: &str) -> Result<(Revision, Option<Entry>), EtcdError> {
        let Listing { revision, entries } = self.range(json!({ "key": encode(key) })).await?;
        Ok((revision, entries.into_iter().next()))
    }

    /// Revision of the newest of all keys that begin with `prefix`, and how many there are, likewise.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    pub async fn newest(&self, prefix: &str) -> Result<(Revision, usize), EtcdError> {
        let body = json!({
            "key": encode(prefix), "range_end": encode(range_end(prefix)), "keys_only": true, "limit": "1",
            "sort_order": "DESCEND", "sort_target": "MOD",
        });
        let wire::Range { kvs, count, .. } = self.ask("/v3/kv/range", &body).await?;
        let newest = kvs.into_iter().next().map_or(0, |one| Entry::from(one).revision);
        Ok((newest, usize::try_from(count).unwrap_or_default()))
    }

    async fn range(&self, body: Value) -> Result<Listing, EtcdError> {
        let wire::Range { header, kvs, .. } = self.ask("/v3/kv/range", &body).await?;
        Ok(Listing { revision: header.revision, entries: kvs.into_iter().map(Into::into).collect() })
    }

    /// Does all or nothing.
    ///
    /// # Errors
    ///
    /// With [`EtcdError::Broken`] and [`EtcdError::Garbled`] nobody knows whether it was done.
    pub async fn transact(
        &self,
        compare: &[Compare],
        operations: &[Operation],
    ) -> Result<Outcome, EtcdError> {
        let compare: Vec<_> = compare
            .iter()
            .map(|compare| match compare {
                Compare::At { key, revision } => {
                    json!({ "target": "MOD", "result": "EQUAL", "key": encode(key), "mod_revision": revision.to_string() })
                }
                Compare::NoneAfter { prefix, revision } => json!({
                    "target": "MOD", "result": "LESS", "key": encode(prefix), "range_end": encode(range_end(prefix)),
                    "mod_revision": (revision + 1).to_string(),
                }),
            })
            .collect();
        let success: Vec<_> = operations
            .iter()
            .map(|operation| match operation {
                Operation::Put { key, value, lease } => {
                    let lease = lease.map_or(0, |lease| lease.0).to_string();
                    json!({ "request_put": { "key": encode(key), "value": encode(value), "lease": lease } })
                }
                Operation::Delete { key } => json!({ "request_delete_range": { "key": encode(key) } }),
            })
            .collect();
        let body = json!({ "compare": compare, "success": success });
        let wire::Txn { header, succeeded } = self.ask("/v3/kv/txn", &body).await?;
        Ok(if succeeded { Outcome::Done(header.revision) } else { Outcome::Lost })
    }

    /// A lease that lasts for `ttl`.
    ///
    /// # Errors
    ///
    /// See [`EtcdError`].
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        let granted: wire::Granted =
            self.ask("/v3/lease/grant", &json!({ "TTL": ttl.as_secs().to_string() })).await?;
        match granted.id {
            0 => Err(garbled(self.endpoint(), &"a lease without a number")),
            id => Ok(Lease(id)),
        }
    }

    /// Renews a lease. `false`: it is over.
    ///
    /// # Errors
    ///
    /// See [`EtcdError`].
    pub async fn renew(&self, lease: Lease) -> Result<bool, EtcdError> {
        let body = json!({ "ID": lease.0.to_string() });
        let line: wire::Line<wire::Granted> = self.ask("/v3/lease/keepalive", &body).await?;
        let endpoint = self.endpoint();
        let granted = answer_of(endpoint, line)?;
        Ok(granted.ttl > 0)
    }

    /// Every change after `revision` of what begins with `prefix`.
    ///
    /// # Errors
    ///
    /// See [`EtcdError`].
    pub async fn watch(&self, prefix: &str, revision: Revision) -> Result<Watch, EtcdError> {
        let body = json!({ "create_request": {
            "key": encode(prefix),
            "range_end": encode(range_end(prefix)),
            "start_revision": (revision + 1).to_string(),
        }});
        let (at, endpoint) = self.current();
        let endpoint = endpoint.clone();
        let beginning = async {
            let (sender, answer) = self.post(at, &endpoint, "/v3/watch", &body).await?;
            Ok((sender, answer.into_body()))
        };
        match time::timeout(ANSWER_TIMEOUT, beginning).await {
            Ok(Ok((sender, body))) => Ok(Watch { endpoint, _sender: sender, body, unread: BytesMut::new() }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(broken(&endpoint, &"a watch does not begin")),
        }
    }
}

/// Tells of changes until it is dropped.
#[derive(Debug)]
pub struct Watch {
    endpoint: Endpoint,
    /// Whoever drops it hangs up.
    _sender: hyper::client::conn::http1::SendRequest<http_body_util::Full<bytes::Bytes>>,
    body: Incoming,
    unread: BytesMut,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// It has begun: from here on no change is missed.
    Began,
    Changes(Vec<Event>),
    /// What would come next is forgotten (etcd has compacted its history); only a look at everything helps.
    Compacted,
}

impl Watch {
    /// What comes next. May be given up and called again.
    ///
    /// # Errors
    ///
    /// The watch is over.
    pub async fn next(&mut self) -> Result<Watched, EtcdError> {
        loop {
            let line = self.line().await?;
            let line: wire::Line<wire::Changes> =
                serde_json::from_slice(&line).map_err(|error| garbled(&self.endpoint, &error))?;
            let changes = answer_of(&self.endpoint, line)?;
            if changes.compact_revision > 0 {
                return Ok(Watched::Compacted);
            }
            if changes.canceled {
                let why = format!("the watch was ended: {}", changes.cancel_reason);
                return Err(broken(&self.endpoint, &why));
            }
            if changes.created {
                return Ok(Watched::Began);
            }
            if !changes.events.is_empty() {
                return Ok(Watched::Changes(changes.events.into_iter().map(Into::into).collect()));
            }
        }
    }

    /// The next line of the answer. Nothing of it is lost when this is given up.
    async fn line(&mut self) -> Result<BytesMut, EtcdError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(line);
            }
            if self.unread.len() > MAX_LINE {
                return Err(garbled(&self.endpoint, &format!("a line is longer than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                None => return Err(broken(&self.endpoint, &"the watch has ended")),
                Some(Err(error)) => return Err(broken(&self.endpoint, &error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.unread.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn answer_of<T: DeserializeOwned>(endpoint: &Endpoint, line: wire::Line<T>) -> Result<T, EtcdError> {
    match (line.result, line.error) {
        (Some(result), None) => Ok(result),
        (_, Some(refusal)) => {
            Err(EtcdError::Refused { endpoint: endpoint.to_string(), message: refusal.text().to_owned() })
        }
        (None, None) => Err(garbled(endpoint, &"neither a result nor an error")),
    }
}

/// More than the largest transaction that etcd takes by default.
const MAX_LINE: usize = 64 << 20;

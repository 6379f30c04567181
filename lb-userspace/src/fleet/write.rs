//! Changes of the fleet's services: each a transaction that holds only if nobody else was quicker.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time;

use super::{
    book::{Declared, Entry, Revision, head, new_id},
    edit::{Change, FoundHere, change, changed, touched},
    etcd::{Client, Compare, EtcdError, Operation, Outcome},
    view::{View, Views},
};
use crate::{
    config::FleetConfig,
    control::{Applied, Edit, Handle, Rejected},
};

/// Makes changes in the name of this member.
pub struct Writer {
    client: Client,
    views: Views,
    control: Handle,
    plan: Arc<Plan>,
    /// One change after the other: each is made of what the last one left.
    turn: tokio::sync::Mutex<()>,
}

/// Says what would become of services here.
pub type Plan = dyn Fn(Declared) -> BoxFuture<'static, Result<Applied, Rejected>> + Send + Sync;

/// What became of a transaction.
enum Written {
    At(Revision),
    /// Somebody else was quicker.
    Lost,
}

impl Writer {
    pub fn new(config: Arc<FleetConfig>, views: Views, control: Handle, plan: Arc<Plan>) -> Self {
        Self { client: Client::new(config), views, control, plan, turn: tokio::sync::Mutex::default() }
    }

    /// Makes a change. When this returns it is live on this member.
    ///
    /// # Errors
    ///
    /// It is refused, by what there is or by etcd, and nothing changed; but see [`Rejected::NotLive`] and
    /// [`Rejected::Uncertain`].
    pub async fn edit(&self, edit: &Edit) -> Result<Applied, Rejected> {
        let _turn = self.turn.lock().await;
        let mut first = None;
        for _ in 0..MAX_TRIES {
            let view = self.current().await?;
            // What somebody else makes of other objects meanwhile is not in the way.
            let seen = touched(edit, &view.book);
            if *first.get_or_insert_with(|| seen.clone()) != seen {
                break;
            }
            let here = FoundHere::of(&self.control.snapshot());
            let Some(change) = change(edit, &view.book, &here)? else { return Ok(self.nothing()) };
            let planned = (self.plan)(changed(&view.book, &change)).await?;
            if let Written::At(revision) = self.write(&view, &change).await? {
                self.until_live(revision).await?;
                let mut warnings = planned.warnings;
                warnings.extend(drains(edit).map(str::to_owned));
                return Ok(Applied { revision: self.nothing().revision, warnings, ..planned });
            }
        }
        let what = edit.service().map_or_else(String::new, |service| format!("service {service}"));
        Err(Rejected::Outdated { what })
    }

    fn nothing(&self) -> Applied {
        let revision = self.control.snapshot().revision;
        Applied { revision, changes: Vec::new(), warnings: Vec::new(), impacts: Vec::new() }
    }

    /// What this member knows, once that is what the majority of etcd has.
    async fn current(&self) -> Result<View, Rejected> {
        let cut_off = |why: String| Rejected::CutOff(why);
        let mut views = self.views.watch();
        let connecting = time::timeout(CONNECT_PATIENCE, views.wait_for(View::is_connected));
        let connected = matches!(connecting.await, Ok(Ok(_)));
        if !connected {
            return Err(cut_off(
                self.views.now().cut_off().unwrap_or_else(|| "not connected to etcd".to_owned()),
            ));
        }
        let head = self.read(&self.views.rules.keys.head()).await;
        let head = head.map_err(|error| cut_off(format!("without an answer of etcd: {error}")))?;
        let revision = head.map_or(0, |entry| entry.revision);
        let has_caught_up = |view: &View| view.book.head_revision() >= revision;
        match time::timeout(CATCH_UP, views.wait_for(has_caught_up)).await {
            Ok(Ok(view)) => self.writable(view.clone()),
            _ => Err(cut_off(format!("behind etcd, which is at revision {revision}"))),
        }
    }

    /// Services that were there are not taken for none because etcd has lost them.
    fn writable(&self, view: View) -> Result<View, Rejected> {
        let wrong = view.book.check(&self.views.rules.keys, view.fleet.as_deref()).err();
        let is_new =
            view.book.head_revision() == 0 && view.live_services == 0 && view.book.good().next().is_none();
        match wrong {
            Some(why) if !is_new => Err(Rejected::CutOff(format!("without its fleet: {why}"))),
            _ => Ok(view),
        }
    }

    /// Asks one member of etcd after the other.
    async fn read(&self, key: &str) -> Result<Option<Entry>, EtcdError> {
        let mut tries = 1;
        loop {
            match self.client.read(key).await {
                Ok((_, entry)) => return Ok(entry),
                Err(error) => {
                    self.client.turn();
                    // And the first one again: its connection may have been an old one.
                    if tries > self.client.endpoints() {
                        return Err(error);
                    }
                    tries += 1;
                }
            }
        }
    }

    async fn write(&self, view: &View, change: &Change) -> Result<Written, Rejected> {
        let keys = &self.views.rules.keys;
        let key = keys.service(change.service.as_str());
        let text = change.after.as_ref().map(|document| document.write()).transpose();
        let text = text.map_err(|error| Rejected::Store(error.into()))?;
        // Of a fleet that begins with this.
        let id = view.book.id().map_or_else(new_id, str::to_owned);
        let head = head(&id).map_err(|error| Rejected::Store(error.into()))?;
        let compare = [
            Compare::At { key: keys.head(), revision: view.book.head_revision() },
            Compare::At { key: key.clone(), revision: change.before },
        ];
        let operations = [
            Operation::Put { key: keys.head(), value: head, lease: None },
            match &text {
                Some(text) => Operation::Put { key: key.clone(), value: text.clone(), lease: None },
                None => Operation::Delete { key: key.clone() },
            },
        ];
        let mut tries = 1;
        loop {
            match self.client.transact(&compare, &operations).await {
                Ok(Outcome::Done(revision)) => return Ok(Written::At(revision)),
                Ok(Outcome::Lost) => return Ok(Written::Lost),
                // Nobody was asked.
                Err(EtcdError::Unreachable { .. }) if tries < self.client.endpoints() => {
                    self.client.turn();
                    tries += 1;
                }
                Err(error) if is_certain(&error) => {
                    return Err(Rejected::CutOff(format!("without an answer of etcd: {error}")));
                }
                Err(error) => return self.look(&key, text.as_deref(), change.before, &error).await,
            }
        }
    }

    /// Whether a transaction that nobody confirmed was made.
    async fn look(
        &self,
        key: &str,
        text: Option<&str>,
        before: Revision,
        error: &EtcdError,
    ) -> Result<Written, Rejected> {
        self.client.turn();
        let head = self.read(&self.views.rules.keys.head()).await;
        let (Ok(found), Ok(Some(head))) = (self.read(key).await, head) else {
            return Err(Rejected::Uncertain(error.to_string()));
        };
        match (found, text) {
            (Some(entry), Some(text)) if entry.revision > before && entry.value == text.as_bytes() => {
                Ok(Written::At(entry.revision))
            }
            (None, None) => Ok(Written::At(head.revision)),
            _ => Err(Rejected::Uncertain(error.to_string())),
        }
    }

    async fn until_live(&self, revision: Revision) -> Result<(), Rejected> {
        let not_live = |why: String| Rejected::NotLive { revision, why };
        let mut views = self.views.watch();
        let decided =
            |view: &View| view.live >= revision || (view.trouble.is_some() && view.tried >= revision);
        match time::timeout(PUBLISH_PATIENCE, views.wait_for(decided)).await {
            Ok(Ok(view)) if view.live >= revision => Ok(()),
            Ok(Ok(view)) => Err(not_live(view.trouble.clone().unwrap_or_default())),
            _ => Err(not_live(
                self.views.now().cut_off().unwrap_or_else(|| "it has not heard of it yet".to_owned()),
            )),
        }
    }
}

/// Whether nothing was changed for sure.
fn is_certain(error: &EtcdError) -> bool {
    match error {
        EtcdError::Ours(_) | EtcdError::Unreachable { .. } => true,
        // Anything else may be of a member that has handed it on to the others, who then say yes.
        EtcdError::Refused { message, .. } => CERTAIN.iter().any(|known| message.contains(known)),
        EtcdError::Broken { .. } | EtcdError::Garbled { .. } => false,
    }
}

/// What etcd says before it proposes anything to anybody (api/v3rpc/rpctypes/error.go).
const CERTAIN: [&str; 11] = [
    "permission denied",
    "space exceeded",
    "request is too large",
    "too many operations",
    "too many requests",
    "invalid auth token",
    "auth store is old",
    "user name is empty",
    "is not let in",
    "no leader",
    "no JSON gateway",
];

/// Every member learns that something is gone, and none of them why.
fn drains(edit: &Edit) -> Option<&'static str> {
    match edit {
        Edit::RemoveBackend { .. } => Some(
            "in a fleet a backend that is removed drains on every member, for drain_timeout at the most; `disable` it first to \
             end its flows",
        ),
        _ => None,
    }
}

/// Races lost in a row, each against changes of other objects.
const MAX_TRIES: u32 = 8;
/// While it changes from one member of etcd to another.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A disk that is busy may take seconds to write down what becomes live, and nothing is listened to meanwhile.
const CATCH_UP: Duration = Duration::from_secs(10);
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_proposed_is_certainly_not_done() {
        let refused =
            |message: &str| EtcdError::Refused { endpoint: String::new(), message: message.to_owned() };
        for certain in ["etcdserver: permission denied", "etcdserver: mvcc: database space exceeded"] {
            assert!(is_certain(&refused(certain)), "{certain}");
        }
        for uncertain in
            ["etcdserver: server stopped", "etcdserver: request timed out", "transport is closing", "EOF"]
        {
            assert!(!is_certain(&refused(uncertain)), "{uncertain}");
        }
    }
}

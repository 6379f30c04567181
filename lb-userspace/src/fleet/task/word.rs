//! What this member tells etcd of itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Task;
use crate::{
    control::Snapshot,
    fleet::{
        etcd::{Compare, EtcdError, Operation, Outcome},
        member::Record,
        view::{Member, View},
    },
};

impl Task {
    /// What etcd should know of this member.
    fn record(&self, view: &View, snapshot: &Snapshot) -> Record {
        let mut record = Record {
            id: self.id.clone(),
            boot: self.boot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: view.live,
            ready: snapshot.ready,
            key: snapshot.hash_key.map(|key| key.to_string()),
            refused: view.refused(&self.views.rules).len(),
            trouble: view.trouble.clone(),
            ..Record::default()
        };
        record.set_vips(&self.wishes.borrow().announces);
        record.set_tables(snapshot);
        record
    }

    /// When there is something to tell; `None`: nothing is new.
    pub(super) fn next_word(&mut self) -> Option<Instant> {
        self.lease?;
        let view = self.views.now();
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let record = self.record(&view, &snapshot);
        match &self.told {
            Some((told, when, revision)) => {
                let known = view.members.get(&self.views.member);
                // Unless somebody else has written there, or taken it away. Of what was told a moment ago etcd has not said so yet.
                let is_there = known.is_some_and(|known| known.revision < *revision || known.record == *told);
                // Others must not count for long on what is announced no more.
                let is_less = known.is_some_and(|known| known.record.promises_more(&record));
                let apart = if is_less { WORDS_APART } else { self.words_apart };
                (*told != record || !is_there).then(|| *when + apart)
            }
            None => Some(Instant::now()),
        }
    }

    /// Tells etcd of this member.
    pub(super) async fn speak(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let view = self.views.now();
        let member = self.views.member.clone();
        let key = self.views.rules.keys.member(&member);
        let known = view.members.get(&member);
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let record = self.record(&view, &snapshot);
        let now = Instant::now();
        if let Some(rival) = known.and_then(|known| self.rival(known)) {
            self.unheard(Some(rival));
            // Looked at again later, and then with other eyes.
            self.told = Some((record, now, 0));
            return Ok(());
        }
        let value = serde_json::to_string(&record).map_err(|error| EtcdError::Ours(error.to_string()))?;
        let told = self.told.as_ref().map_or(0, |(_, _, revision)| *revision);
        let revision = known.map_or(0, |known| known.revision).max(told);
        let compare = Compare::At { key: key.clone(), revision };
        let put = Operation::Put { key, value, lease: Some(lease) };
        let (told, apart) = match self.client.transact(&[compare], &[put]).await {
            Ok(Outcome::Done(revision)) => {
                self.written = revision;
                self.unheard(None);
                ((record, now, revision), WORDS_APART)
            }
            // What has come in between is heard of in a moment.
            Ok(Outcome::Lost) => ((Record::default(), now, 0), WORDS_APART),
            // No reason not to listen: etcd has no room, perhaps, or this user may only read.
            Err(EtcdError::Refused { endpoint, message }) => {
                self.unheard(Some(format!("{endpoint}: {message}")));
                self.hush(known, &record).await?;
                ((Record::default(), now, 0), (self.words_apart * 2).min(LONGEST_SILENCE))
            }
            Err(error) => return Err(error),
        };
        (self.told, self.words_apart) = (Some(told), apart);
        Ok(())
    }

    /// What was told can't be taken back for want of room, perhaps, but removed: nobody may count on a member for
    /// what it announces no more.
    async fn hush(&self, known: Option<&Member>, record: &Record) -> Result<(), EtcdError> {
        let Some(known) = known.filter(|known| known.record.promises_more(record)) else {
            return Ok(());
        };
        let key = self.views.rules.keys.member(&self.views.member);
        let compare = Compare::At { key: key.clone(), revision: known.revision };
        match self.client.transact(&[compare], &[Operation::Delete { key }]).await {
            Ok(_) | Err(EtcdError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Why what is there as this member is another one, if it is.
    fn rival(&self, known: &Member) -> Option<String> {
        let Member { record, revision } = known;
        let member = &self.views.member;
        if record.id != self.id {
            return Some(format!(
                "another member is called {member}, too: `member` in [fleet] has to be another name on each"
            ));
        }
        // What an earlier daemon of this host wrote came before; whoever writes after this one has started after it.
        (record.boot != self.boot && self.written > 0 && *revision > self.written).then(|| {
            format!(
                "another daemon is {member} with the same fleet-member.id, as on the copy of a host: remove that file there, and \
                 set another `member` in [fleet]"
            )
        })
    }

    /// Notes why the others don't hear of this member, and logs it when it is news.
    pub(super) fn unheard(&self, unheard: Option<String>) {
        if self.views.now().unheard != unheard {
            match &unheard {
                Some(why) => log::error!("fleet: nobody hears of this member: {why}; trying again"),
                None => log::info!("fleet: the others hear of this member"),
            }
            self.views.change(|view| view.unheard = unheard);
        }
    }
}

const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Backends that come and go by the hundred are no reason to write as often.
pub(super) const WORDS_APART: Duration = Duration::from_millis(500);

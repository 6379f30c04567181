//! Asks for leave to be off the network for want of backends, and gives it back.

use std::time::{Duration, Instant};

use super::Task;
use crate::{
    domain::Name,
    fleet::{
        book::Rules,
        etcd::{Compare, EtcdError, Lease, Operation, Outcome},
        permit::{Deed, Permit, Wish},
        view::View,
    },
};

impl Task {
    /// When there is something to do about this member's permit; `None`: nothing is.
    pub(super) fn next_deed(&self) -> Option<Instant> {
        let view = self.views.now();
        view.deed(&self.views.member, &self.wishes.borrow(), Instant::now()).map(|_| self.deed_at)
    }

    pub(super) async fn see_to_permit(&mut self) -> Result<(), EtcdError> {
        let now = Instant::now();
        let (member, rules, wishes) = (&self.views.member, &*self.views.rules, &mut self.wishes);
        let mut made = Ok(None);
        // Whoever says that it will be off, and finds then that it has leave, keeps it.
        self.views.change(|view| {
            let wish = wishes.borrow_and_update();
            made = transaction(view, rules, (member, &self.id), &wish, self.lease);
        });
        let Some((compare, operation)) = made? else { return Ok(()) };
        let claims = matches!(operation, Operation::Put { .. });
        let transacted = self.client.transact(&[compare], &[operation]).await;
        // The watch tells what became of it.
        self.deed_at = now + if transacted.is_ok() { APART } else { super::RETRY };
        let unpermitted = match transacted {
            Ok(Outcome::Done(_) | Outcome::Lost) => None,
            Err(error) if error.is_over() => {
                self.lease = None;
                return Err(error);
            }
            Err(EtcdError::Refused { endpoint, message }) if claims => {
                Some(format!("{endpoint} gives no leave: {message}"))
            }
            // What was to be given back is there still, perhaps, and nobody tells: everything is looked at again.
            Err(error) => return Err(error),
        };
        self.views.change(|view| view.unpermitted = unpermitted);
        Ok(())
    }
}

/// What is to be asked of etcd for a member, by its name and id; `None` where nothing is.
fn transaction(
    view: &mut View,
    rules: &Rules,
    (member, id): (&Name, &str),
    wish: &Wish,
    lease: Option<Lease>,
) -> Result<Option<(Compare, Operation)>, EtcdError> {
    let key = rules.keys.permit(member);
    match (view.deed(member, wish, Instant::now()), lease) {
        // Unless somebody else has made one since they were counted.
        (Some(Deed::Claim), Some(lease)) => {
            let permit = Permit { id: id.to_owned(), lease: lease.number() };
            let value = serde_json::to_string(&permit).map_err(|error| EtcdError::Ours(error.to_string()))?;
            let compare = Compare::NoneAfter { prefix: rules.keys.permits(), revision: view.newest_permit() };
            Ok(Some((compare, Operation::Put { key, value, lease: Some(lease) })))
        }
        (Some(Deed::Release), _) => {
            // From here on nobody goes by it, whenever etcd says that it is gone.
            let revision = view.give_back(member);
            Ok(Some((Compare::At { key: key.clone(), revision }, Operation::Delete { key })))
        }
        _ => Ok(None),
    }
}

/// Until it is tried again: the watch has told by then why it failed.
const APART: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;

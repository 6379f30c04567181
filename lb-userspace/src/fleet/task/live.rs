//! Makes live what etcd has, and keeps it for a start without etcd.

use std::sync::Arc;

use super::{End, Task};
use crate::{
    control::Rejected,
    fleet::{
        book::{Book, Declared, Refused, Revision},
        view::View,
    },
};

impl Task {
    /// Makes live what etcd has. What is refused stays as it was, and is told.
    pub(super) async fn make_live(&mut self) -> Result<(), End> {
        let view = self.views.now();
        self.tell_refused(&view);
        let revision = view.book.revision();
        let declared = view.book.declared();
        let checked = view.book.check(&self.views.rules.keys, view.fleet.as_deref());
        if let Err(why) = checked.and_then(|()| not_all_gone(self.live.as_ref(), &declared)) {
            self.trouble(revision, Some(why));
            return Ok(());
        }
        let services = declared.services.len();
        let prepared = self.prepare(&view.book).await;
        if self.live.as_ref() != Some(&declared) {
            match (self.join)(declared.clone()).await {
                Ok(applied) => applied.warnings.iter().for_each(|warning| log::warn!("{warning}")),
                Err(Rejected::Stopping) => return Err(End::Stopping),
                Err(refused) => {
                    self.kept.discard();
                    self.trouble(
                        revision,
                        Some(format!("revision {revision} of etcd is refused here: {refused}")),
                    );
                    return Ok(());
                }
            }
            self.live = Some(declared);
        }
        self.views.change(|known| {
            known.live = revision;
            known.live_services = services;
            known.fleet = view.book.id().map(str::to_owned);
        });
        self.trouble(revision, None);
        if prepared {
            self.confirm(&view.book).await;
        }
        Ok(())
    }

    /// Writes down what is to become live before it does: a daemon that dies in between, and can't ask etcd when it starts,
    /// would take back what its maps have. Returns whether there is something to confirm.
    async fn prepare(&self, book: &Book) -> bool {
        if self.saved.as_ref() == Some(book) {
            return false;
        }
        let (kept, rules, book) = (Arc::clone(&self.kept), Arc::clone(&self.views.rules), book.clone());
        on_disk(move || kept.prepare(&book, &rules)).await
    }

    async fn confirm(&mut self, book: &Book) {
        let kept = Arc::clone(&self.kept);
        if on_disk(move || kept.confirm()).await {
            self.saved = Some(book.clone());
        }
    }

    /// Logs documents that make no sense, each once.
    fn tell_refused(&mut self, view: &View) {
        let refused = view.refused(&self.views.rules);
        for Refused { key, revision, why, goes_on } in
            refused.iter().filter(|one| !self.refused.contains(one))
        {
            let instead = if *goes_on {
                "what it said before goes on"
            } else {
                "it never made sense here, and nothing of it runs"
            };
            log::error!("fleet: {key} makes no sense since revision {revision} of etcd, {instead}: {why}");
        }
        self.refused = refused;
    }

    /// Notes why what etcd has is not live, and logs it when it is news.
    fn trouble(&self, revision: Revision, trouble: Option<String>) {
        if self.views.now().trouble != trouble {
            match &trouble {
                Some(why) => log::error!("fleet: {why}; what ran before goes on"),
                None => log::info!("fleet: what etcd has is live"),
            }
        }
        self.views.change(|view| (view.tried, view.trouble) = (revision, trouble));
    }
}

/// Whether it was done. What was not is logged: services become live all the same.
async fn on_disk(write: impl FnOnce() -> Result<(), String> + Send + 'static) -> bool {
    let written = tokio::task::spawn_blocking(write).await;
    let written = written.unwrap_or_else(|error| Err(error.to_string()));
    written.inspect_err(|error| log::error!("{error}")).is_ok()
}

/// Several services of which none is left were lost, and not removed.
///
/// # Errors
///
/// They are.
fn not_all_gone(live: Option<&Declared>, declared: &Declared) -> Result<(), String> {
    let Some(live) = live.filter(|live| live.services.len() > 1) else { return Ok(()) };
    match declared.services.is_empty() {
        false => Ok(()),
        true => Err(format!(
            "all {} services are gone from etcd at once, which is taken for a loss: `ballast fleet import` brings them back, \
             and `ballast service remove` removes them one by one",
            live.services.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{name, service};

    #[test]
    fn services_go_one_by_one_or_are_lost() {
        let of = |names: &[&str]| Declared {
            services: names.iter().map(|one| (name(one), service(one, &[]))).collect(),
            ..Declared::default()
        };
        assert!(not_all_gone(Some(&of(&["a", "b"])), &of(&["a"])).is_ok());
        assert!(not_all_gone(Some(&of(&["a"])), &of(&[])).is_ok());
        assert!(not_all_gone(None, &of(&[])).is_ok());
        // Others took their places while this member was away.
        assert!(not_all_gone(Some(&of(&["a", "b"])), &of(&["c"])).is_ok());
        assert!(not_all_gone(Some(&of(&["a", "b"])), &of(&[])).is_err());
    }
}

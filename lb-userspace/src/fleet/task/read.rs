//! Reads what a watch tells, beside all that is done about it: however long that takes, this member knows what etcd has, and
//! all that has come meanwhile becomes live as one.

use tokio::sync::watch as channel;

use super::listen::AbortOnDrop;
use crate::fleet::{
    alive::Heard,
    etcd::{EtcdError, Watch, Watched},
    view::Views,
};

/// Follows one watch for as long as it lasts.
pub(super) struct Reader {
    /// How often services were changed; told anew with whatever is.
    told: channel::Receiver<u64>,
    /// How many of these changes are known.
    known: u64,
    task: AbortOnDrop<EtcdError>,
}

/// What is new.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Of services, and of others perhaps.
    Services,
    /// Of others: members, and who has leave.
    Others,
    /// The watch is over. What it told before has been told.
    Over(EtcdError),
}

impl Reader {
    /// What it reads is in `views` and `heard` before it is told.
    pub(super) fn start(mut watch: Watch, endpoint: String, views: Views, heard: Heard) -> Self {
        let (told, receiver) = channel::channel(0);
        let ear = Ear { views, heard, told };
        let reading = async move {
            loop {
                match watch.next().await {
                    Ok(watched) if ear.take(&watched) => {}
                    // etcd says it once, and nothing more on that watch.
                    Ok(_) => {
                        let why =
                            "its history was compacted meanwhile; looking at everything again".to_owned();
                        break EtcdError::Broken { endpoint, why };
                    }
                    Err(error) => break error,
                }
            }
        };
        Self { told: receiver, known: 0, task: AbortOnDrop(tokio::spawn(reading)) }
    }

    /// What is new since it was asked last. May be given up and called again, but not after the watch is over.
    pub(super) async fn next(&mut self) -> News {
        if self.told.changed().await.is_err() {
            let error = (&mut self.task.0).await;
            return News::Over(error.unwrap_or_else(|error| EtcdError::Ours(error.to_string())));
        }
        let services = *self.told.borrow_and_update();
        match std::mem::replace(&mut self.known, services) == services {
            true => News::Others,
            false => News::Services,
        }
    }
}

struct Ear {
    views: Views,
    heard: Heard,
    told: channel::Sender<u64>,
}

impl Ear {
    /// Takes in what a watch tells; says whether it goes on.
    fn take(&self, watched: &Watched) -> bool {
        let events = match watched {
            Watched::Began => return true,
            Watched::Compacted => return false,
            Watched::Changes(events) => events,
        };
        self.heard.hear(events);
        let mut services = false;
        self.views.change(|view| services = view.follow(events, &self.views.rules));
        self.told.send_modify(|told| *told += u64::from(services));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::testing::name,
        fleet::{
            book::{Book, Entry, Event, Revision, Rules},
            keys::Keys,
        },
    };

    fn put(key: String, revision: Revision) -> Watched {
        Watched::Changes(vec![Event::Put(Entry { key, value: b"{}".to_vec(), revision })])
    }

    /// A reader to which the test tells what a watch would.
    fn reader(ends: EtcdError) -> (Ear, Reader) {
        let rules = Rules { keys: Keys::new("/ballast"), local_files: false };
        let views = Views::new(name("lb-0"), rules, Book::default());
        let (told, receiver) = channel::channel(0);
        let ear = Ear { views, heard: Heard::default(), told };
        let task = AbortOnDrop(tokio::spawn(async { ends }));
        (ear, Reader { told: receiver, known: 0, task })
    }

    #[tokio::test]
    async fn what_comes_while_nobody_asks_is_known_at_once_and_told_as_one() {
        let error = EtcdError::Ours("why".to_owned());
        let (ear, mut reader) = reader(error.clone());
        let rules = std::sync::Arc::clone(&ear.views.rules);
        let keys = &rules.keys;
        for (revision, service) in [(3, "web"), (4, "mail")] {
            assert!(ear.take(&put(keys.service(service), revision)));
            assert_eq!(ear.views.now().book.revision(), revision);
        }
        assert!(ear.take(&put(keys.member(&name("lb-1")), 5)));
        assert_eq!(reader.next().await, News::Services);
        assert!(ear.take(&put(keys.member(&name("lb-1")), 6)));
        assert_eq!(reader.next().await, News::Others);
        // The end is not told before what came ahead of it.
        assert!(ear.take(&put(keys.service("web"), 7)));
        assert!(!ear.take(&Watched::Compacted));
        drop(ear);
        assert_eq!(reader.next().await, News::Services);
        assert_eq!(reader.next().await, News::Over(error));
    }
}

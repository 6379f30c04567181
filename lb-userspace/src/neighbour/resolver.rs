use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{Error, netlink::Netlink};
use crate::control::NextHopUpdate;

/// Resolves next hops once: for a start, before anything is published, so that a configuration is checked against the
/// real routes and a restart doesn't take backends for unresolved.
pub struct Resolver {
    netlink: Netlink,
    /// The kernel refuses a second listing on a socket while one is under way.
    reading: Mutex<()>,
}

impl Resolver {
    /// Opens a netlink socket in the current network namespace.
    pub async fn new() -> Result<Self, Error> {
        Netlink::new().map(|netlink| Self { netlink, reading: Mutex::new(()) })
    }

    /// One update for each distinct address, in their order. Where the kernel has a route but no neighbour yet, it is
    /// made to ask, and given [`PATIENCE`] for all of them together.
    pub async fn resolve(&self, addresses: &[IpAddr]) -> Result<Vec<NextHopUpdate>, Error> {
        let backends: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        let deadline = Instant::now() + PATIENCE;
        let mut asked = BTreeSet::new();
        loop {
            let table = {
                let _alone = self.reading.lock().await;
                self.netlink.read(&backends).await?
            };
            let unresolved = table.unresolved();
            if unresolved.is_empty() || Instant::now() >= deadline {
                return Ok(backends.into_iter().map(|backend| table.next_hop(backend)).collect());
            }
            for key in unresolved {
                if asked.insert(key)
                    && let Err(error) = self.netlink.solicit(key).await
                {
                    // The interface went away, or the table is full: it stays unresolved, and the follower goes on.
                    log::debug!("{}: {error}", key.1);
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// An answer takes a round trip on the local network; a dead neighbour must not hold up a start.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn many_may_ask_at_the_same_moment() {
        let resolver = Arc::new(Resolver::new().await.expect("a netlink socket"));
        let asking = (0..32).map(|_| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { resolver.resolve(&[]).await.map(drop) })
        });
        for asked in asking.collect::<Vec<_>>() {
            asked.await.expect("no panic").expect("the kernel tells each of them");
        }
    }
}

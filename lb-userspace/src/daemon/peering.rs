//! Flow replication, wired.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use lb_common::hash::HashKey;

use crate::{
    config::{Config, PeersConfig},
    control::{self, Command, Handle},
    dataplane::{self, KeyFingerprint},
    peers::{Endpoint, Exchange, Identity, Keys, bind, task},
};

/// What replication needs, opened before anything else is done: what is wrong with it stops a start.
pub(super) struct Peering {
    identity: Identity,
    addresses: Vec<SocketAddr>,
    /// Bytes a second.
    rate: f64,
    sockets: Vec<UdpSocket>,
}

impl Peering {
    /// `None` without `[peers]`.
    pub(super) fn open(config: &Config, hash_key: HashKey) -> anyhow::Result<Option<Self>> {
        let Some(PeersConfig { listen, addresses, key_file, bandwidth }) = &config.peers else {
            return Ok(None);
        };
        let key = match key_file {
            Some(path) => dataplane::load_key(path).context("peers.key_file")?,
            None => hash_key,
        };
        let sockets = bind(listen).context("peers.listen")?;
        // One that fails now would fail later, where nobody could be told.
        dataplane::random_number().context("the kernel gives no random numbers")?;
        let identity = Identity {
            keys: Keys::derive(key),
            fingerprint: KeyFingerprint::of(hash_key),
            random: Box::new(|| dataplane::random_number().unwrap_or_else(|_| fastrand::u64(..))),
        };
        let rate = f64::from(*bandwidth) * 1e6 / 8.0;
        Ok(Some(Self { identity, addresses: addresses.clone(), rate, sockets }))
    }

    /// Lets the control task know; nothing is sent or heard yet. `is_new`: the maps have just been made.
    pub(super) async fn introduce(self, control: &Handle, is_new: bool) -> anyhow::Result<Introduced> {
        let endpoint = Endpoint::new(self.identity, &self.addresses, self.rate, boot_time());
        let exchange = Arc::new(Exchange::new(endpoint, is_new));
        control.submit(Command::Peers { exchange: Arc::clone(&exchange), is_new }).await?;
        Ok(Introduced { sockets: self.sockets, exchange, peers: self.addresses.len() })
    }
}

/// Replication that waits for its services.
pub(super) struct Introduced {
    sockets: Vec<UdpSocket>,
    exchange: Arc<Exchange>,
    peers: usize,
}

impl Introduced {
    /// Where it says how it is going.
    pub(super) fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// Begins: what is said of services and backends is understood from now on. `flow_news` is readable when flows are new.
    pub(super) fn start(self, flow_news: OwnedFd) -> anyhow::Result<()> {
        self.exchange.endpoint().begin();
        task::spawn(self.sockets, flow_news, &self.exchange, boot_time).context("peers.listen")?;
        log::info!("flows are replicated with {} peers", self.peers);
        Ok(())
    }
}

fn boot_time() -> Duration {
    control::now().boot
}

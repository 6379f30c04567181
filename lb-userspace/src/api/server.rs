//! The server's side: the socket, who may use it, and how many at a time. What one client may do is in [`connection`], what
//! is answered in [`routes`].

mod announce;
mod capture;
mod connection;
mod explain;
mod extract;
mod fleet;
mod peer;
mod places;
mod routes;
mod socket;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::error::{ApiError, ReloadError};
use crate::{
    boards::Boards,
    capture::{Client, Request, StartError, Started},
    control::{Applied, Edit, Handle, Rejected},
    dataplane::CounterReader,
    discovery::DiscoveryStats,
    explain::Explainer,
};

use connection::{Answering, converse};
pub use connection::{MAX_PLAN, MAX_REQUEST};
use places::Places;
pub use socket::{BindError, Listener, bind};

/// What requests are answered from.
#[derive(Clone)]
pub struct Api {
    pub control: Handle,
    pub counters: Arc<dyn CounterReader>,
    pub discovery: Arc<DiscoveryStats>,
    pub boards: Boards,
    /// Makes the running state equal to configuration files, or says what that would change.
    pub reload: Arc<Reload>,
    /// Makes a change to services or backends.
    pub edit: Arc<MakeEdit>,
    /// Begins a capture.
    pub capture: Arc<Capture>,
    /// Says what becomes of a packet.
    pub explainer: Arc<Explainer>,
    /// New settings of a service one after the other: each is made from the ones that were seen.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// See [`Api::reload`].
pub type Reload = dyn Fn(Reloading) -> BoxFuture<'static, Result<Applied, ReloadError>> + Send + Sync;

/// See [`Api::capture`].
pub type Capture = dyn Fn(Request, Client) -> BoxFuture<'static, Result<Started, StartError>> + Send + Sync;

/// What a reload is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloading {
    /// Paths and texts to plan with; `None`: the files that the daemon has.
    pub files: Option<Vec<(PathBuf, String)>>,
    /// Only say what would change. Given files are never applied.
    pub dry_run: bool,
    /// Replace live services that can't become what is declared.
    pub disruptive: bool,
}

/// See [`Api::edit`].
pub type MakeEdit = dyn Fn(Edit) -> BoxFuture<'static, Result<Applied, Rejected>> + Send + Sync;

/// Answers requests on `listener` until dropped. Requests under way then are cut off; a reload that was begun goes on.
pub async fn serve(listener: Listener, api: Api) {
    let answering = Answering::new(routes::router(api));
    let (clients, strangers) = (Places::new(MAX_CLIENTS), Places::new(MAX_STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        let (stream, allowed) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("control socket: can't accept a client: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        // While there is no place for it, those that come after it wait in the kernel's queue.
        let (places, answering) =
            if allowed { (&clients, Some(answering.clone())) } else { (&strangers, None) };
        let Some(place) = places.take().await else { return };
        connections.spawn(converse(stream, place, answering));
    }
}

/// Clients served at a time.
pub const MAX_CLIENTS: usize = 64;

/// Clients that may not use the socket, and are told so at a time: they take no place from the others.
const MAX_STRANGERS: usize = 8;

/// Accepting fails while the process is out of file descriptors; trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

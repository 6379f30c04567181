//! Membership of a fleet: who this member is, and how what the fleet has becomes what runs.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, anyhow};

use super::reload::Reloader;
use crate::{
    api,
    config::FleetConfig,
    control::Handle,
    domain::Name,
    fleet::{self, Settings, Views, Writer, book::Book, book::Rules, kept::KeptFleet},
    sysctl,
};

/// Goes on with what was kept of the fleet, and follows it from then on. Returns what is known of it, and how services are
/// changed.
pub(super) async fn join(
    config: &FleetConfig,
    state_dir: &Path,
    control: &Handle,
    reloader: &Arc<Reloader>,
) -> anyhow::Result<(Views, Arc<api::server::MakeEdit>)> {
    let member = name_of(config)?;
    let rules = Rules::of(config);
    let kept = KeptFleet::new(state_dir);
    let id = kept.id().context("making an id for this member of the fleet")?;
    let book = kept.load(&rules).unwrap_or_default();
    tell_kept(&kept, &book);
    let (book, before) = match kept.load_next(&book, &rules) {
        Some(next) => (next, Some(book)),
        None => (book, None),
    };
    let views = Views::new(member, rules, book);
    let config = Arc::new(config.clone());
    let plan: Arc<fleet::Plan> = {
        let reloader = Arc::clone(reloader);
        Arc::new(move |declared| {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move { reloader.plan_joining(&declared).await })
        })
    };
    let writer = Arc::new(Writer::new(Arc::clone(&config), views.clone(), control.clone(), plan));
    let join: Arc<fleet::Join> = {
        let reloader = Arc::clone(reloader);
        Arc::new(move |declared| {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move { reloader.join(declared).await })
        })
    };
    // Dropping what this returns does not end it.
    fleet::start(Settings { config, views: views.clone(), kept, before, id, control: control.clone(), join })
        .await;
    let edit: Arc<api::server::MakeEdit> = {
        let reloader = Arc::clone(reloader);
        Arc::new(move |edit| {
            let (writer, reloader) = (Arc::clone(&writer), Arc::clone(&reloader));
            Box::pin(async move {
                match edit.service() {
                    Some(_) => writer.edit(&edit).await,
                    None => reloader.edit(edit).await,
                }
            })
        })
    };
    Ok((views, edit))
}

/// What the configuration calls this member, or what its host is called.
fn name_of(config: &FleetConfig) -> anyhow::Result<Name> {
    if let Some(name) = &config.member {
        return Ok(name.clone());
    }
    let host = sysctl::text("kernel/hostname").unwrap_or_default();
    let host = host.trim().to_ascii_lowercase();
    host.parse().map_err(|error| {
        anyhow!("the name of this host, {host:?}, can't be a member's ({error}): set `member` in [fleet]")
    })
}

fn tell_kept(kept: &KeptFleet, book: &Book) {
    if book.head_revision() > 0 {
        let (path, services) = (kept.path().display(), book.good().count());
        log::info!("fleet: going on with what was kept in {path}: {services} services, until etcd answers");
    }
}

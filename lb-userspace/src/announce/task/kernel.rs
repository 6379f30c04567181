//! The kernel's routes: read, and made what they should be.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Announcer;
use crate::{
    announce::{
        plan::{OwnRoute, Step, route, steps},
        routes::{RouteError, Routes, device, losses},
    },
    config::RouteSettings,
};

impl Announcer {
    /// Removes what settings of earlier times have left, where there are none any more.
    pub(super) async fn sweep(&mut self) -> Result<(), RouteError> {
        if self.former.is_empty() {
            return Ok(());
        }
        let routes = Routes::new()?;
        for route in routes.list(&self.former).await? {
            routes.remove(route).await?;
            log::info!("the route for {} is removed: VIPs are announced no more", route.prefix);
        }
        self.former.clear();
        Ok(())
    }

    /// Reads the kernel's routes, if that is due.
    pub(super) async fn read(&mut self, settings: &RouteSettings) -> Result<(), RouteError> {
        let pause = if self.stale { READ_PAUSE } else { READ_INTERVAL };
        if self.there.as_ref().is_some_and(|(_, at)| at.elapsed() < pause) && self.losses.is_some() {
            return Ok(());
        }
        self.stale = false;
        // Listening comes before asking, so that nothing falls between the two.
        if self.losses.is_none() {
            self.losses = Some(losses(settings.protocol)?);
        }
        let routes = match self.routes.take() {
            Some(routes) => routes,
            None => Routes::new()?,
        };
        let protocols = self.former.iter().copied().chain([settings.protocol]).collect();
        let there = routes.list(&protocols).await?;
        self.there = Some((there, Instant::now()));
        self.routes = Some(routes);
        Ok(())
    }

    /// Makes the routes those for `vips`, each by itself: one that can't be changed keeps no other. Returns what went wrong.
    pub(super) async fn make(
        &mut self,
        settings: &RouteSettings,
        there: &BTreeSet<OwnRoute>,
        vips: &BTreeSet<IpAddr>,
    ) -> Option<String> {
        let steps = match device(settings.device.as_deref()) {
            Ok(device) => steps(there, &vips.iter().map(|vip| route(*vip, settings, device)).collect()),
            Err(error) => {
                // What is announced stays as it is, and what should not be goes all the same.
                let without = vips.iter().filter(|vip| !there.iter().any(|route| route.prefix == **vip));
                self.refused = without.map(|vip| (*vip, (error.clone(), None))).collect();
                let unwanted = there.iter().filter(|route| !vips.contains(&route.prefix));
                unwanted.copied().map(Step::Remove).collect()
            }
        };
        self.refused
            .retain(|vip, (_, again)| vips.contains(vip) && again.is_none_or(|again| Instant::now() < again));
        let Some(routes) = &self.routes else { return None };
        let Some((known, _)) = &mut self.there else { return None };
        let mut trouble = None;
        for step in steps {
            match step {
                Step::Remove(route) => match routes.remove(route).await {
                    Ok(()) => {
                        known.remove(&route);
                        self.rival.note(route, Instant::now());
                    }
                    Err(error) => trouble = Some(error.to_string()),
                },
                Step::Add(route) if self.refused.contains_key(&route.prefix) => {}
                Step::Add(route) => match routes.add(route).await {
                    Ok(()) => drop(known.insert(route)),
                    Err(error) => {
                        self.refused.insert(route.prefix, (error, Some(Instant::now() + RETRY)));
                    }
                },
            }
        }
        if trouble.is_none() && known.iter().all(|route| route.protocol == settings.protocol) {
            self.former.clear();
        }
        trouble.or_else(|| self.rival.told(Instant::now()))
    }
}

/// Whatever happens to routes and links: a list may be long where a host has all of the Internet's.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// Losses are told; this is for those that are not.
const READ_INTERVAL: Duration = Duration::from_secs(60);
/// Before a route that was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

//! What everybody is told of announcing.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use super::Announcer;
use crate::{
    announce::{Reason, Report, VipReport, decide::Standing, routes::RouteError},
    config::RouteSettings,
};

impl Announcer {
    pub(super) fn report(
        &self,
        settings: &RouteSettings,
        standings: BTreeMap<IpAddr, Standing>,
        trouble: Option<String>,
    ) {
        let before = self.board.report();
        let known = self.there.as_ref().map(|(there, _)| there);
        // However it is made: a routing daemon may export it.
        let is_there = |vip| known.is_some_and(|known| known.iter().any(|route| route.prefix == vip));
        let refused = |vip: &IpAddr| self.refused.get(vip).map(|(error, _)| error);
        let vip = |(vip, standing): (IpAddr, Standing)| {
            let kept = match &standing {
                Standing::Kept(why) => Some(why.clone()),
                Standing::Announced | Standing::Not(..) => None,
            };
            let (reason, detail) = match standing {
                Standing::Not(reason, detail) => (Some(reason), detail),
                Standing::Announced | Standing::Kept(_) => match refused(&vip) {
                    Some(RouteError::Exists) => (
                        Some(Reason::ForeignRoute),
                        format!(
                            "somebody else has a route for it in table {} with metric {}, which is left alone",
                            settings.table, settings.metric
                        ),
                    ),
                    Some(error) => (Some(Reason::RouteRefused), error.to_string()),
                    None => (None, String::new()),
                },
            };
            let was = before.as_ref().and_then(|report| report.vips.get(&vip));
            let announced = is_there(vip);
            let since = was.filter(|was| was.announced == announced).map(|was| was.since);
            (vip, VipReport { announced, reason, detail, kept, since: since.unwrap_or_else(Instant::now) })
        };
        let vips = match (&trouble, &before) {
            // Of what can't be read the last that was known is said.
            (Some(_), Some(before)) if standings.is_empty() => before.vips.clone(),
            _ => standings.into_iter().map(vip).collect(),
        };
        self.board.set(Some(Report { routes: settings.clone(), vips, trouble }));
    }
}

//! Metrics of what backends are looked up in. A label is a source of the configuration, never an address.

use super::text::Page;
use crate::{
    control::{ServiceView, Snapshot, SourceView},
    discovery::{DiscoveryStats, SourceStatus},
};

pub(super) fn render(page: &mut Page, snapshot: &Snapshot, stats: &DiscoveryStats) {
    let all: Vec<_> = snapshot
        .services
        .iter()
        .flat_map(|view| view.sources.iter().map(move |of| (view, of)))
        .map(|(view, of)| One {
            view,
            of,
            place: of.source.place(),
            status: stats.of(&view.service.name, &of.source),
        })
        .collect();
    let mut backends = page
        .gauge("ballast_discovery_backends", "Backends that the source found, as its last good answer says.");
    for one in &all {
        backends.sample(&one.labels(), one.of.backends.len());
    }
    let mut left_out =
        page.gauge("ballast_discovery_left_out", "Of these, those that can't be backends of the service.");
    for one in &all {
        let of_source = one.view.left_out.iter().filter(|out| out.source == one.of.source);
        left_out.sample(&one.labels(), of_source.count());
    }
    let mut age = page.gauge(
        "ballast_discovery_age_seconds",
        "Time since the source's last good answer; before the first, since the daemon began to ask.",
    );
    for (one, status) in with_status(&all) {
        age.sample(&one.labels(), status.age().as_secs_f64());
    }
    let mut failing = page.gauge(
        "ballast_discovery_failing",
        "Whether something is wrong with the latest answer, or with what it holds.",
    );
    for (one, status) in with_status(&all) {
        failing.sample(&one.labels(), u8::from(status.alarm().is_some()));
    }
    let mut failures = page.counter(
        "ballast_discovery_failures_total",
        "Questions and looks without a good answer since the daemon started.",
    );
    for (one, status) in with_status(&all) {
        failures.sample(&one.labels(), status.failures);
    }
}

struct One<'a> {
    view: &'a ServiceView,
    of: &'a SourceView,
    place: String,
    status: Option<SourceStatus>,
}

impl One<'_> {
    fn labels(&self) -> [(&'static str, &str); 3] {
        [
            ("service", self.view.service.name.as_str()),
            ("kind", self.of.source.kind()),
            ("source", &self.place),
        ]
    }
}

fn with_status<'a>(all: &'a [One<'a>]) -> impl Iterator<Item = (&'a One<'a>, &'a SourceStatus)> {
    all.iter().filter_map(|one| Some((one, one.status.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        control::LeftOut,
        domain::{DnsName, Found, Source},
        telemetry::metrics,
    };

    #[test]
    fn a_source_is_told_with_what_it_found_and_no_address_is() {
        let mut snapshot = metrics::tests::snapshot();
        let view = &mut snapshot.services[0];
        let source = Source::Dns(DnsName { host: "web.example.org".into(), port: 80 });
        let backends = view.service.backends.clone();
        view.left_out = vec![LeftOut {
            source: source.clone(),
            name: "vip".parse().expect("a name"),
            address: "192.0.2.1:80".parse().expect("an address"),
            why: String::new(),
        }];
        view.sources = vec![SourceView { source: source.clone(), backends: Found::new(backends) }];
        let page = |stats: &DiscoveryStats| {
            let mut page = Page::default();
            render(&mut page, &snapshot, stats);
            page.into_string()
        };
        let labels = "{service=\"web\",kind=\"dns\",source=\"web.example.org:80\"}";
        let stats = Arc::new(DiscoveryStats::default());
        let text = page(&stats);
        assert!(text.contains(&format!("ballast_discovery_backends{labels} 2\n")), "{text}");
        assert!(text.contains(&format!("ballast_discovery_left_out{labels} 1\n")), "{text}");
        assert!(!text.contains("ballast_discovery_failing{") && !text.contains("192.0.2.1"), "{text}");
        stats.follow([("web".parse().expect("a name"), source.clone())].into_iter());
        stats.failed(&"web".parse().expect("a name"), &source, "servfail".to_owned());
        let text = page(&stats);
        assert!(text.contains(&format!("ballast_discovery_failing{labels} 1\n")), "{text}");
        assert!(text.contains(&format!("ballast_discovery_failures_total{labels} 1\n")), "{text}");
        assert!(text.contains(&format!("ballast_discovery_age_seconds{labels} 0.")), "{text}");
    }
}

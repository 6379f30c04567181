//! Metrics of the fleet. Members are counted and not named: who is in trouble is said by each of them, and by
//! `ballast fleet status`.

use super::text::Page;
use crate::fleet::{Leave, Views, marks::Mark, permit::limit};

/// Nothing where there is no fleet.
pub(super) fn render(page: &mut Page, fleet: Option<&Views>) {
    let Some(views) = fleet else { return };
    let view = views.now();
    page.gauge(
        "ballast_fleet_connected",
        "Whether etcd can be asked: 0 while nothing can be changed from here.",
    )
    .sample(&[], u8::from(view.is_connected()));
    page.gauge("ballast_fleet_silence_seconds", "Time since etcd answered last.")
        .sample(&[], view.silence().as_secs_f64());
    page.gauge(
        "ballast_fleet_revision",
        "Revision of etcd at the last change of services, as far as it is known here.",
    )
    .sample(&[], view.book.revision());
    page.gauge("ballast_fleet_live_revision", "The same of what is live here.").sample(&[], view.live);
    page.gauge(
        "ballast_fleet_refused",
        "Whether what etcd has is refused here as a whole, and what was live before goes on.",
    )
    .sample(&[], u8::from(view.trouble.is_some()));
    page.gauge("ballast_fleet_refused_documents", "Documents in etcd that make no sense.")
        .sample(&[], view.refused(&views.rules).len());
    page.gauge("ballast_fleet_members", "Members that etcd has heard of lately.")
        .sample(&[], view.members.len());
    page.gauge(
        "ballast_fleet_unheard",
        "Whether the other members don't hear of this one: it has another's name, or etcd takes no sign of life.",
    )
    .sample(&[], u8::from(view.unheard.is_some()));
    page.gauge(
        "ballast_fleet_withdrawal_permits",
        "Members that have leave to be off the network for want of backends.",
    )
    .sample(&[], view.permits.len());
    page.gauge("ballast_fleet_withdrawal_permits_limit", "How many may have it at once.")
        .sample(&[], limit(view.announcing()));
    page.gauge("ballast_fleet_withdrawal_permit_held", "Whether this member has it.")
        .sample(&[], u8::from(views.leave() == Leave::Granted));
    let marks = view.marks();
    let mut marked = page.gauge(
        "ballast_fleet_members_marked",
        "Members that lag behind, map clients in another way than most, have another hash key, are not ready, or refuse documents.",
    );
    for word in WORDS {
        let has = |marks: &&Vec<Mark>| marks.iter().any(|mark| mark.word() == word);
        marked.sample(&[("mark", word)], marks.values().filter(has).count());
    }
}

const WORDS: [&str; 5] = ["behind", "tables", "key", "not_ready", "refuses"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::testing::name,
        fleet::{
            book::{Book, Rules},
            keys::Keys,
        },
    };

    fn page(fleet: Option<&Views>) -> String {
        let mut page = Page::default();
        render(&mut page, fleet);
        page.into_string()
    }

    #[test]
    fn a_fleet_is_told_without_names_and_none_is_not_told() {
        assert_eq!(page(None), "");
        let rules = Rules { keys: Keys::new("/ballast"), local_files: false };
        let views = Views::new(name("lb-1"), rules, Book::default());
        let text = page(Some(&views));
        for expected in [
            "ballast_fleet_connected 0",
            "ballast_fleet_members 0",
            "ballast_fleet_members_marked{mark=\"behind\"} 0",
            "ballast_fleet_members_marked{mark=\"key\"} 0",
            "ballast_fleet_refused 0",
            "ballast_fleet_unheard 0",
            "ballast_fleet_withdrawal_permits 0",
            "ballast_fleet_withdrawal_permits_limit 1",
            "ballast_fleet_withdrawal_permit_held 0",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("lb-1"), "{text}");
    }
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    config::shape::of_origin,
    domain::{
        Admin, Origin,
        testing::{name, service},
    },
};

fn rules() -> Rules {
    Rules { keys: Keys::new("/ballast"), local_files: false }
}

fn document(service_name: &str, weight: u16) -> Document {
    let service = of_origin(service(service_name, &[("a", weight), ("b", 1)]), &Origin::Fleet);
    Document { service, overrides: BTreeMap::new() }
}

fn text(service_name: &str, weight: u16) -> String {
    document(service_name, weight).write().expect("written")
}

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry { key: format!("/ballast/{key}"), value: value.as_bytes().to_vec(), revision }
}

fn put(key: &str, value: &str, revision: Revision) -> Event {
    Event::Put(entry(key, value, revision))
}

#[test]
fn a_document_is_read_as_it_was_written() {
    let mut document = document("web", 3);
    document.overrides.insert(name("a"), Override { weight: Some(9), admin: Some(Admin::Draining) });
    document.overrides.insert(name("b"), Override { weight: None, admin: Some(Admin::Disabled) });
    let text = document.write().expect("written");
    let web = name("web");
    let read = |text: &str| {
        Document::read(
            "/ballast/services/web".into(),
            text.to_owned(),
            Reading { name: &web, local_files: false },
        )
    };
    assert_eq!(read(&text), Ok(document), "{text}");
    let other = read(&text.replace("name = \"web\"", "name = \"other\"")).expect_err("another's").to_string();
    assert!(other.contains("the document of service web") && other.contains("services/web:1:8"), "{other}");
    let wrong = read(&text.replace("weight = 9", "weight = -9")).expect_err("no weight").to_string();
    assert!(wrong.contains("`weight` can't be -9"), "{wrong}");
}

#[test]
fn a_document_that_names_what_is_the_hosts_is_refused_unless_that_is_allowed() {
    let web = name("web");
    let plain = "name = \"web\"\naddress = \"203.0.113.10:80\"\n";
    for (lines, what) in [
        ("backends_file = \"/etc/web.toml\"\n", "a `backends_file`"),
        ("[health]\ntype = \"exec\"\ncommand = [\"/bin/true\"]\n", "a check of type \"exec\""),
        ("[health]\ntype = \"mysql\"\nuser = \"u\"\npassword_file = \"/etc/shadow\"\n", "a `password_file`"),
        ("[health]\ntype = \"https\"\nca_file = \"/etc/ca.pem\"\n", "a `ca_file`"),
        ("[health]\ntype = \"tls\"\nca_file = \"/etc/ca.pem\"\n", "a `ca_file`"),
    ] {
        let read = |local_files| {
            let reading = Reading { name: &web, local_files };
            Document::read("/ballast/services/web".into(), format!("{plain}{lines}"), reading)
        };
        let told = read(false).expect_err("refused").to_string();
        assert!(told.contains(what) && told.contains("local_files"), "{told}");
        assert!(read(true).is_ok(), "{lines}");
    }
}

#[test]
fn of_a_document_that_makes_no_sense_the_last_that_did_goes_on_and_the_others_go_their_way() {
    let rules = rules();
    let book =
        Book::default().listed(&[entry("fleet", HEAD, 2), entry("services/web", &text("web", 3), 3)], &rules);
    assert_eq!(book.check(&rules.keys, None), Ok(()));
    let garbage =
        [put("services/web", "name = \"web\"\naddress = 7\n", 5), put("services/dns", &text("dns", 1), 6)];
    let book = book.after(&garbage, &rules);
    assert_eq!(book.revision(), 6);
    let declared = book.declared();
    assert_eq!(declared.services[&name("web")].backends[&name("a")].weight, 3);
    assert!(declared.services.contains_key(&name("dns")));
    let [refused] = &book.refused(&rules.keys)[..] else { panic!("{:?}", book.refused(&rules.keys)) };
    assert_eq!((refused.key.as_str(), refused.revision, refused.goes_on), ("/ballast/services/web", 5, true));
    assert!(refused.why.contains("/ballast/services/web:2:11"), "{}", refused.why);
    // As after a reconnection, and mended.
    let again = book.listed(&[entry("fleet", HEAD, 2), entry("services/web", "garbage", 5)], &rules);
    assert_eq!(again.declared().services[&name("web")].backends[&name("a")].weight, 3);
    let mended = again.after(&[put("services/web", &text("web", 4), 9)], &rules);
    assert_eq!(mended.declared().services[&name("web")].backends[&name("a")].weight, 4);
    assert!(mended.refused(&rules.keys).is_empty());
}

#[test]
fn bytes_that_are_no_text_and_names_that_are_none_are_refused_with_their_key() {
    let rules = rules();
    let mut bytes = entry("services/web", "", 5);
    bytes.value = vec![b'a', 0xff];
    let book = Book::default().listed(&[bytes, entry("services/Web_1", &text("web", 1), 6)], &rules);
    let whys: Vec<_> = book.refused(&rules.keys).into_iter().map(|refused| refused.why).collect();
    assert!(whys[0].contains("/ballast/services/Web_1: not the name of a service"), "{whys:?}");
    assert!(whys[1].contains("/ballast/services/web: byte 1"), "{whys:?}");
    assert!(book.declared().services.is_empty());
}

#[test]
fn an_etcd_without_the_head_is_no_fleet_and_neither_is_a_later_versions() {
    let rules = rules();
    let book = Book::default().listed(&[entry("services/web", &text("web", 1), 6)], &rules);
    assert!(book.check(&rules.keys, None).expect_err("no head").contains("/ballast/fleet"));
    let book = Book::default().listed(&[entry("fleet", "version = 2\nid = \"a\"", 6)], &rules);
    let told = book.check(&rules.keys, None).expect_err("another version");
    assert!(told.contains("version 2") && told.contains("upgrade"), "{told}");
    let book = Book::default().listed(&[entry("fleet", HEAD, 6)], &rules);
    assert_eq!(book.check(&rules.keys, Some("a")), Ok(()));
    let told = book.check(&rules.keys, Some("b")).expect_err("another fleet");
    assert!(told.contains("another fleet's (a)") && told.contains("fleet.toml"), "{told}");
}

#[test]
fn a_revision_that_an_etcd_gives_again_is_another_document() {
    let rules = rules();
    let before = Book::default().listed(&[entry("services/web", &text("web", 3), 5)], &rules);
    let restored = before.listed(&[entry("services/web", &text("web", 4), 5)], &rules);
    assert_eq!(restored.declared().services[&name("web")].backends[&name("a")].weight, 4);
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u16),
    Garbage(usize),
    Delete(usize),
    Head,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 1..5u16).prop_map(|(at, weight)| Step::Put(at, weight)),
        1 => (0..3usize).prop_map(Step::Garbage),
        1 => (0..3usize).prop_map(Step::Delete),
        1 => Just(Step::Head),
    ]
}

const HEAD: &str = "version = 1\nid = \"a\"\n";
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What etcd has after these steps, and the changes that lead there.
fn played(steps: &[Step]) -> (Vec<Entry>, Vec<Event>) {
    let mut store: BTreeMap<String, Entry> = BTreeMap::new();
    let mut events = Vec::new();
    for (step, revision) in steps.iter().zip(1..) {
        let (key, value) = match step {
            Step::Put(at, weight) => (format!("services/{}", NAMES[*at]), Some(text(NAMES[*at], *weight))),
            Step::Garbage(at) => (format!("services/{}", NAMES[*at]), Some("[".to_owned())),
            Step::Delete(at) => (format!("services/{}", NAMES[*at]), None),
            Step::Head => ("fleet".to_owned(), Some(HEAD.to_owned())),
        };
        match value {
            Some(value) => {
                let entry = entry(&key, &value, revision);
                store.insert(key, entry.clone());
                events.push(Event::Put(entry));
            }
            None => {
                store.remove(&key);
                events.push(Event::Deleted { key: format!("/ballast/{key}") });
            }
        }
    }
    (store.into_values().collect(), events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever was cut off anywhere and looks at everything again has what he would have who saw every change; as far as
    /// documents make sense, for of those that make none each has what he saw last.
    #[test]
    fn a_look_at_everything_is_as_good_as_every_change(
        steps in proptest::collection::vec(step(), 0..24),
        cut in 0..24usize,
    ) {
        let rules = rules();
        let (_, events) = played(&steps);
        let (entries, _) = played(&steps);
        let watched = Book::default().after(&events, &rules);
        let cut = cut.min(events.len());
        let listed = Book::default().after(&events[..cut], &rules).listed(&entries, &rules);
        prop_assert_eq!(watched.revision(), listed.revision());
        prop_assert_eq!(watched.refused(&rules.keys).len(), listed.refused(&rules.keys).len());
        let broken: Vec<_> = watched.refused(&rules.keys).into_iter().map(|refused| refused.key).collect();
        for known in NAMES.iter().filter(|known| !broken.contains(&format!("/ballast/services/{known}"))) {
            prop_assert_eq!(watched.page(known), listed.page(known));
        }
        // A look changes nothing that was known.
        prop_assert_eq!(&watched.listed(&entries, &rules), &watched);
    }

    /// What a member keeps on its disk is what it had live.
    #[test]
    fn a_book_made_of_what_was_good_declares_the_same(steps in proptest::collection::vec(step(), 0..24)) {
        let rules = rules();
        let (_, events) = played(&steps);
        let book = Book::default().after(&events, &rules);
        let pages = book.good().map(|(name, good)| (name.to_owned(), good.clone()));
        let kept = Book::of(book.head_revision(), "a", pages.collect::<Vec<_>>());
        prop_assert_eq!(kept.declared(), book.declared());
    }
}

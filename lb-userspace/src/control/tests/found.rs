//! Backends that were found: who owns them, what they may not be, and what survives.

use std::{collections::BTreeMap, path::PathBuf};

use super::*;
use crate::{
    control::{Applied, FoundBackends, LeftOut},
    domain::{Admin, Backend, DnsBackends, DnsName, Found, Name, Override, Source, name_of},
};

fn host() -> DnsName {
    DnsName { host: "web.example.org".into(), port: 80 }
}

fn dns() -> Source {
    Source::Dns(host())
}

fn path() -> Arc<PathBuf> {
    Arc::new(PathBuf::from("/run/web.toml"))
}

/// "web" with a declared backend a, a file and a name whose backends have weight 5.
fn web() -> Service {
    let mut web = service("web", &[("a", 1)]);
    web.discovery.file = Some(path());
    web.discovery.names = vec![DnsBackends { name: host(), weight: 5, backup: false }];
    web
}

fn backend(name: Name, address: &str, origin: Origin) -> (Name, Backend) {
    let address = address.parse().unwrap();
    (name.clone(), Backend { name, address, weight: 1, backup: false, admin: Admin::Active, origin })
}

/// An answer of the DNS.
fn addresses(all: &[&str]) -> FoundBackends {
    let of = |address: &&str| backend(name_of(address.parse().unwrap()), address, Origin::Dns(host()));
    let backends = Found::new(all.iter().map(of).collect());
    FoundBackends { service: name("web"), source: dns(), backends }
}

async fn unhealthy(control: &Handle, backends: &[(&str, &str)]) {
    let reports =
        backends.iter().map(|(backend, address)| report(backend, address, Health::Unhealthy)).collect();
    control.submit(Command::Health(reports)).await.unwrap();
}

/// What the file holds.
fn file(all: &[(&str, &str)]) -> FoundBackends {
    let origin = Origin::Watched { path: path(), line: 3 };
    let of = |&(backend_, address): &(&str, &str)| backend(name(backend_), address, origin.clone());
    let backends = Found::new(all.iter().map(of).collect());
    FoundBackends { service: name("web"), source: Source::File(path()), backends }
}

async fn find(control: &Handle, answers: Vec<FoundBackends>) -> Result<Applied, Rejected> {
    control.submit(Command::Found { answers, ways: Vec::new() }).await
}

async fn edit(control: &Handle, edit: Edit) -> Result<Applied, Rejected> {
    control.submit(Command::Edit { edit, ways: Vec::new() }).await
}

fn set_admin(backend: &str, admin: Admin) -> Edit {
    Edit::SetAdmin { service: name("web"), backend: name(backend), admin }
}

/// Name, weight and administrator's state of every backend.
fn seen(control: &Handle) -> Vec<(String, u16, &'static str)> {
    let snapshot = control.snapshot();
    let all = snapshot.services.iter().flat_map(|view| view.service.backends.values());
    all.map(|backend| (backend.name.to_string(), backend.weight, backend.admin.as_str())).collect()
}

fn names(control: &Handle) -> Vec<String> {
    seen(control).into_iter().map(|(name, ..)| name).collect()
}

fn left_out(control: &Handle) -> BTreeMap<String, String> {
    let snapshot = control.snapshot();
    let all = snapshot.services[0].left_out.iter();
    all.map(|LeftOut { name, why, .. }| (name.to_string(), why.clone())).collect()
}

#[tokio::test]
async fn the_first_table_waits_for_sources_that_have_not_said_whom_they_have() {
    let control = control();
    control.submit(declare(vec![web()])).await.unwrap();
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    find(&control, vec![file(&[("f", "10.0.0.8:80")])]).await.unwrap();
    healthy(&control, &[("f", "10.0.0.8:80")]).await;
    assert!(shares(&control) == [0.0, 0.0] && control.snapshot().services[0].gathers);
    find(&control, vec![addresses(&["10.0.0.7:80"])]).await.unwrap();
    healthy(&control, &[("10.0.0.7-80", "10.0.0.7:80")]).await;
    assert!(shares(&control).iter().all(|share| *share > 0.1) && !control.snapshot().services[0].gathers);
}

#[tokio::test]
async fn what_is_found_joins_what_is_declared_and_gets_traffic_after_its_first_passed_check() {
    let control = control();
    let declared = control.submit(declare(vec![web()])).await.unwrap();
    assert_eq!(declared.warnings.len(), 2, "{:?}", declared.warnings);
    let applied =
        find(&control, vec![addresses(&["10.0.0.7:80"]), file(&[("f", "10.0.0.8:80")])]).await.unwrap();
    let changes: Vec<_> = applied.changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["add backend web/10.0.0.7-80", "add backend web/f"]);
    assert_eq!((applied.revision, applied.warnings.len()), (declared.revision + 1, 0));
    assert_eq!(
        seen(&control),
        [("10.0.0.7-80".into(), 5, "active"), ("a".into(), 1, "active"), ("f".into(), 1, "active")]
    );
    assert_eq!(shares(&control), [0.0, 0.0, 0.0]);
    unhealthy(&control, &[("a", "10.0.0.1:80"), ("f", "10.0.0.8:80")]).await;
    healthy(&control, &[("10.0.0.7-80", "10.0.0.7:80")]).await;
    assert_eq!(shares(&control), [1.0, 0.0, 0.0]);
    // The same again is nothing new, and neither is what nobody asked for.
    let other = FoundBackends {
        source: Source::File(Arc::new("/run/x.toml".into())),
        ..file(&[("x", "10.0.0.9:80")])
    };
    let nobody = FoundBackends { service: name("api"), ..addresses(&["10.0.0.9:80"]) };
    let revision = control.snapshot().revision;
    let again =
        find(&control, vec![addresses(&["10.0.0.7:80"]), other, nobody, addresses(&[])]).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (revision, 0));
    // A reload that changes the name's weight changes its backends'.
    let mut heavier = web();
    heavier.discovery.names[0].weight = 9;
    control.submit(declare(vec![heavier])).await.unwrap();
    assert_eq!(seen(&control)[0], ("10.0.0.7-80".into(), 9, "active"));
}

#[tokio::test]
async fn an_address_that_is_gone_leaves_as_a_backend_gone_from_the_file_does_and_comes_back() {
    let control = control();
    let mut web = web();
    web.tracking = crate::domain::Tracking::Always;
    control.submit(declare(vec![web])).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.7:80", "10.0.0.8:80"])]).await.unwrap();
    let both = [("10.0.0.7-80", "10.0.0.7:80"), ("10.0.0.8-80", "10.0.0.8:80")];
    healthy(&control, &both).await;
    let index = |control: &Handle| control.snapshot().services[0].backends[1].index;
    let before = index(&control);
    find(&control, vec![addresses(&["10.0.0.7:80"])]).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "a"]);
    let leaving = &control.snapshot().services[0].leaving;
    assert_eq!(leaving.iter().map(|backend| backend.index).collect::<Vec<_>>(), [before], "{leaving:?}");
    find(&control, vec![addresses(&["10.0.0.8:80", "10.0.0.7:80"])]).await.unwrap();
    assert_eq!(index(&control), before, "it is the same backend again");
}

#[tokio::test]
async fn overrides_hold_as_long_as_the_backend_is_found_and_removal_is_refused_naming_the_source() {
    let control = control();
    control.submit(declare(vec![web()])).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.7:80"]), file(&[("f", "10.0.0.8:80")])]).await.unwrap();
    edit(&control, set_admin("10.0.0.7-80", Admin::Disabled)).await.unwrap();
    let weigh = Edit::SetWeight { service: name("web"), backend: name("f"), weight: 7 };
    edit(&control, weigh).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.9:80", "10.0.0.7:80"])]).await.unwrap();
    assert_eq!(seen(&control)[0], ("10.0.0.7-80".into(), 5, "disabled"));
    assert_eq!(seen(&control)[3], ("f".into(), 7, "active"));
    for (backend, source) in [("10.0.0.7-80", "dns web.example.org:80"), ("f", "/run/web.toml:3")] {
        let remove = Edit::RemoveBackend { service: name("web"), backend: name(backend) };
        let refused = edit(&control, remove).await.expect_err("it is not ours");
        assert!(
            matches!(&refused, Rejected::Owned { .. }) && refused.to_string().contains(source),
            "{refused}"
        );
        edit(&control, Edit::Reset { service: name("web"), backend: name(backend) }).await.unwrap();
    }
    assert_eq!((seen(&control)[0].2, seen(&control)[3].1), ("active", 1));
    // One that is gone takes what was set over it along.
    edit(&control, set_admin("10.0.0.7-80", Admin::Disabled)).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.9:80"])]).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.9:80", "10.0.0.7:80"])]).await.unwrap();
    assert_eq!(seen(&control)[0].2, "active");
}

#[tokio::test]
async fn nobody_adds_a_backend_where_one_was_found() {
    let control = control();
    control.submit(declare(vec![web()])).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.7:80"])]).await.unwrap();
    let made = |backend_: &str, address: &str| backend(name(backend_), address, Origin::Cli).1;
    for backend in ["10.0.0.7-80", "other"] {
        let backend = made(backend, "10.0.0.7:80");
        let refused = edit(&control, Edit::AddBackend { service: name("web"), backend })
            .await
            .expect_err("there is one");
        assert!(matches!(&refused, Rejected::Exists { .. }), "{refused}");
        assert!(refused.to_string().contains("dns web.example.org:80"), "{refused}");
    }
    let backend = made("other", "10.0.0.8:80");
    edit(&control, Edit::AddBackend { service: name("web"), backend }).await.unwrap();
    // Who was there first stays.
    find(&control, vec![addresses(&["10.0.0.7:80", "10.0.0.8:80"])]).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "a", "other"]);
    assert!(left_out(&control)["10.0.0.8-80"].contains("already is a backend there: other"));
}

#[tokio::test]
async fn what_can_not_be_a_backend_is_left_out_and_told_and_the_others_are_not() {
    let control = control();
    let mut dsr = Service { forwarding: Forwarding::L2Dsr, ..web() };
    dsr.backends.get_mut("a").unwrap().address = "10.0.0.1:80".parse().unwrap();
    control.submit(declare(vec![dsr.clone()])).await.unwrap();
    let found = file(&[
        ("a", "10.0.0.2:80"),
        ("same-place", "10.0.0.1:80"),
        ("vip", "203.0.113.10:80"),
        ("family", "[2001:db8::1]:80"),
        ("port", "10.0.0.3:81"),
        ("gateway", "10.0.0.5:80"),
        ("good", "10.0.0.6:80"),
    ]);
    let answers = vec![found, addresses(&["10.0.0.6:80", "10.0.0.7:80"])];
    let ways = vec![way("10.0.0.5", Some("10.0.0.254"))];
    let applied = control.submit(Command::Found { answers, ways }).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "a", "good"]);
    let left_out = left_out(&control);
    for (name, why) in [
        ("a", "already is a backend a at 10.0.0.1:80 (test.toml:1)"),
        ("same-place", "already is a backend there: a"),
        ("vip", "203.0.113.10 is the VIP of service web"),
        ("family", "the backend's address is IPv6, the service's is IPv4"),
        ("port", "the backend's port is 81, the service's is 80"),
        ("gateway", "behind the gateway 10.0.0.254"),
        ("10.0.0.6-80", "already is a backend there: good"),
    ] {
        assert!(left_out[name].contains(why), "{name}: {}", left_out[name]);
    }
    assert_eq!((left_out.len(), applied.warnings.len()), (7, 7), "{:?}", applied.warnings);
    // Told once, and nothing that can be administered.
    assert_eq!(
        find(&control, vec![addresses(&["10.0.0.7:80"])]).await.unwrap().warnings,
        Vec::<String>::new()
    );
    let refused = edit(&control, set_admin("vip", Admin::Disabled)).await.expect_err("it is not there");
    assert!(matches!(refused, Rejected::Missing { .. }), "{refused}");
    // A service may be added or declared on the address of one that was found: that one makes room.
    let mut made = Service { origin: Origin::Cli, ..service("made", &[("x", 1)]) };
    made.vip.address = "10.0.0.6".parse().unwrap();
    let added = edit(&control, Edit::AddService(made.into())).await.unwrap();
    assert_eq!(names(&control), ["x", "10.0.0.7-80", "a"]);
    assert_eq!(
        added.warnings,
        [
            "backend good of service web at 10.0.0.6:80 (file /run/web.toml) is left out: 10.0.0.6 is the VIP of service made"
        ]
    );
    edit(&control, Edit::RemoveService(name("made"))).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "a", "good"]);
    let mut other = Service { name: name("other"), ..service("other", &[("x", 1)]) };
    other.vip.address = "10.0.0.6".parse().unwrap();
    control.submit(declare(vec![dsr, other])).await.unwrap();
    assert_eq!(names(&control), ["x", "10.0.0.7-80", "a"]);
}

#[tokio::test]
async fn one_whose_way_leads_through_a_gateway_later_stays_and_a_start_leaves_it_out_until_it_does_not() {
    let store = MemoryStore::default();
    let control = control_with(Fake::new(LIMITS), &store);
    control.submit(declare(vec![Service { forwarding: Forwarding::L2Dsr, ..web() }])).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.7:80", "10.0.0.8:80"])]).await.unwrap();
    let hops =
        |gateway: Option<&str>| Command::NextHops(vec![way("10.0.0.7", gateway), way("10.0.0.1", None)]);
    control.submit(hops(None)).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "10.0.0.8-80", "a"]);
    edit(&control, set_admin("10.0.0.7-80", Admin::Draining)).await.unwrap();
    // As when a link goes down, and there is a default route by another.
    control.submit(hops(Some("10.0.0.254"))).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "10.0.0.8-80", "a"]);
    // Nothing else is refused for it.
    find(&control, vec![addresses(&["10.0.0.7:80", "10.0.0.8:80", "10.0.0.9:80"])]).await.unwrap();
    edit(&control, set_admin("a", Admin::Draining)).await.unwrap();
    control.submit(declare(vec![Service { forwarding: Forwarding::L2Dsr, ..web() }])).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "10.0.0.8-80", "10.0.0.9-80", "a"]);

    // One that starts then does not know it, and knows what was set over it when it comes back.
    let control = control_with(Fake::new(LIMITS), &store);
    let Command::Declare { services, nat, disruptive, .. } =
        declare(vec![Service { forwarding: Forwarding::L2Dsr, ..web() }])
    else {
        panic!("a declaration")
    };
    let ways = vec![way("10.0.0.7", Some("10.0.0.254"))];
    control.submit(Command::Declare { services, nat, ways, disruptive }).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.8-80", "10.0.0.9-80", "a"]);
    control.submit(hops(None)).await.unwrap();
    assert!(seen(&control).contains(&("10.0.0.7-80".into(), 5, "draining")), "{:?}", seen(&control));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_refused_and_what_was_found_before_stays() {
    let store = MemoryStore::default();
    let control = control_with(Fake::new(LIMITS), &store);
    control.submit(declare(vec![web()])).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.7:80"])]).await.unwrap();
    let before = (control.snapshot().revision, seen(&control), store.kept());
    let many: Vec<_> = (1..20).map(|number| format!("10.0.1.{number}:80")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let refused = find(&control, vec![addresses(&many)]).await.expect_err("too many");
    assert!(matches!(refused, Rejected::Limit { limit: "limits.backends", .. }), "{refused}");
    store.set_full(true);
    let refused = find(&control, vec![addresses(&["10.0.0.8:80"])]).await.expect_err("it can't be kept");
    assert!(matches!(refused, Rejected::Store(_)), "{refused}");
    assert_eq!((control.snapshot().revision, seen(&control), store.kept()), before);
}

#[tokio::test]
async fn a_start_goes_on_with_what_was_found_last_and_changes_no_slot() {
    let (fake, store) = (Fake::new(LIMITS), MemoryStore::default());
    let control = control_with(fake.clone(), &store);
    control.submit(declare(vec![web()])).await.unwrap();
    find(&control, vec![addresses(&["10.0.0.7:80", "10.0.0.8:80"])]).await.unwrap();
    healthy(&control, &[("10.0.0.7-80", "10.0.0.7:80"), ("10.0.0.8-80", "10.0.0.8:80")]).await;
    edit(&control, set_admin("10.0.0.8-80", Admin::Draining)).await.unwrap();
    let told = |control: &Handle| {
        let snapshot = control.snapshot();
        (seen(control), shares(control), snapshot.services[0].fingerprint, snapshot.revision)
    };
    let before = told(&control);
    drop(control);
    let control = control_with(fake, &store);
    let declared = control.submit(declare(vec![web()])).await.unwrap();
    assert_eq!(declared.warnings.len(), 1, "of the file nothing is known: {:?}", declared.warnings);
    assert_eq!(told(&control), before);
    let over = Override { admin: Some(Admin::Draining), weight: None };
    assert_eq!(store.kept().over(&name("web"), &name("10.0.0.8-80")), over);
    // Without the source nothing that it found stays, and nothing is kept of it.
    let mut without = web();
    without.discovery.names.clear();
    control.submit(declare(vec![without])).await.unwrap();
    assert_eq!((names(&control), store.kept()), (vec!["a".to_owned()], crate::domain::Kept::default()));
}

/// What is observed at the same time is made live together; what has to be kept of it is.
#[tokio::test]
async fn what_is_found_is_kept_whatever_else_is_observed_at_that_moment() {
    let store = MemoryStore::default();
    let control = control_with(Fake::new(LIMITS), &store);
    control.submit(declare(vec![web()])).await.unwrap();
    // The first opens the interval in which the next two wait for each other.
    healthy(&control, &[("a", "10.0.0.1:80")]).await;
    let down = vec![report("a", "10.0.0.1:80", Health::Unhealthy)];
    let (found, observed) = tokio::join!(
        find(&control, vec![addresses(&["10.0.0.7:80"])]),
        control.submit(Command::Health(down))
    );
    assert!(found.is_ok() && observed.is_ok());
    assert!(store.kept().found(&name("web"), &dns()).is_some(), "it is not kept");

    // And what is refused holds nothing else up.
    let many: Vec<_> = (1..20).map(|number| format!("10.0.1.{number}:80")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let up = || control.submit(Command::Health(vec![report("a", "10.0.0.1:80", Health::Healthy)]));
    let (refused, observed) = tokio::join!(find(&control, vec![addresses(&many)]), up());
    assert!(matches!(refused, Err(Rejected::Limit { .. })), "{refused:?}");
    assert!(observed.is_ok());
    edit(&control, set_admin("a", Admin::Draining)).await.unwrap();
    assert_eq!(names(&control), ["10.0.0.7-80", "a"]);
}

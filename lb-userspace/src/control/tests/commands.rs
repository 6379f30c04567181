//! What the API may change, who owns what, and what survives.

use std::collections::BTreeMap;

use lb_common::abi::STATE_EXISTING_FLOWS;

use super::*;
use crate::{
    control::{Applied, Edit},
    domain::{Admin, Backend, Kept, OnAllDown, Origin, Override},
};

fn backend(name_: &str, address: &str, weight: u16) -> Backend {
    let address = address.parse().unwrap();
    Backend { name: name(name_), address, weight, backup: false, admin: Admin::Active, origin: Origin::Cli }
}

/// As `ballast service add` makes it, at 203.0.113.20:80.
fn made(service_: &str) -> Service {
    let mut made = service(service_, &[]);
    made.vip.address = "203.0.113.20".parse().unwrap();
    Service { origin: Origin::Cli, ..made }
}

fn add(backend_: &str, address: &str) -> Edit {
    Edit::AddBackend { service: name("web"), backend: backend(backend_, address, 1) }
}

fn remove(service: &str, backend: &str) -> Edit {
    Edit::RemoveBackend { service: name(service), backend: name(backend) }
}

fn set_admin(backend: &str, admin: Admin) -> Edit {
    Edit::SetAdmin { service: name("web"), backend: name(backend), admin }
}

fn set_weight(backend: &str, weight: u16) -> Edit {
    Edit::SetWeight { service: name("web"), backend: name(backend), weight }
}

fn reset(backend: &str) -> Edit {
    Edit::Reset { service: name("web"), backend: name(backend) }
}

async fn edit(control: &Handle, edit: Edit) -> Result<Applied, Rejected> {
    control.submit(Command::Edit { edit, ways: Vec::new() }).await
}

/// Over a declared service "web" with backends a and b, both healthy.
struct World {
    fake: Fake,
    store: MemoryStore,
    control: Handle,
}

impl World {
    async fn new() -> Self {
        Self::over(Fake::new(LIMITS), MemoryStore::default()).await
    }

    /// A daemon that starts, on what another left.
    async fn over(fake: Fake, store: MemoryStore) -> Self {
        let control = control_with(fake.clone(), &store);
        let world = Self { fake, store, control };
        world.declare(web()).await.unwrap();
        healthy(&world.control, &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]).await;
        world
    }

    async fn restarted(self) -> Self {
        drop(self.control);
        Self::over(self.fake, self.store).await
    }

    async fn declare(&self, service: Service) -> Result<Applied, Rejected> {
        self.control.submit(declare(vec![service])).await
    }

    async fn edit(&self, asked: Edit) -> Result<Applied, Rejected> {
        edit(&self.control, asked).await
    }

    async fn refused(&self, asked: Edit) -> Rejected {
        let before = (self.control.snapshot().revision, self.store.kept(), self.seen());
        self.fake.clear_log();
        let refused = self.edit(asked).await.expect_err("refused");
        assert_eq!((self.control.snapshot().revision, self.store.kept(), self.seen()), before);
        assert_eq!(self.fake.operations(), []);
        refused
    }

    /// Every backend with its weight, administrator's state and overrides.
    fn seen(&self) -> BTreeMap<String, (u16, &'static str, Vec<&'static str>)> {
        let snapshot = self.control.snapshot();
        let all = snapshot.services.iter().flat_map(|view| {
            view.backends.iter().map(|backend| {
                let spec = &view.service.backends[&backend.name];
                let key = format!("{}/{}", view.service.name, backend.name);
                (key, (spec.weight, spec.admin.as_str(), backend.overrides.clone()))
            })
        });
        all.collect()
    }

    fn share(&self, backend: &str) -> f64 {
        let snapshot = self.control.snapshot();
        let mut all = snapshot.services.iter().flat_map(|view| &view.backends);
        all.find(|view| view.name.as_str() == backend).map(|view| view.share).unwrap()
    }
}

fn web() -> Service {
    service("web", &[("a", 1), ("b", 1)])
}

#[tokio::test]
async fn each_change_is_one_revision_and_the_same_again_is_none() {
    let world = World::new().await;
    let mut revision = world.control.snapshot().revision;
    for asked in [
        set_admin("a", Admin::Draining),
        set_admin("a", Admin::Disabled),
        set_admin("a", Admin::Active),
        set_weight("b", 7),
        reset("b"),
        add("c", "10.0.0.3:80"),
        // It has no verdict, so no map shows its weight.
        set_weight("c", 9),
        Edit::AddService(made("own").into()),
    ] {
        let applied = world.edit(asked.clone()).await.unwrap();
        revision += 1;
        assert_eq!((applied.revision, applied.changes.is_empty()), (revision, false), "{asked:?}");
        // Of a removed one there is nothing to say the same about; the rest is idempotent.
        if asked != add("c", "10.0.0.3:80") {
            let again = world.edit(asked.clone()).await.unwrap();
            assert_eq!((again.revision, again.changes.len()), (revision, 0), "{asked:?}");
        }
    }
    for asked in [remove("web", "c"), Edit::RemoveService(name("own"))] {
        revision += 1;
        assert_eq!(world.edit(asked.clone()).await.unwrap().revision, revision);
        assert!(matches!(world.refused(asked).await, Rejected::Missing { .. }));
    }
    assert_eq!(world.store.kept(), Kept::default());
}

#[tokio::test]
async fn adding_the_same_backend_again_changes_nothing_and_another_under_its_name_is_refused() {
    let world = World::new().await;
    let first = world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    let again = world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (first.revision, 0));
    assert!(matches!(world.refused(add("c", "10.0.0.4:80")).await, Rejected::Exists { .. }));
}

#[tokio::test]
async fn declared_objects_are_not_removed_or_rebuilt_and_the_refusal_names_file_and_line() {
    let world = World::new().await;
    let seen = (*world.control.snapshot().services[0].service).clone();
    let to = Service { on_all_down: OnAllDown::Drop, ..seen.clone() };
    for asked in [
        remove("web", "a"),
        Edit::RemoveService(name("web")),
        Edit::SetService { seen: seen.into(), to: to.into() },
    ] {
        let refused = world.refused(asked).await;
        assert!(matches!(refused, Rejected::Owned { .. }), "{refused}");
        assert!(refused.to_string().contains("test.toml:1"), "{refused}");
    }
    let refused = world.refused(add("a", "10.0.0.9:80")).await;
    assert!(matches!(&refused, Rejected::Exists { .. }) && refused.to_string().contains("test.toml:1"));
    let refused = world.refused(Edit::AddService(Service { name: name("web"), ..made("x") }.into())).await;
    assert!(matches!(&refused, Rejected::Exists { .. }) && refused.to_string().contains("test.toml:1"));
}

#[tokio::test]
async fn what_clashes_with_what_there_is_is_refused() {
    let world = World::new().await;
    world.edit(Edit::AddService(made("own").into())).await.unwrap();
    let mut dsr = Service { forwarding: Forwarding::L2Dsr, ..made("dsr") };
    dsr.vip.address = "203.0.113.21".parse().unwrap();
    world.edit(Edit::AddService(dsr.into())).await.unwrap();
    let other_family =
        Edit::AddBackend { service: name("dsr"), backend: backend("c", "[2001:db8::1]:80", 1) };
    let mut at_backend = made("x");
    at_backend.vip.address = "10.0.0.1".parse().unwrap();
    let cases = [
        (
            Edit::AddService(Service { vip: web().vip, ..made("x") }.into()),
            "already is a tcp service on 203.0.113.10:80",
        ),
        (
            Edit::AddService(at_backend.into()),
            "10.0.0.1 is the address of backend a of service web (test.toml:1), and can't be a VIP as well",
        ),
        (add("c", "10.0.0.1:80"), "already is a backend at 10.0.0.1 in service web: a (test.toml:1)"),
        (
            add("c", "203.0.113.20:80"),
            "backend c of service web (cli): 203.0.113.20 is the VIP of service own",
        ),
        (add("c", "10.0.0.3:81"), "the backend's port is 81, the service's is 80"),
        (other_family, "the backend's address is IPv6, the service's is IPv4"),
    ];
    for (asked, message) in cases {
        let refused = world.refused(asked).await;
        assert!(matches!(refused, Rejected::Invalid { .. }), "{refused}");
        assert!(refused.to_string().contains(message), "{refused}");
    }
    for asked in [
        set_admin("z", Admin::Draining),
        set_weight("z", 1),
        reset("z"),
        remove("web", "z"),
        remove("z", "a"),
    ] {
        assert!(matches!(world.refused(asked).await, Rejected::Missing { .. }));
    }
    let large = Service {
        vip: crate::domain::Vip { port: Some(81), ..web().vip },
        table_size: crate::domain::TableSize::new(8192).unwrap(),
        ..made("large")
    };
    let many = world.refused(Edit::AddService(large.into()));
    assert!(matches!(many.await, Rejected::Limit { limit: "limits.lookup_slots", .. }));
}

#[tokio::test]
async fn overrides_survive_reload_and_restart_until_they_are_reset() {
    let world = World::new().await;
    world.edit(set_weight("a", 3)).await.unwrap();
    world.edit(set_admin("b", Admin::Draining)).await.unwrap();
    let expected = BTreeMap::from([
        ("web/a".to_owned(), (3, "active", vec!["weight"])),
        ("web/b".to_owned(), (1, "draining", vec!["admin"])),
    ]);
    assert_eq!(world.seen(), expected);
    assert_eq!((world.share("a"), world.share("b")), (1.0, 0.0));
    let reloaded = world.declare(web()).await.unwrap();
    assert!(reloaded.changes.is_empty());
    assert_eq!(world.seen(), expected);

    let drain = |world: &World| {
        let backend = &world.control.snapshot().services[0].backends[1];
        (backend.drain_deadline, backend.accepts_existing)
    };
    let (revision, deadline) = (world.control.snapshot().revision, drain(&world));
    assert!(deadline.0 > 0 && deadline.1);
    world.fake.clear_log();
    let world = world.restarted().await;
    assert_eq!(world.seen(), expected);
    assert_eq!((world.fake.slots_changed(), world.control.snapshot().revision), (0, revision));
    assert_eq!(drain(&world), deadline);

    world.edit(reset("a")).await.unwrap();
    world.edit(reset("b")).await.unwrap();
    assert_eq!(world.seen()["web/a"], (1, "active", vec![]));
    assert_eq!((world.share("b"), world.store.kept()), (0.5, Kept::default()));
}

#[tokio::test]
async fn a_weight_that_the_file_says_is_no_override() {
    let world = World::new().await;
    world.edit(set_weight("a", 3)).await.unwrap();
    world.edit(set_weight("a", 1)).await.unwrap();
    assert_eq!(world.store.kept(), Kept::default());
}

#[tokio::test]
async fn what_was_made_here_survives_reload_and_restart() {
    let world = World::new().await;
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    world.edit(Edit::AddService(made("own").into())).await.unwrap();
    let inside = Edit::AddBackend { service: name("own"), backend: backend("x", "10.0.1.1:80", 5) };
    world.edit(inside).await.unwrap();
    let kept = world.store.kept();
    let seen = world.seen();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["own/x", "web/a", "web/b", "web/c"]);
    world.declare(web()).await.unwrap();
    assert_eq!((world.seen(), world.store.kept()), (seen.clone(), kept.clone()));
    let world = world.restarted().await;
    assert_eq!((world.seen(), world.store.kept()), (seen, kept));
    let origin = world.control.snapshot().services[0].service.origin.clone();
    assert_eq!(origin, Origin::Cli);
}

#[tokio::test]
async fn what_hangs_on_a_declared_object_goes_with_it() {
    let world = World::new().await;
    world.edit(set_weight("a", 3)).await.unwrap();
    world.edit(set_weight("b", 3)).await.unwrap();
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    world.declare(service("web", &[("a", 1)])).await.unwrap();
    let over = Override { weight: Some(3), admin: None };
    assert_eq!(
        world.store.kept().overrides,
        BTreeMap::from([(name("web"), BTreeMap::from([(name("a"), over)]))])
    );
    world.control.submit(declare(Vec::new())).await.unwrap();
    assert_eq!(world.store.kept(), Kept::default());
    world.declare(web()).await.unwrap();
    assert_eq!(world.seen()["web/a"], (1, "active", vec![]));
}

#[tokio::test]
async fn a_reload_tells_what_it_makes_the_daemon_forget() {
    let world = World::new().await;
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    world.edit(set_weight("b", 7)).await.unwrap();
    world.edit(set_admin("b", Admin::Draining)).await.unwrap();
    let expected = [
        "remove service web",
        "remove backend web/a",
        "remove backend web/b",
        "remove backend web/c",
        "remove overrides of web/b: weight, admin",
    ];
    let told = |applied: Applied| applied.changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(world.control.plan(declare(vec![])).await.unwrap()), expected);
    assert_eq!(told(world.control.submit(declare(vec![])).await.unwrap()), expected);
}

#[tokio::test]
async fn a_file_whose_vip_is_an_added_backend_is_refused_at_that_vip() {
    let world = World::new().await;
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    let mut other = service("other", &[]);
    other.vip.address = "10.0.0.3".parse().unwrap();
    let refused = world.control.submit(declare(vec![web(), other])).await.unwrap_err();
    assert!(matches!(&refused, Rejected::Invalid { field, .. } if field == "service.other"), "{refused:?}");
}

#[tokio::test]
async fn a_service_with_the_same_settings_again_is_no_change_whatever_backends_were_added() {
    let world = World::new().await;
    let again = || Edit::AddService(Box::new(made("own")));
    world.edit(again()).await.unwrap();
    let service = name("own");
    world.edit(Edit::AddBackend { service, backend: backend("x", "10.0.1.1:80", 1) }).await.unwrap();
    assert_eq!(world.edit(again()).await.unwrap().changes, []);
}

#[tokio::test]
async fn a_file_that_declares_another_under_a_name_made_here_is_refused() {
    let world = World::new().await;
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    world.edit(Edit::AddService(made("own").into())).await.unwrap();
    let before = (world.seen(), world.store.kept());
    let mut with_c = service("web", &[("a", 1), ("b", 1), ("c", 1)]);
    with_c.backends.get_mut("c").unwrap().address = "10.0.0.4:80".parse().unwrap();
    let mut same_address = service("web", &[("a", 1), ("b", 1), ("d", 1)]);
    same_address.backends.get_mut("d").unwrap().address = "10.0.0.3:80".parse().unwrap();
    let declared = |service: Service| Service { origin: web().origin, ..service };
    let cases = [
        (vec![with_c], "service.web.backend.c.address", "`ballast backend remove web c` first"),
        (vec![same_address], "service.web.backend.d.address", "already is a backend at 10.0.0.3"),
        (
            vec![
                web(),
                declared(Service { vip: crate::domain::Vip { port: Some(9), ..web().vip }, ..made("own") }),
            ],
            "service.own",
            "`ballast service remove own` first",
        ),
        (
            vec![web(), declared(made("new"))],
            "service.new",
            "already is a tcp service on 203.0.113.20:80: own (cli)",
        ),
    ];
    for (services, field, message) in cases {
        let refused = world.control.submit(declare(services)).await.unwrap_err();
        assert!(matches!(&refused, Rejected::Invalid { field: at, .. } if at == field), "{refused:?}");
        assert!(refused.to_string().contains(message), "{refused}");
        assert_eq!((world.seen(), world.store.kept()), before);
    }
}

#[tokio::test]
async fn a_file_that_declares_what_was_made_here_takes_it_over_with_its_flows() {
    let world = World::new().await;
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    healthy(&world.control, &[("c", "10.0.0.3:80")]).await;
    world.edit(set_admin("c", Admin::Draining)).await.unwrap();
    let index = world.control.snapshot().services[0].backends[2].index;
    world.declare(service("web", &[("a", 1), ("b", 1), ("c", 1)])).await.unwrap();
    let snapshot = world.control.snapshot();
    assert_eq!(snapshot.services[0].backends[2].index, index);
    assert!(matches!(snapshot.services[0].service.backends["c"].origin, Origin::File { .. }));
    // It goes on draining, as what was set over it.
    assert_eq!(world.seen()["web/c"], (1, "draining", vec!["admin"]));
    assert!(world.store.kept().backends.is_empty());

    world.edit(Edit::AddService(made("own").into())).await.unwrap();
    let declared = Service { origin: web().origin, ..made("own") };
    world.control.submit(declare(vec![web(), declared])).await.unwrap();
    assert!(world.store.kept().services.is_empty());
    assert!(matches!(world.refused(Edit::RemoveService(name("own"))).await, Rejected::Owned { .. }));
}

#[tokio::test]
async fn settings_of_a_service_made_here_change_and_keep_its_backends() {
    let world = World::new().await;
    world.edit(Edit::AddService(made("own").into())).await.unwrap();
    let inside = Edit::AddBackend { service: name("own"), backend: backend("x", "10.0.1.1:80", 5) };
    world.edit(inside).await.unwrap();
    let to = Service { on_all_down: OnAllDown::Drop, ..made("own") };
    let changed =
        world.edit(Edit::SetService { seen: made("own").into(), to: to.clone().into() }).await.unwrap();
    assert_eq!(changed.changes[0].detail, "on_all_down fail-open -> drop");
    assert_eq!(world.seen()["own/x"], (5, "active", vec![]));
    // Whoever saw it before that is too late.
    let late = Edit::SetService { seen: made("own").into(), to: made("own").into() };
    assert!(matches!(world.refused(late).await, Rejected::Outdated { .. }));
    let moved = Service { vip: web().vip, ..to.clone() };
    let refused = world.refused(Edit::SetService { seen: to.clone().into(), to: moved.into() }).await;
    assert!(refused.to_string().contains("the address of a service can't change"), "{refused}");
    let other = Service { algorithm: crate::domain::Algorithm::FlowHash, ..to.clone() };
    let translating = Service { forwarding: Forwarding::Nat, ..to.clone() };
    let refused = world.refused(Edit::SetService { seen: to.clone().into(), to: translating.into() }).await;
    assert!(refused.to_string().contains("can't change to or from dnat and nat"), "{refused}");
    let refused = world.refused(Edit::SetService { seen: to.into(), to: other.into() }).await;
    assert!(matches!(&refused, Rejected::Invalid { field, .. } if field == "algorithm"), "{refused:?}");
    assert!(refused.to_string().contains("remove service own and add another"), "{refused}");
}

#[tokio::test]
async fn a_change_that_can_not_be_kept_is_refused() {
    let world = World::new().await;
    world.store.set_full(true);
    for asked in [
        set_weight("a", 3),
        set_admin("a", Admin::Draining),
        add("c", "10.0.0.3:80"),
        Edit::AddService(made("own").into()),
    ] {
        let refused = world.refused(asked).await;
        assert!(matches!(&refused, Rejected::Store(_)), "{refused}");
        assert!(refused.to_string().contains("No space left"), "{refused}");
    }
    // What needs no keeping goes on.
    world.declare(service("web", &[("a", 2), ("b", 1)])).await.unwrap();
    world.store.set_full(false);
    world.edit(set_weight("a", 3)).await.unwrap();
}

#[tokio::test]
async fn a_change_that_can_not_be_published_is_not_kept() {
    let asked = || add("c", "10.0.0.3:80");
    let prepare = async |fails_at| {
        let faulty = Faulty::new(Fake::new(LIMITS), fails_at);
        let calls = faulty.calls();
        let store = MemoryStore::default();
        let control = control_with(faulty, &store);
        control.submit(declare(vec![web()])).await.unwrap();
        (control, store, calls)
    };
    let count = |calls: &Arc<AtomicUsize>| calls.load(Ordering::Relaxed);
    let (control, _, calls) = prepare(usize::MAX).await;
    let before = count(&calls);
    edit(&control, asked()).await.unwrap();
    let after = count(&calls);
    drop(control);
    assert!(after > before);
    let mut refusals = 0;
    for fails_at in before..after {
        let (control, store, _) = prepare(fails_at).await;
        let outcome = edit(&control, asked()).await;
        let there = control.snapshot().services[0].backends.len() == 3;
        assert_eq!((outcome.is_ok(), !store.kept().backends.is_empty()), (there, there), "call {fails_at}");
        refusals += u32::from(outcome.is_err());
        // And the next one goes well.
        edit(&control, asked()).await.unwrap();
        assert_eq!((control.snapshot().services[0].backends.len(), store.kept().backends.len()), (3, 1));
    }
    assert!(refusals > 0);
}

#[tokio::test]
async fn a_file_that_leaves_an_added_backend_no_place_is_refused_at_the_service() {
    let world = World::new().await;
    world.edit(add("c", "10.0.0.3:80")).await.unwrap();
    let mut moved = service("web", &[]);
    moved.vip.port = Some(81);
    let refused = world.declare(moved).await.unwrap_err();
    assert!(matches!(&refused, Rejected::Invalid { field, .. } if field == "service.web"), "{refused:?}");
    assert!(
        refused.to_string().contains("backend c of service web (cli): the backend's port is 80"),
        "{refused}"
    );
}

#[tokio::test]
async fn taking_the_last_backend_out_is_warned_of_once() {
    let world = World::new().await;
    assert!(world.edit(set_admin("a", Admin::Draining)).await.unwrap().warnings.is_empty());
    let last = world.edit(set_admin("b", Admin::Draining)).await.unwrap();
    assert_eq!(last.warnings.len(), 1, "{last:?}");
    assert!(last.warnings[0].contains("service web has no backend left"), "{last:?}");
    assert!(world.edit(set_admin("b", Admin::Disabled)).await.unwrap().warnings.is_empty());
}

#[tokio::test]
async fn too_many_backends_for_the_table_are_warned_of_whoever_brings_them() {
    let fake = Fake::new(Limits { backends: 64, ..LIMITS });
    let control = control_with(fake, &MemoryStore::default());
    let names: Vec<_> = (1..=10).map(|n| format!("b{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let small = |backends| Service {
        table_size: crate::domain::TableSize::new(1024).unwrap(),
        ..service("web", backends)
    };
    assert_eq!(control.submit(declare(vec![small(&all)])).await.unwrap().warnings, [""; 0]);
    let warnings = edit(&control, add("c", "10.0.1.1:80")).await.unwrap().warnings;
    assert!(
        warnings[0].starts_with("11 backends of service web share a table of 1024 slots"),
        "{warnings:?}"
    );
    // Nothing that another change brings about, but of every reload.
    assert_eq!(edit(&control, set_weight("c", 7)).await.unwrap().warnings, [""; 0]);
    assert_eq!(control.plan(declare(vec![small(&all)])).await.unwrap().warnings, warnings);
    assert_eq!(control.submit(declare(vec![small(&all)])).await.unwrap().warnings, warnings);
}

#[tokio::test]
async fn a_drain_ends_by_itself_and_not_before_its_time() {
    let world = World::new().await;
    let quick = Service { drain_timeout: std::time::Duration::from_secs(1), ..web() };
    world.declare(quick).await.unwrap();
    let begun = std::time::Instant::now();
    let revision = world.edit(set_admin("a", Admin::Draining)).await.unwrap().revision;
    let index = world.control.snapshot().services[0].backends[0].index;
    let takes_existing = || world.fake.backend(index).state & STATE_EXISTING_FLOWS != 0;
    assert!(takes_existing());
    let mut snapshots = world.control.watch();
    let over = snapshots.wait_for(|snapshot| !snapshot.services[0].backends[0].accepts_existing);
    tokio::time::timeout(std::time::Duration::from_secs(5), over).await.expect("it never ended").unwrap();
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1) && !takes_existing());
    assert_eq!(world.control.snapshot().revision, revision + 1);
}

#[tokio::test]
async fn a_plan_keeps_nothing() {
    let world = World::new().await;
    let asked = Command::Edit { edit: set_weight("a", 3), ways: Vec::new() };
    let planned = world.control.plan(asked).await.unwrap();
    assert_eq!(planned.changes.len(), 1);
    assert_eq!((world.store.kept(), world.seen()["web/a"].0), (Kept::default(), 1));
}

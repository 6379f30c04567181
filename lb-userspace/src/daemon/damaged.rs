//! The daemon's own files, truncated and with bits turned over: whatever they hold, a start says what is wrong with which, and
//! what the configuration declares is forwarded as it was.

use std::{fs, path::Path, sync::Arc};

use fastrand::Rng;

use super::last::LastApplied;
use crate::{
    config::{self, applied},
    control::{
        self, Command,
        store::{FileStore, Loaded, Store as _},
    },
    dataplane::{Dataplane as _, Fake, Limits, loader::load_or_create_key, reconcile::Reconciler},
    domain::{
        Admin, Kept, NatPool, Origin, Override, Service,
        testing::{name, service},
    },
    telemetry::PublishStats,
};

const LIMITS: Limits = Limits {
    services: 4,
    backends: 16,
    lookup_slots: 8192,
    flow_entries: 1024,
    nat_flows: 1024,
    source_prefixes: 1024,
};

/// The file cut off somewhere, or with 1 to 8 bits turned over, never as it was.
fn damaged(whole: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if rng.bool() {
        bytes.truncate(rng.usize(..whole.len()));
        return bytes;
    }
    while bytes == whole {
        for _ in 0..rng.usize(1..=8) {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
        }
    }
    bytes
}

/// What was kept last, and before that.
fn kept() -> (Kept, Kept) {
    let mut own = on_port(82, service("own", &[("x", 2)]));
    own.origin = Origin::Cli;
    own.backends.values_mut().for_each(|backend| backend.origin = Origin::Cli);
    let mut kept = Kept::default();
    kept.set_over(&name("api"), &name("a"), Override { weight: Some(3), admin: Some(Admin::Draining) });
    let before = kept.clone();
    kept.services.insert(name("own"), own);
    (kept, before)
}

/// `state.toml` and the one before, of [`kept`].
fn written(directory: &Path) -> [(std::path::PathBuf, Vec<u8>); 2] {
    let (last, before) = kept();
    let mut store = FileStore::new(directory);
    store.save(&before).expect("saved");
    store.save(&last).expect("saved");
    ["state.toml", "state.toml.old"].map(|file| {
        let path = directory.join(file);
        let bytes = fs::read(&path).expect("it was saved");
        (path, bytes)
    })
}

#[test]
fn a_state_file_is_what_it_was_or_what_it_was_before_or_nothing_and_that_is_told() {
    let mut rng = Rng::with_seed(1);
    let directory = tempfile::tempdir().expect("a directory");
    let [(state, whole), (old, whole_old)] = written(directory.path());
    let (last, before) = kept();
    let mut outcomes = [0; 3];
    for round in 0..5_000 {
        let is_damaged = [round % 5 != 4, round % 5 >= 3];
        fs::write(&state, if is_damaged[0] { damaged(&whole, &mut rng) } else { whole.clone() })
            .expect("written");
        fs::write(&old, if is_damaged[1] { damaged(&whole_old, &mut rng) } else { whole_old.clone() })
            .expect("written");
        let Loaded { kept, error } =
            FileStore::new(directory.path()).load().expect("the directory is all right");
        let outcome = [&last, &before, &Kept::default()].iter().position(|known| **known == kept);
        let outcome = outcome.unwrap_or_else(|| panic!("nobody kept {kept:?}"));
        outcomes[outcome] += 1;
        match error {
            None => assert_eq!(outcome, 0, "nothing is said of a loss"),
            Some(error) => {
                assert!(is_damaged[0] && outcome != 0);
                assert!(error.contains(state.to_str().expect("a path")) && error.contains(".bad"), "{error}");
                // Where in the file, where it is a text.
                let place = format!("{}:", state.display());
                assert!(error.contains(&place) || error.contains("UTF-8"), "{error}");
            }
        }
        for entry in fs::read_dir(directory.path()).expect("the directory").flatten() {
            if entry.file_name().to_string_lossy().contains(".bad") {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 50), "{outcomes:?}");
}

#[test]
fn a_copy_of_the_configuration_is_what_it_was_or_none() {
    let mut rng = Rng::with_seed(2);
    let directory = tempfile::tempdir().expect("a directory");
    let main = directory.path().join("config.toml");
    let text =
        "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n";
    let files = vec![(main.clone(), text.to_owned())];
    let last = LastApplied::new(&directory.path().join("state"));
    last.save(&files).expect("saved");
    let whole = fs::read(last.path()).expect("it was saved");
    let wanted = config::parse(files.clone()).expect("it is right").services;
    let mut refused = 0;
    for _ in 0..3_000 {
        let bytes = damaged(&whole, &mut rng);
        fs::write(last.path(), &bytes).expect("written");
        match last.load(&main) {
            Some(config) => assert_eq!(config.services, wanted),
            None => {
                refused += 1;
                // What its log line tells.
                match applied::read(&String::from_utf8_lossy(&bytes)) {
                    Ok(read) => assert_ne!(read, files),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
    assert!(refused > 2_000, "{refused}");
}

#[test]
fn a_hash_key_is_what_it_was_or_refused_or_not_that_of_the_live_tables() {
    let mut rng = Rng::with_seed(3);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("flow-hash.key");
    let key = load_or_create_key(&path).expect("a new key");
    let whole = fs::read(&path).expect("it was made");
    let mut outcomes = [0; 3];
    for _ in 0..2_000 {
        fs::write(&path, damaged(&whole, &mut rng)).expect("written");
        outcomes[match load_or_create_key(&path) {
            Ok(read) if read == key => 0,
            // By this a start over tables of the other key knows it.
            Ok(other) => {
                assert_ne!(other.fingerprint(), key.fingerprint());
                1
            }
            Err(error) => {
                assert!(error.to_string().contains(path.to_str().expect("a path")), "{error}");
                2
            }
        }] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 5), "{outcomes:?}");
}

#[tokio::test]
async fn what_is_declared_is_forwarded_as_before_whatever_the_state_files_hold() {
    let mut rng = Rng::with_seed(4);
    let directory = tempfile::tempdir().expect("a directory");
    let api = || on_port(81, service("api", &[("a", 1), ("b", 1)]));
    let declared = || vec![service("web", &[("a", 1), ("b", 2)]), api()];
    let fake = Fake::new(LIMITS);
    let files = written(directory.path());
    let before = started(directory.path(), &fake, declared()).await;
    for _ in 0..100 {
        for (path, whole) in &files {
            let bytes = if rng.bool() { damaged(whole, &mut rng) } else { whole.clone() };
            fs::write(path, bytes).expect("written");
        }
        assert_eq!(started(directory.path(), &fake, declared()).await, before);
    }
}

/// The service on another port than others.
fn on_port(port: u16, mut service: Service) -> Service {
    service.vip.port = Some(port);
    service.backends.values_mut().for_each(|backend| backend.address.set_port(port));
    service
}

/// What the slots of "web" hold after a start with the files in this directory.
async fn started(directory: &Path, fake: &Fake, mut services: Vec<Service>) -> Vec<u32> {
    // Unchecked backends are healthy at once.
    services.iter_mut().for_each(|service| service.health.probe = crate::domain::Probe::None);
    let reconciler = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
    let mut store = FileStore::new(directory);
    let loaded = store.load().expect("the directory is all right");
    let control = control::start(reconciler, Arc::new(PublishStats::new()), Box::new(store), loaded);
    let command = Command::Declare { services, nat: NatPool::default(), ways: Vec::new(), disruptive: false };
    control.submit(command).await.expect("it fits");
    let id = control
        .snapshot()
        .services
        .iter()
        .find(|view| view.service.name.as_str() == "web")
        .expect("it is there")
        .id;
    let records = fake.service_records().expect("the fake");
    let (_, record) = records.into_iter().find(|(number, _)| *number == id).expect("it is there");
    let slots = record.slots_base..record.slots_base + (1 << record.slots_log2);
    slots.map(|slot| fake.slot(slot).current()).collect()
}

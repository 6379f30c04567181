//! Source prefixes and the addresses of NAT: what packets meet at any moment of a change.

use lb_common::abi::{ENTRY_ADMISSION, ENTRY_OCCUPIED, SOURCE_ALLOW, SOURCE_DENY};

use super::*;
use crate::{
    dataplane::sources::SourcePrefix,
    domain::{Admission, NatPool, Prefix},
};

fn limited(allow: &[&str], deny: &[&str], new_flow_rate: u32) -> Desired {
    let prefixes = |texts: &[&str]| {
        let parsed = texts.iter().map(|text| text.parse::<Prefix>().expect("a prefix"));
        parsed.collect::<std::collections::BTreeSet<_>>()
    };
    let admission = Admission { allow: prefixes(allow), deny: prefixes(deny), new_flow_rate };
    serving(2, |service| {
        service.spec = Arc::new(Service { admission: admission.clone(), ..Service::clone(&service.spec) });
    })
}

fn mapped(address: &str) -> [u8; 16] {
    encode::mapped(address.parse().expect("an address"))
}

/// What the live service says of a client.
fn verdict(fake: &Fake, client: &str) -> Option<u32> {
    let entry = fake.service_entry(&key(&serving(1, |_| ()).services[0]))?;
    fake.source_verdict(entry.source_list, mapped(client))
}

fn lists(fake: &Fake) -> HashSet<u32> {
    fake.sources().expect("the fake").into_iter().map(|(list, ..)| list).collect()
}

#[test]
fn a_service_says_whom_it_lets_in_and_how_fast() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let service = key(&serving(1, |_| ()).services[0]);
    let entry = || fake.service_entry(&service).expect("it is live");
    reconciler.apply(&limited(&[], &[], 0), at(1)).expect("it fits");
    assert_eq!((entry().flags, entry().source_list, entry().new_flow_limit), (ENTRY_OCCUPIED, 0, 0));
    reconciler.apply(&limited(&[], &[], 70), at(2)).expect("it fits");
    assert_eq!((entry().flags, entry().source_list), (ENTRY_OCCUPIED | ENTRY_ADMISSION, 0));
    assert_eq!(entry().new_flow_limit, 70);
    reconciler.apply(&limited(&["10.0.0.0/8"], &["10.1.0.0/16"], 0), at(3)).expect("it fits");
    assert_eq!((entry().flags, entry().new_flow_limit), (ENTRY_OCCUPIED | ENTRY_ADMISSION, 0));
    let clients = ["10.2.0.1", "10.1.0.1", "192.0.2.1"].map(|client| verdict(&fake, client));
    assert_eq!(clients, [Some(SOURCE_ALLOW), Some(SOURCE_DENY), Some(SOURCE_DENY)]);
    assert_eq!(fake.service_records().expect("the fake")[0].1.source_list, entry().source_list);
    reconciler.apply(&limited(&[], &[], 0), at(4)).expect("it fits");
    assert_eq!((entry().flags, lists(&fake).len()), (ENTRY_OCCUPIED, 0));
}

#[test]
fn another_list_is_there_before_the_service_table_names_it_and_the_old_one_goes_after_that() {
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&limited(&[], &["10.0.0.0/8"], 0), at(1)).expect("it fits");
    fake.clear_log();
    reconciler.apply(&limited(&[], &["10.0.0.0/9"], 0), at(2)).expect("it fits");
    let operations = fake.operations();
    let place = |wanted: fn(&Operation) -> bool| operations.iter().position(wanted).expect("it was made");
    let written = place(|operation| matches!(operation, Operation::WriteSource(2, ..)));
    let live = place(|operation| matches!(operation, Operation::PublishServices(..)));
    let removed = place(|operation| matches!(operation, Operation::RemoveSource(1, ..)));
    assert!(written < live && live < removed, "{operations:?}");
    assert_eq!(lists(&fake), HashSet::from([2]));
}

#[test]
fn a_client_that_both_lists_deny_is_denied_at_every_moment_and_no_list_is_left_over() {
    let (before, after) =
        (limited(&[], &["10.0.0.0/8", "192.0.2.0/24"], 0), limited(&["10.1.0.0/16"], &[], 0));
    for fails_at in 0.. {
        let fake = Fake::new(LIMITS);
        let mut first = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
        first.apply(&before, at(1)).expect("it fits");
        let faulty = Faulty::new(fake.clone(), fails_at);
        let calls = faulty.calls();
        if let Ok(mut killed) = Reconciler::restore(Box::new(faulty)) {
            let _ = killed.apply(&after, at(2));
        }
        assert_eq!(verdict(&fake, "192.0.2.1"), Some(SOURCE_DENY), "killed at call {fails_at}");
        let mut mended = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
        assert_eq!(verdict(&fake, "192.0.2.1"), Some(SOURCE_DENY), "killed at call {fails_at}");
        mended.apply(&after, at(3)).expect("it fits");
        assert_eq!(verdict(&fake, "10.1.0.1"), Some(SOURCE_ALLOW));
        assert_eq!(verdict(&fake, "192.0.2.1"), Some(SOURCE_DENY));
        assert_eq!(lists(&fake).len(), 1, "killed at call {fails_at}");
        // Some failures, such as that of a way out that is gone, stop nobody.
        if calls.load(std::sync::atomic::Ordering::Relaxed) <= fails_at {
            break;
        }
    }
}

#[test]
fn what_a_change_that_was_cut_short_left_takes_no_room_from_the_next_one() {
    let three = |first: u8| {
        let prefixes: Vec<_> = (first..first + 3).map(|network| format!("{network}.0.0.0/8")).collect();
        limited(&[], &prefixes.iter().map(String::as_str).collect::<Vec<_>>(), 0)
    };
    // Room for two lists and no third.
    let mut fake = Fake::new(Limits { source_prefixes: 6, ..LIMITS });
    Reconciler::restore(Box::new(fake.clone())).expect("empty").apply(&three(10), at(1)).expect("it fits");
    let mut record = fake.service_records().expect("the fake")[0].1;
    let live = record.source_list;
    // As after a kill before the service table was published: the list is there, and the record names it.
    for network in [20, 21, 22] {
        let prefix = SourcePrefix { address: mapped(&format!("{network}.0.0.0")), length: 104 };
        fake.write_source(live + 1, prefix, SOURCE_DENY).expect("in range");
    }
    record.source_list = live + 1;
    fake.write_service_record(0, &record).expect("in range");
    fake.clear_log();
    let mut next = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
    assert_eq!(lists(&fake), HashSet::from([live]), "what packets are asked by stays, and nothing else");
    assert_eq!(fake.operations().first(), Some(&Operation::Quiesce));
    next.apply(&three(30), at(2)).expect("there is room");
    assert_eq!(verdict(&fake, "31.0.0.1"), Some(SOURCE_DENY));
    assert_eq!(lists(&fake).len(), 1);
}

#[test]
fn a_restart_keeps_the_list() {
    let fake = Fake::new(LIMITS);
    let desired = limited(&["10.0.0.0/8"], &[], 0);
    Reconciler::restore(Box::new(fake.clone())).expect("empty").apply(&desired, at(1)).expect("it fits");
    fake.clear_log();
    let mut next = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
    assert!(!next.apply(&desired, at(2)).expect("it fits").changed);
    let wrote =
        |operation: &Operation| matches!(operation, Operation::WriteSource(..) | Operation::RemoveSource(..));
    assert!(!fake.operations().iter().any(wrote));
}

#[test]
fn more_prefixes_than_there_is_room_for_are_refused_by_the_limits_name() {
    let fake = Fake::new(Limits { source_prefixes: 3, ..LIMITS });
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    let four = ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8", "13.0.0.0/8"];
    let refused = reconciler.apply(&limited(&[], &four, 0), at(1)).expect_err("no room");
    assert!(refused.to_string().contains("`[limits] source_prefixes` is 3"), "{refused}");
    assert!(lists(&fake).is_empty());
    reconciler.apply(&limited(&[], &four[..3], 0), at(2)).expect("it fits");
}

#[test]
fn nats_addresses_are_live_before_the_services_that_use_them_and_survive_a_restart() {
    let pool = |first_port| NatPool { first_port, ..NatPool::default() };
    let desired = |first_port| Desired { nat: pool(first_port), ..serving(1, |_| ()) };
    let fake = Fake::new(LIMITS);
    let mut reconciler = Reconciler::restore(Box::new(fake.clone())).expect("an empty fake");
    reconciler.apply(&desired(2000), at(1)).expect("it fits");
    let operations = fake.operations();
    let place = |wanted: fn(&Operation) -> bool| operations.iter().position(wanted).expect("it was made");
    let pool_at = place(|operation| matches!(operation, Operation::PublishNatPool(_)));
    assert!(pool_at < place(|operation| matches!(operation, Operation::PublishServices(..))));
    assert_eq!(fake.nat_pool().expect("the fake"), encode::nat_pool(&pool(2000)));
    fake.clear_log();
    let mut next = Reconciler::restore(Box::new(fake.clone())).expect("the fake");
    assert!(!next.apply(&desired(2000), at(2)).expect("it fits").changed);
    assert!(!fake.operations().iter().any(|operation| matches!(operation, Operation::PublishNatPool(_))));
    assert!(next.apply(&desired(3000), at(3)).expect("it fits").changed);
    assert_eq!(fake.nat_pool().expect("the fake").first_port, 3000);
}

use std::net::Ipv4Addr;

use super::{super::lookup::Asked, *};
use crate::{
    control::LeftOut,
    domain::{
        Discovery, DnsBackends,
        policy::ServiceState,
        testing::{name, service},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const HOST: &str = "web.example.org";

fn source(port: u16) -> Source {
    Source::Dns(DnsName { host: HOST.into(), port })
}

/// A service with these sources, of which the control task knows nothing.
fn view(service_name: &str, sources: &[Source]) -> ServiceView {
    let mut of = service(service_name, &[]);
    of.discovery = Discovery::default();
    for source in sources {
        match source {
            Source::File(path) => of.discovery.file = Some(Arc::clone(path)),
            Source::Dns(name) => {
                of.discovery.names.push(DnsBackends { name: name.clone(), weight: 1, backup: false });
            }
        }
    }
    let sources =
        sources.iter().map(|source| SourceView { source: source.clone(), backends: Found::default() });
    ServiceView {
        service: Arc::new(of),
        id: 0,
        state: ServiceState::Healthy,
        gathers: false,
        fingerprint: 0,
        backends: Vec::new(),
        leaving: Vec::new(),
        sources: sources.collect(),
        left_out: Vec::<LeftOut>::new(),
    }
}

fn agenda(views: &[ServiceView]) -> (Agenda, Arc<DiscoveryStats>) {
    let stats = Arc::new(DiscoveryStats::default());
    let mut agenda = Agenda::new(DiscoveryConfig::default(), Arc::clone(&stats));
    agenda.follow(Duration::ZERO, views);
    (agenda, stats)
}

fn answer(numbers: &[u8]) -> Round {
    let addresses = numbers.iter().map(|number| Ipv4Addr::new(10, 0, 0, *number).into()).collect();
    [Some(Asked::Addresses { addresses, ttl: 30 * SECOND }), None]
}

fn failure() -> Round {
    [Some(Asked::Failed("servfail".to_owned())), None]
}

/// As the control task would have it after the news.
fn accept(views: &mut [ServiceView], news: &[FoundBackends]) {
    for of in news {
        let view = views.iter_mut().find(|view| view.service.name == of.service).expect("the service");
        let known = view.sources.iter_mut().find(|known| known.source == of.source).expect("the source");
        known.backends = Arc::clone(&of.backends);
    }
}

fn names(found: &FoundBackends) -> Vec<&str> {
    found.backends.keys().map(Name::as_str).collect()
}

#[test]
fn one_question_serves_every_service_that_has_the_name() {
    let mut views = [view("web", &[source(80)]), view("api", &[source(8080)])];
    let (mut agenda, _) = agenda(&views);
    let job = agenda.start(Duration::ZERO).expect("it is due");
    // An ipip service may have backends of both families.
    assert_eq!(job, Job::Ask { host: HOST.into(), families: [true, true] });
    assert_eq!(agenda.start(SECOND), None);
    assert_eq!(agenda.news(), []);
    agenda.asked(SECOND, HOST, answer(&[2, 1]), &HashSet::new());
    let news = agenda.news();
    assert_eq!(names(&news[0]), ["10.0.0.1-80", "10.0.0.2-80"]);
    assert_eq!(names(&news[1]), ["10.0.0.1-8080", "10.0.0.2-8080"]);
    accept(&mut views, &news);
    agenda.follow(2 * SECOND, &views);
    assert_eq!(agenda.news(), []);
    assert_eq!(agenda.next_due(), Some(31 * SECOND));
}

#[test]
fn only_the_families_that_a_service_can_have_are_asked_for() {
    let mut of = view("web", &[source(80)]);
    Arc::make_mut(&mut of.service).forwarding = crate::domain::Forwarding::L2Dsr;
    let (mut agenda, stats) = agenda(&[of]);
    assert_eq!(agenda.start(SECOND), Some(Job::Ask { host: HOST.into(), families: [true, false] }));
    // And what does not fit is not taken.
    let six =
        Asked::Addresses { addresses: ["2001:db8::1".parse().expect("an address")].into(), ttl: SECOND };
    agenda.asked(SECOND, HOST, [None, Some(six)], &HashSet::new());
    assert_eq!(agenda.news(), []);
    let status = stats.of(&name("web"), &source(80)).expect("there");
    assert_eq!(status.trouble.as_deref(), Some(NONE_FITS));
}

#[test]
fn what_an_earlier_daemon_found_stays_until_there_is_an_answer_and_an_address_that_is_missing_a_while_longer()
{
    let mut views = [view("web", &[source(80)])];
    let of = |numbers: &[u8]| {
        let mut first = agenda(&[view("web", &[source(80)])]).0;
        first.asked(SECOND, HOST, answer(numbers), &HashSet::new());
        first.news()
    };
    accept(&mut views, &of(&[1, 2]));
    let (mut agenda, stats) = agenda(&views);
    for second in 0..5 {
        agenda.asked(second * SECOND, HOST, failure(), &HashSet::new());
        assert_eq!(agenda.news(), []);
    }
    let status = stats.of(&name("web"), &source(80)).expect("there");
    assert_eq!((status.answered, status.failures, status.alarm()), (false, 5, Some("servfail")));
    for _ in 0..2 {
        agenda.asked(SECOND, HOST, answer(&[1]), &HashSet::new());
        assert_eq!(agenda.news(), []);
    }
    agenda.asked(SECOND, HOST, answer(&[1]), &HashSet::new());
    assert_eq!(agenda.news(), of(&[1]));
    let status = stats.of(&name("web"), &source(80)).expect("there");
    assert_eq!((status.answered, status.alarm()), (true, None));
}

#[test]
fn a_file_is_looked_at_when_something_happens_next_to_it_and_now_and_then() {
    let path = Arc::new(PathBuf::from("/run/ballast/web.toml"));
    let of = Source::File(Arc::clone(&path));
    let (mut agenda, stats) = agenda(&[view("web", std::slice::from_ref(&of))]);
    let look = |known| Some(Job::Look { path: Arc::clone(&path), known });
    assert_eq!(agenda.start(Duration::ZERO), look(None));
    agenda.looked(Duration::ZERO, &path, Looked::Unsettled);
    assert_eq!(agenda.next_due(), Some(SETTLING));
    assert_eq!(agenda.start(SETTLING), look(None));
    // Something happens while it is looked at.
    agenda.changed(SETTLING, &BTreeSet::from(["/run/ballast".into(), "/run".into()]));
    let text = |text: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, text).expect("written");
        std::fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))
            .expect("old");
        super::super::file::look(&file, None)
    };
    agenda.looked(SECOND, &path, text("[[backend]]\naddress = \"10.0.0.1:80\"\n"));
    assert_eq!(agenda.next_due(), Some(SETTLING));
    assert_eq!(names(&agenda.news()[0]), ["10.0.0.1-80"]);
    let Some(Job::Look { known: Some(_), .. }) = agenda.start(SECOND) else { panic!("it was read") };
    agenda.looked(SECOND, &path, Looked::Same);
    assert_eq!(agenda.next_due(), Some(SECOND + LOOK_INTERVAL));
    agenda.changed(SECOND, &BTreeSet::from(["/run".into()]));
    assert_eq!(agenda.next_due(), Some(SECOND + LOOK_INTERVAL));
    // Broken, and then gone: what it held stays.
    let failures = |stats: &DiscoveryStats| stats.of(&name("web"), &of).expect("there").failures;
    agenda.looked(2 * SECOND, &path, text("[[backend]]\naddress = 7\n"));
    assert_eq!((failures(&stats), names(&agenda.news()[0]).len()), (1, 1));
    let trouble = stats.of(&name("web"), &of).expect("there").trouble.expect("told");
    assert!(trouble.contains("/run/ballast/web.toml:2:11"), "{trouble}");
    for _ in 0..3 {
        agenda.looked(3 * SECOND, &path, Looked::Failed("gone".to_owned()));
    }
    assert_eq!((failures(&stats), names(&agenda.news()[0]).len()), (2, 1));
    let Some(Job::Look { known: None, .. }) = agenda.start(60 * SECOND) else {
        panic!("it is read when it is back")
    };
}

#[test]
fn a_service_that_joins_those_of_a_source_is_told_its_latest_answer() {
    let path = Arc::new(PathBuf::from("/run/ballast/web.toml"));
    let file = Source::File(Arc::clone(&path));
    let both = [file.clone(), source(80)];
    let status = |stats: &DiscoveryStats, of: &Source| {
        let status = stats.of(&name("late"), of).expect("there");
        (status.answered, status.failures, status.alarm().map(str::to_owned), status.age().as_secs())
    };
    let views = [view("web", &both), view("late", &both)];
    let (mut agenda, stats) = agenda(&views[..1]);
    agenda.start(Duration::ZERO);
    agenda.looked(SECOND, &path, Looked::Failed("gone".to_owned()));
    agenda.asked(SECOND, HOST, failure(), &HashSet::new());
    agenda.follow(5 * SECOND, &views);
    assert_eq!(status(&stats, &file), (false, 1, Some("gone".to_owned()), 0));
    assert_eq!(status(&stats, &source(80)), (false, 1, Some("servfail".to_owned()), 0));
    // Once: nothing has happened since.
    agenda.follow(6 * SECOND, &views);
    assert_eq!(status(&stats, &source(80)).1, 1);

    agenda.asked(6 * SECOND, HOST, answer(&[1]), &HashSet::new());
    agenda.follow(7 * SECOND, &views[..1]);
    agenda.follow(10 * SECOND, &views);
    assert_eq!(status(&stats, &source(80)), (true, 0, None, 4));
}

#[test]
fn addresses_of_a_family_that_a_service_is_the_first_to_want_are_asked_for_at_once() {
    let of = |service_name, vip: &str| {
        let mut of = view(service_name, &[source(80)]);
        let service = Arc::make_mut(&mut of.service);
        (service.forwarding, service.vip.address) =
            (crate::domain::Forwarding::L2Dsr, vip.parse().expect("a VIP"));
        of
    };
    let views = [of("web", "192.0.2.1"), of("six", "2001:db8::1"), of("more", "2001:db8::2")];
    let (mut agenda, stats) = agenda(&views[..1]);
    agenda.start(Duration::ZERO).expect("it is due");
    agenda.asked(SECOND, HOST, answer(&[1]), &HashSet::new());
    assert_eq!(agenda.next_due(), Some(31 * SECOND));
    agenda.follow(2 * SECOND, &views[..2]);
    let trouble = |service| stats.of(&name(service), &source(80)).expect("there").trouble;
    assert_eq!(trouble("six"), None, "nobody has asked yet");
    assert_eq!(agenda.start(2 * SECOND), Some(Job::Ask { host: HOST.into(), families: [true, true] }));
    agenda.asked(3 * SECOND, HOST, answer(&[1]), &HashSet::new());
    assert_eq!((trouble("web"), trouble("six").as_deref()), (None, Some(NONE_FITS)));
    assert_eq!(agenda.next_due(), Some(33 * SECOND));
    agenda.follow(4 * SECOND, &views);
    assert_eq!(trouble("more").as_deref(), Some(NONE_FITS));
}

#[test]
fn what_nobody_wants_is_not_looked_up_any_more() {
    let path = Source::File(Arc::new("/run/ballast/web.toml".into()));
    let (mut agenda, stats) = agenda(&[view("web", &[path.clone(), source(80)])]);
    assert_eq!(agenda.directories(), BTreeSet::from(["/run/ballast".into()]));
    agenda.start(Duration::ZERO);
    agenda.follow(SECOND, &[]);
    agenda.asked(SECOND, HOST, answer(&[1]), &HashSet::new());
    assert_eq!((agenda.next_due(), agenda.news()), (None, Vec::new()));
    assert_eq!((agenda.directories().len(), stats.of(&name("web"), &path)), (0, None));
}

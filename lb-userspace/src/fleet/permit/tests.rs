use std::time::Duration;

use super::*;
use crate::{
    domain::testing::name,
    fleet::{
        book::{Book, Rules},
        keys::Keys,
        member::Record,
        view::{Member, Views},
    },
};

/// As `lb-0` sees a fleet of so many that announce, of which these have leave; its own lease is 7.
fn view(members: usize, permits: &[(&str, i64)]) -> View {
    let rules = Rules { keys: Keys::new("/ballast"), local_files: false };
    let mut view = Views::new(name("lb-0"), rules, Book::default()).now();
    let now = Instant::now();
    view.link = Link::Connected { endpoint: "http://etcd".to_owned(), since: now };
    view.bond = Some(Bond { lease: 7, until: now + Duration::from_secs(60) });
    let mut record = Record::default();
    record.set_vips(&vips());
    let member = |number| (name(&format!("lb-{number}")), Member { record: record.clone(), revision: 1 });
    view.members = Arc::new((0..members).map(member).collect());
    let held = |(of, lease): &(&str, i64)| {
        (name(of), Held { permit: Permit { id: String::new(), lease: *lease }, revision: 3 })
    };
    view.permits = Arc::new(permits.iter().map(held).collect());
    view
}

/// Announced, or would be.
fn vips() -> BTreeSet<IpAddr> {
    BTreeSet::from(["203.0.113.10".parse().expect("an address")])
}

fn leave(view: &View) -> Leave {
    view.leave(&name("lb-0"), Instant::now())
}

fn why(view: &View) -> String {
    match leave(view) {
        Leave::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_member_in_five_may_go_and_one_where_they_are_fewer() {
    let limits = [0, 1, 3, 5, 9, 10, 14, 15, 100].map(limit);
    assert_eq!(limits, [1, 1, 1, 1, 1, 2, 2, 3, 20]);
}

#[test]
fn leave_is_a_permit_of_the_lease_that_still_lasts() {
    assert_eq!(leave(&view(3, &[("lb-0", 7)])), Leave::Granted);
    // An earlier daemon's goes with its lease, and is in nobody's way here.
    assert_eq!(leave(&view(3, &[("lb-0", 6)])), Leave::Asked);
    let mut late = view(3, &[("lb-0", 7)]);
    late.bond = Some(Bond { lease: 7, until: Instant::now() });
    assert_eq!(leave(&late), Leave::Asked);
    assert_eq!(
        why(&view(3, &[("lb-1", 5)])),
        "withdrawn for want of backends already: lb-1, and of 3 members 1 may be at once"
    );
    assert_eq!(leave(&view(10, &[("lb-1", 5)])), Leave::Asked);
    assert!(why(&view(10, &[("lb-1", 5), ("lb-2", 5)])).contains("lb-1, lb-2, and of 10 members 2"));
}

#[test]
fn the_youngest_are_back_when_fewer_may_go() {
    let mut two = view(10, &[("lb-0", 7), ("lb-1", 5)]);
    let younger = |view: &mut View, who: &str| {
        let held = Arc::make_mut(&mut view.permits);
        held.iter_mut().for_each(|(name, held)| held.revision = if name.as_str() == who { 9 } else { 3 });
    };
    for (who, eldest) in [("lb-0", false), ("lb-1", true)] {
        younger(&mut two, who);
        assert_eq!(leave(&two), Leave::Granted);
        let mut few = two.clone();
        Arc::make_mut(&mut few.members).retain(|name, _| ["lb-0", "lb-1", "lb-2"].contains(&name.as_str()));
        match eldest {
            true => assert_eq!(leave(&few), Leave::Granted),
            false => assert!(why(&few).contains("already: lb-1, and of 3 members 1"), "{}", why(&few)),
        }
    }
}

#[test]
fn who_was_refused_by_etcd_asks_again() {
    let mut refused = view(3, &[]);
    refused.unpermitted = Some("no leader".to_owned());
    assert_eq!(why(&refused), "no leader");
    let wish = Wish { permit: true, ..Wish::default() };
    assert_eq!(refused.deed(&name("lb-0"), &wish, Instant::now()), Some(Deed::Claim));
}

#[test]
fn whoever_is_cut_off_has_the_leave_that_it_had_until_etcd_may_forget_it() {
    let now = Instant::now();
    let cut_off = Link::CutOff { why: "no route".to_owned(), since: now };
    let mut had = view(3, &[("lb-0", 7)]);
    had.link = cut_off.clone();
    assert_eq!(leave(&had), Leave::Granted);
    had.bond = Some(Bond { lease: 7, until: now });
    assert!(matches!(leave(&had), Leave::Asked | Leave::Refused(_)));
    let mut has_none = view(3, &[]);
    has_none.link = cut_off;
    assert!(why(&has_none).contains("no route"), "{}", why(&has_none));
    assert_eq!(has_none.deed(&name("lb-0"), &Wish { permit: true, ..Wish::default() }, now), None);
    // At a start nobody has been asked yet.
    has_none.link = Link::CutOff { why: String::new(), since: now };
    assert_eq!(leave(&has_none), Leave::Asked);
    // Nobody counts a member that he does not hear of.
    let mut unheard = view(3, &[]);
    unheard.unheard = Some("no space".to_owned());
    assert_eq!(why(&unheard), "no space");
}

#[test]
fn the_last_one_stays() {
    let mut last = view(3, &[("lb-0", 7)]);
    let others = |view: &mut View, announces: bool| {
        let others = Arc::make_mut(&mut view.members).iter_mut().filter(|(name, _)| name.as_str() != "lb-0");
        others.for_each(|(_, other)| other.record.announces = announces);
    };
    others(&mut last, false);
    assert!(why(&last).contains("no other member"), "{}", why(&last));
    let deed = |view: &View, withdrawn| {
        view.deed(&name("lb-0"), &Wish { permit: true, withdrawn, announces: vips() }, Instant::now())
    };
    // It is back first, and gives up its place then.
    assert_eq!(deed(&last, true), None);
    assert_eq!(deed(&last, false), Some(Deed::Release));
    others(&mut last, true);
    assert_eq!(deed(&last, false), None);
    // Two of two that have leave: nobody is left.
    assert!(matches!(leave(&view(2, &[("lb-0", 7), ("lb-1", 5)])), Leave::Refused(_)));
    // Alone there is nobody to be asked about.
    assert_eq!(leave(&view(1, &[("lb-0", 7)])), Leave::Granted);
}

#[test]
fn a_place_is_kept_for_as_long_as_something_is_withdrawn() {
    let deed = |view: &View, permit, withdrawn| {
        view.deed(&name("lb-0"), &Wish { permit, withdrawn, announces: vips() }, Instant::now())
    };
    let (none, has) = (view(3, &[]), view(3, &[("lb-0", 7)]));
    assert_eq!(deed(&none, true, false), Some(Deed::Claim));
    assert_eq!(deed(&none, false, false), None);
    assert_eq!(deed(&has, true, true), None);
    assert_eq!(deed(&has, false, true), None);
    assert_eq!(deed(&has, false, false), Some(Deed::Release));
    assert_eq!(deed(&view(3, &[("lb-1", 5)]), true, false), None);
}

#[test]
fn nobody_gives_up_a_place_before_others_have_heard_what_goes_with_it() {
    let [web, api]: [IpAddr; 2] =
        ["203.0.113.10", "203.0.113.11"].map(|vip| vip.parse().expect("an address"));
    let mut has = view(2, &[("lb-0", 7)]);
    let deed = |view: &View, vips: &[IpAddr]| {
        let wish = Wish { announces: vips.iter().copied().collect(), ..Wish::default() };
        view.deed(&name("lb-0"), &wish, Instant::now())
    };
    let says = |view: &mut View, vips: &[IpAddr]| {
        let own = Arc::make_mut(&mut view.members).get_mut(&name("lb-0")).expect("it is there");
        own.record.set_vips(&vips.iter().copied().collect());
    };
    // For them it announces `web` still, and without leave it would count for it.
    says(&mut has, &[web, api]);
    assert_eq!(deed(&has, &[api]), None);
    says(&mut has, &[api]);
    assert_eq!(deed(&has, &[api]), Some(Deed::Release));
    assert_eq!(deed(&has, &[]), None);
    says(&mut has, &[]);
    assert_eq!(deed(&has, &[]), Some(Deed::Release));
    // What stands there is not its own, or can't be changed.
    says(&mut has, &[web, api]);
    has.unheard = Some("another member is called lb-0, too".to_owned());
    assert_eq!(deed(&has, &[api]), Some(Deed::Release));
    has.unheard = None;
    says(&mut has, &[]);
    // That it announces more than they know is in nobody's way; nor is what etcd has no room for.
    assert_eq!(deed(&has, &[web]), Some(Deed::Release));
    Arc::make_mut(&mut has.members).remove(&name("lb-0"));
    assert_eq!(deed(&has, &[]), Some(Deed::Release));
}

#[test]
fn of_each_vip_one_that_announces_it_has_to_be_left() {
    let [web, api] = ["203.0.113.10", "203.0.113.11"].map(|vip| vip.parse().expect("an address"));
    let says = |view: &mut View, who: &str, vips: Option<&[IpAddr]>| {
        let member = Arc::make_mut(&mut view.members).get_mut(&name(who)).expect("it is there");
        member.record.vips = vips.map(|vips| vips.iter().copied().collect());
    };
    let lone = |view: &View| [web, api].map(|vip| view.is_lone(&name("lb-0"), vip));
    let mut three = view(3, &[]);
    says(&mut three, "lb-1", Some(&[web]));
    says(&mut three, "lb-2", Some(&[web]));
    assert_eq!(lone(&three), [false, true]);
    says(&mut three, "lb-2", Some(&[api]));
    assert_eq!(lone(&three), [false, false]);
    // Whoever has leave may go.
    let held = Held { permit: Permit::default(), revision: 3 };
    Arc::make_mut(&mut three.permits).insert(name("lb-1"), held);
    assert_eq!(lone(&three), [true, false]);
    // Who does not say which announces any.
    says(&mut three, "lb-2", None);
    assert_eq!(lone(&three), [false, false]);
    Arc::make_mut(&mut three.members).get_mut(&name("lb-2")).expect("it is there").record.announces = false;
    assert_eq!(lone(&three), [true, true]);
    assert_eq!(lone(&view(1, &[])), [false, false]);
}

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pair() -> Pair {
    Pair {
        vips: [ip("203.0.113.10"), ip("2001:db8::10")].into(),
        interface: "eth0".into(),
        tracked: vec!["eth1".into()],
        own: Some(ip("192.0.2.11")),
        peer: ip("192.0.2.12"),
        router_id: 51,
        priority: 100,
        advert: Duration::from_millis(500),
        preempt_delay: None,
        ready: ["/usr/bin/ballast", "status", "--ready"].map(str::to_owned).into(),
        notify: Some("/usr/share/ballast/keepalived/notify".into()),
    }
}

#[test]
fn the_text_is_what_was_reviewed() {
    let text = pair().render().expect("fit");
    for part in [
        "vrrp_version 3\n",
        "  script \"/usr/bin/ballast status --ready\"\n",
        "  interface eth0\n  virtual_router_id 51\n  priority 100\n  advert_int 0.5\n",
        "  nopreempt\n  unicast_src_ip 192.0.2.11\n  unicast_peer {\n    192.0.2.12\n  }\n  check_unicast_src\n",
        "  track_interface {\n    eth1\n  }\n  track_script {\n    ballast_ready\n  }\n",
        "  virtual_ipaddress {\n    203.0.113.10/32 dev eth0\n  }\n",
        "  virtual_ipaddress_excluded {\n    2001:db8::10/128 dev eth0\n  }\n",
        "  notify \"/usr/share/ballast/keepalived/notify\"\n}\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(text.matches('{').count(), text.matches('}').count());
}

#[test]
fn what_is_not_asked_for_is_not_there() {
    let plain = Pair {
        vips: [ip("203.0.113.10")].into(),
        tracked: Vec::new(),
        own: None,
        notify: None,
        preempt_delay: Some(Duration::from_secs(30)),
        ..pair()
    };
    let text = plain.render().expect("fit");
    assert!(text.contains("  preempt_delay 30\n") && !text.contains("nopreempt"), "{text}");
    for absent in ["unicast_src_ip", "track_interface", "excluded", "notify \""] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn many_vips_travel_with_a_few_that_are_told() {
    let vips = (0..50).map(|last| IpAddr::from([203, 0, 113, last])).chain([ip("2001:db8::1")]);
    let many = Pair { vips: vips.collect(), ..pair() };
    let (told, others) = many.split();
    assert_eq!((told.len(), others.len()), (20, 31));
    let foreign = Pair { vips: [ip("2001:db8::1"), ip("2001:db8::2")].into(), ..pair() };
    assert_eq!(foreign.split(), (vec![ip("2001:db8::1")], vec![ip("2001:db8::2")]));
}

#[test]
fn what_makes_no_pair_is_refused() {
    let of = |change: fn(&mut Pair)| {
        let mut unfit = pair();
        change(&mut unfit);
        unfit.render().expect_err("unfit")
    };
    assert_eq!(of(|pair| pair.vips.clear()), Unfit::NoVips);
    assert_eq!(
        of(|pair| pair.peer = "203.0.113.10".parse().expect("one")),
        Unfit::HostIsVip(ip("203.0.113.10"))
    );
    assert!(matches!(of(|pair| pair.peer = "2001:db8::2".parse().expect("one")), Unfit::Families { .. }));
    // Nothing gets into the file but what it is for.
    for word in ["eth0 }", "a\"b", "x\ny", ""] {
        let unfit = Pair { interface: word.into(), ..pair() };
        assert_eq!(unfit.render(), Err(Unfit::Word(word.to_owned())));
    }
}

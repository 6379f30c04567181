use std::{collections::HashMap, time::Duration};

use lb_common::abi::{Counters, DropReason};

use super::{
    announce, captures, discovery, fleet, icmp, peers,
    stats::{HealthStats, PublishStats},
    text::Page,
    traffic::{Counted, count},
};
use crate::{
    boards::Boards,
    control::{BackendView, ServiceView, Snapshot},
    dataplane::{CounterReader, Error},
    discovery::DiscoveryStats,
    domain::{Health, policy::ServiceState},
};

/// What a scrape is made from.
pub(super) struct Sources<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) counters: &'a dyn CounterReader,
    pub(super) health: &'a HealthStats,
    pub(super) publishes: &'a PublishStats,
    pub(super) discovery: &'a DiscoveryStats,
    pub(super) boards: &'a Boards,
    pub(super) heartbeat_age: Duration,
}

/// The text of `/metrics`. Reads every counter on the way.
pub(super) fn render(sources: &Sources<'_>) -> Result<String, Error> {
    let totals = sources.counters.totals()?;
    let mut page = Page::default();
    daemon(&mut page, sources);
    packets(&mut page, &totals);
    flows(&mut page, sources.snapshot, &totals);
    let counted = count(&sources.snapshot.services, sources.counters)?;
    services(&mut page, &counted);
    backends(&mut page, &counted);
    health(&mut page, sources.snapshot, sources.health);
    discovery::render(&mut page, sources.snapshot, sources.discovery);
    captures::render(&mut page, &sources.boards.captures);
    announce::render(&mut page, &sources.boards.announce, &sources.boards.held);
    fleet::render(&mut page, sources.boards.fleet.as_ref());
    if let Some(exchange) = &sources.boards.peers {
        peers::render(&mut page, &exchange.status(crate::control::now().boot));
    }
    Ok(page.into_string())
}

fn daemon(page: &mut Page, sources: &Sources<'_>) {
    let snapshot = sources.snapshot;
    page.gauge("ballast_build_info", "Version of the running daemon; always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge("ballast_revision", "Number of the control state; grows by one with each applied change.")
        .sample(&[], snapshot.revision);
    page.gauge(
        "ballast_config_current",
        "Whether what runs is what the configuration said when it was last read: 0 while that is wrong or refused.",
    )
    .sample(&[], u8::from(snapshot.config_error.is_none()));
    let mut key = page.gauge(
        "ballast_hash_key_info",
        "Fingerprint of the hash key; always 1. Load balancers of one fleet have the same.",
    );
    if let Some(fingerprint) = snapshot.hash_key {
        key.sample(&[("fingerprint", &fingerprint.to_string())], 1);
    }
    page.gauge(
        "ballast_nat_clashes",
        "Services for whose packets replies through NAT may be taken, because the host's addresses or routes changed.",
    )
    .sample(&[], snapshot.nat_clashes.len());
    page.gauge(
        "ballast_controller_heartbeat_seconds",
        "Age of the last sign of life of the task that owns the control state.",
    )
    .sample(&[], sources.heartbeat_age.as_secs_f64());
    let durations = sources.publishes.durations();
    page.counter("ballast_publishes_total", "Changes made live since the daemon started.")
        .sample(&[], durations.count);
    page.histogram("ballast_publish_duration_seconds", "Time to make a change live in the maps.")
        .distribution(&[], &durations);
    let mut attached =
        page.gauge("ballast_interface_attached", "Whether the program is attached to the interface.");
    for interface in &snapshot.interfaces {
        let labels = [("interface", interface.name.as_str()), ("mode", interface.mode)];
        attached.sample(&labels, u8::from(interface.attached));
    }
}

fn packets(page: &mut Page, totals: &Counters) {
    page.counter(
        "ballast_packets_received_total",
        "Packets the program saw, counted before anything is decided.",
    )
    .sample(&[], totals.received);
    let dropped: u64 = totals.drops.iter().sum();
    page.counter("ballast_packets_total", "Packets by verdict; their sum is the packets received.")
        .sample(&[("verdict", "tx")], totals.transmitted)
        .sample(&[("verdict", "redirect")], totals.redirected)
        .sample(&[("verdict", "pass")], totals.passed)
        .sample(&[("verdict", "drop")], dropped);
    let mut drops = page.counter("ballast_drops_total", "Packets dropped, by reason.");
    for reason in DropReason::ALL {
        let count = totals.drops.get(reason as usize).copied().unwrap_or_default();
        drops.sample(&[("reason", reason.name())], count);
    }
    page.counter("ballast_resets_total", "RSTs made for segments of services that reject them.")
        .sample(&[], totals.resets_sent);
    let mut icmp = page.counter(
        "ballast_icmp_total",
        "ICMP messages answered, made, handed on and not made for their number.",
    );
    for (kind, count) in icmp::by_kind(totals) {
        icmp.sample(&[("kind", kind)], count);
    }
}

fn flows(page: &mut Page, snapshot: &Snapshot, totals: &Counters) {
    let table = snapshot.flow_table;
    page.gauge(
        "ballast_flow_table_entries",
        "Entries of the flow table in use, as the last whole scan counted them.",
    )
    .sample(&[], table.entries);
    page.gauge("ballast_flow_table_capacity", "Entries the flow table has room for.")
        .sample(&[], table.capacity);
    page.gauge("ballast_tracked_slots", "Slots in which flows are tracked because of a change.")
        .sample(&[], snapshot.tracked_slots);
    page.counter("ballast_flows_inserted_total", "Flow-table entries made.")
        .sample(&[], totals.flows_inserted);
    page.counter(
        "ballast_flow_evictions_total",
        "Flow-table entries made in the place of another flow that had sent one packet only.",
    )
    .sample(&[], totals.flows_evicted);
    let nat = snapshot.nat_table;
    page.gauge("ballast_nat_flows", "Flows that NAT keeps, as the last whole sweep counted them.")
        .sample(&[], nat.entries);
    page.gauge("ballast_nat_flows_capacity", "Flows that NAT has room for.").sample(&[], nat.capacity);
    page.counter("ballast_nat_flows_created_total", "NAT flows made.").sample(&[], totals.nat_created);
    page.counter(
        "ballast_nat_flows_taken_over_total",
        "NAT flows made with the port of a flow that was over.",
    )
    .sample(&[], totals.nat_taken_over);
    page.counter("ballast_flows_refused_total", "Flows that found no place in the flow table.")
        .sample(&[], totals.flows_refused);
}

fn services(page: &mut Page, counted: &[Counted<'_>]) {
    let all = || counted.iter().map(|one| (one.view, &one.traffic));
    let mut packets = page.counter("ballast_service_packets_total", "Packets forwarded, client to backend.");
    for (view, traffic) in all() {
        packets.sample(&[service(view)], traffic.packets);
    }
    let mut bytes = page.counter(
        "ballast_service_bytes_total",
        "Bytes of the forwarded packets as received, without frame check sequence.",
    );
    for (view, traffic) in all() {
        bytes.sample(&[service(view)], traffic.bytes);
    }
    let mut flows = page.counter(
        "ballast_service_new_flows_total",
        "SYNs forwarded, retransmitted ones included, or first packets of tracked UDP flows.",
    );
    for (view, traffic) in all().filter(|(view, _)| counts_flows(view)) {
        flows.sample(&[service(view)], traffic.new_flows);
    }
    let translated = || all().filter(|(view, _)| translates(view));
    let mut replies = page.counter(
        "ballast_service_reply_packets_total",
        "Packets forwarded, backend to client, where replies pass here (dnat, nat).",
    );
    for (view, traffic) in translated() {
        replies.sample(&[service(view)], traffic.reply_packets);
    }
    let mut replies = page.counter(
        "ballast_service_reply_bytes_total",
        "Bytes of the replies as received, without frame check sequence.",
    );
    for (view, traffic) in translated() {
        replies.sample(&[service(view)], traffic.reply_bytes);
    }
    let mut state =
        page.gauge("ballast_service_state", "1 for the state the service is in, 0 for the others.");
    for (view, _) in all() {
        for candidate in ServiceState::ALL {
            let labels = [service(view), ("state", candidate.as_str())];
            state.sample(&labels, u8::from(view.state == candidate));
        }
    }
    let mut fingerprint = page.gauge(
        "ballast_service_table_fingerprint",
        "Low 48 bits (what a sample holds exactly) of the hash over the lookup table; equal where clients map alike.",
    );
    for (view, _) in all() {
        fingerprint.sample(&[service(view)], view.fingerprint & FINGERPRINT_MASK);
    }
}

fn backends(page: &mut Page, counted: &[Counted<'_>]) {
    let all = || {
        counted.iter().flat_map(|one| {
            let backends = one.view.backends.iter().zip(&one.backends);
            backends.map(move |(backend, traffic)| (one.view, backend, traffic))
        })
    };
    let mut packets = page.counter("ballast_backend_packets_total", "Packets forwarded to the backend.");
    for (view, backend, traffic) in all() {
        packets.sample(&labels(view, backend), traffic.packets);
    }
    let mut bytes = page.counter(
        "ballast_backend_bytes_total",
        "Bytes of the packets forwarded to the backend as received, without frame check sequence.",
    );
    for (view, backend, traffic) in all() {
        bytes.sample(&labels(view, backend), traffic.bytes);
    }
    let mut flows = page.counter(
        "ballast_backend_new_flows_total",
        "SYNs forwarded to the backend, retransmitted ones included, or first packets of tracked UDP flows.",
    );
    for (view, backend, traffic) in all().filter(|(view, ..)| counts_flows(view)) {
        flows.sample(&labels(view, backend), traffic.new_flows);
    }
    let translated = || all().filter(|(view, ..)| translates(view));
    let mut replies = page.counter(
        "ballast_backend_reply_packets_total",
        "Packets forwarded from the backend to clients, where replies pass here (dnat, nat).",
    );
    for (view, backend, traffic) in translated() {
        replies.sample(&labels(view, backend), traffic.reply_packets);
    }
    let mut replies = page.counter(
        "ballast_backend_reply_bytes_total",
        "Bytes of the backend's replies as received, without frame check sequence.",
    );
    for (view, backend, traffic) in translated() {
        replies.sample(&labels(view, backend), traffic.reply_bytes);
    }
    let mut live = page.gauge(
        "ballast_backend_flows",
        "Live tracked flows of the backend, as the last whole scan counted them; only where all are tracked.",
    );
    for (view, backend, _) in all() {
        if let Some(flows) = backend.flows {
            live.sample(&labels(view, backend), flows);
        }
    }
    let mut healthy = page.gauge("ballast_backend_healthy", "Whether probes find the backend healthy.");
    for (view, backend, _) in all() {
        healthy.sample(&labels(view, backend), u8::from(backend.health == Health::Healthy));
    }
    let mut ineligible = page.gauge(
        "ballast_backend_ineligible",
        "Whether the backend answers, in another role than the service needs; only of services with a role.",
    );
    for (view, backend, _) in all().filter(|(view, ..)| view.service.health.has_role()) {
        ineligible.sample(&labels(view, backend), u8::from(backend.health == Health::Ineligible));
    }
    let mut reachable = page.gauge(
        "ballast_backend_reachable",
        "Whether the kernel knows a MAC address for the next hop to the backend.",
    );
    for (view, backend, _) in all() {
        reachable.sample(&labels(view, backend), u8::from(backend.reachable));
    }
    let mut weight = page.gauge("ballast_backend_weight", "Weight, as configured or set over that.");
    for (view, backend, _) in all() {
        // Every view has its backend in the service.
        let configured = view.service.backends.get(&backend.name).map_or(0, |backend| backend.weight);
        weight.sample(&labels(view, backend), configured);
    }
    let mut backup =
        page.gauge("ballast_backend_backup", "Whether it gets traffic only while the others are too few.");
    for (view, backend, _) in all() {
        let declared = view.service.backends.get(&backend.name);
        backup.sample(&labels(view, backend), u8::from(declared.is_some_and(|backend| backend.backup)));
    }
    let mut share =
        page.gauge("ballast_backend_share", "Part of the lookup table that is the backend's, 0 to 1.");
    for (view, backend, _) in all() {
        share.sample(&labels(view, backend), backend.share);
    }
}

fn health(page: &mut Page, snapshot: &Snapshot, stats: &HealthStats) {
    let mut durations = page.histogram("ballast_health_check_duration_seconds", "Time a health check took.");
    for (result, distribution) in stats.checks() {
        durations.distribution(&[("result", result)], &distribution);
    }
    page.counter(
        "ballast_health_checks_skipped_total",
        "Health checks that could not be made for want of a file descriptor, a port or a way to the VIP.",
    )
    .sample(&[], stats.skipped());
    page.counter(
        "ballast_health_checks_held_total",
        "Health checks that did not pass and do not count, because no interface of the load balancer had a link.",
    )
    .sample(&[], stats.held());
    let counted = stats.transitions();
    let counted: HashMap<_, _> = counted
        .iter()
        .map(|((service, backend), counts)| ((service.as_str(), backend.as_str()), *counts))
        .collect();
    let mut transitions = page.counter(
        "ballast_health_transitions_total",
        "Changes of the backend's health, by what it became, since the daemon started.",
    );
    for (view, backend) in each_backend(snapshot) {
        let key = (view.service.name.as_str(), backend.name.as_str());
        let count = counted.get(&key).copied().unwrap_or_default();
        let counts = [
            (Health::Healthy, count.healthy),
            (Health::Unhealthy, count.unhealthy),
            (Health::Ineligible, count.ineligible),
        ];
        for (to, count) in counts {
            let [service, backend] = labels(view, backend);
            transitions.sample(&[service, backend, ("to", to.as_str())], count);
        }
    }
}

fn each_backend(snapshot: &Snapshot) -> impl Iterator<Item = (&ServiceView, &BackendView)> {
    snapshot.services.iter().flat_map(|view| view.backends.iter().map(move |backend| (view, backend)))
}

fn service(view: &ServiceView) -> (&'static str, &str) {
    ("service", view.service.name.as_str())
}

fn labels<'a>(view: &'a ServiceView, backend: &'a BackendView) -> [(&'static str, &'a str); 2] {
    [service(view), ("backend", backend.name.as_str())]
}

fn counts_flows(view: &ServiceView) -> bool {
    view.service.counts_new_flows()
}

fn translates(view: &ServiceView) -> bool {
    view.service.forwarding.translates()
}

/// A sample is a 64-bit float, exact up to 53 bits.
const FINGERPRINT_MASK: u64 = (1 << 48) - 1;

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

    use lb_common::abi::{MAX_DROP_REASONS, TrafficCounters};

    use super::*;
    use crate::{
        control::{FlowTable, InterfaceView},
        dataplane::KeyFingerprint,
        domain::{
            Admin, Admission, Algorithm, Backend, Forwarding, HealthCheck, OnAllDown, Origin, Protocol,
            Service, TableSize, Tracking, Vip,
        },
    };

    /// Every counter has a value of its own.
    pub(in crate::telemetry) struct Numbered;

    impl CounterReader for Numbered {
        fn totals(&self) -> Result<Counters, Error> {
            let mut drops = [0; MAX_DROP_REASONS];
            drops[DropReason::Fragment as usize] = 3;
            drops[DropReason::NoBackend as usize] = 4;
            Ok(Counters {
                received: 1_007,
                transmitted: 700,
                redirected: 200,
                passed: 100,
                flows_inserted: 40,
                flows_evicted: 30,
                flows_refused: 20,
                echo_replies: 51,
                too_big_sent: 52,
                resets_sent: 58,
                port_unreachable_sent: 59,
                time_exceeded_sent: 53,
                errors_limited: 54,
                errors_relayed: 55,
                nat_created: 56,
                nat_taken_over: 57,
                drops,
            })
        }

        fn service(&self, service: u32) -> Result<TrafficCounters, Error> {
            let base = u64::from(service) * 1_000;
            Ok(TrafficCounters {
                packets: base + 1,
                bytes: base + 2,
                new_flows: base + 3,
                reply_packets: base + 4,
                reply_bytes: base + 5,
                ..TrafficCounters::default()
            })
        }

        fn backend(&self, index: u32) -> Result<TrafficCounters, Error> {
            self.service(index * 10)
        }
    }

    pub(in crate::telemetry) fn snapshot() -> Snapshot {
        let services = [("web", Protocol::Tcp, 1), ("dns", Protocol::Udp, 2)];
        let services = services.into_iter().map(|(name, protocol, id)| ServiceView {
            service: Arc::new(declared(name, protocol)),
            id,
            state: ServiceState::Degraded,
            gathers: false,
            fingerprint: 0xABCD_0000_0000_0001,
            backends: ["a", "b"]
                .into_iter()
                .zip(1..)
                .map(|(backend, index)| BackendView {
                    name: backend.parse().unwrap(),
                    address: ([10, 0, 0, index as u8], 80).into(),
                    index,
                    health: if index == 1 { Health::Healthy } else { Health::Unknown },
                    health_detail: String::new(),
                    share: if index == 1 { 1.0 } else { 0.0 },
                    reachable: index == 1,
                    accepts_existing: true,
                    drain_deadline: 0,
                    drained: false,
                    flows: (protocol == Protocol::Udp).then_some(u64::from(index) * 5),
                    overrides: Vec::new(),
                })
                .collect(),
            leaving: Vec::new(),
            sources: Vec::new(),
            left_out: Vec::new(),
        });
        Snapshot {
            revision: 42,
            services: services.collect(),
            nat: Default::default(),
            own_macs: None,
            hash_key: Some(KeyFingerprint::from_bytes([0, 0, 0, 0, 0, 0, 0xab, 1])),
            interfaces: vec![InterfaceView { name: "eth0".into(), mode: "native", attached: true }],
            ready: true,
            declared: true,
            config_error: None,
            state_error: None,
            nat_clashes: [("web".parse().unwrap(), "shared".to_owned())].into(),
            flow_table: FlowTable { entries: 11, capacity: 1 << 20 },
            nat_table: FlowTable { entries: 13, capacity: 1 << 17 },
            tracked_slots: 12,
            announce_off: Default::default(),
        }
    }

    fn declared(name: &str, protocol: Protocol) -> Service {
        let origin = Origin::File { path: Arc::new(PathBuf::from("test.toml")), line: 1 };
        let backends = ["a", "b"].into_iter().zip(1..).map(|(backend, number)| Backend {
            name: backend.parse().unwrap(),
            address: ([10, 0, 0, number], 80).into(),
            weight: u16::from(number) * 7,
            backup: number == 2,
            admin: Admin::Active,
            origin: origin.clone(),
        });
        Service {
            name: name.parse().unwrap(),
            vip: Vip { address: "192.0.2.1".parse().unwrap(), port: Some(80) },
            protocol,
            forwarding: if protocol == Protocol::Tcp { Forwarding::L2Dsr } else { Forwarding::Nat },
            algorithm: Algorithm::SourceHash,
            table_size: TableSize::DEFAULT,
            health: HealthCheck::default(),
            panic: crate::domain::Panic::default(),
            on_all_down: OnAllDown::FailOpen,
            tracking: crate::domain::Tracking::Auto,
            flow_idle_timeout: Duration::from_secs(900),
            unhealthy_grace: Service::DEFAULT_UNHEALTHY_GRACE,
            drain_timeout: Service::DEFAULT_DRAIN_TIMEOUT,
            slow_start: Duration::ZERO,
            withdraw_below: 0,
            admission: Admission::default(),
            discovery: Default::default(),
            backends: backends.map(|backend| (backend.name.clone(), backend)).collect::<BTreeMap<_, _>>(),
            origin: origin.clone(),
        }
    }

    fn page(snapshot: &Snapshot) -> String {
        let (health, publishes) = (HealthStats::new(), PublishStats::new());
        health.observe_check(Duration::from_millis(2), true);
        health.observe_transition(&"web".parse().unwrap(), &"a".parse().unwrap(), Health::Unhealthy);
        health.observe_transition(&"web".parse().unwrap(), &"gone".parse().unwrap(), Health::Unhealthy);
        publishes.observe(Duration::from_micros(80));
        let heartbeat_age = Duration::from_millis(250);
        let sources = Sources {
            snapshot,
            counters: &Numbered,
            health: &health,
            publishes: &publishes,
            discovery: &DiscoveryStats::default(),
            boards: &Boards::default(),
            heartbeat_age,
        };
        render(&sources).unwrap()
    }

    #[test]
    fn every_number_is_where_it_belongs() {
        let text = page(&snapshot());
        let lines: Vec<_> = text.lines().collect();
        for expected in [
            concat!("ballast_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "ballast_revision 42",
            "ballast_config_current 1",
            "ballast_hash_key_info{fingerprint=\"000000000000ab01\"} 1",
            "ballast_nat_clashes 1",
            "ballast_controller_heartbeat_seconds 0.25",
            "ballast_publishes_total 1",
            "ballast_publish_duration_seconds_bucket{le=\"0.0001\"} 1",
            "ballast_interface_attached{interface=\"eth0\",mode=\"native\"} 1",
            "ballast_packets_received_total 1007",
            "ballast_packets_total{verdict=\"tx\"} 700",
            "ballast_packets_total{verdict=\"redirect\"} 200",
            "ballast_packets_total{verdict=\"pass\"} 100",
            "ballast_packets_total{verdict=\"drop\"} 7",
            "ballast_drops_total{reason=\"fragment\"} 3",
            "ballast_drops_total{reason=\"no_backend\"} 4",
            "ballast_service_packets_total{service=\"web\"} 1001",
            "ballast_service_bytes_total{service=\"dns\"} 2002",
            "ballast_service_new_flows_total{service=\"web\"} 1003",
            "ballast_service_state{service=\"web\",state=\"degraded\"} 1",
            "ballast_service_state{service=\"web\",state=\"healthy\"} 0",
            "ballast_service_table_fingerprint{service=\"web\"} 1",
            "ballast_backend_packets_total{service=\"web\",backend=\"b\"} 20001",
            "ballast_backend_bytes_total{service=\"web\",backend=\"a\"} 10002",
            "ballast_backend_new_flows_total{service=\"web\",backend=\"a\"} 10003",
            "ballast_backend_new_flows_total{service=\"dns\",backend=\"a\"} 10003",
            "ballast_service_new_flows_total{service=\"dns\"} 2003",
            "ballast_backend_flows{service=\"dns\",backend=\"b\"} 10",
            "ballast_flow_table_entries 11",
            "ballast_flow_table_capacity 1048576",
            "ballast_tracked_slots 12",
            "ballast_flows_inserted_total 40",
            "ballast_flow_evictions_total 30",
            "ballast_flows_refused_total 20",
            "ballast_resets_total 58",
            "ballast_icmp_total{kind=\"port_unreachable\"} 59",
            "ballast_icmp_total{kind=\"echo_reply\"} 51",
            "ballast_icmp_total{kind=\"too_big\"} 52",
            "ballast_icmp_total{kind=\"time_exceeded\"} 53",
            "ballast_icmp_total{kind=\"limited\"} 54",
            "ballast_icmp_total{kind=\"relayed\"} 55",
            "ballast_nat_flows 13",
            "ballast_nat_flows_capacity 131072",
            "ballast_nat_flows_created_total 56",
            "ballast_nat_flows_taken_over_total 57",
            "ballast_service_reply_packets_total{service=\"dns\"} 2004",
            "ballast_service_reply_bytes_total{service=\"dns\"} 2005",
            "ballast_backend_reply_packets_total{service=\"dns\",backend=\"b\"} 20004",
            "ballast_backend_reply_bytes_total{service=\"dns\",backend=\"a\"} 10005",
            "ballast_backend_healthy{service=\"web\",backend=\"a\"} 1",
            "ballast_backend_healthy{service=\"web\",backend=\"b\"} 0",
            "ballast_backend_reachable{service=\"web\",backend=\"b\"} 0",
            "ballast_backend_weight{service=\"web\",backend=\"b\"} 14",
            "ballast_backend_backup{service=\"web\",backend=\"a\"} 0",
            "ballast_backend_backup{service=\"web\",backend=\"b\"} 1",
            "ballast_backend_share{service=\"web\",backend=\"a\"} 1",
            "ballast_health_check_duration_seconds_bucket{result=\"passed\",le=\"0.0025\"} 1",
            "ballast_health_checks_skipped_total 0",
            "ballast_health_checks_held_total 0",
            "ballast_capture_active 0",
            "ballast_health_transitions_total{service=\"web\",backend=\"a\",to=\"unhealthy\"} 1",
            "ballast_health_transitions_total{service=\"web\",backend=\"b\",to=\"healthy\"} 0",
        ] {
            assert!(lines.contains(&expected), "{expected} is not in\n{text}");
        }
        // No backend is named that is not there, and no flows are told that are not known.
        assert!(!text.contains("ballast_backend_flows{service=\"web\""));
        assert!(!text.contains("gone"));
        // Replies to l2-dsr go another way.
        assert!(
            !text.contains("reply_packets_total{service=\"web\"")
                && !text.contains("reply_bytes_total{service=\"web\"")
        );
    }

    #[test]
    fn first_packets_of_udp_flows_that_nobody_tracks_are_not_told() {
        let mut snapshot = snapshot();
        let dns = Arc::make_mut(&mut snapshot.services[1].service);
        (dns.forwarding, dns.tracking) = (Forwarding::L2Dsr, Tracking::Never);
        assert!(!page(&snapshot).contains("new_flows_total{service=\"dns\""));
    }

    #[test]
    fn every_drop_reason_is_there_from_the_start() {
        let text = page(&Snapshot::default());
        for reason in DropReason::ALL {
            assert!(text.contains(&format!("ballast_drops_total{{reason=\"{}\"}} ", reason.name())));
        }
    }
}

//! `[announce]`: how the network is told that VIPs are here.

use std::time::Duration;

use super::{
    key::{Integer, Key, OneOf, Special, Text, Time},
    reference::Section,
    report::{At, Report, Wrong},
    table::Table,
    values,
};

/// `[announce]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceConfig {
    pub method: Method,
    pub carrier: Carrier,
    /// How long something has to be wrong before a VIP is withdrawn for it.
    pub down_hold: Duration,
    /// How long everything has to be right before a withdrawn VIP is announced again.
    pub up_hold: Duration,
}

/// What the network learns a VIP from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// A route of the kernel that a routing daemon exports.
    Route(RouteSettings),
    /// An address of this host that another program (keepalived) puts there and takes away. No route is made.
    Address,
}

/// How routes are made, and known as the daemon's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    /// The number under which the kernel files them (`ip route show proto NUMBER`).
    pub protocol: u8,
    pub table: u32,
    pub metric: u32,
    /// They lead to this device; `None`: they are blackhole routes.
    pub device: Option<String>,
}

/// Which of the attached interfaces have to have a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Any,
    All,
}

impl Carrier {
    pub const ALL: [Self; 2] = [Self::Any, Self::All];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::All => "all",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Route,
    Address,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Route, Self::Address];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Address => "address",
        }
    }
}

impl Default for RouteSettings {
    fn default() -> Self {
        Self { protocol: DEFAULT_PROTOCOL, table: MAIN_TABLE, metric: DEFAULT_METRIC, device: None }
    }
}

impl AnnounceConfig {
    /// The routes to make, if any.
    pub fn routes(&self) -> Option<&RouteSettings> {
        match &self.method {
            Method::Route(routes) => Some(routes),
            Method::Address => None,
        }
    }
}

/// `None`: nothing is announced.
pub(super) fn read(document: &mut Table<'_>, report: &mut Report<'_>) -> Option<AnnounceConfig> {
    let mut table = document.table("announce", "[announce]", report)?;
    let kind = table.read_or(&METHOD, Kind::Route, report);
    let given = [PROTOCOL.name, TABLE.name, METRIC.name, DEVICE.name].into_iter().find(|key| table.has(*key));
    let routes = read_routes(&mut table, report);
    if let (Some(At { value: Kind::Address, place }), Some(key)) = (&kind, given) {
        let message = format!("`{key}` is of no use with `method` \"address\"");
        report.error(*place, Wrong::new(message, "no route is made with this"));
    }
    let carrier = table.read_or(&CARRIER, Carrier::Any, report);
    let down_hold = table.read_or(&DOWN_HOLD, DEFAULT_DOWN_HOLD, report);
    let up_hold = table.read_or(&UP_HOLD, DEFAULT_UP_HOLD, report);
    table.finish(report);
    Some(AnnounceConfig {
        method: match kind?.value {
            Kind::Route => Method::Route(routes?),
            Kind::Address => Method::Address,
        },
        carrier: carrier?.value,
        down_hold: down_hold?.value,
        up_hold: up_hold?.value,
    })
}

fn read_routes(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<RouteSettings> {
    // What has the number of the kernel, the administrator or another program may be anybody's.
    let protocol = match table.get(&PROTOCOL) {
        Some(item) => {
            let fit = |number| u8::try_from(number).ok().filter(|number| !is_taken(*number));
            let wanted =
                "a number from 5 to 255 that no other program has (rtnetlink.h, /etc/iproute2/rt_protos)";
            item.integer_as(wanted, fit, report).map(|at| at.value)
        }
        None => Some(DEFAULT_PROTOCOL),
    };
    let number = match table.get(&TABLE) {
        Some(item) => {
            let fit =
                |number| u32::try_from(number).ok().filter(|number| *number != 0 && *number != LOCAL_TABLE);
            let wanted = "the number of a routing table, from 1 to 4294967295 and not 255";
            item.integer_as(wanted, fit, report).map(|at| at.value)
        }
        None => Some(MAIN_TABLE),
    };
    let metric = table.read_or(&METRIC, DEFAULT_METRIC, report);
    let device = table.read(&DEVICE, report);
    Some(RouteSettings {
        protocol: protocol?,
        table: number?,
        metric: metric?.value,
        device: device?.map(|device| device.value),
    })
}

/// Of the kernel, `ip`, and the routing daemons that there are (include/uapi/linux/rtnetlink.h).
fn is_taken(protocol: u8) -> bool {
    matches!(protocol, 0..=4 | 8..=18 | 42 | 99 | 186..=189 | 192)
}

pub(super) const ANNOUNCE: Section = Section {
    heading: "## `[announce]`",
    says: "Without this section the network is told of VIPs by somebody else. With it, alone or with keys, [as it says \
           here](high-availability.md). A reload changes it.",
    keys: &[&METHOD, &PROTOCOL, &TABLE, &METRIC, &DEVICE, &CARRIER, &DOWN_HOLD, &UP_HOLD],
};

const METHOD: Key<OneOf<Kind>> = Key {
    name: "method",
    takes: OneOf(&Kind::ALL, Kind::as_str),
    default: "`\"route\"`",
    means: "`\"route\"`: a route for each VIP, for BIRD or FRR to export; `\"address\"`: another program (keepalived) puts \
            VIPs on this host as addresses, and `doctor` knows that it is meant; the keys of routes are of no use then",
};
const PROTOCOL: Key<Special> = Key {
    name: "protocol",
    takes: Special("a number up to 255"),
    default: "117",
    means: "what the kernel files the routes under, and by which the daemon knows its own: no other program may use it, \
            nor another Ballast in the same network namespace. Those of known routing daemons are refused",
};
const TABLE: Key<Special> = Key {
    name: "table",
    takes: Special("a number, not 255"),
    default: "254",
    means: "routing table; 254 is `main`, and 255 has this host's own addresses",
};
const METRIC: Key<Integer> = Key {
    name: "metric",
    takes: Integer(1, i32::MAX as u32),
    default: "20000",
    means: "of the routes. Where there is another route for a VIP, [use a table of its \
            own](high-availability.md#a-table-of-its-own)",
};
const DEVICE: Key<Text<String>> = Key {
    name: "device",
    takes: Text("name of an interface", values::interface),
    default: "none",
    means: "where the routes lead, such as a dummy's; without one they are blackhole routes",
};
const CARRIER: Key<OneOf<Carrier>> = Key {
    name: "carrier",
    takes: OneOf(&Carrier::ALL, Carrier::as_str),
    default: "`\"any\"`",
    means: "`\"any\"`: one of `interfaces` with a link will do; `\"all\"`: each has to have one",
};
const DOWN_HOLD: Key<Time> = Key {
    name: "down_hold",
    takes: Time(Duration::ZERO, Duration::from_secs(60)),
    default: "`\"1s\"`",
    means: "how long something has to be wrong before a VIP is withdrawn",
};
const UP_HOLD: Key<Time> = Key {
    name: "up_hold",
    takes: Time(Duration::ZERO, Duration::from_secs(3600)),
    default: "`\"10s\"`",
    means: "how long everything has to be right before it is announced again",
};

/// The number of the daemon's routes unless the configuration has another; no routing daemon uses it.
const DEFAULT_PROTOCOL: u8 = 117;
/// Worse than what an administrator adds: IPv6 routes have 1,024 unless told otherwise, and IPv4 routes 0.
const DEFAULT_METRIC: u32 = 20_000;
pub(super) const MAIN_TABLE: u32 = 254;
const LOCAL_TABLE: u32 = 255;

/// A link that flaps and a program that is attached again within a second are over by then; what lasts longer loses packets
/// for each moment that routers go on sending here.
const DEFAULT_DOWN_HOLD: Duration = Duration::from_secs(1);
/// Nobody waits for it: the others carry the traffic. Whatever comes and goes moves clients each time it comes.
const DEFAULT_UP_HOLD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::parse, *};

    fn announce(lines: &str) -> Result<Option<AnnounceConfig>, String> {
        let text = format!("[daemon]\ninterfaces = [\"eth0\"]\n{lines}");
        let config = parse(vec![(PathBuf::from("config.toml"), text)]).map_err(|wrong| wrong.to_string())?;
        Ok(config.announce)
    }

    #[test]
    fn without_the_section_nothing_is_announced_and_with_it_alone_by_blackhole_routes() {
        assert_eq!(announce(""), Ok(None));
        let config = announce("[announce]\n").expect("valid").expect("there");
        assert_eq!(config.method, Method::Route(RouteSettings::default()));
        assert_eq!(
            (config.carrier, config.down_hold.as_secs(), config.up_hold.as_secs()),
            (Carrier::Any, 1, 10)
        );
    }

    #[test]
    fn routes_are_as_the_file_says() {
        let lines = "[announce]\nprotocol = 200\ntable = 1000\nmetric = 7\ndevice = \"dummy0\"\ncarrier = \"all\"\n\
                     down_hold = \"0s\"\nup_hold = \"500ms\"\n";
        let config = announce(lines).expect("valid").expect("there");
        let routes = RouteSettings { protocol: 200, table: 1000, metric: 7, device: Some("dummy0".into()) };
        assert_eq!(config.routes(), Some(&routes));
        assert_eq!((config.carrier, config.up_hold), (Carrier::All, Duration::from_millis(500)));
    }

    #[test]
    fn numbers_that_may_be_anybodys_are_refused() {
        for (wrong, told) in [
            ("protocol = 4", "`protocol` can't be 4"),
            ("protocol = 12", "`protocol` can't be 12"),
            ("table = 255", "`table` can't be 255"),
            ("table = 0", "`table` can't be 0"),
            ("metric = 0", "`metric` can't be 0"),
            ("carrier = \"some\"", "one of \"any\", \"all\""),
            ("method = \"address\"\nmetric = 5", "`metric` is of no use"),
            ("down_hold = \"2m\"", "`down_hold` can't be \"2m\""),
        ] {
            let error = announce(&format!("[announce]\n{wrong}\n")).expect_err(wrong);
            assert!(error.contains(told), "{error}");
        }
    }
}

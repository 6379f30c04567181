//! `[announce]`: how the network is told that VIPs are here.

use std::time::Duration;

use super::{
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
    let kinds = values::choice(&Kind::ALL, Kind::as_str);
    let kind = table.text_or("method", Kind::Route, report, kinds);
    let given = ROUTE_KEYS.into_iter().find(|key| table.has(key));
    let routes = read_routes(&mut table, report);
    if let (Some(At { value: Kind::Address, place }), Some(key)) = (&kind, given) {
        let message = format!("`{key}` is of no use with `method` \"address\"");
        report.error(*place, Wrong::new(message, "no route is made with this"));
    }
    let carriers = values::choice(&Carrier::ALL, Carrier::as_str);
    let carrier = table.text_or("carrier", Carrier::Any, report, carriers);
    let down_hold =
        table.text_or("down_hold", DEFAULT_DOWN_HOLD, report, values::time(Duration::ZERO, MAX_DOWN_HOLD));
    let up_hold =
        table.text_or("up_hold", DEFAULT_UP_HOLD, report, values::time(Duration::ZERO, MAX_UP_HOLD));
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
    // Up to 4 the numbers are the kernel's own and the administrator's: what has one of these may be anybody's.
    let protocol =
        table.integer_or("protocol", DEFAULT_PROTOCOL.into(), (5, u8::MAX.into()), report).map(|at| at.value);
    let table_number = match table.get("table") {
        Some(item) => {
            // The kernel keeps this host's own addresses there.
            let fit =
                |number| u32::try_from(number).ok().filter(|number| *number != 0 && *number != LOCAL_TABLE);
            let wanted = "the number of a routing table, from 1 to 4294967295 and not 255";
            item.integer_as(wanted, fit, report).map(|at| at.value)
        }
        None => Some(MAIN_TABLE),
    };
    let metric = table.integer_or("metric", DEFAULT_METRIC, (1, i32::MAX as u32), report).map(|at| at.value);
    let device = match table.get("device") {
        Some(item) => item.parse(report, values::interface).map(|at| Some(at.value)),
        None => Some(None),
    };
    Some(RouteSettings {
        protocol: u8::try_from(protocol?).ok()?,
        table: table_number?,
        metric: metric?,
        device: device?,
    })
}

/// The number of the daemon's routes unless the configuration has another; no routing daemon uses it.
pub const DEFAULT_PROTOCOL: u8 = 117;
/// Worse than what an administrator adds: IPv6 routes have 1,024 unless told otherwise, and IPv4 routes 0.
const DEFAULT_METRIC: u32 = 20_000;
const MAIN_TABLE: u32 = 254;
const LOCAL_TABLE: u32 = 255;
const ROUTE_KEYS: [&str; 4] = ["protocol", "table", "metric", "device"];

/// A link that flaps and a program that is attached again within a second are over by then; what lasts longer loses packets
/// for each moment that routers go on sending here.
const DEFAULT_DOWN_HOLD: Duration = Duration::from_secs(1);
/// Nobody waits for it: the others carry the traffic. Whatever comes and goes moves clients each time it comes.
const DEFAULT_UP_HOLD: Duration = Duration::from_secs(10);
const MAX_DOWN_HOLD: Duration = Duration::from_secs(60);
const MAX_UP_HOLD: Duration = Duration::from_secs(3600);

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

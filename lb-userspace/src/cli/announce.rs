//! `ballast announce`: what the network is told of VIPs.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};

use super::{
    Format, change,
    exit::Failure,
    output::{self, Grid, Rating, Style, cell, plain, rated},
    progress::Progress,
    wait::Absence,
};
use crate::{
    api::{
        client::{Client, ClientError},
        v1,
    },
    console::units,
};

#[derive(Debug, Subcommand)]
pub(super) enum AnnounceCommand {
    /// Show which VIPs are announced, and why the others are not
    Status,
    /// Withdraw a VIP, or all of them, also those that come later; it is kept until `on`
    Off {
        /// The VIP; all of them unless named
        #[arg(value_name = "VIP")]
        vip: Option<IpAddr>,
        #[command(flatten)]
        leave: Leave,
    },
    /// Announce a VIP again, or all of them
    On {
        /// The VIP; all of them unless named
        #[arg(value_name = "VIP")]
        vip: Option<IpAddr>,
    },
}

/// Whether to wait until the traffic is elsewhere.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Leave {
    /// Wait until routers have taken note: fewer packets than --below come for five seconds
    #[arg(long)]
    wait: bool,
    /// Packets a second that are as good as none: what goes on trying whatever the routers do
    #[arg(long, value_name = "N", default_value_t = 10, requires = "wait")]
    below: u64,
    /// Give up waiting after this time, with exit code 5; the VIPs stay withdrawn
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
}

pub(super) async fn run(client: &Client, command: AnnounceCommand, format: Format) -> Result<(), Failure> {
    match command {
        AnnounceCommand::Status => {
            let announce = client.announce().await?;
            Ok(output::print(format, &announce, |announce, style| match announce {
                Some(announce) => render(announce, style),
                None => {
                    "nothing is announced: there is no [announce] in the configuration, or it makes no routes"
                        .to_owned()
                }
            })?)
        }
        AnnounceCommand::On { vip } => change::print(&set(client, vip, true).await?, format),
        AnnounceCommand::Off { vip, leave } => {
            change::print(&set(client, vip, false).await?, format)?;
            if leave.wait { wait(client, vip, leave).await } else { Ok(()) }
        }
    }
}

async fn set(client: &Client, vip: Option<IpAddr>, on: bool) -> Result<v1::Changed, ClientError> {
    client.set_announce(&v1::Announcing { vip: vip.map(|vip| vip.to_string()), on }).await
}

/// Looks again and again until the traffic has left.
async fn wait(client: &Client, vip: Option<IpAddr>, leave: Leave) -> Result<(), Failure> {
    let begun = Instant::now();
    let what = vip.map_or_else(
        || "the traffic of all VIPs to leave".to_owned(),
        |vip| format!("the traffic of {vip} to leave"),
    );
    let mut progress = Progress::new(what);
    let (mut ebb, mut absence) = (Ebb::new(leave.below), Absence::default());
    loop {
        let missing = match client.announce().await {
            Err(error @ ClientError::Refused { .. }) => return Err(Failure::Unknown(error)),
            Err(error) => {
                // It may be restarting; its counters go on.
                if absence.is_over(Instant::now(), leave.timeout.map(|timeout| begun + timeout)) {
                    return Err(Failure::Unknown(error));
                }
                error.to_string()
            }
            Ok(announce) => {
                absence = Absence::default();
                let vips = announce.map(|announce| announce.vips).unwrap_or_default();
                let named = |one: &&v1::AnnouncedVip| vip.is_none_or(|vip| one.vip == vip.to_string());
                let vips: Vec<_> = vips.iter().filter(named).collect();
                let still = vips.iter().find(|one| one.announced);
                match (still, ebb.look(vips.iter().map(|one| one.packets).sum(), Instant::now())) {
                    (None, Level::Low) => return Ok(()),
                    (Some(one), _) => format!("{} is announced still", one.vip),
                    (None, Level::Unknown) => "its rate is measured".to_owned(),
                    (None, Level::High(rate)) => format!("{} packets/s", units::rate(rate)),
                    (None, Level::LowFor(time)) => format!("next to nothing for {} s", time.as_secs()),
                }
            }
        };
        progress.update(None, &missing, Instant::now());
        let left = leave.timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        if left == Some(Duration::ZERO) && !absence.has_begun() {
            return Err(Failure::TimedOut(missing));
        }
        tokio::time::sleep(POLL.min(left.unwrap_or(POLL))).await;
    }
}

/// Whether a counter grows slowly enough, and for how long it has.
#[derive(Debug)]
struct Ebb {
    below: u64,
    /// The last look.
    last: Option<(u64, Instant)>,
    low_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Level {
    Unknown,
    /// And how much it is a second.
    High(f64),
    LowFor(Duration),
    /// For long enough.
    Low,
}

impl Ebb {
    fn new(below: u64) -> Self {
        Self { below, last: None, low_since: None }
    }

    fn look(&mut self, packets: u64, now: Instant) -> Level {
        let Some((before, at)) = self.last.replace((packets, now)) else { return Level::Unknown };
        let elapsed = now.saturating_duration_since(at).as_secs_f64();
        if elapsed == 0.0 {
            self.last = Some((before, at));
            return Level::Unknown;
        }
        // A counter of a service that is gone takes its packets along.
        let rate = packets.saturating_sub(before) as f64 / elapsed;
        if rate >= self.below as f64 && packets != before {
            self.low_since = None;
            return Level::High(rate);
        }
        let lasted = now.saturating_duration_since(*self.low_since.get_or_insert(at));
        if lasted >= LOW_FOR { Level::Low } else { Level::LowFor(lasted) }
    }
}

/// As in `status`, too.
pub(super) fn grid(announce: &v1::Announce, style: Style) -> String {
    let mut grid = Grid::new(style, &["VIP", "~ANNOUNCED", "SINCE", ">PACKETS", "SERVICES", "WHY NOT"]);
    for one in &announce.vips {
        let announced = match (one.announced, one.reason.as_deref()) {
            (true, None) if one.kept.is_some() => rated("kept", Rating::Doubtful),
            (true, None) => rated("yes", Rating::Good),
            (true, Some(_)) => rated("still", Rating::Bad),
            (false, Some("administrator")) => rated("off", Rating::Doubtful),
            (false, _) => rated("no", Rating::Bad),
        };
        grid.row([
            cell(&one.vip),
            announced,
            cell(humantime::format_duration(Duration::from_secs(one.seconds))),
            cell(one.packets),
            cell(one.services.join(", ")),
            cell(plain(one.kept.as_ref().unwrap_or(&one.detail))),
        ]);
    }
    grid.render()
}

fn render(announce: &v1::Announce, style: Style) -> String {
    let v1::Announce { protocol, table, metric, device, off, trouble, .. } = announce;
    let kind = device
        .as_ref()
        .map_or_else(|| "blackhole routes".to_owned(), |device| format!("routes to {}", plain(device)));
    let mut text = format!("{kind} of protocol {protocol} in table {table} with metric {metric}\n");
    if *off {
        text += "all VIPs are off: `ballast announce on` puts them on again\n";
    }
    if let Some(trouble) = trouble {
        text += &format!("{}: {}\n", output::loud("ROUTES ARE NOT AS THEY SHOULD BE", style), plain(trouble));
    }
    match announce.vips.is_empty() {
        true => text + "\nno VIPs\n",
        false => format!("{text}\n{}", grid(announce, style)),
    }
}

const POLL: Duration = Duration::from_millis(500);
/// As long as a router's ECMP takes to settle, and some retries of clients.
const LOW_FOR: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_has_left_when_little_came_for_a_while() {
        let (start, mut ebb) = (Instant::now(), Ebb::new(10));
        let mut at = |seconds, packets| ebb.look(packets, start + Duration::from_secs(seconds));
        assert_eq!(at(0, 1000), Level::Unknown);
        assert_eq!(at(1, 1500), Level::High(500.0));
        assert_eq!(at(2, 1509), Level::LowFor(Duration::from_secs(1)));
        assert_eq!(at(5, 1529), Level::LowFor(Duration::from_secs(4)));
        assert_eq!(at(6, 1539), Level::High(10.0));
        assert_eq!(at(10, 1539), Level::LowFor(Duration::from_secs(4)));
        assert_eq!(at(11, 1540), Level::Low);
    }

    #[test]
    fn without_a_threshold_silence_is_asked_for() {
        let (start, mut ebb) = (Instant::now(), Ebb::new(0));
        let mut at = |seconds, packets| ebb.look(packets, start + Duration::from_secs(seconds));
        at(0, 7);
        assert_eq!(at(9, 8), Level::High(1.0 / 9.0));
        assert_eq!(at(14, 8), Level::Low);
    }
}

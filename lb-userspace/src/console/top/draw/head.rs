//! The lines on top: is it well, what passes, what is dropped.

use std::time::{Duration, Instant};

use ratatui::text::{Line, Span};

use super::Pen;
use crate::console::{
    Rating, alarms, plain,
    top::{app::App, history::Trail},
    units::{count, rate, time},
};

/// Returns the line after it.
pub(super) fn draw(pen: &mut Pen<'_>, app: &App, now: Instant) -> u16 {
    pen.line(0, &summary(pen, app));
    let right = format!("{}  {}", pace(app), app.clock);
    // What is on the left matters more.
    let width = u16::try_from(right.len()).unwrap_or(u16::MAX);
    if let Some(x) = pen.area.width.checked_sub(width) {
        pen.text(x, 0, &right, if app.paused { pen.palette.bold() } else { pen.palette.dim() });
    }
    pen.line(1, &packets(pen, app));
    charts(pen, 2, app);
    pen.line(3, &drops(pen, app));
    let mut y = 4;
    for alarm in alarms(app, now).into_iter().take(MOST_ALARMS) {
        let style = pen.palette.loud(Rating::Bad);
        pen.fill(y, style);
        pen.text(0, y, &alarm, style);
        y += 1;
    }
    y
}

/// `ballast  revision 12  ready  eth0 native`.
fn summary(pen: &Pen<'_>, app: &App) -> Line<'static> {
    let palette = pen.palette;
    let (word, rating) = if app.status.ready { ("ready", Rating::Good) } else { ("NOT READY", Rating::Bad) };
    let mut spans = vec![
        Span::styled("ballast", palette.bold()),
        Span::raw(format!("  revision {}  ", app.status.revision)),
        Span::styled(word, palette.of(rating)),
    ];
    for interface in &app.status.interfaces {
        let rating = if interface.attached { Rating::Good } else { Rating::Bad };
        let mode = if interface.attached { interface.mode.as_str() } else { "detached" };
        spans.push(Span::raw("  "));
        spans.push(Span::styled(format!("{} {mode}", plain(&interface.name)), palette.of(rating)));
    }
    Line::from(spans)
}

fn pace(app: &App) -> String {
    match app.paused {
        true => "PAUSED".to_owned(),
        false => format!("every {}", humantime::format_duration(app.interval)),
    }
}

/// What was received, what became of it, and how full the tables are.
fn packets(pen: &Pen<'_>, app: &App) -> Line<'static> {
    let palette = pen.palette;
    let verdicts = app.rates.verdicts;
    let bits = app.rates.services.iter().filter_map(|service| service.rate).map(|rate| rate.bits);
    let bits = app.rates.received.map(|_| bits.sum());
    let shown = |rate_of: Option<f64>| rate_of.map_or_else(|| "-".to_owned(), rate);
    let mut spans = Vec::new();
    let mut figure = |name: &'static str, figure: String| {
        spans.push(Span::styled(name, palette.dim()));
        spans.push(Span::styled(format!(" {figure}  "), palette.bold()));
    };
    figure("rx/s", shown(app.rates.received));
    figure("bit/s", shown(bits));
    figure("tx", shown(verdicts.map(|verdicts| verdicts.tx)));
    figure("redirect", shown(verdicts.map(|verdicts| verdicts.redirect)));
    figure("pass", shown(verdicts.map(|verdicts| verdicts.pass)));
    figure("drop", shown(verdicts.map(|verdicts| verdicts.drop)));
    let table = app.status.flow_table;
    figure("flows", format!("{}/{}", count(table.entries), count(table.capacity)));
    if app.status.nat_table.entries > 0 {
        let table = app.status.nat_table;
        figure("nat", format!("{}/{}", count(table.entries), count(table.capacity)));
    }
    figure("tracked", count(app.status.tracked_slots));
    if let Some(capture) = &app.status.capture {
        figure("capturing for", time(Duration::from_secs(capture.seconds)));
    }
    Line::from(spans)
}

/// Received on the left, dropped on the right.
fn charts(pen: &mut Pen<'_>, y: u16, app: &App) {
    let half = pen.area.width / 2;
    let history = &app.history;
    chart(pen, y, 0, half, "rx", &history.received);
    chart(pen, y, half, pen.area.width - half, "drop", &history.dropped);
}

fn chart(pen: &mut Pen<'_>, y: u16, x: u16, width: u16, name: &str, trail: &Trail) {
    let bars = usize::from(width).saturating_sub(name.len() + "  peak 9.9M ".len());
    let peak = format!("peak {:<5}", rate(trail.peak(bars).into()));
    let (dim, style) = (pen.palette.dim(), pen.palette.chart());
    let x = pen.text(x, y, name, dim);
    let x = pen.text(x + 1, y, &trail.bars(bars), style);
    pen.text(x + 1, y, &peak, dim);
}

/// Reasons with packets now, and then those that had some once; as many as there is room for.
fn drops(pen: &Pen<'_>, app: &App) -> Line<'static> {
    let palette = pen.palette;
    let per_second = |reason: &String| app.rates.drops.get(reason).copied().flatten().unwrap_or(0.0);
    let mut all: Vec<_> = app
        .status
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| (per_second(reason), *count, reason))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    let mut spans = vec![Span::styled("drops  ", palette.dim())];
    if all.is_empty() {
        spans.push(Span::styled("none", palette.of(Rating::Good)));
    }
    for (now, total, reason) in all {
        let style = if now > 0.0 { palette.of(Rating::Doubtful) } else { palette.dim() };
        spans.push(Span::styled(format!("{} {}/s ({})  ", plain(reason), rate(now), count(total)), style));
    }
    Line::from(spans)
}

fn alarms(app: &App, now: Instant) -> Vec<String> {
    let mut alarms = Vec::new();
    if let Some((error, since)) = &app.silence {
        let ago = time(now.saturating_duration_since(*since));
        alarms.push(format!("NO ANSWER for {ago}, asking again: {error}"));
    }
    // What follows the first line is in `ballast status`.
    let told = alarms::of_status(&app.status).into_iter();
    alarms.extend(told.map(|(what, why)| format!("{what}: {}", why.lines().next().unwrap_or_default())));
    alarms
}

/// More of them would leave no room for the table.
const MOST_ALARMS: usize = 3;

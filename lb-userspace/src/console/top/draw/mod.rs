//! Puts an [`App`] on a screen. Only rows that are in sight are formatted.

mod columns;
mod head;
mod overlay;
mod palette;
mod table;

use std::time::Instant;

use lb_common::abi::DropReason;
use ratatui::{Frame, buffer::Buffer, layout::Rect, style::Style, text::Line};

use super::{
    app::App,
    rows::{Row, View},
};
use crate::{console::plain, telemetry::drops};
pub(super) use palette::Palette;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, palette: Palette, now: Instant) {
    let area = frame.area();
    let mut pen = Pen { buffer: frame.buffer_mut(), area, palette };
    if area.width < NARROWEST || area.height < LOWEST {
        pen.text(0, 0, "the terminal is too small", palette.plain());
        return;
    }
    let mut y = head::draw(&mut pen, app, now);
    let news = if area.height < ROOMY { 1 } else { area.height / 6 };
    let foot = news + 2;
    title(&mut pen, y, app);
    y += 1;
    let table = Rect { y, height: area.height.saturating_sub(y + foot), ..area };
    table::draw(&mut pen, table, app);
    let foot = area.height - foot;
    draw_news(&mut pen, foot, news, app);
    pen.text(0, foot + news, &detail(app), palette.dim());
    bottom(&mut pen, area.height - 1, app);
    if app.helping {
        overlay::help(&mut pen);
    }
    if let Some(dialog) = &app.dialog {
        overlay::dialog(&mut pen, dialog);
    }
}

/// Writes to the screen, never past its right edge.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    palette: Palette,
}

impl Pen<'_> {
    /// Returns where the text ends.
    fn text(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        let room = self.area.width.saturating_sub(x);
        if room == 0 || y >= self.area.height {
            return x;
        }
        self.buffer.set_stringn(x, y, plain(text), room.into(), style).0
    }

    fn line(&mut self, y: u16, line: &Line<'_>) {
        if y < self.area.height {
            self.buffer.set_line(0, y, line, self.area.width);
        }
    }

    /// A style under the whole line.
    fn fill(&mut self, y: u16, style: Style) {
        self.buffer.set_style(Rect { y, height: 1, ..self.area }, style);
    }
}

/// What is listed, how much of it, and how.
fn title(pen: &mut Pen<'_>, y: u16, app: &App) {
    let (what, all) = match &app.view {
        View::Services => ("Services".to_owned(), app.status.services.len()),
        View::Backends => {
            ("Backends".to_owned(), app.status.services.iter().map(|one| one.backends.len()).sum())
        }
        View::Service(name) => {
            let service = app.status.services.iter().find(|one| one.name == *name);
            (format!("Service {name}"), service.map_or(0, |one| one.backends.len()))
        }
        View::Drops => ("Drops".to_owned(), app.status.drops.len()),
    };
    let shown = app.list.rows.len();
    let count = if shown == all { all.to_string() } else { format!("{shown} of {all}") };
    let order = if app.list.reversed { ", least first" } else { "" };
    let mut text = format!(" {what} ({count})  by {}{order}", app.list.sort.as_str());
    if app.list.typing || !app.list.filter.is_empty() {
        let cursor = if app.list.typing { "_" } else { "" };
        text += &format!("  /{}{cursor}", app.list.filter);
    }
    pen.fill(y, pen.palette.bar());
    pen.text(0, y, &text, pen.palette.bar());
}

/// The newest last; on a low terminal the newest alone.
fn draw_news(pen: &mut Pen<'_>, y: u16, height: u16, app: &App) {
    let skipped = app.news.len().saturating_sub(height.into());
    for (y, (clock, notice)) in (y..).zip(app.news.iter().skip(skipped)) {
        let x = pen.text(0, y, clock, pen.palette.dim());
        pen.text(x + 1, y, &notice.text, pen.palette.of(notice.rating));
    }
}

/// More about what the cursor is on than its line has room for.
fn detail(app: &App) -> String {
    match app.selected() {
        Some(Row::Service(at)) => app.status.services.get(at).map_or_else(String::new, |of| {
            format!("{}: {}/{} {} {}", of.name, of.address, of.protocol, of.forwarding, of.algorithm)
        }),
        Some(row @ Row::Backend(..)) => app.backend(row).map_or_else(String::new, |(service, backend)| {
            let way = if backend.reachable { "" } else { ", next hop unresolved" };
            let detail = match backend.health_detail.as_str() {
                "" => String::new(),
                detail => format!(": {detail}"),
            };
            format!(
                "{}/{}: {} weight {} {}, {}{detail}{way}",
                service.name, backend.name, backend.address, backend.weight, backend.admin, backend.health
            )
        }),
        Some(Row::Drop(at)) => app.status.drops.keys().nth(at).map_or_else(String::new, |name| {
            let known = DropReason::ALL.into_iter().find(|reason| reason.name() == name);
            format!("{name}: {}", known.map_or("a reason that this program does not know", drops::meaning))
        }),
        None => String::new(),
    }
}

/// What became of a command, or else which keys there are.
fn bottom(pen: &mut Pen<'_>, y: u16, app: &App) {
    if let Some(outcome) = &app.outcome {
        let style = pen.palette.loud(outcome.rating);
        pen.fill(y, style);
        pen.text(0, y, &outcome.text, style);
        return;
    }
    let own: &[_] = match &app.view {
        View::Services => &[("Enter", "open"), ("Tab", "views")],
        View::Backends => &[("d", "drain"), ("e", "enable"), ("Tab", "views")],
        View::Service(_) => &[("d", "drain"), ("e", "enable"), ("Esc", "back")],
        View::Drops => &[("Tab", "views")],
    };
    let keys = match app.list.typing {
        true => [("Enter", "keep"), ("Esc", "all")].to_vec(),
        false => {
            [&[("q", "quit"), ("?", "help"), ("/", "filter"), ("s", "sort")], own, &[("p", "pause")]].concat()
        }
    };
    let mut x = 0;
    for (key, does) in keys {
        x = pen.text(x, y, key, pen.palette.bold());
        x = pen.text(x + 1, y, does, pen.palette.dim()) + 2;
    }
}

const NARROWEST: u16 = 40;
const LOWEST: u16 = 12;
/// From this height on there is room for more than the newest of the news.
const ROOMY: u16 = 30;

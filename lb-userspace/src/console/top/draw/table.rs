use ratatui::{
    layout::Rect,
    style::{Modifier, Style},
};

use super::{
    Pen,
    columns::{Column, Field},
};
use crate::console::{
    fit::{self, Kind, fit, shorten},
    top::app::App,
};

/// Headings and rows.
pub(super) fn draw(pen: &mut Pen<'_>, area: Rect, app: &mut App) {
    let columns = Column::of(&app.view);
    let widths = widths(columns, app, area.width.into());
    headings(pen, area.y, app, columns, &widths);
    let height = area.height.saturating_sub(1);
    app.list.in_sight(height.into());
    let app = &*app;
    if app.list.rows.is_empty() {
        let why = if app.list.filter.is_empty() { "nothing yet" } else { "nothing like that; Esc shows all" };
        pen.text(1, area.y + 1, why, pen.palette.dim());
        return;
    }
    let rows = app.list.rows.iter().enumerate().skip(app.list.first).take(height.into());
    for (y, (at, row)) in (area.y + 1..).zip(rows) {
        let mut x = 0;
        for (column, width) in columns.iter().zip(&widths) {
            let Some(width) = *width else { continue };
            let (text, style) = match column.field(app, *row, pen.palette) {
                None => (String::new(), pen.palette.plain()),
                Some(Field::Text(text, style)) => (text, style),
                Some(Field::Trend(trail)) => {
                    (trail.map(|trail| trail.bars(width)).unwrap_or_default(), pen.palette.chart())
                }
            };
            put(pen, x, y, &text, column.kind(), width, style);
            x += u16::try_from(width + GAP).unwrap_or(u16::MAX);
        }
        if at == app.list.at() {
            pen.fill(y, pen.palette.bar());
        }
    }
}

/// What each column takes; the charts take what is left.
fn widths(columns: &[Column], app: &App, room: usize) -> Vec<Option<usize>> {
    let natural: Vec<_> = columns
        .iter()
        .map(|column| {
            let heading = fit::width(column.heading(&app.view));
            fit::Column { kind: column.kind(), width: column.width(app).max(heading) }
        })
        .collect();
    let place = |wanted: &Column| columns.iter().position(|column| column == wanted);
    let expendable: Vec<_> = Column::EXPENDABLE.iter().filter_map(place).collect();
    let mut widths = fit(&natural, &expendable, room, GAP);
    let shown = widths.iter().flatten().count();
    let taken = widths.iter().flatten().sum::<usize>() + GAP * shown.saturating_sub(1);
    if let Some(Some(trend)) = place(&Column::Trend).and_then(|at| widths.get_mut(at)) {
        *trend += room.saturating_sub(taken);
    }
    widths
}

fn headings(pen: &mut Pen<'_>, y: u16, app: &App, columns: &[Column], widths: &[Option<usize>]) {
    let mut x = 0;
    for (column, width) in columns.iter().zip(widths) {
        let Some(width) = *width else { continue };
        let mut style = pen.palette.bold();
        if column.is_sorted_by(app.list.sort) {
            style = style.add_modifier(Modifier::UNDERLINED);
        }
        let kind = if *column == Column::Trend { Kind::Prose } else { column.kind() };
        put(pen, x, y, column.heading(&app.view), kind, width, style);
        x += u16::try_from(width + GAP).unwrap_or(u16::MAX);
    }
}

fn put(pen: &mut Pen<'_>, x: u16, y: u16, text: &str, kind: Kind, width: usize, style: Style) {
    let shown = shorten(text, kind, width);
    if kind != Kind::Number {
        pen.text(x, y, &shown, style);
        return;
    }
    // Only the text has the style: an underlined heading would have a line before it, too.
    let before = width - fit::width(&shown);
    pen.text(x + u16::try_from(before).unwrap_or(u16::MAX), y, &shown, style);
}

const GAP: usize = 1;

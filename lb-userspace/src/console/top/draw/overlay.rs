//! Boxes over the rest.

use ratatui::{
    layout::Rect,
    style::{Modifier, Style},
};

use super::Pen;
use crate::console::{Rating, fit, top::dialog::Dialog};

pub(super) fn dialog(pen: &mut Pen<'_>, dialog: &Dialog) {
    let question = dialog.question();
    let style = if dialog.grave { pen.palette.of(Rating::Bad) } else { pen.palette.plain() };
    let mut lines: Vec<_> = dialog.lines.iter().map(|line| (line.clone(), style)).collect();
    lines.push((String::new(), style));
    lines.push(("y  yes        n  no".to_owned(), pen.palette.bold()));
    framed(pen, &question, &lines);
}

pub(super) fn help(pen: &mut Pen<'_>) {
    let plain = pen.palette.plain();
    let lines: Vec<_> = KEYS.iter().map(|(keys, does)| (format!("{keys:<14}{does}"), plain)).collect();
    framed(pen, "Keys", &lines);
}

/// In the middle of the screen, as large as need be.
fn framed(pen: &mut Pen<'_>, title: &str, lines: &[(String, Style)]) {
    let widest =
        lines.iter().map(|(line, _)| fit::width(line)).chain([fit::width(title) + 1]).max().unwrap_or(0);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(pen.area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(pen.area.height);
    let (left, top) = ((pen.area.width - width) / 2, (pen.area.height - height) / 2);
    let box_of = Rect { x: left, y: top, width, height };
    pen.buffer.set_style(box_of, Style::reset());
    let inner = usize::from(width).saturating_sub(2);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let title = fit::shorten(title, fit::Kind::Name, inner.saturating_sub(3));
    let head = format!("┌─ {title} {}┐", "─".repeat(inner.saturating_sub(fit::width(&title) + 3)));
    pen.text(left, top, &head, bold);
    let room = usize::from(height).saturating_sub(2);
    for (y, (line, style)) in (top + 1..).zip(lines.iter().take(room)) {
        pen.text(left, y, &format!("│{}│", " ".repeat(inner)), bold);
        pen.text(left + 2, y, &fit::shorten(line, fit::Kind::Prose, inner.saturating_sub(2)), *style);
    }
    pen.text(left, top + height - 1, &format!("└{}┘", "─".repeat(inner)), bold);
}

const KEYS: [(&str, &str); 15] = [
    ("up down j k", "move; PgUp PgDn Home End g G move further"),
    ("Enter, right", "open the service"),
    ("Esc, left", "back; in a filtered list first: show all"),
    ("Tab, 1 2 3", "services, all backends, drops"),
    ("/", "filter: words of names, addresses, states"),
    ("s", "sort by packets, bits, new flows, state, name"),
    ("r", "the other way round"),
    ("d", "drain the backend, after a yes"),
    ("e", "enable the backend, after a yes"),
    ("p, space", "pause"),
    ("+ -", "look less or more often"),
    ("Ctrl-L", "draw it all anew"),
    ("? h F1", "this"),
    ("q, Ctrl-C", "quit"),
    ("", "any key closes this"),
];

//! Text that takes the place of what was shown before it, on an ordinary screen: the last of it is still there afterwards.

use std::io::{self, Write};

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct Redraw {
    lines: usize,
    size: Option<Size>,
}

/// Of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: u16,
    pub(super) rows: u16,
}

impl Size {
    pub(super) fn of_stdout() -> Self {
        let (columns, rows) = crossterm::terminal::size().unwrap_or((0, 0));
        // Terminals that do not know it say 0.
        Self { columns: if columns == 0 { 80 } else { columns }, rows: if rows == 0 { 24 } else { rows } }
    }
}

impl Redraw {
    /// What to write to a terminal of this size so that it shows `text`, or as much of it as has room.
    pub(super) fn frame(&mut self, text: &str, size: Size) -> String {
        let mut frame = String::from(HIDE_CURSOR);
        match self.size {
            // What the terminal made of the lines when it became another size nobody knows.
            Some(before) if before != size => frame += CLEAR,
            _ if self.lines > 0 => frame += &format!("\u{1b}[{}A\r", self.lines),
            _ => {}
        }
        let lines: Vec<_> = text.lines().collect();
        let room = usize::from(size.rows.max(2)) - 1;
        // A line that is too long would become two; the terminal cuts it instead.
        frame += NO_WRAP;
        self.lines = 0;
        let mut put = |line: &str| {
            frame += &format!("{line}{CLEAR_LINE}\r\n");
            self.lines += 1;
        };
        match lines.len() > room {
            false => lines.iter().for_each(|line| put(line)),
            true => {
                lines.iter().take(room - 1).for_each(|line| put(line));
                put(&format!("({} more lines; a higher terminal shows them)", lines.len() + 1 - room));
            }
        }
        self.size = Some(size);
        frame + WRAP + CLEAR_BELOW
    }
}

impl Drop for Redraw {
    fn drop(&mut self) {
        if self.size.is_some() {
            // Where the terminal is gone there is nothing to put right.
            let _ = io::stdout().write_all(SHOW_CURSOR.as_bytes());
            let _ = io::stdout().flush();
        }
    }
}

const HIDE_CURSOR: &str = "\u{1b}[?25l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 80, rows: 5 };

    /// Without what says how to draw.
    fn lines(frame: &str) -> Vec<&str> {
        let text = frame.split_once(NO_WRAP).map_or(frame, |(_, text)| text);
        text.lines().filter_map(|line| line.strip_suffix(CLEAR_LINE)).collect()
    }

    #[test]
    fn a_frame_takes_the_place_of_the_one_before() {
        let mut redraw = Redraw::default();
        assert!(!redraw.frame("a\nb\n", SIZE).contains("\u{1b}[2A"));
        assert!(redraw.frame("c\n", SIZE).contains("\u{1b}[2A\r"));
        assert!(redraw.frame("d\n", SIZE).contains("\u{1b}[1A\r"));
        let resized = redraw.frame("e\n", Size { columns: 40, rows: 5 });
        assert!(resized.contains(CLEAR) && !resized.contains("\u{1b}[1A"), "{resized:?}");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let mut redraw = Redraw::default();
        assert_eq!(lines(&redraw.frame("a\nb\nc\nd\n", SIZE)), ["a", "b", "c", "d"]);
        let cut = redraw.frame("a\nb\nc\nd\ne\nf\n", SIZE);
        assert_eq!(lines(&cut), ["a", "b", "c", "(3 more lines; a higher terminal shows them)"]);
        assert!(redraw.frame("x", SIZE).contains("\u{1b}[4A\r"));
    }
}

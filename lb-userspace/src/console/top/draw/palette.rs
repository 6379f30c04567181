use ratatui::style::{Color, Modifier, Style};

use crate::console::Rating;

/// Styles; without colours what matters is told by weight. Only the terminal's own colours, so that they suit its background.
#[derive(Clone, Copy, Debug)]
pub(in crate::console::top) struct Palette {
    pub(in crate::console::top) colour: bool,
}

impl Palette {
    pub(super) fn plain(self) -> Style {
        Style::new()
    }

    pub(super) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Of bars over the whole width.
    pub(super) fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn of(self, rating: Rating) -> Style {
        let (colour, modifier) = match rating {
            Rating::Good => (Color::Green, Modifier::empty()),
            Rating::Doubtful => (Color::Yellow, Modifier::empty()),
            Rating::Bad => (Color::Red, Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        if self.colour { style.fg(colour) } else { style }
    }

    /// Of bars that nobody shall miss.
    pub(super) fn loud(self, rating: Rating) -> Style {
        self.of(rating).add_modifier(Modifier::REVERSED)
    }

    pub(super) fn chart(self) -> Style {
        if self.colour { Style::new().fg(Color::Cyan) } else { Style::new() }
    }
}

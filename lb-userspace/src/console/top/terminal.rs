//! The terminal, put back as it was whatever happens.

use std::io::{self, Stdout};

use ratatui::{Frame, Terminal, backend::CrosstermBackend};

/// The whole screen, without what was on it; dropping it brings that back.
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// A panic restores the terminal, too, before it says anything.
    ///
    /// # Errors
    ///
    /// If standard output is no terminal, or not one that can be asked for keys.
    pub(super) fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }

    /// Draws everything anew: somebody else may have written to the terminal.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.0.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Says it on standard error where that fails.
        ratatui::restore();
    }
}

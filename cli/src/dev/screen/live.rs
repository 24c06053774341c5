//! A region at the end of the terminal that is drawn over.

use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal::{Clear, ClearType, size};
use std::io::{Stdout, Write as _, stdout};

/// Taken where the terminal doesn't say.
const SIZE: (u16, u16) = (80, 24);

pub(super) struct Region {
    /// Lines drawn last.
    drawn: u16,
}

impl Region {
    pub(super) fn new() -> Self {
        Region { drawn: 0 }
    }

    /// Draws lines over those drawn before; what doesn't fit the terminal is cut off.
    pub(super) fn draw(&mut self, lines: &[String]) {
        let (columns, rows) = size().unwrap_or(SIZE);
        let mut out = stdout();
        self.back(&mut out);
        let fitting = usize::from(rows.saturating_sub(1));
        for line in lines.iter().take(fitting) {
            // A terminal that is gone ends the process by its own signal.
            let _ = queue!(out, Print(cut(line, usize::from(columns))), Print("\r\n"));
        }
        let _ = queue!(out, Hide).and_then(|()| out.flush());
        self.drawn = u16::try_from(lines.len().min(fitting)).unwrap_or(0);
    }

    /// Takes the region away, for lines that stay.
    pub(super) fn clear(&mut self) {
        let mut out = stdout();
        self.back(&mut out);
        let _ = out.flush();
        self.drawn = 0;
    }

    /// Gives the cursor back.
    pub(super) fn end(&mut self) {
        self.drawn = 0;
        let mut out = stdout();
        let _ = queue!(out, Show).and_then(|()| out.flush());
    }

    fn back(&self, out: &mut Stdout) {
        if self.drawn > 0 {
            let _ = queue!(out, MoveUp(self.drawn), MoveToColumn(0));
        }
        let _ = queue!(out, Clear(ClearType::FromCursorDown));
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.end();
    }
}

/// At most so many visible characters; escape sequences count nothing.
fn cut(line: &str, columns: usize) -> String {
    let (mut text, mut visible, mut escape) = (String::new(), 0, false);
    for character in line.chars() {
        if escape {
            escape = !character.is_ascii_alphabetic();
        } else if character == '\u{1b}' {
            escape = true;
        } else if visible < columns {
            visible += 1;
        } else {
            continue;
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_without_losing_the_end_of_a_colour() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(
            cut("\u{1b}[31mabcdef\u{1b}[0m", 3),
            "\u{1b}[31mabc\u{1b}[0m"
        );
    }
}

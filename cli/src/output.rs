//! Everything that goes to standard output: tables for people, JSON and YAML for programs.
//!
//! Colour is used on a terminal only, and never with `NO_COLOR` set. A reader that went away (`tidemill … | head`) ends the
//! command quietly.

mod visible;

use crate::error::{CliError, Exit, Result, chain};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
pub(crate) use visible::visible;

/// Longest id or key in a table, in characters.
const ID_CHARACTERS: usize = 60;

/// Columns of a terminal that doesn't say how wide it is.
const COLUMNS_UNKNOWN: u16 = 80;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document; one per line where results come as a stream.
    Json,
    /// One YAML document.
    Yaml,
}

/// Standard output of one command.
#[derive(Debug)]
pub(crate) struct Output {
    /// What was asked for.
    pub(crate) format: Format,
    colour: bool,
    /// Columns of the terminal; nothing if it is none.
    width: Option<u16>,
}

/// What a cell says about the state of things; it only decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look at it.
    Attention,
    /// It went wrong.
    Bad,
    /// Less important.
    Faint,
}

/// Text of a table, with or without a tone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    text: String,
    tone: Option<Tone>,
}

impl<T: ToString> From<T> for Text {
    fn from(text: T) -> Self {
        Text {
            text: text.to_string(),
            tone: None,
        }
    }
}

impl Text {
    /// Somebody's id or key, cut where it would widen the table for all others.
    pub(crate) fn id(id: &str) -> Self {
        match id.char_indices().nth(ID_CHARACTERS) {
            Some((end, _)) => format!("{}…", id.get(..end).unwrap_or_default()).into(),
            None => id.into(),
        }
    }

    /// The same, less important.
    pub(crate) fn faint(self) -> Self {
        Text {
            tone: Some(Tone::Faint),
            ..self
        }
    }

    /// Text with a tone.
    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Text {
            text: text.to_string(),
            tone: Some(tone),
        }
    }
}

impl Output {
    /// The output of this process.
    pub(crate) fn new(format: Format) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output {
            format,
            colour: terminal && !no_colour,
            width: terminal.then(|| columns(crossterm::terminal::size().ok())),
        }
    }

    /// Whether people watch.
    pub(crate) fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// Writes a line. For people it is [`visible`]; programs get it as it is.
    ///
    /// # Errors
    /// When it can't be written; quietly if the reader is gone.
    pub(crate) fn line(&self, line: impl AsRef<str>) -> Result<()> {
        match self.format {
            Format::Table => self.write(&visible(line.as_ref()), "\n"),
            Format::Json | Format::Yaml => self.write(line.as_ref(), "\n"),
        }
    }

    /// As [`Output::line`], of a text whose line ends are ours.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn lines(&self, text: &str) -> Result<()> {
        text.split('\n').try_for_each(|line| self.line(line))
    }

    /// Writes a text that nobody else had a part in, as it is.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn own(&self, text: &str) -> Result<()> {
        self.write(text, "\n")
    }

    /// Writes a table with its heads in capitals. `empty` is said where there are no rows.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn table(&self, heads: &[&str], rows: Vec<Vec<Text>>, empty: &str) -> Result<()> {
        let heads: Vec<String> = heads.iter().map(|head| head.to_uppercase()).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        self.table_as_named(&heads, rows, empty)
    }

    /// As [`Output::table`], with its heads as they are.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn table_as_named(
        &self,
        heads: &[&str],
        rows: Vec<Vec<Text>>,
        empty: &str,
    ) -> Result<()> {
        if rows.is_empty() {
            return self.line(empty);
        }
        self.write(&self.render(heads, rows), "")
    }

    /// A table as text, each line ended.
    pub(crate) fn render(&self, heads: &[&str], rows: Vec<Vec<Text>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(heads.iter().copied());
        for row in rows {
            table.add_row(row.into_iter().map(|text| self.cell(text)));
        }
        if let Some(width) = self.width {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn cell(&self, text: Text) -> Cell {
        let cell = Cell::new(visible(&text.text));
        match text.tone.filter(|_| self.colour) {
            Some(Tone::Good) => cell.fg(Color::Green),
            Some(Tone::Attention) => cell.fg(Color::Yellow),
            Some(Tone::Bad) => cell.fg(Color::Red),
            Some(Tone::Faint) => cell.fg(Color::DarkGrey),
            None => cell,
        }
    }

    /// Writes a value as JSON or YAML. Not for [`Format::Table`].
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<()> {
        if self.format == Format::Yaml {
            let text = serde_saphyr::to_string(value).map_err(|error| {
                CliError::failed(format!("the result can't be written as YAML: {error}"))
            })?;
            return self.write(&text, if text.ends_with('\n') { "" } else { "\n" });
        }
        let text = serde_json::to_string_pretty(value).map_err(|error| {
            CliError::failed(format!("the result can't be written as JSON: {error}"))
        })?;
        self.write(&text, "\n")
    }

    fn write(&self, text: &str, end: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.write_all(end.as_bytes()))
            .and_then(|()| stdout.flush());
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => CliError::said(Exit::Unread),
            _ => CliError::failed(format!(
                "standard output can't be written: {}",
                chain(&error)
            )),
        })
    }
}

/// Columns of a terminal of this size; some (a serial line, `script`) say 0, as they don't know it.
fn columns(size: Option<(u16, u16)>) -> u16 {
    match size {
        Some((columns, _)) if columns > 0 => columns,
        _ => COLUMNS_UNKNOWN,
    }
}

/// Whole seconds in the short form of kubectl: `45s`, `3m`, `2h`, `5d`.
pub(crate) fn short_duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A duration as precisely as people want it: `3 ms`, `1.2 s`, `2m`.
pub(crate) fn precise_duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => short_duration(millis),
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn count(number: impl Into<u64>, one: &str) -> String {
    let number = number.into();
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{} {one}s", grouped(number))
    }
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_as_people_write_them() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(count(1_u64, "row"), "1 row");
        assert_eq!(count(2000_u64, "row"), "2,000 rows");
        assert_eq!(short_duration(119_999), "119s");
        assert_eq!(short_duration(120_000), "2m");
        assert_eq!(short_duration(172_800_000), "2d");
        assert_eq!(precise_duration(1_250), "1.2 s");
    }

    #[test]
    fn a_terminal_without_a_size_has_the_usual_one() {
        assert_eq!(columns(Some((132, 40))), 132);
        assert_eq!(columns(Some((0, 0))), 80);
        assert_eq!(columns(None), 80);
    }

    #[test]
    fn long_ids_are_cut() {
        let fits = "ä".repeat(60);
        assert_eq!(Text::id(&fits), Text::from(&fits));
        assert_eq!(Text::id(&(fits.clone() + "b")), Text::from(fits + "…"));
    }

    #[test]
    fn tables_have_no_escape_sequences_where_nobody_watches() {
        let output = Output {
            format: Format::Table,
            colour: false,
            width: None,
        };
        let rows = vec![
            vec![Text::toned("a\u{1b}[31mb", Tone::Bad), Text::from(1)],
            vec!["ccc".into(), "22".into()],
        ];
        assert_eq!(
            output.render(&["NAME", "N"], rows),
            "NAME          N\na\\u{1b}[31mb  1\nccc           22\n"
        );
    }
}

//! Lines of a file or of standard input, each with a limit.

use crate::error::{CliError, Result};
use std::io::IsTerminal;
use std::path::Path;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

/// One line.
pub(super) enum Line {
    /// Its bytes, without the end of the line.
    Text(Vec<u8>),
    /// It was longer than allowed and is left out.
    TooLong,
}

/// Lines, empty ones left out.
pub(super) struct Lines {
    source: Box<dyn AsyncBufRead + Send + Unpin>,
    shown: String,
    number: u64,
    repeatable: bool,
}

impl Lines {
    /// Opens a file, or standard input without one.
    pub(super) async fn open(file: Option<&Path>) -> Result<Self> {
        match file {
            Some(file) if file != Path::new("-") => {
                let shown = file.display().to_string();
                let opened = tokio::fs::File::open(file).await.map_err(|error| {
                    CliError::not_found(format!("{shown} can't be read: {error}"))
                })?;
                Ok(Lines {
                    source: Box::new(BufReader::new(opened)),
                    shown,
                    number: 0,
                    repeatable: true,
                })
            }
            _ if file.is_none() && std::io::stdin().is_terminal() => {
                Err(CliError::usage("there is nothing to publish")
                    .remedy("give --file FILE, pipe one event per line into it, or give --type"))
            }
            _ => Ok(Lines {
                source: Box::new(BufReader::new(tokio::io::stdin())),
                shown: "standard input".to_owned(),
                number: 0,
                repeatable: false,
            }),
        }
    }

    /// Whether the same lines may well come again: of a file, not of a pipe.
    pub(super) fn repeatable(&self) -> bool {
        self.repeatable
    }

    /// Number of the line that was given last, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that isn't empty; nothing at the end.
    pub(super) async fn next(&mut self, bytes_max: usize) -> Result<Option<Line>> {
        loop {
            let Some(line) = self.any(bytes_max).await? else {
                return Ok(None);
            };
            self.number += 1;
            match line {
                Line::Text(text) if text.trim_ascii().is_empty() => {}
                line => return Ok(Some(line)),
            }
        }
    }

    async fn any(&mut self, bytes_max: usize) -> Result<Option<Line>> {
        let mut line = Vec::new();
        let (mut begun, mut too_long) = (false, false);
        loop {
            let chunk = self.source.fill_buf().await;
            let chunk = chunk.map_err(|error| {
                CliError::failed(format!("{} can't be read: {error}", self.shown))
            })?;
            if chunk.is_empty() {
                break;
            }
            begun = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let (part, used) = match end {
                Some(end) => (chunk.get(..end).unwrap_or_default(), end + 1),
                None => (chunk, chunk.len()),
            };
            too_long |= line.len() + part.len() > bytes_max;
            if !too_long {
                line.extend_from_slice(part);
            }
            self.source.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(match (begun, too_long) {
            (false, _) => None,
            (true, true) => Some(Line::TooLong),
            (true, false) => Some(Line::Text(line)),
        })
    }
}

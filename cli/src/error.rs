//! What a command answers when it can't do what was asked: one line, and an exit code that programs can rely on.

use crate::output::visible;
use std::fmt;
use std::process::ExitCode;

/// Exit codes; part of the interface, listed in `tidemill --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nobody reads any more what it writes, which is no failure.
    Unread = 0,
    /// It failed, or what was looked at is invalid.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// What was named isn't there.
    NotFound = 3,
    /// NATS, or a worker, can't be reached.
    Unreachable = 4,
    /// It was understood and refused: the state of things, or permissions, don't allow it.
    Refused = 5,
}

/// Why a command did not do what was asked. Shown as `error: what; what would do`.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    what: String,
    remedy: Option<String>,
    quiet: bool,
}

/// What commands return.
pub(crate) type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// An error with the name of what it is about in `what`.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        CliError {
            exit,
            what: one_line(&what.to_string()),
            remedy: None,
            quiet: false,
        }
    }

    /// It failed.
    pub(crate) fn failed(what: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// The command line is wrong in a way that clap doesn't see.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Something named isn't there.
    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, what)
    }

    /// Everything was said already; only the exit code is left.
    pub(crate) fn said(exit: Exit) -> Self {
        CliError {
            quiet: true,
            ..Self::new(exit, "")
        }
    }

    /// With what would do.
    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints it, unless everything was said, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.quiet {
            eprintln!("error: {}", visible(&self.to_string()));
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.remedy {
            Some(remedy) if self.what.ends_with('?') => write!(f, " {}", capitalised(remedy)),
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

/// An error is one line, whatever is quoted in it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

//! Where the log lines of workers go: all of them to a file, the last warnings and errors to the screen.

use super::screen::shown;
use crate::error::{CliError, Result};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_core::names::ResourceId;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is written unless `TIDEMILL_LOG` says otherwise.
const FILTER: &str = "info,async_nats=off";
/// Warnings and errors kept for the screen.
const KEPT: usize = 50;

thread_local! {
    static RESOURCE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What is said in this thread from now on is said of this resource.
pub(crate) fn speak_for(resource: &ResourceId) {
    RESOURCE.set(format!("{}: ", shown(resource)));
}

/// The last warnings and errors of workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<VecDeque<Said>>>);

/// One warning or error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Whether it was an error.
    pub(crate) error: bool,
    /// The message with its fields.
    pub(crate) text: String,
}

impl Recent {
    /// Sets up logging for this process.
    ///
    /// # Errors
    /// The file can't be written, or the filter is wrong.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let path = folder.join("dev.log");
        let file = std::fs::File::create(&path).map_err(|error| {
            CliError::failed(format!("{} can't be written: {error}", path.display()))
        })?;
        let wanted = std::env::var("TIDEMILL_LOG").unwrap_or_default();
        let wanted = if wanted.is_empty() { FILTER } else { &wanted };
        let filter = EnvFilter::try_new(wanted).map_err(|error| {
            CliError::usage(format!("TIDEMILL_LOG={wanted} is no filter: {error}"))
        })?;
        let recent = Recent::default();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(Mutex::new(file));
        // It fails only when logging was set up before, by a test.
        let _ = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .with(recent.clone())
            .try_init();
        Ok(recent)
    }

    /// Takes what was said since the last time.
    pub(crate) fn take(&self) -> Vec<Said> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
            .collect()
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let said = Said {
            error: level == Level::ERROR,
            text: RESOURCE.with_borrow(|of| format!("{of}{line}")),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(said);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    /// What was wrong: first, as a terminal cuts lines off.
    why: String,
    fields: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.message, self.why, self.fields)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
            return;
        }
        let fields = match field.name() {
            "reason" | "error" => &mut self.why,
            _ => &mut self.fields,
        };
        // Writing to a String cannot fail.
        let _ = write!(fields, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_comes_before_whose_it_was() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                stream = "a/b",
                position = 2,
                reason = "NoSuchKey",
                error = "no total",
                key = "o-1",
                "it is parked"
            );
        });
        let text = "it is parked reason=NoSuchKey error=no total stream=a/b position=2 key=o-1";
        let said = Said {
            error: false,
            text: text.to_owned(),
        };
        assert_eq!(recent.take(), [said]);
    }
}

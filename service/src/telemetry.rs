//! Structured logs on standard error.

use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// What is logged unless `TIDEMILL_LOG` says otherwise. async-nats tells of every reconnect; we tell it better.
const DEFAULT_FILTER: &str = "info,async_nats=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line, for programs.
    #[default]
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err(format!("`{text}` is no log format: json or text")),
        }
    }
}

/// Sets up logging for the whole process; a second call changes nothing. The environment variable `TIDEMILL_LOG` filters, as in
/// `info,tidemill_worker_saga=debug`.
///
/// # Errors
/// What is wrong with the filter, as one sentence.
pub fn init(format: LogFormat) -> Result<(), String> {
    let wanted = std::env::var("TIDEMILL_LOG").unwrap_or_default();
    let wanted = if wanted.is_empty() {
        DEFAULT_FILTER
    } else {
        &wanted
    };
    let filter =
        EnvFilter::try_new(wanted).map_err(|error| format!("TIDEMILL_LOG={wanted}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
    // It fails only when somebody has set up logging before, who then knows what they want.
    drop(set);
    Ok(())
}

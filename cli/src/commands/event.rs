//! `tidemill event`.

mod from;
mod publish;
mod read;

use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill event publish orders --file events.jsonl
  tidemill event tail orders
  tidemill event get orders --entity o-1 -o json";

/// Commands on events.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish events, from JSON lines or from options
    #[command(after_help = publish::EXAMPLES)]
    Publish(publish::Args),
    /// Show events as they come
    #[command(after_help = read::TAIL_EXAMPLES)]
    Tail(read::Tail),
    /// Show events that are there
    #[command(after_help = read::GET_EXAMPLES)]
    Get(read::Get),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Publish(args) => publish::run(args, context).await,
        Command::Tail(args) => read::tail(args, context).await,
        Command::Get(args) => read::get(args, context).await,
    }
}

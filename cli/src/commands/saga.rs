//! `tidemill saga`.

mod act;
mod list;
mod resume;
pub(crate) mod show;
mod state;

use crate::context::Context;
use crate::error::Result;
use clap::Subcommand;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill saga list
  tidemill saga list order-fulfilment --state parked
  tidemill saga show order-fulfilment o-1
  tidemill saga accept-source order-fulfilment
  tidemill saga resume order-fulfilment";

/// Commands on sagas.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List sagas, or the instances of one
    #[command(after_help = list::EXAMPLES)]
    List(list::Args),
    /// Show what happened to an instance: each input, attempt, error and how long it took
    #[command(after_help = show::EXAMPLES)]
    Show(show::Args),
    /// Start an instance
    #[command(after_help = act::START_EXAMPLES)]
    Start(act::Start),
    /// Cancel an instance: what it did is taken back, unless its pivot has begun
    #[command(after_help = act::CANCEL_EXAMPLES)]
    Cancel(act::Cancel),
    /// Go on with a stream that was set back or replaced
    #[command(after_help = act::ACCEPT_EXAMPLES)]
    AcceptSource(act::AcceptSource),
    /// On a cluster: let the instances of a Saga go on that was applied again after a long while
    #[command(after_help = resume::EXAMPLES)]
    Resume(resume::Args),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Start(args) => act::start(args, context).await,
        Command::Cancel(args) => act::cancel(args, context).await,
        Command::AcceptSource(args) => act::accept_source(args, context).await,
        Command::Resume(args) => resume::run(args, context).await,
    }
}

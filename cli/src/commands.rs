//! One file per command.

pub(crate) mod completion;
pub(crate) mod dev;
pub(crate) mod event;
pub(crate) mod lint;
pub(crate) mod orphans;
pub(crate) mod parked;
pub(crate) mod permissions;
pub(crate) mod projection;
pub(crate) mod query;
pub(crate) mod rollout;
pub(crate) mod saga;

use crate::args::{Cli, Command, Written};
use crate::context::Context;
use crate::error::{CliError, Result};
use std::process::ExitCode;

/// Runs a command. Commands that end well but have something to say by their exit code give it.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    let written = cli.global.output;
    if written == Written::Nats && !matches!(cli.command, Command::Permissions(_)) {
        return Err(CliError::usage("-o nats is for `tidemill permissions`")
            .remedy("use table, json or yaml"));
    }
    let context = Context::new(cli.global);
    match cli.command {
        Command::Lint(args) => lint::run(&args, &context)?,
        Command::Dev(args) => Box::pin(dev::run(args, &context)).await?,
        Command::Event(command) => event::run(command, &context).await?,
        Command::Saga(command) => saga::run(command, &context).await?,
        Command::Projection(command) => projection::run(command, &context).await?,
        Command::Query(args) => query::run(args, &context).await?,
        Command::Parked(command) => parked::run(command, &context).await?,
        Command::Permissions(args) => permissions::run(&args, written, &context)?,
        Command::Rollout(args) => rollout::run(args, &context).await?,
        Command::Orphans(command) => orphans::run(command, &context).await?,
        Command::Completion(args) => completion::run(&args, &context)?,
    }
    Ok(ExitCode::SUCCESS)
}

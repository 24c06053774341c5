//! `tidemill parked`: what waits for a person's decision, keys of projections and instances of sagas alike.

mod decide;
mod list;
mod show;
mod waiting;

use crate::catalog;
use crate::context::Context;
use crate::error::{CliError, Result};
use clap::{Subcommand, ValueEnum};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::Nats;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill parked list
  tidemill parked show order-status o-1
  tidemill parked redrive order-status --all
  tidemill parked skip order-fulfilment o-1 --why 'refunded by hand'";

/// Commands on what is parked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what is parked, and why
    #[command(after_help = list::EXAMPLES)]
    List(list::Args),
    /// Show one parked key or instance in full
    #[command(after_help = show::EXAMPLES)]
    Show(show::Args),
    /// Try again, in order
    #[command(after_help = decide::REDRIVE_EXAMPLES)]
    Redrive(decide::Args),
    /// Give up what can't be done, and go on with what follows
    #[command(after_help = decide::SKIP_EXAMPLES)]
    Skip(decide::Args),
}

/// Which resource.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The Projection or Saga: NAME or NAMESPACE/NAME
    name: String,
    /// Which of the two, where both have the name
    #[arg(long, value_name = "KIND")]
    kind: Option<KindArgument>,
}

/// A kind, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArgument {
    /// A Projection
    Projection,
    /// A Saga
    Saga,
}

impl KindArgument {
    fn kind(self) -> Kind {
        match self {
            KindArgument::Projection => Kind::Projection,
            KindArgument::Saga => Kind::Saga,
        }
    }
}

impl Target {
    async fn resource(&self, context: &Context, nats: &Nats) -> Result<ResourceId> {
        if let Some(kind) = self.kind {
            return catalog::resource(context, nats, kind.kind(), &self.name).await;
        }
        let (namespace, name) = context.qualify(&self.name);
        let mut found = Vec::new();
        for kind in [Kind::Projection, Kind::Saga] {
            let resource = ResourceId::new(kind, &namespace, &name);
            if catalog::is_there(nats, &resource).await? {
                found.push(resource);
            }
        }
        match found.len() {
            0 => Err(CliError::not_found(format!(
                "there is no Projection and no Saga `{name}` in namespace {namespace}"
            ))
            .remedy("`tidemill projection list` and `tidemill saga list` show which there are")),
            1 => found.pop().ok_or_else(|| CliError::not_found(&self.name)),
            _ => Err(
                CliError::usage(format!("`{name}` is a Projection and a Saga"))
                    .remedy("say --kind projection or --kind saga"),
            ),
        }
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    match command {
        Command::List(args) => list::run(args, &nats, context).await,
        Command::Show(args) => show::run(args, &nats, context).await,
        Command::Redrive(args) => decide::run(args, decide::Way::Redrive, &nats, context).await,
        Command::Skip(args) => decide::run(args, decide::Way::Skip, &nats, context).await,
    }
}

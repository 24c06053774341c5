//! `tidemill saga start`, `cancel` and `accept-source`.

use super::show;
use crate::ask;
use crate::catalog;
use crate::context::Context;
use crate::error::{CliError, Exit, Result, chain};
use std::time::Duration;
use tidemill_core::control::{
    CancelRequest, Described, InstanceRequest, StartReply, StartRequest, saga_verb,
};
use tidemill_core::json::Value;
use tidemill_core::names::Kind;
use tidemill_core::status::InstanceState;

/// Shown at the end of the help of `start`.
pub(crate) const START_EXAMPLES: &str = "\
Examples:
  tidemill saga start order-fulfilment o-1 --data '{\"total\": 12.50}'
  tidemill saga start order-fulfilment o-1 --data '{\"total\": 12.50}' --await

An id starts once: an instance of this id that is there already is left as it is, and the command says so (exit code 0). \
With --await the exit code is 0 when the instance completed, else 1.";

/// Shown at the end of the help of `cancel`.
pub(crate) const CANCEL_EXAMPLES: &str = "\
Examples:
  tidemill saga cancel order-fulfilment o-1 --why 'customer called'

Refused (exit code 5) behind the pivot and when it is turned back or finished already. One that is parked because nobody knows whether \
a step happened (UnknownOutcome) stays parked until somebody decides about that, and is taken back then.";

/// Shown at the end of the help of `accept-source`.
pub(crate) const ACCEPT_EXAMPLES: &str = "\
Examples:
  tidemill saga accept-source order-fulfilment
  tidemill saga accept-source order-fulfilment --stream shop/orders

For a saga whose stream was set back or replaced (SourceReset in `tidemill saga list`): until then nothing is started from it, and \
what runs goes on. From now on new events start instances. What the stream holds already starts nothing: publish again what \
has to, or use `tidemill saga start`.";

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The Saga: NAME or NAMESPACE/NAME
    saga: String,
    /// Id of the instance
    instance: String,
    /// `input.data` of its expressions, JSON
    #[arg(short, long, value_name = "JSON", default_value = "null")]
    data: String,
    /// `input.subject` of its expressions [default: the id]
    #[arg(short, long, value_name = "ENTITY")]
    subject: Option<String>,
    /// Correlation id of everything it causes [default: the id]
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Wait until it is finished or parked, and show it
    #[arg(long)]
    r#await: bool,
    /// Longest wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "await", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// Arguments of `cancel`.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The Saga: NAME or NAMESPACE/NAME
    saga: String,
    /// Id of the instance
    instance: String,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// Who asks, for the log [default: USER]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// Arguments of `accept-source`.
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptSource {
    /// The Saga: NAME or NAMESPACE/NAME
    saga: String,
    /// The EventStream [default: every stream that was reset]
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
}

pub(crate) async fn start(args: Start, context: &Context) -> Result<()> {
    let data = Value::parse(args.data.as_bytes()).map_err(|error| {
        CliError::usage(format!("--data is not JSON: {}", chain(&error)))
            .remedy("put texts in double quotes and the whole in single ones")
    })?;
    let nats = context.connect().await?;
    let saga = catalog::resource(context, &nats, Kind::Saga, &args.saga).await?;
    let request = StartRequest {
        id: args.instance.clone(),
        data,
        subject: args.subject,
        correlation_id: args.correlation_id,
    };
    let reply: StartReply =
        ask::request(&nats, &saga, saga_verb::START, &request, ask::ANSWER_MAX).await?;
    if !args.r#await {
        if !context.for_people() {
            return context.output.document(&reply);
        }
        let name = format!("{}/{} {}", saga.namespace, saga.name, reply.id);
        return context.output.line(if reply.started {
            format!(
                "{name} started; `tidemill saga show {} {}` shows it",
                args.saga, reply.id
            )
        } else {
            format!("{name} was there already; nothing was started")
        });
    }
    let request = InstanceRequest { id: args.instance };
    let within = Duration::from_secs(args.timeout);
    let awaited = ask::request::<Described>(&nats, &saga, saga_verb::AWAIT, &request, within).await;
    let described = awaited.map_err(|error| match error.exit() {
        Exit::Unreachable => CliError::failed(format!(
            "{} was not finished within {} s",
            request.id, args.timeout
        ))
        .remedy("it goes on; give a longer --timeout, or look at it with `tidemill saga show`"),
        _ => error,
    })?;
    show::show(&described, &saga, context)?;
    match described.summary.state {
        InstanceState::Completed => Ok(()),
        _ => Err(CliError::said(Exit::Failed)),
    }
}

pub(crate) async fn cancel(args: Cancel, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    let saga = catalog::resource(context, &nats, Kind::Saga, &args.saga).await?;
    let request = CancelRequest {
        id: args.instance,
        by: ask::asked_by(args.by.as_deref()),
        why: args.why,
    };
    ask::tell(&nats, &saga, saga_verb::CANCEL, &request, context).await
}

pub(crate) async fn accept_source(args: AcceptSource, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    let saga = catalog::resource(context, &nats, Kind::Saga, &args.saga).await?;
    let request = ask::accept_source(args.stream.as_deref(), context);
    ask::tell(&nats, &saga, saga_verb::ACCEPT_SOURCE, &request, context).await
}

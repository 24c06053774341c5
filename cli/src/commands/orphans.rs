//! `tidemill orphans`.

mod delete;
mod find;

use crate::context::Context;
use crate::error::Result;
use crate::output::{Text, grouped};
use clap::Subcommand;
use find::{Orphan, Orphans};

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill orphans list
  tidemill orphans delete shop_old-orders

What a resource leaves in NATS stays when it is deleted (deletionPolicy: Retain), so that the same name applied again goes on. \
What nobody will apply again is an orphan: a stream or bucket with the mark of this cluster, whose resource isn't in the cluster.";

const LIST_EXAMPLES: &str = "\
Examples:
  tidemill orphans list
  tidemill orphans list -n shop -o json
  tidemill orphans list --cluster-id old-cluster

What carries no mark, or another cluster's, is never listed. Resources must be readable in all namespaces, or in the one that -n names. \
The id of a cluster that was taken down is known by nobody but you: --cluster-id; of one that is alive it is refused.";

const DELETE_EXAMPLES: &str = "\
Examples:
  tidemill orphans delete shop_old-orders KV_shop_old-status_rows
  tidemill orphans delete --all -n shop
  tidemill orphans delete --all --yes

Looked at again right before each is deleted: one whose resource is there by now stays, and so does one that isn't the stream that was \
listed (exit code 5). With the last stream of a Projection or Saga goes what the shared buckets hold of it. Nothing brings it back.";

/// Commands on orphans.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List streams and buckets whose resource isn't there any more
    #[command(after_help = LIST_EXAMPLES)]
    List(Of),
    /// Delete some of them, with what is in them
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(delete::Args),
}

/// Whose orphans.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    /// Id of the cluster in marks [default: that of the operator's configuration]
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::List(of) => {
            let found = Orphans::find(&of, context).await?;
            if !context.for_people() {
                return context.output.document(&found.orphans);
            }
            let place = match context.given_namespace() {
                Some(namespace) => format!(" of namespace {namespace}"),
                None => String::new(),
            };
            let nothing = format!(
                "every stream{place} with the mark of cluster `{}` has its resource",
                found.cluster_id
            );
            table(&found.orphans, &nothing, context)
        }
        Command::Delete(args) => delete::run(args, context).await,
    }
}

fn table(orphans: &[Orphan], nothing: &str, context: &Context) -> Result<()> {
    let rows = orphans.iter().map(|orphan| {
        let last = orphan.last_message.as_deref();
        let mut row: Vec<Text> = vec![
            orphan.stream.as_str().into(),
            orphan.resource.of.name().into(),
            format!("{}/{}", orphan.resource.namespace, orphan.resource.name).into(),
        ];
        row.extend([orphan.messages, orphan.bytes].map(|number| Text::from(grouped(number))));
        row.push(Text::from(last.unwrap_or("never")).faint());
        row
    });
    let heads = [
        "stream",
        "kind",
        "resource",
        "messages",
        "bytes",
        "last message",
    ];
    context.output.table(&heads, rows.collect(), nothing)
}

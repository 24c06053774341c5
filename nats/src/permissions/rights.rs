//! Rights of whom no contract describes: the operator, and applications. Other than [`Permissions`] they may have exceptions.

use super::{Permissions, Responses, api_prefix, worker};
use crate::api::STREAM_ADVISORIES;
use crate::kv::subject_of;
use tidemill_core::contract::{Connection, Contract, Workload};
use tidemill_core::definition::SagaDefinition;
use tidemill_core::names;

/// Subjects of one direction. No list at all = everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// These, wildcards allowed; empty = all.
    pub allow: Vec<String>,
    /// But not these.
    pub deny: Vec<String>,
}

/// What a user may do. The default is everything in its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// May publish to.
    pub publish: Subjects,
    /// May subscribe to.
    pub subscribe: Subjects,
    /// May answer, too, whatever `publish` says.
    pub responses: Option<Responses>,
}

impl Subjects {
    fn only(allow: Vec<String>) -> Subjects {
        // The server takes an empty list for none, that is, for everything.
        let deny = match allow.is_empty() {
            true => vec![">".to_owned()],
            false => Vec::new(),
        };
        Subjects { allow, deny }
    }

    fn all_but(deny: impl IntoIterator<Item = String>) -> Subjects {
        Subjects {
            allow: vec![">".to_owned()],
            deny: deny.into_iter().collect(),
        }
    }
}

impl From<&Permissions> for Rights {
    fn from(permissions: &Permissions) -> Rights {
        let subjects = |grants: &[super::Grant]| {
            let subjects = grants.iter().map(|grant| grant.subject.clone());
            Subjects::only(subjects.collect())
        };
        Rights {
            publish: subjects(&permissions.publish),
            subscribe: subjects(&permissions.subscribe),
            responses: permissions.responses,
        }
    }
}

/// What workers need that go on with instances of earlier definitions: [`worker`] of each.
#[must_use]
pub fn worker_with(
    contract: &Contract,
    earlier: impl IntoIterator<Item = SagaDefinition>,
) -> Permissions {
    let mut all = worker(contract);
    for definition in earlier {
        let mut before = contract.clone();
        if let Workload::Saga(saga) = &mut before.workload {
            saga.definition = definition;
            all = all.and(worker(&before));
        }
    }
    all
}

/// What the operator needs, with inboxes below `inbox`: all of JetStream's API, since it makes and deletes streams; and of messages only
/// what it stores itself. It can publish no event, write no log and no row, and answer nobody.
#[must_use]
pub fn operator(connection: &Connection, inbox: &str) -> Rights {
    let stored =
        [names::OWNERS_BUCKET, names::COUNTERS_BUCKET].map(|bucket| subject_of(bucket, ">"));
    let publish = [format!("{}.>", api_prefix(connection))]
        .into_iter()
        .chain(stored);
    let subscribe = [format!("{inbox}.>"), STREAM_ADVISORIES.to_owned()];
    Rights {
        publish: Subjects::only(publish.collect()),
        subscribe: Subjects::only(subscribe.into()),
        responses: None,
    }
}

/// What an application may do: publish events, read streams and rows, ask, and answer, on whatever subject; but not what is below the
/// root of our own subjects, nor write what buckets hold, nor change streams. Inboxes are at `_INBOX`, as all clients have them.
#[must_use]
pub fn application(connection: &Connection) -> Rights {
    let (api, root) = (api_prefix(connection), &connection.subject_root);
    let own = format!("{root}.>");
    let managing = MANAGING.iter().map(|call| format!("{api}.{call}"));
    let publish = [own.clone(), "$KV.>".to_owned(), "$SYS.>".to_owned()];
    Rights {
        publish: Subjects::all_but(publish.into_iter().chain(managing)),
        // Whoever hears others' calls and acknowledgements hears what is answered where; and where somebody listens, a consumer of theirs may have the
        // server deliver, whoever may not publish there: so nobody listens where buckets are written.
        subscribe: Subjects::all_but([
            own,
            "$JS.>".to_owned(),
            "$KV.>".to_owned(),
            "$SYS.>".to_owned(),
        ]),
        // A participant's answer goes to a log.
        responses: Some(Responses {
            max: 1,
            within: super::RESPONSES_WITHIN,
        }),
    }
}

/// Calls that change streams, what is in them, or servers (nats-server 2.15).
const MANAGING: &[&str] = &[
    "STREAM.CREATE.>",
    "STREAM.UPDATE.>",
    "STREAM.DELETE.>",
    "STREAM.PURGE.>",
    "STREAM.MSG.DELETE.>",
    "STREAM.SNAPSHOT.>",
    "STREAM.RESTORE.>",
    "STREAM.PEER.>",
    "STREAM.CANCEL_MOVE.>",
    "STREAM.LEADER.>",
    "CONSUMER.LEADER.>",
    "CONSUMER.PEER.>",
    "META.>",
    "SERVER.>",
    "ACCOUNT.>",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_list_is_nothing_that_may_be_done() {
        let rights = Rights::from(&Permissions::default());
        assert_eq!(rights.publish.deny, [">"]);
        assert_eq!(rights.subscribe.deny, [">"]);
    }

    #[test]
    fn calls_are_those_of_the_connection() {
        let connection = Connection {
            jetstream_domain: Some("leaf".to_owned()),
            subject_root: "_mine".to_owned(),
            ..Connection::plain("nats://nats:4222")
        };
        let (operator, application) = (operator(&connection, "_x"), application(&connection));
        assert_eq!(operator.publish.allow[0], "$JS.leaf.API.>");
        for denied in ["_mine.>", "$JS.leaf.API.STREAM.DELETE.>"] {
            assert!(
                application.publish.deny.contains(&denied.to_owned()),
                "{denied}"
            );
        }
        assert!(application.subscribe.deny.contains(&"_mine.>".to_owned()));
    }
}

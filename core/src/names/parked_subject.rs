//! Where in its parked stream an event stands.

use super::position::{EventPosition, incarnation_token, number};
use super::token::decode_token;
use super::{Kind, ResourceId};
use crate::definition::StreamRef;

/// Subject of a parked event, below [`ResourceId::parked_prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkedSubject {
    /// Of a Projection: `<partition>.<row token>`. What waits for one row has one subject.
    Row {
        /// The row's partition.
        partition: u16,
        /// The row's token, or [`super::KEYLESS_TOKEN`].
        token: String,
    },
    /// Of a Saga: `<partition>.<namespace>.<stream>.<incarnation token>.<generation>.<sequence>`. Each event has its own subject, so that
    /// it is parked once.
    Trigger {
        /// Partition of what could be told of the event.
        partition: u16,
        /// Where the event stands.
        position: EventPosition,
    },
}

impl ParkedSubject {
    /// The whole subject.
    #[must_use]
    pub fn to_subject(&self, resource: &ResourceId, root: &str) -> String {
        let prefix = resource.parked_prefix(root);
        match self {
            ParkedSubject::Row { partition, token } => format!("{prefix}.{partition}.{token}"),
            ParkedSubject::Trigger {
                partition,
                position,
            } => {
                let EventPosition {
                    stream,
                    incarnation,
                    generation,
                    sequence,
                } = position;
                format!(
                    "{prefix}.{partition}.{}.{}.{}.{generation}.{sequence}",
                    stream.namespace,
                    stream.name,
                    incarnation_token(incarnation)
                )
            }
        }
    }

    /// Reads what [`ParkedSubject::to_subject`] writes for this resource.
    #[must_use]
    pub fn parse(subject: &str, resource: &ResourceId, root: &str) -> Option<ParkedSubject> {
        let rest = subject.strip_prefix(&resource.parked_prefix(root))?;
        let mut tokens = rest.strip_prefix('.')?.split('.');
        let mut next = || tokens.next().filter(|token| !token.is_empty());
        let partition = u16::try_from(number(next()?)?).ok()?;
        let parsed = match resource.kind {
            Kind::Projection => ParkedSubject::Row {
                partition,
                token: next()?.to_owned(),
            },
            Kind::Saga => {
                let stream = StreamRef {
                    namespace: next()?.to_owned(),
                    name: next()?.to_owned(),
                };
                ParkedSubject::Trigger {
                    partition,
                    position: EventPosition {
                        stream,
                        incarnation: decode_token(next()?).ok()?,
                        generation: number(next()?)?,
                        sequence: number(next()?)?,
                    },
                }
            }
        };
        tokens.next().is_none().then_some(parsed)
    }
}

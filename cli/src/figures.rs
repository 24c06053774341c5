//! What workers count of a resource, in words.

use crate::error::{CliError, Exit, Result, chain};
use crate::output::{count, grouped};
use serde::Serialize;
use tidemill_core::figures::{ProjectionFigures, SagaFigures};
use tidemill_core::names::{COUNTERS_BUCKET, Kind, ResourceId, parse_counters_key};
use tidemill_nats::{KvBucket, KvError, Nats, Publisher, ReadError};

/// Figures of a resource of either kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    /// Of a Projection.
    Projection(ProjectionFigures),
    /// Of a Saga.
    Saga(SagaFigures),
}

impl Figures {
    /// All zero.
    pub(crate) fn none(kind: Kind) -> Self {
        match kind {
            Kind::Projection => Figures::Projection(ProjectionFigures::none()),
            Kind::Saga => Figures::Saga(SagaFigures::default()),
        }
    }

    /// The sum over partitions, each as it is in the bucket. What can't be read counts nothing: another version wrote it.
    pub(crate) fn sum<'a>(kind: Kind, partitions: impl IntoIterator<Item = &'a [u8]>) -> Self {
        match kind {
            Kind::Projection => Figures::Projection(ProjectionFigures::sum(partitions)),
            Kind::Saga => Figures::Saga(SagaFigures::sum(partitions)),
        }
    }

    /// Seen, matched and skipped.
    pub(crate) fn reading(&self) -> [u64; 3] {
        match self {
            Figures::Projection(figures) => [figures.seen, figures.matched, figures.skipped],
            Figures::Saga(figures) => [figures.seen, figures.matched, figures.skipped],
        }
    }

    /// What is particular to the kind, in words.
    pub(crate) fn detail(&self) -> String {
        match self {
            Figures::Projection(figures) => projection_detail(figures),
            Figures::Saga(figures) => saga_detail(figures),
        }
    }

    /// What to look at when events came and nothing matched: the commonest fault.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        let [seen, matched, _] = self.reading();
        (seen > 0 && matched == 0).then_some(match self {
            Figures::Projection(_) => {
                "nothing matched: are `type`, `stream` and `when` of its handlers right? `tidemill event get` shows the events"
            }
            Figures::Saga(_) => {
                "nothing matched: are `type` and `when` of its startOn right? `tidemill event get` shows the events"
            }
        })
    }

    /// Everything in one line.
    pub(crate) fn line(&self) -> String {
        let [seen, matched, skipped] = self.reading().map(grouped);
        format!(
            "seen {seen}, matched {matched}, skipped {skipped}, {}",
            self.detail()
        )
    }
}

fn projection_detail(figures: &ProjectionFigures) -> String {
    let mut text = match figures.lag {
        Some(lag) => format!("lag {}", grouped(lag)),
        None => "lag unknown".to_owned(),
    };
    if figures.parked_keys > 0 {
        text.push_str(&format!(", {} parked", count(figures.parked_keys, "key")));
    }
    for loss in losses(figures.left_out, figures.gone) {
        text.push_str(&format!(", {loss}"));
    }
    text
}

/// What rows lack, in words; nothing if they have it all.
pub(crate) fn losses(left_out: u64, gone: u64) -> impl Iterator<Item = String> {
    let left_out = (left_out > 0).then(|| format!("{} left out", count(left_out, "event")));
    let gone = (gone > 0).then(|| format!("{} gone before they were folded", count(gone, "event")));
    left_out.into_iter().chain(gone)
}

/// How many trigger events are parked, in words; nothing if none is.
pub(crate) fn parked_triggers(figures: &SagaFigures) -> Option<String> {
    (figures.parked_triggers > 0).then(|| count(figures.parked_triggers, "parked trigger event"))
}

fn saga_detail(figures: &SagaFigures) -> String {
    let [started, running, completed, compensated, parked] = [
        figures.started,
        figures.running,
        figures.completed,
        figures.compensated,
        figures.parked,
    ]
    .map(grouped);
    let mut text = format!(
        "started {started}, running {running}, completed {completed}, compensated {compensated}, parked {parked}"
    );
    if let Some(parked) = parked_triggers(figures) {
        text.push_str(&format!(", {parked}"));
    }
    if figures.log_resets > 0 {
        text.push_str(", LogReset: the log was set back");
    }
    text
}

/// Reads the figures of a resource.
///
/// # Errors
/// They can't be read; a bucket that isn't there counts nothing.
pub(crate) async fn read(nats: &Nats, resource: &ResourceId) -> Result<Figures> {
    let bucket = KvBucket::new(&Publisher::new(nats, 1), COUNTERS_BUCKET);
    let entries = match bucket.entries(&resource.key_prefix()).await {
        Ok(entries) => entries,
        Err(KvError::Read {
            source: ReadError::StreamMissing(_),
            ..
        }) => return Ok(Figures::none(resource.kind)),
        Err(error) => return Err(CliError::new(Exit::Failed, chain(&error))),
    };
    let partitions = entries
        .iter()
        .filter(|(key, entry)| parse_counters_key(key).is_some() && !entry.deleted);
    Ok(Figures::sum(
        resource.kind,
        partitions.map(|(_, entry)| &*entry.value),
    ))
}

/// Says what was seen, matched and skipped on standard error, beside a result for programs. Whoever may read the result only
/// gets that alone.
pub(crate) async fn note(nats: &Nats, resource: &ResourceId) {
    if let Ok(figures) = read(nats, resource).await {
        eprintln!("{resource}: {}", figures.line());
        if let Some(hint) = figures.hint() {
            eprintln!("{hint}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_summed() {
        let one = br#"{"seen": 3, "matched": 2, "skipped": 1, "sources": {"a/b": {"lag": 7}}}"#;
        let other = br#"{"seen": 1, "matched": 1, "parkedKeys": 2, "leftOut": 3, "gone": 80, "sources": {"a/b": {"lag": 4}}, "fieldOfALaterVersion": 1}"#;
        let figures = Figures::sum(Kind::Projection, [&one[..], &other[..], &b"nonsense"[..]]);
        assert_eq!(
            figures.line(),
            "seen 4, matched 3, skipped 1, lag 7, 2 keys parked, 3 events left out, 80 events gone before they were folded"
        );
        let one = br#"{"started": 2, "completed": 1, "running": 1, "logResets": 2, "triggers": {"a/b": {"seen": 5, "matched": 2, "skipped": 2, "parked": 1}}}"#;
        let figures = Figures::sum(Kind::Saga, [&one[..], &one[..]]);
        assert_eq!(
            figures.line(),
            "seen 10, matched 4, skipped 4, started 4, running 2, completed 2, compensated 0, parked 0, 2 parked trigger events, LogReset: the log was set back"
        );
        assert!(matches!(figures, Figures::Saga(figures) if figures.log_resets == 2));
    }

    #[test]
    fn only_partitions_are_counters() {
        assert_eq!(
            parse_counters_key("a.saga.b.7"),
            Some((ResourceId::new(Kind::Saga, "a", "b"), 7))
        );
        for key in [
            "a.saga.b.start.a.c",
            "a.saga.b",
            "a.thing.b.7",
            "a.saga.b.x",
            "a.saga.b.7.8",
        ] {
            assert_eq!(parse_counters_key(key), None, "{key}");
        }
    }
}

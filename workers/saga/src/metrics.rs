//! Metrics of a saga worker. Cumulative since its start; counters of the saga itself are in KV.

use prometheus_client::metrics::counter::Counter;
use tidemill_worker_runtime::Metrics;

pub(crate) struct SagaMetrics {
    pub(crate) started: Counter,
    pub(crate) completed: Counter,
    pub(crate) compensated: Counter,
    pub(crate) parked: Counter,
    pub(crate) attempts: Counter,
    pub(crate) late_replies: Counter,
    pub(crate) forged_replies: Counter,
    pub(crate) stream_answers: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) appends_refused: Counter,
    pub(crate) appends_retried: Counter,
    pub(crate) summaries_dropped: Counter,
}

impl SagaMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |name: &str, help: &str| {
            metrics.register(&format!("saga_{name}"), help, Counter::default())
        };
        SagaMetrics {
            started: counter("instances_started", "Instances that were started"),
            completed: counter("instances_completed", "Instances that completed"),
            compensated: counter("instances_compensated", "Instances that were compensated"),
            parked: counter("instances_parked", "Instances that were parked"),
            attempts: counter("attempts", "Requests sent to participants"),
            late_replies: counter("late_replies", "Replies after their step was settled"),
            forged_replies: counter("forged_replies", "Replies with a wrong token"),
            stream_answers: counter(
                "stream_answers",
                "Replies by a stream in a participant's place",
            ),
            unreadable: counter("unreadable", "Messages of the log that can't be read"),
            appends_refused: counter("appends_refused", "Inputs that the log refused"),
            appends_retried: counter(
                "appends_retried",
                "Inputs that were appended again because no answer came",
            ),
            summaries_dropped: counter(
                "summaries_dropped",
                "Summaries that could not be written; lists may be out of date",
            ),
        }
    }
}

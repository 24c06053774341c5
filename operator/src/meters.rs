//! Metrics of the operator. Cumulative since its start.

use crate::error;
use crate::status::Reports;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::Arc;
use std::time::Duration;
use tidemill_service::Metrics;

/// Upper bounds of the histogram of reconciles, in seconds.
const SECONDS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// How a reconcile ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// How many resources are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    kind: &'static str,
    state: &'static str,
}

/// The metrics. Cheap to clone.
#[derive(Clone)]
pub struct Meters {
    reconciles: Family<Ended, Counter>,
    seconds: Family<Kind, Histogram>,
    resources: Family<State, Gauge>,
    leads: Gauge,
    statuses: Family<Kind, Counter>,
}

impl Meters {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Meters {
        let seconds = Family::<Kind, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        Meters {
            reconciles: metrics.register(
                "operator_reconciles",
                "Reconciles that ended, by kind and result",
                Family::default(),
            ),
            seconds: metrics.register(
                "operator_reconcile_seconds",
                "How long reconciles took",
                seconds,
            ),
            resources: metrics.register(
                "operator_resources",
                "Resources by kind and state; stalled ones wait for a person",
                Family::default(),
            ),
            leads: metrics.register(
                "operator_leads",
                "Whether this operator is the one that works",
                Gauge::default(),
            ),
            statuses: metrics.register(
                "operator_statuses_written",
                "Statuses written to the API server",
                Family::default(),
            ),
        }
    }

    /// A reconcile ended.
    pub fn reconciled(&self, kind: &'static str, error: Option<error::Class>, took: Duration) {
        let result = match error {
            None => "done",
            Some(error::Class::Conflict) => "conflict",
            Some(error::Class::Transient) => "failed",
            Some(error::Class::Fenced) => "fenced",
        };
        self.reconciles.get_or_create(&Ended { kind, result }).inc();
        let seconds = self.seconds.get_or_create(&Kind { kind });
        seconds.observe(took.as_secs_f64());
    }

    /// A status was written.
    pub fn status_written(&self, kind: &'static str) {
        self.statuses.get_or_create(&Kind { kind }).inc();
    }

    /// Whether this operator works.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// These are all resources of one kind.
    pub fn count<R: Reports>(&self, all: &[Arc<R>]) {
        let states = [
            ("ready", "Ready"),
            ("progressing", "Reconciling"),
            ("stalled", "Stalled"),
        ];
        for (state, condition) in states {
            let holds = |one: &Condition| one.type_ == condition && one.status == "True";
            let count = all
                .iter()
                .filter(|resource| resource.conditions().iter().any(holds))
                .count();
            let kind = R::KIND;
            let gauge = self.resources.get_or_create(&State { kind, state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

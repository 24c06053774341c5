//! Saga: what is its own, see [`crate::workload`].

use crate::status::Reports;
use crate::workload::{Common, Parts, Recorded, Runs, Seen, shown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::time::Duration;
use tidemill_core::contract::{Closing, StreamBinding};
use tidemill_core::figures::SagaFigures;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_crds::common::DeletionPolicy;
use tidemill_crds::compile::together::{Labels, Streams, bind_saga};
use tidemill_crds::compile::{self, SagaPlan};
use tidemill_crds::saga::{OnDelete, Saga, SagaStatus};
use tidemill_crds::{FieldPath, Problem};
use tidemill_nats::provision::StreamPlan;
use tidemill_provision::Installation;

impl Reports for Saga {
    type Status = SagaStatus;
    const FIGURES: &'static [&'static str] = &[
        "started",
        "running",
        "completed",
        "compensated",
        "parked",
        "parkedTriggers",
    ];
    const KIND: &'static str = "Saga";

    fn present(&self) -> Option<&SagaStatus> {
        self.status.as_ref()
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

impl Runs for Saga {
    type Plan = SagaPlan;

    fn id(&self) -> ResourceId {
        let namespace = self.namespace().unwrap_or_default();
        ResourceId::new(Kind::Saga, &namespace, &self.name_any())
    }

    fn compile(&self) -> Result<SagaPlan, Vec<Problem>> {
        let report = compile::saga(self);
        report.plan.ok_or(report.errors)
    }

    fn parts(plan: &SagaPlan) -> Parts<'_> {
        Parts {
            resource: &plan.resource,
            streams: &plan.streams,
            replicas: plan.replicas,
            lifecycle: &plan.lifecycle,
            workload: plan.workload(),
        }
    }

    fn bind(
        plan: &SagaPlan,
        streams: &Streams,
        labels: Option<&Labels>,
    ) -> Result<Vec<StreamBinding>, Vec<Problem>> {
        bind_saga(plan, streams, labels)
    }

    fn requests(plan: &SagaPlan) -> &[(FieldPath, String)] {
        &plan.requests
    }

    fn streams(plan: &SagaPlan, installation: &Installation, incarnation: &str) -> [StreamPlan; 2] {
        installation.saga(plan, incarnation)
    }

    fn deletes_data(&self) -> bool {
        self.spec.deletion_policy == Some(DeletionPolicy::Delete)
    }

    fn closing(&self) -> Option<Closing> {
        match self.spec.on_delete? {
            OnDelete::Stop => None,
            OnDelete::Drain => Some(Closing::Drain),
            OnDelete::Compensate => Some(Closing::Compensate),
        }
    }

    fn closing_max(plan: &SagaPlan) -> Duration {
        // By then each instance is finished, compensated or parked.
        Duration::from_millis(plan.definition.timeout_ms)
    }

    fn recorded(&self) -> Recorded<'_> {
        let status = self.status.as_ref();
        status.map_or_else(Recorded::default, |status| Recorded {
            worker: status.worker.as_ref(),
            streams: &status.streams,
        })
    }

    fn status(&self, common: Common, seen: Option<&Seen<'_, SagaPlan>>) -> SagaStatus {
        let before = self.status.clone().unwrap_or_default();
        let mut status = SagaStatus {
            observed_generation: self.metadata.generation,
            conditions: common.conditions,
            worker: common.worker,
            streams: common.streams,
            ..before
        };
        if let Some(seen) = seen {
            status.replicas = seen.pods.or(status.replicas);
            status.outdated_workers = seen.outdated.or(status.outdated_workers);
            status.selector = Some(seen.selector.clone());
            if !seen.counters.is_empty() {
                let figures = SagaFigures::sum(seen.counters.iter().map(Vec::as_slice));
                status.started = Some(shown(figures.started));
                status.running = Some(shown(figures.running));
                status.completed = Some(shown(figures.completed));
                status.compensated = Some(shown(figures.compensated));
                status.parked = Some(shown(figures.parked));
                status.parked_triggers = Some(shown(figures.parked_triggers));
            }
            status.revision = Some(seen.plan.revision.to_string());
        }
        status
    }
}

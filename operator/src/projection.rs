//! Projection: what is its own, see [`crate::workload`].

use crate::workload::{Parts, Runs, Seen, shown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tidemill_core::contract::StreamBinding;
use tidemill_core::figures::ProjectionFigures;
use tidemill_crds::Problem;
use tidemill_crds::compile::together::{Streams, bind_projection};
use tidemill_crds::compile::{self, ProjectionPlan};
use tidemill_crds::projection::{Projection, ProjectionStatus};
use tidemill_nats::provision::StreamPlan;
use tidemill_provision::Installation;

impl Runs for Projection {
    type Plan = ProjectionPlan;
    type Status = ProjectionStatus;

    fn compile(&self) -> Result<ProjectionPlan, Vec<Problem>> {
        let report = compile::projection(self);
        report.plan.ok_or(report.errors)
    }

    fn parts(plan: &ProjectionPlan) -> Parts<'_> {
        Parts {
            resource: &plan.resource,
            streams: &plan.streams,
            replicas: plan.replicas,
            workload: plan.workload(),
        }
    }

    fn bind(plan: &ProjectionPlan, streams: &Streams) -> Result<Vec<StreamBinding>, Vec<Problem>> {
        bind_projection(plan, streams)
    }

    fn streams(
        plan: &ProjectionPlan,
        installation: &Installation,
        incarnation: &str,
    ) -> [StreamPlan; 2] {
        installation.projection(plan, incarnation)
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }

    fn status(
        &self,
        conditions: Vec<Condition>,
        seen: Option<&Seen<'_, ProjectionPlan>>,
    ) -> ProjectionStatus {
        let before = self.status.clone().unwrap_or_default();
        let mut status = ProjectionStatus {
            observed_generation: self.metadata.generation,
            conditions,
            ..before
        };
        if let Some(seen) = seen {
            status.replicas = Some(seen.pods);
            status.selector = Some(seen.selector.clone());
            if !seen.counters.is_empty() {
                let figures = ProjectionFigures::sum(seen.counters.iter().map(Vec::as_slice));
                status.lag = figures.lag.map(shown);
                status.parked_keys = Some(shown(figures.parked_keys));
                status.skipped = Some(shown(figures.left_out));
            }
        }
        status
    }

    fn present(&self) -> Option<&ProjectionStatus> {
        self.status.as_ref()
    }
}

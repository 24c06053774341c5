//! Projection: what is its own, see [`crate::workload`].

use crate::status::Reports;
use crate::workload::{Common, Parts, Recorded, Runs, Seen, shown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use tidemill_core::contract::StreamBinding;
use tidemill_core::figures::{ProjectionFigures, ProjectionProgress};
use tidemill_core::names::{KeySpace, Kind, ResourceId};
use tidemill_core::status::SourceProgress;
use tidemill_crds::Problem;
use tidemill_crds::common::{DeletionPolicy, SourcePosition};
use tidemill_crds::compile::together::{Labels, Streams, bind_projection};
use tidemill_crds::compile::{self, ProjectionPlan};
use tidemill_crds::projection::{Projection, ProjectionStatus};
use tidemill_nats::provision::StreamPlan;
use tidemill_provision::Installation;

impl Reports for Projection {
    type Status = ProjectionStatus;
    const FIGURES: &'static [&'static str] =
        &["lag", "parkedKeys", "skipped", "position", "sources"];
    const KIND: &'static str = "Projection";

    fn present(&self) -> Option<&ProjectionStatus> {
        self.status.as_ref()
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

impl Runs for Projection {
    type Plan = ProjectionPlan;

    fn id(&self) -> ResourceId {
        let namespace = self.namespace().unwrap_or_default();
        ResourceId::new(Kind::Projection, &namespace, &self.name_any())
    }

    fn compile(&self) -> Result<ProjectionPlan, Vec<Problem>> {
        let report = compile::projection(self);
        report.plan.ok_or(report.errors)
    }

    fn parts(plan: &ProjectionPlan) -> Parts<'_> {
        Parts {
            resource: &plan.resource,
            streams: &plan.streams,
            replicas: plan.replicas,
            lifecycle: &plan.lifecycle,
            workload: plan.workload(),
        }
    }

    fn bind(
        plan: &ProjectionPlan,
        streams: &Streams,
        labels: Option<&Labels>,
    ) -> Result<Vec<StreamBinding>, Vec<Problem>> {
        bind_projection(plan, streams, labels)
    }

    fn streams(
        plan: &ProjectionPlan,
        installation: &Installation,
        incarnation: &str,
    ) -> [StreamPlan; 2] {
        installation.projection(plan, incarnation)
    }

    fn deletes_data(&self) -> bool {
        self.spec.deletion_policy == Some(DeletionPolicy::Delete)
    }

    fn recorded(&self) -> Recorded<'_> {
        let status = self.status.as_ref();
        status.map_or_else(Recorded::default, |status| Recorded {
            worker: status.worker.as_ref(),
            streams: &status.streams,
        })
    }

    fn status(&self, common: Common, seen: Option<&Seen<'_, ProjectionPlan>>) -> ProjectionStatus {
        let before = self.status.clone().unwrap_or_default();
        let mut status = ProjectionStatus {
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
                let figures = ProjectionFigures::sum(seen.counters.iter().map(Vec::as_slice));
                status.lag = figures.lag.map(shown);
                status.parked_keys = Some(shown(figures.parked_keys));
                status.skipped = Some(shown(figures.left_out));
                let counters = seen.counters.iter().map(Vec::as_slice);
                note_progress(&mut status, &ProjectionProgress::of(counters), seen.plan);
            }
        }
        status
    }
}

fn note_progress(
    status: &mut ProjectionStatus,
    progress: &ProjectionProgress,
    plan: &ProjectionPlan,
) {
    let revision = |space: &Option<KeySpace>| Some(space.as_ref()?.revision.to_string());
    status.revision = revision(&progress.live);
    status.building_revision = revision(&progress.building);
    let own = format!("{}/", plan.resource.namespace);
    let position = progress.sources.iter().map(|(stream, source)| {
        let name = stream.strip_prefix(&own).unwrap_or(stream);
        format!("{name}@{}", source.position)
    });
    let position: Vec<String> = position.collect();
    status.position = Some(position.join(","));
    let source = |(stream, source): (&String, &SourceProgress)| SourcePosition {
        stream: stream.clone(),
        incarnation: Some(source.incarnation.clone()),
        sequence: shown(source.position),
        lag: Some(shown(source.lag)),
    };
    status.sources = progress.sources.iter().map(source).collect();
}

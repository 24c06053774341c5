//! What a compiled resource needs in NATS: its streams and buckets. The operator and `tidemill dev` make the same of the same manifest.
//!
//! Plans are pure; [`tidemill_nats::provision::ensure`] makes it so.

pub mod starts;

use std::time::Duration;
use tidemill_core::names::{
    LOG_PARTITIONS_KEY, LOG_STREAM_KEY, PREFIX_KEY, ROWS_BUCKET_KEY, ResourceId,
};
use tidemill_crds::common::Placement;
use tidemill_crds::compile::{EventStreamPlan, ProjectionPlan, SagaPlan, StorageSettings};
use tidemill_crds::eventstream::{Compression, OnFull, Storage};
use tidemill_nats::provision::{self, Fixed, Mark, StreamPlan};

/// What is the same for all resources of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Cluster id, part of every mark; `dev` without Kubernetes.
    pub cluster: String,
    /// Root of the subjects that are Tidemill's own; `_tm` unless the contract says otherwise.
    pub subject_root: String,
    /// Copies of streams that don't say how many.
    pub replicas: u32,
    /// Most bytes of streams that don't say how many: some accounts demand a limit of every stream. `None` = none.
    pub bytes_max: Option<u64>,
}

impl Installation {
    /// The stream of an EventStream. `incarnation` is used only if it is made.
    pub fn event_stream(&self, plan: &EventStreamPlan, incarnation: &str) -> StreamPlan {
        let EventStreamPlan {
            stream, settings, ..
        } = plan;
        let mark = Mark::event_stream(&self.cluster, &stream.namespace, &stream.name, incarnation);
        let mut made = StreamPlan::new(&settings.name, settings.subjects.clone(), mark);
        made.description = settings
            .description
            .clone()
            .unwrap_or_else(|| format!("EventStream {stream}"));
        made.storage = match settings.storage {
            Storage::File => provision::Storage::File,
            Storage::Memory => provision::Storage::Memory,
        };
        made.replicas = self.replicas(settings.replicas);
        made.limits = provision::Limits {
            bytes_max: settings.max_bytes.or(self.bytes_max),
            age_max: settings.max_age_ms.map(Duration::from_millis),
            messages_max: settings.max_messages,
            messages_per_subject_max: settings.max_messages_per_subject,
        };
        made.on_full = match settings.on_full {
            OnFull::Reject => provision::OnFull::Reject,
            OnFull::DropOldest => provision::OnFull::DropOldest,
        };
        made.duplicate_window = Duration::from_millis(settings.duplicate_window_ms);
        made.message_bytes_max = settings
            .max_message_size
            .and_then(|size| u32::try_from(size).ok());
        made.compression = settings.compression == Compression::S2;
        made.fixed = vec![Fixed {
            key: PREFIX_KEY,
            field: "spec.prefix",
            value: plan.binding.prefix.clone(),
            why: "its events are at the old subjects, and nobody could read them by the new ones; write the old prefix, or make \
                  another EventStream with another streamName",
        }];
        place(&mut made, settings.placement.as_ref());
        made
    }

    /// The buckets that all resources share.
    pub fn shared_buckets(&self, incarnation: &str) -> [StreamPlan; 4] {
        StreamPlan::shared_buckets(incarnation).map(|plan| self.with_defaults(plan))
    }

    /// Parked stream and rows bucket of a Projection. The first pins the name of the second, so it is made last: a name that can't be
    /// had can still be changed.
    pub fn projection(&self, plan: &ProjectionPlan, incarnation: &str) -> [StreamPlan; 2] {
        let mark = self.mark(&plan.resource, incarnation);
        let rows = StreamPlan::bucket(&plan.rows.name, mark.clone());
        let rows = StreamPlan {
            description: StreamPlan::rows(&plan.resource, mark.clone()).description,
            ..rows
        };
        let parked = StreamPlan {
            fixed: vec![Fixed {
                key: ROWS_BUCKET_KEY,
                field: "spec.sink.kv.bucket",
                value: plan.rows.name.clone(),
                why: "the rows are in the old bucket; write its name, or make another Projection",
            }],
            ..self.parked(&plan.resource, mark)
        };
        [parked, self.with_settings(rows, &plan.rows)]
    }

    /// Parked stream and input log of a Saga, as those of a Projection.
    pub fn saga(&self, plan: &SagaPlan, incarnation: &str) -> [StreamPlan; 2] {
        let mark = self.mark(&plan.resource, incarnation);
        let log = StreamPlan::saga_log(&plan.resource, &self.subject_root, mark.clone());
        let log = StreamPlan {
            name: plan.log.name.clone(),
            fixed: vec![Fixed {
                key: LOG_PARTITIONS_KEY,
                field: "spec.partitions",
                value: plan.partitions.to_string(),
                why: "instances would be looked for where they aren't, and begun again; write the old number, or make another Saga",
            }],
            ..log
        };
        let parked = StreamPlan {
            fixed: vec![Fixed {
                key: LOG_STREAM_KEY,
                field: "spec.log.streamName",
                value: plan.log.name.clone(),
                why: "the instances are in the old stream; write its name, or make another Saga",
            }],
            ..self.parked(&plan.resource, mark)
        };
        [parked, self.with_settings(log, &plan.log)]
    }

    fn mark(&self, resource: &ResourceId, incarnation: &str) -> Mark {
        Mark::of(&self.cluster, resource, incarnation)
    }

    fn parked(&self, resource: &ResourceId, mark: Mark) -> StreamPlan {
        self.with_defaults(StreamPlan::parked(resource, &self.subject_root, mark))
    }

    fn with_defaults(&self, mut plan: StreamPlan) -> StreamPlan {
        plan.replicas = self.replicas(None);
        plan.limits.bytes_max = self.bytes_max;
        plan
    }

    fn with_settings(&self, mut plan: StreamPlan, settings: &StorageSettings) -> StreamPlan {
        plan.replicas = self.replicas(settings.replicas);
        plan.limits.bytes_max = settings.max_bytes.or(self.bytes_max);
        place(&mut plan, settings.placement.as_ref());
        plan
    }

    fn replicas(&self, wanted: Option<u32>) -> usize {
        usize::try_from(wanted.unwrap_or(self.replicas)).unwrap_or(usize::MAX)
    }
}

fn place(plan: &mut StreamPlan, placement: Option<&Placement>) {
    if let Some(placement) = placement {
        // Written as JetStream's API has it.
        let value = serde_json::to_value(placement).unwrap_or_default();
        plan.further.insert("placement".to_owned(), value);
    }
}

//! What a worker and a participant must be allowed to do, as subjects. Documents, tests and `tidemill permissions` use these lists.

use crate::kv::{stream_of, subject_of};
use tidemill_core::contract::{Contract, Workload};
use tidemill_core::names;

/// Subjects a connection may publish to and subscribe to; everything else is to be denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May publish to.
    pub publish: Vec<String>,
    /// May subscribe to.
    pub subscribe: Vec<String>,
    /// May answer requests that reach it, whatever their reply subject is (`allow_responses`).
    pub allow_responses: bool,
}

impl Permissions {
    fn publish(&mut self, subject: String) {
        self.publish.push(subject);
    }

    fn subscribe(&mut self, subject: String) {
        self.subscribe.push(subject);
    }
}

/// What the worker of a contract needs. `requests` are the subjects its steps send requests to (none for a Projection), with wildcards
/// where a subject is computed.
pub fn worker(contract: &Contract, requests: &[String]) -> Permissions {
    let connection = &contract.connection;
    let api = match (
        &connection.jetstream_domain,
        &connection.jetstream_api_prefix,
    ) {
        (Some(domain), _) => format!("$JS.{domain}.API"),
        (None, Some(prefix)) => prefix.trim_end_matches('.').to_owned(),
        (None, None) => "$JS.API".to_owned(),
    };
    let root = connection.subject_root.as_str();
    let resource = &contract.resource;
    let mut list = Permissions {
        allow_responses: true,
        ..Permissions::default()
    };

    let inbox = connection.inbox_prefix.as_deref().unwrap_or("_INBOX");
    list.subscribe(format!("{inbox}.>"));
    list.subscribe(resource.control_subject(root, "*"));

    for binding in &contract.streams {
        read_stream(&mut list, &api, &binding.name);
    }
    // Of the shared buckets only the resource's own keys.
    let keys = resource.key_prefix();
    for bucket in [
        names::OWNERS_BUCKET,
        names::COUNTERS_BUCKET,
        names::REVISIONS_BUCKET,
        names::SUMMARIES_BUCKET,
    ] {
        let stream = stream_of(bucket);
        let own = subject_of(bucket, &format!("{keys}.>"));
        list.publish(own.clone());
        list.publish(format!("{api}.DIRECT.GET.{stream}.{own}"));
        list.publish(format!("{api}.STREAM.INFO.{stream}"));
        list.publish(format!("{api}.CONSUMER.CREATE.{stream}.*.{own}"));
        list.publish(format!("{api}.CONSUMER.MSG.NEXT.{stream}.*"));
        list.publish(format!("{api}.CONSUMER.DELETE.{stream}.*"));
        // Looks at one message by its sequence after a reconnect.
        list.publish(format!("{api}.STREAM.MSG.GET.{stream}"));
    }
    let parked = match &contract.workload {
        Workload::Projection(workload) => {
            let stream = stream_of(&workload.rows_bucket);
            read_stream(&mut list, &api, &stream);
            list.publish(format!("{api}.DIRECT.GET.{stream}.>"));
            list.publish(subject_of(&workload.rows_bucket, ">"));
            &workload.parked_stream
        }
        Workload::Saga(workload) => {
            read_stream(&mut list, &api, &workload.log_stream);
            list.publish(format!("{api}.DIRECT.GET.{}.>", workload.log_stream));
            list.publish(format!("{}.>", resource.log_prefix(root)));
            // Hears "no responders" on the reply subjects of its requests.
            list.subscribe(format!("{}.*.*.r.>", resource.log_prefix(root)));
            // Looks whether a stream takes the subject of a request.
            list.publish(format!("{api}.STREAM.NAMES"));
            let definition = &workload.definition;
            for publish in definition
                .on_completed
                .iter()
                .chain(&definition.on_compensated)
            {
                if let Some(binding) = contract.binding(&publish.stream) {
                    list.publish(format!("{}.>", binding.prefix));
                }
            }
            for subject in requests {
                list.publish(subject.clone());
            }
            &workload.parked_stream
        }
    };
    read_stream(&mut list, &api, parked);
    // What was redriven or skipped leaves it.
    list.publish(format!("{api}.STREAM.MSG.DELETE.{parked}"));
    list.publish(format!("{}.>", resource.parked_prefix(root)));
    list.publish.sort();
    list.publish.dedup();
    list
}

/// What a participant needs that answers requests on these subjects: no rights on anything of ours.
pub fn participant(subjects: &[String]) -> Permissions {
    Permissions {
        publish: Vec::new(),
        subscribe: subjects.to_vec(),
        allow_responses: true,
    }
}

/// Reading a whole stream, with any filters.
fn read_stream(list: &mut Permissions, api: &str, stream: &str) {
    list.publish(format!("{api}.STREAM.INFO.{stream}"));
    list.publish(format!("{api}.STREAM.MSG.GET.{stream}"));
    list.publish(format!("{api}.CONSUMER.CREATE.{stream}.>"));
    list.publish(format!("{api}.CONSUMER.MSG.NEXT.{stream}.*"));
    list.publish(format!("{api}.CONSUMER.DELETE.{stream}.*"));
}

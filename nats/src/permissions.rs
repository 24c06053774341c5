//! What a worker and a participant must be allowed to do, as subjects, each with its reason: nothing more. Tests run workers with these
//! lists and see that every line is used; `tidemill permissions` prints them.
//!
//! Whoever may publish a request may name any reply subject with it, and the server's answer goes there, whatever the asker may publish to
//! (tried on 2.15): within one NATS account permissions keep programs from each other's data, but not a hostile one from making noise in
//! others' streams. Those who don't trust each other need accounts.
//!
//! Workers answer requests of people and programs at their inboxes, below `_INBOX`, and have no `allow_responses`: with that the server
//! remembers every delivery from a stream for two minutes as a request that may be answered (ADR 0004).

mod config;
mod rights;

pub use config::user_name;
pub use rights::{Rights, Subjects, application, operator, worker_with};

use crate::kv::{stream_of, subject_of, written_at};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_core::contract::{Connection, Contract, ProjectionWorkload, SagaWorkload, Workload};
use tidemill_core::definition::{Action, PublishDefinition, SagaDefinition};
use tidemill_core::names::{self, encode_token};

/// How long the server lets an answer come after its request unless told otherwise.
const RESPONSES_WITHIN: Duration = Duration::from_secs(120);
/// Inboxes of clients that say nothing else.
const INBOX: &str = "_INBOX";

/// A subject, wildcards allowed, and why it is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The subject.
    pub subject: String,
    /// For people: one sentence without a full stop.
    pub why: String,
}

/// A right to answer requests on whatever reply subject they name (`allow_responses`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// Messages per request.
    pub max: u32,
    /// After the request.
    pub within: Duration,
}

/// Subjects a connection may publish to and subscribe to; everything else is to be denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May publish to.
    pub publish: Vec<Grant>,
    /// May subscribe to.
    pub subscribe: Vec<Grant>,
    /// May answer, too.
    pub responses: Option<Responses>,
}

impl Permissions {
    /// What two lists permit: as long as instances of an earlier definition run, their workers need its lines too.
    #[must_use]
    pub fn and(mut self, earlier: Permissions) -> Permissions {
        let Permissions {
            publish,
            subscribe,
            responses,
        } = earlier;
        for (grants, more) in [
            (&mut self.publish, publish),
            (&mut self.subscribe, subscribe),
        ] {
            for grant in more {
                if !grants.iter().any(|known| known.subject == grant.subject) {
                    grants.push(grant);
                }
            }
            grants.sort();
        }
        self.responses = self.responses.or(responses);
        self
    }
}

/// What the workers of a contract need.
///
/// Instances that an earlier definition started go on with that: see [`Permissions::and`].
#[must_use]
pub fn worker(contract: &Contract) -> Permissions {
    let list = List {
        api: api_prefix(&contract.connection),
        keys: contract.resource.key_prefix(),
        contract,
        publish: BTreeMap::new(),
        subscribe: BTreeMap::new(),
    };
    list.of_everybody().of_workload()
}

/// What a participant needs that answers on `subject` (wildcards allowed): no right on anything of ours. `contracts` are those of the
/// sagas that may call it; they say how long an answer may take.
#[must_use]
pub fn participant<'a>(
    subject: &str,
    contracts: impl IntoIterator<Item = &'a Contract>,
) -> Permissions {
    let requests = contracts.into_iter().flat_map(requests);
    let timeouts = requests
        .filter(|request| covers(subject, request.subject))
        .map(|request| Duration::from_millis(request.timeout_ms));
    Permissions {
        publish: Vec::new(),
        subscribe: vec![Grant {
            subject: subject.to_owned(),
            why: "hears the requests it is to answer, in a queue group too".to_owned(),
        }],
        responses: Some(Responses {
            max: 1,
            within: timeouts.max().unwrap_or_default().max(RESPONSES_WITHIN),
        }),
    }
}

/// The subjects that a contract's steps and compensations send requests to, in the order of the steps; some may come twice.
pub fn request_subjects(contract: &Contract) -> impl Iterator<Item = &str> {
    requests(contract).map(|request| request.subject)
}

/// Whether every subject that the second matches is matched by the first.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
}

struct Request<'a> {
    step: &'a str,
    subject: &'a str,
    timeout_ms: u64,
}

fn requests(contract: &Contract) -> impl Iterator<Item = Request<'_>> {
    let steps = saga(contract).map_or(&[][..], |saga| &saga.definition.steps);
    let actions = steps.iter().flat_map(|step| {
        let back = step.compensation.as_ref();
        [
            Some((&step.action, step.timeout_ms)),
            back.map(|back| (&back.action, back.timeout_ms)),
        ]
        .into_iter()
        .flatten()
        .map(|(action, timeout_ms)| (step.name.as_str(), action, timeout_ms))
    });
    actions.filter_map(|(step, action, timeout_ms)| match action {
        Action::Request { subject, .. } => Some(Request {
            step,
            subject,
            timeout_ms,
        }),
        Action::Http { .. } | Action::Publish(_) => None,
    })
}

fn saga(contract: &Contract) -> Option<&SagaWorkload> {
    match &contract.workload {
        Workload::Projection(_) => None,
        Workload::Saga(saga) => Some(saga),
    }
}

/// Every event that a definition may publish.
fn publishes(definition: &SagaDefinition) -> impl Iterator<Item = &PublishDefinition> {
    let actions = definition.steps.iter().flat_map(|step| {
        let back = step.compensation.as_ref().map(|back| &back.action);
        [Some(&step.action), back].into_iter().flatten()
    });
    let published = actions.filter_map(|action| match action {
        Action::Publish(publish) => Some(publish),
        Action::Request { .. } | Action::Http { .. } => None,
    });
    published
        .chain(&definition.on_completed)
        .chain(&definition.on_compensated)
}

/// What API calls of a connection begin with, without a dot at its end.
#[must_use]
pub fn api_prefix(connection: &Connection) -> String {
    match (
        &connection.jetstream_domain,
        &connection.jetstream_api_prefix,
    ) {
        (Some(domain), _) => format!("$JS.{domain}.API"),
        (None, Some(prefix)) => prefix.trim_end_matches('.').to_owned(),
        (None, None) => "$JS.API".to_owned(),
    }
}

/// A list in the making; the first reason for a subject stays.
struct List<'a> {
    contract: &'a Contract,
    api: String,
    /// `<ns>.<kind>.<name>`
    keys: String,
    publish: BTreeMap<String, String>,
    subscribe: BTreeMap<String, String>,
}

impl List<'_> {
    fn publish(&mut self, subject: String, why: &str) {
        self.publish
            .entry(subject)
            .or_insert_with(|| why.to_owned());
    }

    fn subscribe(&mut self, subject: String, why: &str) {
        self.subscribe
            .entry(subject)
            .or_insert_with(|| why.to_owned());
    }

    fn call(&mut self, call: String, why: &str) {
        self.publish(format!("{}.{call}", self.api), why);
    }

    fn of_everybody(mut self) -> Self {
        let (resource, connection) = (&self.contract.resource, &self.contract.connection);
        let root = &connection.subject_root;
        let worker = self.contract.worker_connection();
        let own = worker.inbox_prefix.unwrap_or_default();
        let control = resource.control_subject(root, "*");
        self.subscribe(format!("{own}.>"), "hears what it is answered");
        self.subscribe(control, "hears requests of people and programs");
        let theirs = [Some(INBOX), connection.inbox_prefix.as_deref()];
        for inbox in theirs.into_iter().flatten() {
            let why = "answers requests of people and programs";
            self.publish(format!("{inbox}.>"), why);
        }
        let owners = names::OWNERS_BUCKET;
        self.keys(owners, "which worker does what");
        self.reads_keys(owners, "which worker does what");
        self.keys(names::COUNTERS_BUCKET, "counters, and where streams begin");
        self.keys(names::REVISIONS_BUCKET, "definitions by revision");
        self
    }

    fn of_workload(mut self) -> Permissions {
        match &self.contract.workload {
            Workload::Projection(workload) => self.projection(workload),
            Workload::Saga(workload) => self.saga(workload),
        }
        let grants = |list: BTreeMap<String, String>| {
            let grants = list.into_iter();
            grants
                .map(|(subject, why)| Grant { subject, why })
                .collect()
        };
        Permissions {
            publish: grants(self.publish),
            subscribe: grants(self.subscribe),
            responses: None,
        }
    }

    fn projection(&mut self, workload: &ProjectionWorkload) {
        let (resource, root) = (
            &self.contract.resource,
            &self.contract.connection.subject_root,
        );
        for stream in &workload.definition.sources {
            if let Some(binding) = self.contract.binding(stream) {
                let what = format!("events of {stream}");
                self.reads(&binding.name, "*", &what);
            }
        }
        let (bucket, rows) = (&workload.rows_bucket, stream_of(&workload.rows_bucket));
        let all = subject_of(bucket, ">");
        self.reads(&rows, ">", "rows, checkpoints and decisions");
        self.call(format!("DIRECT.GET.{rows}.{all}"), "reads rows by key");
        let written = written_at(&self.api, &all);
        self.publish(written, "writes rows, checkpoints and decisions");
        let (parked, what) = (&workload.parked_stream, "parked events");
        self.reads(parked, ">", what);
        self.call(
            format!("STREAM.MSG.DELETE.{parked}"),
            "removes parked events that are folded or skipped",
        );
        self.publish(
            format!("{}.>", resource.parked_prefix(root)),
            "parks events",
        );
    }

    fn saga(&mut self, workload: &SagaWorkload) {
        let (resource, root) = (
            &self.contract.resource,
            &self.contract.connection.subject_root,
        );
        let log = resource.log_prefix(root);
        self.reads(&workload.log_stream, ">", "the input log");
        self.publish(format!("{log}.>"), "appends to the input log");
        self.subscribe(
            format!("{log}.*.*.r.>"),
            "hears at once that nobody listens to a request",
        );
        self.publish(
            format!("{}.>", resource.parked_prefix(root)),
            "parks events that can start nothing",
        );
        if workload.summaries {
            let (bucket, what) = (names::SUMMARIES_BUCKET, "summaries of instances");
            self.keys(bucket, what);
            self.reads_keys(bucket, what);
        }
        for trigger in &workload.definition.triggers {
            if let Some(binding) = self.contract.binding(&trigger.stream) {
                let what = format!("events of {}", trigger.stream);
                self.reads(&binding.name, "*", &what);
            }
        }
        for publish in publishes(&workload.definition) {
            self.target(publish);
        }
        let mut steps: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for request in requests(self.contract) {
            let known = steps.entry(request.subject).or_default();
            if !known.contains(&request.step) {
                known.push(request.step);
            }
        }
        if !steps.is_empty() {
            self.call(
                "STREAM.NAMES".to_owned(),
                "looks whether a stream takes a request's subject: it would answer in the participant's place",
            );
        }
        for (subject, steps) in steps {
            let why = format!("sends requests of {}", steps.join(", "));
            self.publish(subject.to_owned(), &why);
        }
    }

    /// Publishing events of one type, and looking whether one is stored already.
    fn target(&mut self, publish: &PublishDefinition) {
        let Some(binding) = self.contract.binding(&publish.stream) else {
            return;
        };
        // A type that is too long for a token is refused by the compiler; no event has it.
        let Ok(token) = encode_token(&publish.event_type) else {
            return;
        };
        let (stream, events) = (&publish.stream, format!("{}.*.{token}", binding.prefix));
        let what = format!("{} in {stream}", publish.event_type);
        self.call(
            format!("STREAM.INFO.{}", binding.name),
            &format!("looks at the settings of {stream}"),
        );
        self.reads_within(&binding.name, &events, &what);
        self.publish(events, &format!("publishes {what}"));
    }

    /// Reading a stream from anywhere; `consumers` is what may follow the stream in the creation of one.
    fn reads(&mut self, stream: &str, consumers: &str, what: &str) {
        let why = format!("reads {what}");
        self.call(
            format!("STREAM.INFO.{stream}"),
            &format!("looks where the stream of {what} begins and ends"),
        );
        self.call(format!("STREAM.MSG.GET.{stream}"), &why);
        self.call(format!("CONSUMER.CREATE.{stream}.{consumers}"), &why);
        self.pulls(stream, &why);
    }

    /// Reading one filter of a stream: the filter stands in the subject of the call.
    fn reads_within(&mut self, stream: &str, filter: &str, what: &str) {
        let why = format!("reads {what}");
        self.call(format!("CONSUMER.CREATE.{stream}.*.{filter}"), &why);
        self.pulls(stream, &why);
    }

    /// Consumers have random names, so those of others are safe.
    fn pulls(&mut self, stream: &str, why: &str) {
        self.call(format!("CONSUMER.MSG.NEXT.{stream}.*"), why);
        self.call(
            format!("CONSUMER.DELETE.{stream}.*"),
            "removes the consumers it read with",
        );
    }

    /// Reading and writing its own keys of a bucket that all resources share, one at a time.
    fn keys(&mut self, bucket: &str, what: &str) {
        let own = subject_of(bucket, &format!("{}.>", self.keys));
        self.call(
            format!("DIRECT.GET.{}.{own}", stream_of(bucket)),
            &format!("reads {what}, of its own keys"),
        );
        let written = written_at(&self.api, &own);
        self.publish(written, &format!("writes {what}, at its own keys"));
    }

    /// Reading all its own keys of a shared bucket.
    fn reads_keys(&mut self, bucket: &str, what: &str) {
        let own = subject_of(bucket, &format!("{}.>", self.keys));
        self.reads_within(
            &stream_of(bucket),
            &own,
            &format!("{what}, of its own keys"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_covers_what_it_matches() {
        for (wide, narrow) in [
            ("a", "a"),
            ("a.*", "a.b"),
            ("a.*", "a.*"),
            ("a.>", "a.b.c"),
            ("a.>", "a.*.>"),
            (">", "a"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("a", "b"),
            ("a.*", "a"),
            ("a.*", "a.>"),
            ("a.>", "a"),
            ("a.b", "a.*"),
            ("a.*", "a.b.c"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}

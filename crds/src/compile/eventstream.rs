//! EventStream: the JetStream stream to make, and how its messages are read.

use tidemill_core::contract::{Capture, CaptureFormat, StreamBinding};
use tidemill_core::definition::StreamRef;
use tidemill_core::names;

use super::constants::Gives;
use super::expressions::{Names, expression};
use super::findings::Findings;
use super::values::{Lifecycle, bytes, messages, milliseconds, unlike_dev};
use super::{Report, namespace_of, together::overlap};
use crate::common::{DeletionPolicy, Placement};
use crate::eventstream::{
    self, AdoptionPolicy, AllowedReaders, Compression, EventStream, EventStreamSpec,
    ManagementPolicy, OnFull, OnLoss, ReaderNamespaces, Storage,
};
use crate::problem::{FieldPath, Reason};

/// How long a message id is remembered unless the spec says otherwise, in milliseconds; the server's own default.
const DUPLICATE_WINDOW_MS: u64 = 120_000;

/// Largest message a stream can be limited to, in bytes: JetStream counts with 32 bits.
const MESSAGE_BYTES_MAX: u64 = i32::MAX as u64;

/// What an EventStream comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct EventStreamPlan {
    /// The resource.
    pub stream: StreamRef,
    /// What workers are told of it.
    pub binding: StreamBinding,
    /// The JetStream stream.
    pub settings: StreamSettings,
    /// Who may refer to it.
    pub readers: AllowedReaders,
    /// What may be done to it.
    pub policy: StreamPolicy,
}

/// What the operator may do to the stream of an EventStream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamPolicy {
    /// Nothing: it is somebody else's, and read.
    pub observe: bool,
    /// It may be taken over if nobody has marked it as theirs.
    pub adopt: bool,
    /// It may be made again, empty, when it has vanished.
    pub recreate: bool,
    /// It goes with the resource.
    pub delete: bool,
}

/// A JetStream stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Subjects that it takes in; none overlaps another.
    pub subjects: Vec<String>,
    /// Where messages are kept.
    pub storage: Storage,
    /// Servers that hold a copy; `None` = the connection's default.
    pub replicas: Option<u32>,
    /// Which servers; `None` = any.
    pub placement: Option<Placement>,
    /// Most bytes; `None` = unlimited.
    pub max_bytes: Option<u64>,
    /// Age at which a message goes, in milliseconds; `None` = never.
    pub max_age_ms: Option<u64>,
    /// Most messages; `None` = unlimited.
    pub max_messages: Option<u64>,
    /// Most messages on one subject; `None` = unlimited.
    pub max_messages_per_subject: Option<u64>,
    /// Largest message in bytes; `None` = the server's.
    pub max_message_size: Option<u64>,
    /// What happens at a limit.
    pub on_full: OnFull,
    /// How long a message id is remembered, in milliseconds.
    pub duplicate_window_ms: u64,
    /// How messages are compressed.
    pub compression: Compression,
}

/// Compiles an EventStream.
#[must_use]
pub fn event_stream(resource: &EventStream) -> Report<EventStreamPlan> {
    let mut findings = Findings::default();
    let namespace = namespace_of(&resource.metadata);
    let name = resource.metadata.name.clone().unwrap_or_default();
    let EventStreamSpec {
        description,
        prefix,
        stream_name,
        capture,
        storage,
        replicas,
        limits,
        duplicate_window,
        max_message_size,
        max_messages_per_subject,
        compression,
        durability,
        placement,
        mirror,
        sources,
        republish,
        subject_transform,
        management_policy,
        deletion_policy,
        adoption_policy,
        on_loss,
        allowed_readers,
        nats_ref,
    } = &resource.spec;
    let spec = FieldPath::spec();

    let operator_only = Lifecycle {
        deletion_policy: *deletion_policy,
        worker_update: None,
        worker: None,
        durability: *durability,
        nats_ref: nats_ref.as_ref(),
    };
    unlike_dev(&mut findings, &operator_only, &spec.field("durability"));
    let policy = StreamPolicy {
        observe: *management_policy == Some(ManagementPolicy::Observe),
        adopt: *adoption_policy == Some(AdoptionPolicy::IfUnowned),
        recreate: *on_loss == Some(OnLoss::Recreate),
        delete: *deletion_policy == Some(DeletionPolicy::Delete),
    };
    if policy.observe {
        for (field, present) in [
            ("storage", storage.is_some()),
            ("replicas", replicas.is_some()),
            ("limits", limits.is_some()),
            ("duplicateWindow", duplicate_window.is_some()),
            ("maxMessageSize", max_message_size.is_some()),
            ("maxMessagesPerSubject", max_messages_per_subject.is_some()),
            ("compression", compression.is_some()),
            ("durability", durability.is_some()),
            ("placement", placement.is_some()),
        ] {
            if present {
                let message = "managementPolicy: Observe writes nothing to the stream: remove the field, or managementPolicy";
                findings.error(&spec.field(field), Reason::Malformed, message);
            }
        }
    }
    for (field, present) in [
        ("mirror", mirror.is_some()),
        ("sources", !sources.is_empty()),
        ("republish", republish.is_some()),
        ("subjectTransform", subject_transform.is_some()),
    ] {
        if present {
            findings.not_yet(&spec.field(field), "remove the field");
        }
    }
    for (field, present, otherwise) in [
        (
            "managementPolicy",
            policy.observe,
            "`tidemill dev` makes every stream; leave the field out there",
        ),
        (
            "adoptionPolicy",
            policy.adopt,
            "`tidemill dev` takes over no stream; leave the field out there",
        ),
        (
            "onLoss",
            policy.recreate,
            "`tidemill dev` reports a lost stream; leave the field out there",
        ),
    ] {
        if present {
            findings.needs_cluster(&spec.field(field), otherwise);
        }
    }
    let readers = allowed_readers.clone().unwrap_or_default();
    if readers.namespaces == ReaderNamespaces::Selector {
        findings.unlike_dev(
            &spec.field("allowedReaders").field("selector"),
            "without one namespaces have no labels, and all may refer to the stream",
        );
    }

    let prefix = prefix
        .as_ref()
        .map_or_else(|| format!("{namespace}.{name}"), |prefix| prefix.0.clone());
    let capture = captures(&mut findings, capture);
    let subjects = subjects(&mut findings, &prefix, &capture);

    let limits_path = spec.field("limits");
    let limits = limits.clone().unwrap_or_default();
    let max_age_ms = milliseconds(
        &mut findings,
        &limits_path.field("maxAge"),
        limits.max_age.as_ref(),
    );
    let window_path = spec.field("duplicateWindow");
    let window = milliseconds(&mut findings, &window_path, duplicate_window.as_ref());
    if let (Some(window), Some(age)) = (window, max_age_ms)
        && window > age
    {
        let message = "longer than limits.maxAge: an event that is gone can't be recognised again; shorten the window";
        findings.error(&window_path, Reason::Malformed, message);
    }
    let max_message_size = bytes(
        &mut findings,
        &spec.field("maxMessageSize"),
        max_message_size.as_ref(),
    );
    if max_message_size.is_some_and(|size| size > MESSAGE_BYTES_MAX) {
        let message = format!(
            "{} is more than JetStream can count: at most {MESSAGE_BYTES_MAX} bytes",
            max_message_size.unwrap_or(0)
        );
        findings.error(&spec.field("maxMessageSize"), Reason::Malformed, message);
    }
    if limits.on_full.is_some() && limits.max_bytes.is_none() && limits.max_messages.is_none() {
        let message =
            "without maxBytes and maxMessages the stream is never full: onFull changes nothing";
        findings.warn(&limits_path.field("onFull"), Reason::Unsound, message);
    }

    let settings = StreamSettings {
        name: stream_name.as_ref().map_or_else(
            || names::event_stream(&namespace, &name),
            |name| name.0.clone(),
        ),
        description: description.clone(),
        subjects,
        storage: storage.unwrap_or_default(),
        replicas: *replicas,
        placement: placement.clone(),
        max_bytes: bytes(
            &mut findings,
            &limits_path.field("maxBytes"),
            limits.max_bytes.as_ref(),
        ),
        max_age_ms,
        max_messages: messages(
            &mut findings,
            &limits_path.field("maxMessages"),
            limits.max_messages,
        ),
        max_messages_per_subject: messages(
            &mut findings,
            &spec.field("maxMessagesPerSubject"),
            *max_messages_per_subject,
        ),
        max_message_size,
        on_full: limits.on_full.unwrap_or_default(),
        duplicate_window_ms: window.unwrap_or_else(|| {
            max_age_ms.map_or(DUPLICATE_WINDOW_MS, |age| age.min(DUPLICATE_WINDOW_MS))
        }),
        compression: compression.unwrap_or_default(),
    };
    findings.report(EventStreamPlan {
        stream: StreamRef { namespace, name },
        binding: StreamBinding {
            stream: StreamRef {
                namespace: namespace_of(&resource.metadata),
                name: resource.metadata.name.clone().unwrap_or_default(),
            },
            name: settings.name.clone(),
            prefix,
            capture,
        },
        settings,
        readers,
        policy,
    })
}

fn captures(findings: &mut Findings, captures: &[eventstream::Capture]) -> Vec<Capture> {
    let names = Names::message();
    let mut compiled = Vec::with_capacity(captures.len());
    for (index, capture) in captures.iter().enumerate() {
        let path = FieldPath::spec().field("capture").index(index);
        let json = capture.format == Some(eventstream::CaptureFormat::Json);
        if json && capture.event_type.is_none() {
            findings.error(&path, Reason::Malformed, "format: Json needs type: a CEL expression for the event's type, such as \"'OrderPlaced'\" or message.data.kind");
        }
        let mut source = |field: &str, source: Option<&crate::text::Expression>| {
            let source = source?;
            expression(
                findings,
                &path.field(field),
                source.as_str(),
                &names,
                Gives::Text,
            );
            Some(source.0.clone())
        };
        let event_type = source("type", capture.event_type.as_ref());
        let entity = source("entity", capture.entity.as_ref());
        let time = source("time", capture.time.as_ref());
        compiled.push(Capture {
            subjects: capture
                .subjects
                .iter()
                .map(|subject| subject.0.clone())
                .collect(),
            format: if json {
                CaptureFormat::Json
            } else {
                CaptureFormat::CloudEvents
            },
            event_type,
            entity,
            time,
        });
    }
    compiled
}

/// All subjects of the stream. The server refuses those of which one message could match two, and so could not be told apart.
fn subjects(findings: &mut Findings, prefix: &str, captures: &[Capture]) -> Vec<String> {
    let own = format!("{prefix}.>");
    let mut subjects = vec![own.clone()];
    for (index, capture) in captures.iter().enumerate() {
        for (at, subject) in capture.subjects.iter().enumerate() {
            if let Some(other) = subjects.iter().find(|other| overlap(other, subject)) {
                let path = FieldPath::spec()
                    .field("capture")
                    .index(index)
                    .field("subjects")
                    .index(at);
                let what = if *other == own {
                    "the stream's own events are there already"
                } else {
                    "each message must be taken in once"
                };
                findings.error(
                    &path,
                    Reason::Conflict,
                    format!("`{subject}` overlaps `{other}`: {what}; narrow or remove it"),
                );
            }
            subjects.push(subject.clone());
        }
    }
    subjects
}

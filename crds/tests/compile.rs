//! What the compiler says of specs that the schema accepts and that are wrong all the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::document;
use tidemill_crds::ResourceKind::{self, EventStream as E, Projection as P, Saga as S};
use tidemill_crds::manifest;

/// Everything that is said of a snippet, as people read it.
fn said(kind: ResourceKind, snippet: &str) -> String {
    #[cfg(feature = "planted-bugs")]
    assert_eq!(tidemill_testbed::planted::plant_as_told(), Ok(()));
    let report = manifest::lint(&document(kind, snippet));
    assert_eq!(
        report.plan.is_some(),
        report.errors.is_empty(),
        "a plan or errors, never both: {snippet}"
    );
    let errors = report.errors.iter().map(|problem| ("error", problem));
    let warnings = report.warnings.iter().map(|problem| ("warning", problem));
    let in_cluster = report.in_cluster.iter().map(|only| match only.needed {
        true => ("dev refuses", &only.problem),
        false => ("dev warns", &only.problem),
    });
    let lines = errors
        .chain(warnings)
        .chain(in_cluster)
        .map(|(level, problem)| format!("  {level} {} {problem}", problem.reason.as_str()));
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "  fine".to_owned()
    } else {
        lines.join("\n")
    }
}

/// The reports on all snippets, below each other.
fn table(kind: ResourceKind, snippets: &[&str]) -> String {
    let rows = snippets.iter().map(|snippet| {
        let snippet = snippet.trim_matches('\n');
        format!("{snippet}\n{}\n", said(kind, snippet))
    });
    rows.collect::<Vec<_>>().join("\n")
}

macro_rules! assert_reports {
    ($kind:expr, $snippets:expr $(,)?) => {
        insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!(table($kind, $snippets)) })
    };
}

#[test]
fn event_streams() {
    assert_reports!(
        E,
        &[
            "",
            "durability: Strict",
            "mirror: {stream: {name: a}}",
            "{sources: [{stream: {name: a}}], republish: {destination: a.b}, subjectTransform: {destination: x.>}}",
            "managementPolicy: Observe",
            "{managementPolicy: Observe, deletionPolicy: Delete, storage: File, limits: {maxMessages: 5}}",
            "{deletionPolicy: Delete, adoptionPolicy: IfUnowned, onLoss: Recreate}",
            "{deletionPolicy: Retain, adoptionPolicy: Never, onLoss: Report, managementPolicy: Manage, durability: Standard}",
            "allowedReaders: {namespaces: Selector, selector: {matchLabels: {team: a}}}",
            "natsRef: {name: other}",
            "capture: [{subjects: [shop.orders.legacy]}]",
            "capture: [{subjects: [legacy.>]}, {subjects: [legacy.*.placed]}]",
            "capture: [{subjects: [legacy.>], format: Json, type: \"'Order' + message.data.kind\", entity: string(message.data.id), time: message.data.at}]",
            "capture: [{subjects: [legacy.>], format: Json, type: message.body.kind, entity: event.subject, time: '1 +'}]",
            "capture: [{subjects: [legacy.>], format: Json, type: '[]', entity: 1 / 0, time: 'null'}]",
            "maxMessageSize: 4Gi",
            "limits: {onFull: DropOldest}",
            "limits: {maxAge: 1m}",
            "{limits: {maxMessages: 0}, maxMessagesPerSubject: 9007199254740992}",
        ]
    );
}

#[test]
fn projections() {
    assert_reports!(
        P,
        &[
            "",
            "sink: {postgres: {connectionSecretRef: {name: a, key: b}, table: t, columns: [{name: c, type: text}]}}",
            "{deletionPolicy: Delete, workerUpdate: Auto, natsRef: {name: other}}",
            "worker: {image: worker:2, resources: {requests: {cpu: 0.5}, limits: {memory: 1.5Gi, cpu: 2}}}",
            "worker: {resources: {requests: {cpu: fast}}}",
            "from: [{stream: {name: orders}}, {stream: {name: orders, namespace: shop}}]",
            "from: [{stream: {name: orders}, start: {time: '2026-01-31T12:00:00Z'}}]",
            "key: row.id",
            "key: =event.subject",
            "handlers: [{set: {total: event.data.total, note: event of the day, when: 'row[1]'}, increment: {n: event.data.n}}]",
            "key: event.",
            "key: event.customerId",
            "key: event.customer",
            "key: event.subjet",
            "key: 'has(event.data.id) ? event.data.id : event.subject'",
            "handlers: [{type: A, set: {}}]",
            "handlers: [{type: A, set: {total: =event.data.}, increment: {n: one, m: true, k: 2, j: =event.data.x}}]",
            "handlers: [{set: {total: 1}, increment: {total: 1}}]",
            "handlers: [{set: {'': 1, deep: [{a: {b-c: =nonsense}}]}}]",
            "handlers: [{when: 'event.data.total > ', set: {a: 1}}, {when: row.a == 1, key: row.b, delete: true}]",
            "handlers: [{stream: {name: payments}, set: {a: 1}}]",
            "handlers: [{set: {a: '=duration(event.data.x)'}}]",
            "{key: '[1]', handlers: [{when: 1 + 1, key: 'null', set: {a: =1/0, b: \"='a' + 1\", c: [\"=int('x')\"]}, increment: {n: \"='1'\", m: =1}}]}",
            "{key: \"'all'\", handlers: [{when: 'true', key: 1 + 1, set: {a: '=[1, 2].map(x, x * 2)', b: =null}, increment: {n: =0.5}}]}",
            "handlers: [{when: '[1, 2].all(x, x)', set: {a: 1}}, {when: 'event.data.x || 1 / 0 > 1', set: {a: 1}}]",
            "handlers: [{set: {guest: null, deep: [{a: null}, null], b: '=null'}, increment: {n: null}}]",
            "handlers: [{when: 'event.data.a = 1', set: {a: 1}}]",
            "handlers: [{when: event.data.a and event.data.b, set: {a: 1}}]",
            "
from: [{stream: {name: orders}}, {stream: {name: payments}}]
handlers:
- {type: A, set: {a: 1}}
- {type: B, delete: true}",
            "
from: [{stream: {name: orders}}, {stream: {name: payments}}]
handlers:
- {stream: {name: orders}, set: {a: 1, sum: =row.b}}
- {stream: {name: payments}, set: {b: 1, c: '=row.b + 1'}}
- {increment: {n: 1}}",
            "
from: [{stream: {name: orders}}, {stream: {name: payments}}]
handlers:
- {stream: {name: orders}, set: {a: 1, seen: =row}}
- {stream: {name: payments}, when: \"row['a'] == 1\", increment: {n: 1}}",
            "
from: [{stream: {name: orders}}, {stream: {name: payments}}]
handlers:
- {stream: {name: orders}, set: {a: 1}}
- {stream: {name: payments}, set: {b: 1}}
- {increment: {n: 1}}",
            "retry: {maxAttempts: 3}",
            "onError: {maxParkedKeys: 5}",
            "suspend: true",
        ]
    );
}

#[test]
fn sagas() {
    assert_reports!(
        S,
        &[
            "",
            "{retention: {finished: 1h}, onDelete: Drain, deletionPolicy: Delete, workerUpdate: Auto, natsRef: {name: other}}",
            "{log: {durability: Strict}, replies: Relayed}",
            "log: {replicas: 3, maxBytes: 1Gi, streamName: fulfilment}",
            "steps: [{name: a, command: {subject: x}}]",
            "steps: [{name: a, wait: {signal: paid}}, {name: b, sleep: {duration: 1s}}]",
            "steps: [{name: a, request: {subject: x, headers: [{name: X-A, value: b}]}}]",
            "steps: [{name: a, http: {url: 'http://x/', headers: [{name: X-A, valueFrom: {secretKeyRef: {name: a, key: b}}}]}}]",
            "steps: [{name: a, http: {url: 'http://x/', headers: [{name: X-A, value: b}, {name: x-a, value: =input.data.}]}}]",
            "steps: [{name: a, http: {url: =input.data.url + '/x', method: PUT, body: =input.data}}]",
            "steps: [{name: a, request: {subject: x}, timeout: 10m}]",
            "steps: [{name: a, request: {subject: x, allowLongReplies: true}, timeout: 10m}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo}, timeout: 3m}}]",
            "steps: [{name: a, request: {subject: x, data: {x: =steps.b.output.id}}}, {name: b, request: {subject: x}}]",
            "steps: [{name: a, request: {subject: x, data: {x: =steps.a.output.id}}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x, data: {x: =steps.aa.output.id}}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x, data: {x: =steps.a.data.id, y: =steps.a.commandID, z: =steps}}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x, data: [=steps.a.commandId, =steps.a.skipped, =steps.a.output]}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, after: [], request: {subject: x, data: =steps.a.output}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, after: [], request: {subject: x}}, {name: c, after: [a, b], request: {subject: x, data: [=steps.a.output, =steps.b.output]}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x}}, {name: c, request: {subject: x, data: =steps.a.output}}]",
            "steps: [{name: a, after: [b], request: {subject: x}}, {name: b, after: [b, c, aa], request: {subject: x}}]",
            "steps: [{name: a, request: {subject: x, data: \"=steps['a'].output\"}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x, data: '=steps[input.data.which].output'}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo, data: {id: =steps.a.output.id}}}}]",
            "steps: [{name: a, request: {subject: x}, onUnknown: Park, compensate: {request: {subject: undo, data: {id: =steps.a.output.id}}}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo, data: {id: '=has(steps.a.output.id) ? steps.a.output.id : null'}}}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo, data: {id: '=has(steps.a.output) ? steps.a.output.id : null', c: =steps.a.commandId}}}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo, data: {why: =failure.reason, w: =failure.cause}}}}]",
            "steps: [{name: a, request: {subject: x, data: {why: =failure.reason}}}]",
            "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x}, compensate: {request: {subject: undo, data: =steps.a.output.id}}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo, data: =steps.b.commandId}}}, {name: b, request: {subject: x}}]",
            "steps: [{name: a, when: input.data.gift, request: {subject: x}}, {name: b, request: {subject: x, data: =steps.a.output}}]",
            "steps: [{name: a, when: input.data.gift, request: {subject: x}}, {name: b, request: {subject: x, data: '=has(steps.a.output) ? steps.a.output : null'}}]",
            "steps: [{name: a, request: {subject: x}, pivot: true}, {name: b, request: {subject: x}, compensate: {request: {subject: undo}}}]",
            "steps: [{name: a, request: {subject: x}, pivot: true}, {name: b, after: [], request: {subject: x}, compensate: {request: {subject: undo}}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo}}}, {name: b, request: {subject: x}, pivot: true}, {name: c, request: {subject: x}}]",
            "steps: [{name: a, when: '=input.data.x', request: {subject: x}}]",
            "steps: [{name: a, when: saga.id != saga.key, request: {subject: x, data: [=saga.name, =saga.namespace]}}]",
            "steps: [{name: a, request: {subject: x}, stepTimeout: 2s}, {name: b, request: {subject: x}, retry: {maxBackoff: 100ms}}]",
            "steps: [{name: a, http: {url: 'http://x/', headers: [{name: X-A, value: input.id}], body: [steps.a.output]}}]",
            "steps: [{name: a, publish: {stream: {name: orders}, type: Paid, entity: input.subject}}]",
            "steps: [{name: a, publish: {stream: {name: orders}, type: Paid, entity: =input.subject, data: =input.data}}]",
            "steps: [{name: a, publish: {stream: {name: orders}, type: Paid, entity: a}, timeout: 1s, stepTimeout: 5s, retry: {maxAttempts: 3}}]",
            "steps: [{name: a, request: {subject: x}, timeout: 1s, compensate: {publish: {stream: {name: orders}, type: Unpaid, entity: a}, timeout: 1s, stepTimeout: 5s, retry: {maxAttempts: 3}}}]",
            "onCompleted: [{publish: {stream: {name: orders}, type: Done, entity: =input.subject, data: {x: =steps.reserve.output.id, y: =failure.reason}}}]",
            "onCompensated: [{publish: {stream: {name: orders}, type: Rejected, entity: =input.subject, data: {x: =steps.reserve.output.id, y: =failure.reason}}}]",
            "onCompensated: [{publish: {stream: {name: orders}, type: Rejected, entity: =input.customer, data: '=has(steps.reserve.output) ? steps.reserve.output : null'}}]",
            &format!(
                "onCompleted: [{{publish: {{stream: {{name: orders}}, type: Done, entity: {}}}}}]",
                "e".repeat(201)
            ),
            "startOn: [{stream: {name: orders}, type: OrderPlaced, when: event.data.total > 0, id: event.subject}]",
            "startOn: [{stream: {name: orders}, type: A, id: event.key, when: input.x}]",
            "startOn: [{stream: {name: orders}, type: A, id: '{}', when: \"'yes'\"}]",
            "steps: [{name: a, when: '0', http: {url: '=[]', headers: [{name: X-A, value: '={}'}], body: =1 % 0}}]",
            "steps: [{name: a, request: {subject: x}, compensate: {request: {subject: undo, data: {step: =failure.step, f: =failure}}}}]",
            "onCompensated: [{publish: {stream: {name: orders}, type: Rejected, entity: =input.subject, data: {step: =failure.step}}}]",
            "onCompensated: [{publish: {stream: {name: orders}, type: Rejected, entity: =input.subject, data: {step: \"=has(failure.step) ? failure.step : ''\", code: =failure.code}}}]",
            "startOn: [{stream: {name: orders}, type: A, id: event.id, start: {from: New}}, {stream: {name: orders}, type: B, id: event.id, start: {from: Beginning}}]",
            "startOn: [{stream: {name: orders}, type: A, id: event.id}, {stream: {name: orders}, type: B, id: event.id, start: {from: Beginning}}]",
            "startOn: [{stream: {name: orders}, id: event.id}, {stream: {name: orders}, type: B, id: event.id}]",
            "startOn: [{stream: {name: orders}, type: B, when: event.data.x, id: event.id}, {stream: {name: orders}, type: B, id: event.id}]",
            "steps: [{name: a, request: {subject: x, data: {deep: '=input.data.items.map(i, i.sku)'}}}]",
            "steps: [{name: a, request: {subject: x, data: '=input.data.a.all(x, input.data.b.all(y, input.data.c.all(z, true)))'}}]",
            "steps: [{name: a, request: {subject: x, data: '=now()'}}]",
            "steps: [{name: a, request: {subject: x, data: \"='=literal'\"}}]",
            "steps: [{name: a, request: {subject: x, data: {a: null}}}, {name: b, http: {url: 'http://x/', body: {a: null, b: '=null'}}}]",
            "onCompleted: [{publish: {stream: {name: orders}, type: Done, entity: a, data: {a: [null]}}}]",
        ]
    );
}

/// The operator compiles what the API server has taken, perhaps by an older schema.
#[test]
fn headers_of_the_connection_are_refused_without_the_schema_too() {
    #[cfg(feature = "planted-bugs")]
    assert_eq!(tidemill_testbed::planted::plant_as_told(), Ok(()));
    for (name, refused) in [
        ("Content-Length", true),
        ("content-length", true),
        ("Transfer-Encoding", true),
        ("Connection", true),
        ("HOST", true),
        ("Keep-Alive", true),
        ("Upgrade", true),
        ("TE", true),
        ("Trailer", true),
        ("Proxy-Authorization", true),
        ("Expect", true),
        ("Authorization", false),
        ("Content-Type", false),
        ("X-Host", false),
    ] {
        let step = format!(
            "steps: [{{name: a, http: {{url: 'http://x/', headers: [{{name: {name}, value: b}}]}}}}]"
        );
        let document = document(S, &step);
        let saga: tidemill_crds::Saga = serde_json::from_value(document.clone()).unwrap();
        for errors in [
            tidemill_crds::compile::saga(&saga).errors,
            tidemill_crds::check::check(S, &document, None),
        ] {
            let said: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
            let expected: &[&str] = if refused {
                &["spec.steps[0].http.headers[0].name"]
            } else {
                &[]
            };
            assert_eq!(said, expected, "{name}");
        }
    }
}

/// A field, a value that isn't its default, and whether it is policy: rows aren't made anew for it, and new instances are of the same
/// revision.
type Changed = (ResourceKind, &'static str, &'static str, bool);

const CHANGED: &[Changed] = &[
    (P, "from", "[{stream: {name: other}}]", false),
    (
        P,
        "from",
        "[{stream: {name: orders}, start: {from: New}}]",
        true,
    ),
    (
        P,
        "from",
        "[{stream: {name: orders}, start: {position: 7}}]",
        true,
    ),
    (
        P,
        "from",
        "[{stream: {name: orders}, start: {time: '2026-01-31T12:00:00Z'}}]",
        true,
    ),
    (P, "key", "event.id", false),
    (P, "handlers", "[{set: {status: paid}}]", false),
    (
        P,
        "sink",
        "{kv: {bucket: mine, replicas: 3, maxBytes: 1Gi, placement: {tags: [a]}}}",
        true,
    ),
    (P, "onError", "{then: Skip}", true),
    (P, "onError", "{then: Stop}", true),
    (P, "onError", "{maxParkedKeys: 5}", true),
    (P, "replicas", "0", true),
    (P, "suspend", "true", true),
    (P, "deletionPolicy", "Delete", true),
    (
        P,
        "worker",
        "{image: worker:2, resources: {limits: {memory: 1Gi}}}",
        true,
    ),
    (P, "workerUpdate", "Manual", true),
    (
        S,
        "startOn",
        "[{stream: {name: orders}, id: event.id}]",
        false,
    ),
    (
        S,
        "steps",
        "[{name: reserve, request: {subject: inventory.take}}]",
        false,
    ),
    (
        S,
        "steps",
        "[{name: reserve, request: {subject: inventory.reserve}, retry: {maxAttempts: 2}}]",
        false,
    ),
    (
        S,
        "onCompleted",
        "[{publish: {stream: {name: orders}, type: Done, entity: a}}]",
        false,
    ),
    (
        S,
        "onCompensated",
        "[{publish: {stream: {name: orders}, type: Undone, entity: a}}]",
        false,
    ),
    (S, "timeout", "2h", false),
    (S, "replies", "Relayed", false),
    (
        S,
        "log",
        "{streamName: mine, replicas: 3, maxBytes: 1Gi, placement: {tags: [a]}}",
        true,
    ),
    (S, "onDelete", "Stop", true),
    (S, "replicas", "3", true),
    (S, "partitions", "8", true),
    (S, "suspend", "true", true),
    (S, "deletionPolicy", "Delete", true),
    (S, "workerUpdate", "Auto", true),
    (
        S,
        "worker",
        "{image: worker:2, resources: {limits: {memory: 1Gi}}}",
        true,
    ),
];

#[test]
fn what_is_policy_changes_no_revision_and_all_else_does() {
    use tidemill_crds::manifest::Plan;
    #[cfg(feature = "planted-bugs")]
    assert_eq!(tidemill_testbed::planted::plant_as_told(), Ok(()));
    let revision = |kind: ResourceKind, snippet: &str| match common::plan(kind, snippet) {
        Plan::Projection(plan) => plan.revision,
        Plan::Saga(plan) => plan.revision,
        Plan::EventStream(_) => unreachable!("an EventStream has no revision"),
    };
    for (kind, field, value, is_policy) in CHANGED {
        let changed = revision(*kind, &format!("{field}: {value}"));
        let same = changed == revision(*kind, "");
        assert_eq!(same, *is_policy, "{kind} {field}: {value}");
    }
    // Where the first start is, of a trigger too.
    let trigger = |start: &str| {
        let fields = format!("stream: {{name: orders}}, id: event.id{start}");
        revision(S, &format!("startOn: [{{{fields}}}]"))
    };
    assert_eq!(trigger(""), trigger(", start: {from: Beginning}"));
    // No field is left out, but those that aren't in this version as a whole.
    let later = [
        (P, "retry"),
        (P, "natsRef"),
        (S, "retention"),
        (S, "natsRef"),
    ];
    for kind in [P, S] {
        let crd = serde_json::to_value(kind.crd()).unwrap();
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        for field in crd.pointer(spec).unwrap().as_object().unwrap().keys() {
            let known = CHANGED.iter().any(|row| row.0 == kind && row.1 == field);
            let later = later.contains(&(kind, field.as_str()));
            assert!(known || later, "{kind} {field}: is it policy?");
        }
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn each_planted_bug_of_the_compiler_is_caught() {
    use tidemill_core::planted::Bug;
    use tidemill_testbed::planted::each_is_caught;
    let caught = [
        (Bug::OutputUnguarded, "sagas"),
        (Bug::CompensatedBehindPivot, "sagas"),
        (Bug::AfterStepBelow, "sagas"),
        (Bug::DeletedWithSources, "projections"),
        (Bug::ColumnOfTwoStreams, "projections"),
        (Bug::ForeignColumnRead, "projections"),
        (Bug::NullAccepted, "projections"),
        (Bug::ConstantUnchecked, "projections"),
        (Bug::FailedStepUnguarded, "sagas"),
        (
            Bug::PolicyInRevision,
            "what_is_policy_changes_no_revision_and_all_else_does",
        ),
        (
            Bug::ConnectionHeaderSet,
            "headers_of_the_connection_are_refused_without_the_schema_too",
        ),
    ];
    each_is_caught(&caught, Bug::OF_COMPILER).unwrap();
}

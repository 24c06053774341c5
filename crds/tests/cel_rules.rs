//! What the schema and its CEL rules refuse, and what they say: the same answers as the API server's.

mod common;

use common::document;
use serde_json::{Value, json};
use tidemill_crds::ResourceKind::{self, EventStream as E, Projection as P, Saga as S};
use tidemill_crds::check::check;

fn said(kind: ResourceKind, document: &Value, old: Option<&Value>) -> String {
    check(kind, document, old)
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A step with these further fields, as the only one.
fn step(fields: &str) -> String {
    format!("steps: [{{name: pay, {fields}}}]")
}

fn handler(fields: &str) -> String {
    format!("handlers: [{{{fields}}}]")
}

#[test]
fn what_is_created() {
    const REQUEST: &str = "request: {subject: pay}";
    let rows: Vec<(ResourceKind, String, &str)> = vec![
        // EventStream
        (E, "".into(), ""),
        (E, "prefix: shop.orders".into(), ""),
        (E, "prefix: _tm.x".into(), "spec.prefix: a prefix that begins with `_` or `$` is refused: such subjects belong to NATS and to Tidemill itself"),
        (E, "prefix: $JS".into(), "spec.prefix: a prefix that begins with `_` or `$` is refused: such subjects belong to NATS and to Tidemill itself"),
        (E, "prefix: 'shop.*'".into(), "spec.prefix: not a prefix: tokens of letters, digits, `-` and `_`, joined by dots, no wildcards, such as shop.orders"),
        (E, "prefix: shop..orders".into(), "spec.prefix: not a prefix: tokens of letters, digits, `-` and `_`, joined by dots, no wildcards, such as shop.orders"),
        (E, "prefix: 7".into(), "spec.prefix: a string is needed, this is the number 7: put quotes around it"),
        (E, "prefix:".into(), "spec.prefix: the value is empty (null): give it a value or remove the field"),
        (E, "perfix: shop".into(), "spec.perfix: there is no such field; did you mean `prefix`?"),
        (E, "storage: Disk".into(), "spec.storage: `Disk` is not one of File, Memory"),
        (E, "storage: file".into(), "spec.storage: `file` is not one of File, Memory (did you mean `File`?)"),
        (E, "replicas: 6".into(), "spec.replicas: 6 is out of bounds: from 1 to 5"),
        (E, "replicas: '3'".into(), "spec.replicas: a whole number is needed, this is the string `3`"),
        (E, "limits: {maxBytes: 10Gi, maxAge: 720h, maxMessages: 1000000, onFull: Reject}".into(), ""),
        (E, "limits: {maxBytes: 1024}".into(), ""),
        (E, "limits: {maxBytes: 10 GB}".into(), "spec.limits.maxBytes: `10 GB` is not an amount of bytes: write a whole number above 0, with k, M, G, T, Ki, Mi, Gi or Ti, such as 10Gi"),
        (E, "limits: {maxAge: 30d}".into(), "spec.limits.maxAge: not a duration: write whole numbers with the units ms, s, m or h, such as 100ms, 30s or 1h30m"),
        (E, "limits: {maxAge: 10ms}".into(), "spec.limits.maxAge: must be from 1s to 876000h"),
        (E, "{duplicateWindow: 2h, limits: {maxAge: 1h}}".into(), "spec.duplicateWindow: must not be longer than limits.maxAge: an event that is gone can't be recognised again"),
        (E, "{duplicateWindow: 2h, limits: {maxAge: 1x}}".into(), "spec.limits.maxAge: not a duration: write whole numbers with the units ms, s, m or h, such as 100ms, 30s or 1h30m"),
        (E, "{durability: Strict, storage: Memory}".into(), "spec: durability: Strict needs storage: File, memory is lost with the server"),
        (E, "durability: Strict".into(), ""),
        (E, "capture: [{subjects: [legacy.orders.>, legacy.*.placed]}]".into(), ""),
        (E, "capture: [{subjects: ['>']}]".into(), "spec.capture[0].subjects[0]: a subject must begin with a literal token: `>` or `*` in front would take the subjects of the whole account"),
        (E, "capture: [{subjects: ['*.x']}]".into(), "spec.capture[0].subjects[0]: a subject must begin with a literal token: `>` or `*` in front would take the subjects of the whole account"),
        (E, "capture: [{subjects: [ok, $JS.API.>]}]".into(), "spec.capture[0].subjects[1]: subjects that begin with `_` or `$` belong to NATS and to Tidemill itself"),
        (E, "capture: [{subjects: [_tm.log.>]}]".into(), "spec.capture[0].subjects[0]: subjects that begin with `_` or `$` belong to NATS and to Tidemill itself"),
        (E, "capture: [{subjects: [a.b*]}]".into(), "spec.capture[0].subjects[0]: not a subject: non-empty tokens joined by dots, no spaces; `*` stands for one whole token and `>`, only at the end, for one or more"),
        (E, "capture: [{subjects: [a.>.b]}]".into(), "spec.capture[0].subjects[0]: not a subject: non-empty tokens joined by dots, no spaces; `*` stands for one whole token and `>`, only at the end, for one or more"),
        (E, "capture: [{subjects: []}]".into(), "spec.capture[0].subjects: the list has 0 entries, at least 1 is needed"),
        (E, "capture: [{subjects: [a], format: Json}]".into(), "spec.capture[0]: format: Json needs type: a CEL expression for the event's type, such as \"'OrderPlaced'\" or message.data.kind"),
        (E, "capture: [{subjects: [a], format: Json, type: message.data.kind, entity: message.data.id}]".into(), ""),
        (E, "capture: [{subjects: [a], entity: message.data.id}]".into(), "spec.capture[0]: type, entity and time are for format: Json; CloudEvents carry their own"),
        (E, "capture: [{subjects: [a], format: Json, type: ' '}]".into(), "spec.capture[0].type: the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment"),
        (E, "allowedReaders: {namespaces: All}".into(), ""),
        (E, "allowedReaders: {namespaces: Selector}".into(), "spec.allowedReaders: selector goes with namespaces: Selector, and only with it"),
        (E, "allowedReaders: {namespaces: Selector, selector: {matchExpressions: [{key: team, operator: In}]}}".into(), "spec.allowedReaders.selector.matchExpressions[0]: values go with the operators In and NotIn, and only with them"),
        (E, "{mirror: {stream: {name: a}}, sources: [{stream: {name: b}}]}".into(), "spec: a mirror takes its events from one stream alone: remove sources, capture and subjectTransform, or use sources instead of mirror"),
        (E, "sources: [{stream: {name: a}, start: {from: New, position: 3}}]".into(), "spec.sources[0].start: start takes exactly one of from, position and time"),
        (E, "streamName: a.b".into(), "spec.streamName: not a JetStream name: letters, digits, `-` and `_` only"),
        // Projection
        (P, "".into(), ""),
        (P, "from: []".into(), "spec.from: the list has 0 entries, at least 1 is needed"),
        (P, "from: [{stream: {name: Orders}}]".into(), "spec.from[0].stream.name: not a resource name: at most 40 lower-case letters, digits and `-`, beginning and ending with a letter or digit"),
        (P, "from: [{stream: orders}]".into(), "spec.from[0].stream: a map of fields is needed, this is the string `orders`"),
        (P, "from: [{stream: {name: orders}, start: {}}]".into(), "spec.from[0].start: start takes exactly one of from, position and time"),
        (P, "from: [{stream: {name: orders}, start: {from: Beginning}}]".into(), ""),
        (P, "from: [{stream: {name: orders}, start: {position: 0}}]".into(), "spec.from[0].start.position: 0 is out of bounds: from 1 to 9007199254740991"),
        (P, "from: [{stream: {name: orders}, start: {time: yesterday}}]".into(), "spec.from[0].start.time: `yesterday` is not a time that Kubernetes takes: write it as RFC 3339 does, with a capital T and Z, such as 2026-01-31T12:00:00Z"),
        (P, "from: [{stream: {name: orders}, start: {time: '2026-01-31T12:00:00.5+01:00'}}]".into(), ""),
        (P, "from: [{stream: {name: orders}, start: {time: '2026-01-31t12:00:00z'}}]".into(), "spec.from[0].start.time: `2026-01-31t12:00:00z` is not a time that Kubernetes takes: write it as RFC 3339 does, with a capital T and Z, such as 2026-01-31T12:00:00Z"),
        (P, "from: [{stream: {name: orders}, start: {time: '2026-01-31 12:00:00Z'}}]".into(), "spec.from[0].start.time: `2026-01-31 12:00:00Z` is not a time that Kubernetes takes: write it as RFC 3339 does, with a capital T and Z, such as 2026-01-31T12:00:00Z"),
        (P, "from: [{stream: {name: orders}, start: {time: '2026-12-31T23:59:60Z'}}]".into(), "spec.from[0].start.time: `2026-12-31T23:59:60Z` is not a time that Kubernetes takes: write it as RFC 3339 does, with a capital T and Z, such as 2026-01-31T12:00:00Z"),
        (P, "sink: {}".into(), "spec.sink: a sink is exactly one of kv and postgres, such as `sink: {kv: {}}`"),
        (P, "sink: {kv: {}, postgres: {connectionSecretRef: {name: a, key: b}, table: t, columns: [{name: c, type: text}]}}".into(), "spec.sink: a sink is exactly one of kv and postgres, such as `sink: {kv: {}}`"),
        (P, "sink: {kv:}".into(), "spec.sink: a sink is exactly one of kv and postgres, such as `sink: {kv: {}}`\nspec.sink.kv: the value is empty (null): give it a value or remove the field"),
        (P, "sink: {postgres: {connectionSecretRef: {name: a, key: b}, table: Orders, columns: [{name: c, type: text}, {name: c, type: jsonb}]}}".into(), "spec.sink.postgres.columns[1].name: `c` stands here twice, spec.sink.postgres.columns[0] has it already\nspec.sink.postgres.table: not a table name: lower-case letters, digits and `_`, at most 63, optionally behind a schema and a dot"),
        (P, handler("type: OrderPlaced"), "spec.handlers[0]: a handler does nothing: give it set, increment or delete: true"),
        (P, handler("delete: true"), ""),
        (P, handler("delete: false"), "spec.handlers[0]: a handler does nothing: give it set, increment or delete: true"),
        (P, handler("delete: true, set: {a: 1}"), "spec.handlers[0]: delete: true removes the row: remove set and increment, or delete"),
        (P, handler("set: {a: null, b: [1, {c: =event.data.x}]}, increment: {n: 1}"), ""),
        (P, handler("when: , set: {a: 1}"), "spec.handlers[0].when: the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment"),
        (P, handler("when: '', set: {a: 1}"), "spec.handlers[0].when: the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment"),
        (P, "key:".into(), "spec.key: the value is empty (null): give it a value or remove the field"),
        (P, "retry: {initialBackoff: 1m, maxBackoff: 30s}".into(), "spec.retry: initialBackoff must not be longer than maxBackoff"),
        (P, "retry: {maxAttempts: 0}".into(), "spec.retry.maxAttempts: 0 is out of bounds: from 1 to 100"),
        (P, "onError: {then: Skip, maxParkedKeys: 10}".into(), "spec.onError: maxParkedKeys goes with then: Park"),
        (P, "onError: {then: park}".into(), "spec.onError.then: `park` is not one of Park, Skip, Stop (did you mean `Park`?)"),
        (P, "replicas: 65".into(), "spec.replicas: 65 is out of bounds: from 0 to 64"),
        (P, "suspend: 'yes'".into(), "spec.suspend: true or false is needed, this is the string `yes`"),
        // Saga
        (S, "".into(), ""),
        (S, "steps: []".into(), "spec.steps: the list has 0 entries, at least 1 is needed"),
        (S, "steps: [{name: a}]".into(), "spec.steps[0]: a step has exactly one action: request, command, http, publish, wait or sleep; here is none"),
        (S, "steps: [{name: a, request: {subject: x}, sleep: {duration: 1s}}]".into(), "spec.steps[0]: a step has exactly one action: request, command, http, publish, wait or sleep; here are request and sleep"),
        (S, "steps: [{request: {subject: x}}]".into(), "spec.steps[0].name: the field is missing: name of the step: a lower-case letter, then letters and digits, at most 31"),
        (S, "steps: [{name: a, request: {subject: x}}, {name: b, request: {subject: x}}, {name: a, request: {subject: x}}]".into(), "spec.steps[2].name: `a` stands here twice, spec.steps[0] has it already"),
        (S, "steps: [{name: ship-it, request: {subject: x}}]".into(), "spec.steps[0].name: not a step name: a lower-case letter, then letters and digits, at most 31; a `-` would be a subtraction in expressions"),
        (S, "steps: [{name: Ship, request: {subject: x}}]".into(), "spec.steps[0].name: not a step name: a lower-case letter, then letters and digits, at most 31; a `-` would be a subtraction in expressions"),
        (S, step("request: {subject: 'pay.*'}"), "spec.steps[0].request.subject: not a subject one can send to: non-empty tokens joined by dots, no spaces, no wildcards, and not beginning with `_` or `$`"),
        (S, step("request: {subject: $SYS.REQ}"), "spec.steps[0].request.subject: not a subject one can send to: non-empty tokens joined by dots, no spaces, no wildcards, and not beginning with `_` or `$`"),
        (S, step("request: {subject: pay, headers: [{name: Nats-Msg-Id, value: x}]}"), "spec.steps[0].request.headers[0].name: this header is written by NATS or by Tidemill itself: `Nats-*`, `Tidemill-*`, `Idempotency-Key`, `traceparent` and `tracestate` can't be set"),
        (S, step("http: {url: 'http://x/', headers: [{name: Content-Length, value: '5'}]}"), "spec.steps[0].http.headers[0].name: this header belongs to the connection, which Tidemill makes: `Host` comes from the URL and `Content-Length` from the body; remove it, or give what the participant needs a name of its own, such as X-Host"),
        (S, step("request: {subject: pay, headers: [{name: X-A}]}"), "spec.steps[0].request.headers[0]: a header takes exactly one of value and valueFrom"),
        (S, step("request: {subject: pay, headers: [{name: X-A, value: a}, {name: X-A, value: b}]}"), "spec.steps[0].request.headers[1].name: `X-A` stands here twice, spec.steps[0].request.headers[0] has it already"),
        (S, step("http: {url: shipping/x}"), "spec.steps[0].http.url: not a URL: it begins with http:// or https:// and a host, or with `=` and is CEL"),
        (S, step("http: {url: =input.data.url, method: PUT}"), ""),
        (S, step("http: {url: 'http://x/', method: post}"), "spec.steps[0].http.method: `post` is not one of POST, PUT, PATCH, DELETE, GET (did you mean `POST`?)"),
        (S, step("publish: {stream: {name: orders}, type: Paid}"), "spec.steps[0].publish.entity: the field is missing: what the event is about: its CloudEvents subject, a text where one that begins with `=` is CEL, such as `=input.subject`"),
        (S, step(&format!("{REQUEST}, compensate: {{}}")), "spec.steps[0].compensate: a compensation has exactly one action: request, command, http or publish; here is none"),
        (S, step(&format!("{REQUEST}, pivot: true, compensate: {{request: {{subject: x}}}}")), "spec.steps[0]: a pivot is never taken back: remove compensate, or pivot"),
        (S, step("sleep: {duration: 1s}, compensate: {request: {subject: x}}"), "spec.steps[0]: wait and sleep change nothing: there is nothing to compensate"),
        (S, step("wait: {}"), "spec.steps[0].wait: a wait is for exactly one of event and signal"),
        (S, step("sleep: {duration: 1s, until: input.data.at}"), "spec.steps[0].sleep: a sleep takes exactly one of duration and until"),
        (S, step("sleep: {duration: 1s}, timeout: 1s"), "spec.steps[0]: wait and sleep have no attempts: use stepTimeout instead of timeout"),
        (S, step(&format!("{REQUEST}, timeout: 10m, stepTimeout: 5m")), "spec.steps[0]: timeout (of one attempt) must not be longer than stepTimeout (of all attempts)"),
        (S, step(&format!("{REQUEST}, timeout: 0s")), "spec.steps[0].timeout: must be from 1ms to 720h"),
        (S, step(&format!("{REQUEST}, when:")), "spec.steps[0].when: the expression is empty: put quotes around it, YAML takes a leading `!` for a tag and ` #` for a comment"),
        (S, step(&format!("{REQUEST}, after: [x, x]")), "spec.steps[0].after[1]: `x` stands here twice, spec.steps[0].after[0] has it already"),
        (S, step(&format!("{REQUEST}, onUnknown: park")), "spec.steps[0].onUnknown: `park` is not one of Compensate, Park (did you mean `Park`?)"),
        (S, step(&format!("{REQUEST}, timeout: 600")), "spec.steps[0].timeout: a string is needed, this is the number 600: give it a unit, such as 600s"),
        (S, step(&format!("{REQUEST}, after: reserve")), "spec.steps[0].after: a list is needed, this is the string `reserve`: write [reserve]"),
        (S, "startOn: [{stream: {name: orders}, type: OrderPlaced}]".into(), "spec.startOn[0].id: the field is missing: CEL over `event`: id of the instance, such as `event.subject`"),
        (S, "startOn: [{stream: {name: orders}, type: 'Order Placed', id: event.subject}]".into(), "spec.startOn[0].type: not an event type: it must not be empty or hold spaces"),
        (S, "partitions: 0".into(), "spec.partitions: 0 is out of bounds: from 1 to 1024"),
        (S, "timeout: 500ms".into(), "spec.timeout: must be from 1s to 8760h"),
        (S, "log: {durability: Strict}".into(), "spec: log.durability: Strict needs replies: Relayed, a reply must be on disk before it is acted on"),
        (S, "{log: {durability: Strict}, replies: Relayed}".into(), ""),
        (S, "onCompleted: [{publish: {stream: {name: orders}, type: Done, entity: =input.subject}}]".into(), ""),
        (S, "onCompleted: [{request: {subject: x}}]".into(), "spec.onCompleted[0].publish: the field is missing: publishes an event\nspec.onCompleted[0].request: there is no such field; here are publish"),
        (S, "retention: {maxFinished: 0, finished: 5s}".into(), "spec.retention.finished: must be from 1m to 8760h\nspec.retention.maxFinished: 0 is out of bounds: from 1 to 1000000000"),
    ];
    let wrong: Vec<String> = rows
        .iter()
        .map(|(kind, snippet, expected)| {
            (
                kind,
                snippet,
                expected,
                said(*kind, &document(*kind, snippet), None),
            )
        })
        .filter(|(_, _, expected, said)| said != *expected)
        .map(|(kind, snippet, expected, said)| {
            format!("{kind} {snippet}\n  expected: {expected}\n      said: {said}")
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_is_changed() {
    const PREFIX: &str = "spec: prefix can't be changed, added or removed after creation: published events and everybody who reads them rely on it; make another EventStream";
    const STREAM_NAME: &str = "spec: streamName can't be changed, added or removed after creation: the events are in the stream of the old name; make another EventStream";
    const STORAGE: &str = "spec: storage can't be changed after creation: JetStream can't move a stream between disk and memory; make another EventStream";
    const MIRROR: &str = "spec: mirror can't be changed, added or removed after creation: a stream is a mirror from its creation; make another EventStream";
    const NATS: &str = "spec: natsRef can't be changed, added or removed after creation: the events are where the old connection leads; make another EventStream";
    const NATS_OF_ROWS: &str = "spec: natsRef can't be changed, added or removed after creation: the rows are where the old connection leads; make another Projection";
    const NATS_OF_INSTANCES: &str = "spec: natsRef can't be changed, added or removed after creation: the instances are where the old connection leads; make another Saga";
    const BUCKET: &str = "spec: sink.kv.bucket can't be changed, added or removed after creation: readers know the old bucket; make another Projection";
    const PARTITIONS: &str = "spec: partitions can't be changed after creation: each instance is in the partition that its id hashes to; make another Saga";
    const LOG: &str = "spec: log.streamName can't be changed, added or removed after creation: the instances are in the old stream; make another Saga";
    let rows = [
        (E, "prefix: a", "prefix: a", ""),
        (E, "prefix: a", "prefix: b", PREFIX),
        (E, "prefix: a", "", PREFIX),
        (E, "", "prefix: a", PREFIX),
        (E, "streamName: a", "", STREAM_NAME),
        (E, "", "storage: File", ""),
        (E, "storage: Memory", "", STORAGE),
        (E, "storage: File", "storage: Memory", STORAGE),
        (E, "mirror: {stream: {name: a}}", "", MIRROR),
        (
            E,
            "mirror: {stream: {name: a}}",
            "mirror: {stream: {name: b}}",
            MIRROR,
        ),
        (E, "natsRef: {name: a}", "natsRef: {name: b}", NATS),
        (P, "natsRef: {name: a}", "natsRef: {name: b}", NATS_OF_ROWS),
        (P, "natsRef: {name: a}", "natsRef: {name: a}", ""),
        (P, "", "natsRef: {name: a}", NATS_OF_ROWS),
        (P, "natsRef: {name: a}", "", NATS_OF_ROWS),
        (
            S,
            "natsRef: {name: a}",
            "natsRef: {name: b}",
            NATS_OF_INSTANCES,
        ),
        (S, "natsRef: {name: a}", "natsRef: {name: a}", ""),
        (S, "", "natsRef: {name: a}", NATS_OF_INSTANCES),
        (S, "natsRef: {name: a}", "", NATS_OF_INSTANCES),
        (E, "replicas: 1", "replicas: 3", ""),
        (P, "sink: {kv: {}}", "sink: {kv: {maxBytes: 1Gi}}", ""),
        (
            P,
            "sink: {kv: {bucket: a}}",
            "sink: {kv: {bucket: b}}",
            BUCKET,
        ),
        (P, "sink: {kv: {bucket: a}}", "sink: {kv: {}}", BUCKET),
        (P, "key: event.subject", "key: event.id", ""),
        (S, "partitions: 8", "partitions: 16", PARTITIONS),
        (S, "partitions: 8", "", PARTITIONS),
        (S, "", "partitions: 64", ""),
        (S, "partitions: 64", "", ""),
        (S, "log: {streamName: a}", "", LOG),
        (
            S,
            "log: {streamName: a}",
            "log: {streamName: a, replicas: 3}",
            "",
        ),
        (S, "", "steps: [{name: other, request: {subject: x}}]", ""),
    ];
    let wrong: Vec<String> = rows
        .iter()
        .map(|(kind, old, new, expected)| {
            (
                old,
                new,
                expected,
                said(*kind, &document(*kind, new), Some(&document(*kind, old))),
            )
        })
        .filter(|(_, _, expected, said)| said != *expected)
        .map(|(old, new, expected, said)| {
            format!("{old} -> {new}\n  expected: {expected}\n      said: {said}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_of_resources() {
    const NAME: &str = "metadata.name: must have at most 40 lower-case letters, digits and `-`, and begin and end with a letter or digit: names in NATS are made of it";
    let longest = "a".repeat(40);
    let too_long = "a".repeat(41);
    for (name, expected) in [
        ("orders", ""),
        ("a", ""),
        ("7-up", ""),
        (&longest, ""),
        (&too_long, NAME),
        ("Orders", NAME),
        ("or.ders", NAME),
        ("-a", NAME),
        ("a-", NAME),
        ("", NAME),
    ] {
        for kind in ResourceKind::ALL {
            let mut document = document(kind, "");
            document["metadata"]["name"] = json!(name);
            assert_eq!(said(kind, &document, None), expected, "{kind} {name}");
        }
    }
}

#[test]
fn names_of_namespaces() {
    const NAMESPACE: &str = "metadata.namespace: must have at most 63 lower-case letters, digits and `-`, and begin and end with a letter or digit: Kubernetes takes no other namespace";
    let longest = "a".repeat(63);
    let too_long = "a".repeat(64);
    for (namespace, expected) in [
        ("shop", ""),
        ("7", ""),
        ("a--b", ""),
        // As if it were absent, for kubectl too.
        ("", ""),
        (&longest, ""),
        (&too_long, NAMESPACE),
        ("Shop", NAMESPACE),
        ("shop.eu", NAMESPACE),
        ("shop/eu", NAMESPACE),
        ("shop_eu", NAMESPACE),
        ("-shop", NAMESPACE),
        ("shop-", NAMESPACE),
        ("läden", NAMESPACE),
        ("*", NAMESPACE),
    ] {
        for kind in ResourceKind::ALL {
            let mut document = document(kind, "");
            document["metadata"]["namespace"] = json!(namespace);
            assert_eq!(said(kind, &document, None), expected, "{kind} {namespace}");
        }
    }
}

#[test]
fn labels_and_annotations() {
    const KEY: &str = "no key that Kubernetes takes: at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, such as `team`; before it there may be a DNS name in lower case and a `/`, such as `example.com/team`";
    const VALUE: &str = "no value that Kubernetes takes for a label: empty, or at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; what is longer or has spaces is an annotation";
    let (longest, too_long) = ("a".repeat(63), "a".repeat(64));
    let longest_prefix = format!("{}a/a", "a.".repeat(126));
    let too_long_prefix = format!("{}aa/a", "a.".repeat(126));
    // Key, value, and what is said of each as a label, and as an annotation.
    let rows = [
        ("team", "a", "", ""),
        ("Team_1.x-y", "A_1.x-y", "", ""),
        ("example.com/team", "", "", ""),
        (&longest, &longest, "", ""),
        (&longest_prefix, "a", "", ""),
        (&too_long, "a", KEY, KEY),
        (&too_long_prefix, "a", KEY, KEY),
        ("", "a", KEY, KEY),
        ("my team", "a", KEY, KEY),
        ("team-", "a", KEY, KEY),
        ("/team", "a", KEY, KEY),
        ("a/b/c", "a", KEY, KEY),
        ("example..com/team", "a", KEY, KEY),
        ("läden", "a", KEY, KEY),
        ("Example.com/team", "a", KEY, ""),
        ("team", "two words", VALUE, ""),
        ("team", "-a", VALUE, ""),
        ("team", &too_long, VALUE, ""),
        ("team", "läden", VALUE, ""),
    ];
    for (key, value, as_label, as_annotation) in rows {
        for (field, expected) in [("labels", as_label), ("annotations", as_annotation)] {
            let mut document = document(E, "");
            document["metadata"][field] = json!({key: value});
            let said = said(E, &document, None);
            let (path, said) = said.split_once(": ").unwrap_or_default();
            assert_eq!(said, expected, "{field} {key}: {value}");
            assert!(
                said.is_empty() || path.starts_with(&format!("metadata.{field}")),
                "{path}"
            );
        }
    }
    let mut document = document(E, "");
    document["metadata"]["annotations"] = json!({"a": "x".repeat(262_144)});
    assert_eq!(
        said(E, &document, None),
        "metadata.annotations: 262145 bytes, at most 262144 are allowed"
    );
}

#[test]
fn what_stands_around_the_spec() {
    let with = |path: &str, value: Value| {
        let mut document = document(E, "");
        let (parent, name) = path.rsplit_once('/').expect("a path has a slash");
        document.pointer_mut(parent).expect("the parent is there")[name] = value;
        said(E, &document, None)
    };
    assert_eq!(
        with("/status", json!({"messages": -5, "nonsense": 1})),
        "",
        "the API server drops a status that is applied"
    );
    assert_eq!(with("/metadata/creationTimestamp", json!(null)), "");
    assert_eq!(
        with("/sepc", json!({})),
        "sepc: there is no such field; did you mean `spec`?"
    );
    assert_eq!(
        with("/metadata/lables", json!({})),
        "metadata.lables: there is no such field; did you mean `labels`?"
    );
    assert_eq!(
        with("/metadata/labels", json!({"a": true})),
        "metadata.labels.a: a string is needed, this is the boolean true: put quotes around it"
    );
    assert_eq!(
        with("/metadata/name", json!(5)),
        "metadata.name: a string is needed, this is the number 5: put quotes around it"
    );
    assert_eq!(
        with("/spec", json!([])),
        "spec: a map of fields is needed, this is a list"
    );
    assert_eq!(
        said(E, &json!("x"), None),
        ": a resource is a map of fields, this is the string `x`".trim_start_matches(": ")
    );
    assert_eq!(
        said(E, &json!({"metadata": {"name": "a"}}), None),
        "spec: the field is missing: write `spec: {}` to leave everything at its default"
    );
}

//! What people get wrong in a manifest.

/// A right manifest.
pub(crate) const RIGHT: &str = include_str!("../data/hotel.yaml");

/// What is made of which part of the right manifest; the first one there is.
pub(crate) const MISTAKES: &[(&str, &str)] = &[
    // Fields.
    (
        "  handlers:\n    - type: BookingRequested",
        "  handlrs:\n    - type: BookingRequested",
    ),
    ("retry: {maxAttempts: 2", "retry: {maxAttempt: 2"),
    ("  key: event.data.room\n", ""),
    ("  sink: {kv: {}}\n", ""),
    ("        url: http://127.0.0.1:7191/charges\n", ""),
    ("      id: event.subject\n", ""),
    ("entity: =input.subject", "subject: =input.subject"),
    (
        "  key: event.subject\n",
        "  key: event.subject\n  key: event.id\n",
    ),
    // Values.
    ("timeout: 1s", "timeout: 1 sec"),
    ("timeout: 10m", "timeout: 600"),
    ("maxAttempts: 2", "maxAttempts: two"),
    ("maxAttempts: 2", "maxAttempts: -1"),
    ("bookings: 1\n", "bookings: one\n"),
    ("bookings: 1\n", "bookings: 1e400\n"),
    ("http://127.0.0.1:7191/charges", "127.0.0.1:7191/charges"),
    ("why: =event.data.why", "why: null"),
    (
        "        url: http://127.0.0.1:7191/charges\n",
        "        url: http://127.0.0.1:7191/charges\n        headers: [{name: Host, value: pay}]\n",
    ),
    (
        "    - name: key\n",
        "    - name: key\n      after: charge\n",
    ),
    ("metadata: {name: book}", "metadata: {name: Book_It}"),
    (
        "metadata: {name: book}",
        "metadata:\n  labels: {a: b}\n  name: Book_It",
    ),
    (
        "metadata: {name: book}",
        "metadata: {name: book, labels: {my team: a}}",
    ),
    (
        "metadata: {name: book}",
        "metadata: {name: book, labels: {team: two words}}",
    ),
    (
        "from: [{stream: {name: bookings}}]",
        "from: [{stream: {name: bookings}, start: {time: 2026-01-31t12:00:00z}}]",
    ),
    ("kind: EventStream", "kind: EventStrem"),
    ("tidemill.dev/v1alpha1", "tidemill.dev/v1"),
    // Expressions.
    ("key: event.subject", "key: evnt.subject"),
    ("key: event.subject", "key: event.subject)"),
    ("key: event.subject", "key: row.id"),
    ("=event.data.room", "=event.dta.room"),
    ("=event.data.room", "=upper(event.data.room)"),
    ("why: =event.data.why", "why: event.data.why"),
    (
        "when: event.data.nights > 0",
        "when: =event.data.nights > 0",
    ),
    (
        "=steps.charge.output.payment",
        "=steps.chrge.output.payment",
    ),
    ("=steps.charge.output.payment", "=steps.parking.output.lot"),
    (
        "{command: =steps.hold.commandId}",
        "{command: =steps.hold.output.id}",
    ),
    // Names of other things.
    (
        "from: [{stream: {name: bookings}}]",
        "from: [{stream: {name: booking}}]",
    ),
    ("subject: rooms.hold", "subject: default.bookings.hold"),
    // Steps.
    ("- name: parking", "- name: hold"),
    (
        "      pivot: true",
        "      request: {subject: a.b}\n      pivot: true",
    ),
    (
        "      request:\n        subject: rooms.key\n        data: {payment: =steps.charge.output.payment}\n",
        "",
    ),
    (
        "        data: {payment: =steps.charge.output.payment}",
        "        data: {payment: =steps.charge.output.payment}\n      compensate: {request: {subject: rooms.unkey}}",
    ),
    (
        "      delete: true",
        "      delete: true\n      set: {a: 1}",
    ),
    // YAML.
    ("{why: =failure.message}", "{why: =failure.message, no: 1}"),
    (
        "when: has(input.data.car) && input.data.car",
        "when: !has(input.data.car)",
    ),
    (
        "when: has(input.data.car) && input.data.car",
        "when: has(input.data.car) ? input.data.car : false",
    ),
    ("  steps:\n", "\tsteps:\n"),
    (
        "    - type: BookingConfirmed\n      set",
        "    - type: BookingConfirmed\n     set",
    ),
    ("spec:\n  from", "spec:\nfrom"),
];

/// The manifest with a mistake in it, and the mistake in one line.
pub(crate) fn made(right: &str, wrong: &str) -> (String, String) {
    assert!(RIGHT.contains(right), "{right}");
    let shown = |text: &str| text.trim().replace('\n', " ⏎ ").replace('\t', "⇥");
    let what = format!("{} → {}", shown(right), shown(wrong));
    (RIGHT.replacen(right, wrong, 1), what)
}

//! What people get wrong in a manifest, and what `tidemill lint` says: file, line and column, field, reason, what would do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Shell;

const RIGHT: &str = include_str!("data/hotel.yaml");

/// What is made of which part of the right manifest; the first one there is.
const MISTAKES: &[(&str, &str)] = &[
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
    (
        "    - name: key\n",
        "    - name: key\n      after: charge\n",
    ),
    ("metadata: {name: book}", "metadata: {name: Book_It}"),
    (
        "metadata: {name: book}",
        "metadata:\n  labels: {a: b}\n  name: Book_It",
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

#[test]
fn each_says_where_and_what_would_do() {
    let shell = Shell::new();
    let mut seen = String::new();
    for (right, wrong) in MISTAKES {
        assert!(RIGHT.contains(right), "{right}");
        shell.write("hotel.yaml", &RIGHT.replacen(right, wrong, 1));
        let ran = shell.run("lint hotel.yaml");
        let shown = |text: &str| text.trim().replace('\n', " ⏎ ").replace('\t', "⇥");
        seen.push_str(&format!("{} → {}\n", shown(right), shown(wrong)));
        let findings = ran
            .stdout
            .lines()
            .filter(|line| line.starts_with("hotel.yaml:"));
        let before = seen.len();
        for finding in findings {
            seen.push_str(&format!("  {finding}\n"));
        }
        assert!(
            seen.len() > before,
            "nothing is said of `{wrong}`: {}",
            ran.seen()
        );
    }
    insta::assert_snapshot!("mistakes", seen);
}

#[test]
fn the_right_one_is_right() {
    let shell = Shell::new();
    shell.write("hotel.yaml", RIGHT);
    shell.run("lint --strict hotel.yaml").ok();
}

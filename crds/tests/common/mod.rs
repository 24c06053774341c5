//! Documents for tests: a base per kind, over which a snippet of YAML is laid, field by field of the spec.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by tests that need different parts of it"
)]

use serde_json::{Value, json};
use tidemill_crds::ResourceKind::{self, EventStream as E, Projection as P, Saga as S};
use tidemill_crds::manifest::{self, Plan};

/// The least spec that is accepted.
pub(crate) fn base(kind: ResourceKind) -> Value {
    match kind {
        E => json!({}),
        P => json!({
            "from": [{"stream": {"name": "orders"}}],
            "key": "event.subject",
            "handlers": [{"set": {"status": "placed"}}],
            "sink": {"kv": {}},
        }),
        S => json!({"steps": [{"name": "reserve", "request": {"subject": "inventory.reserve"}}]}),
    }
}

/// A document with the fields of a snippet.
pub(crate) fn document(kind: ResourceKind, snippet: &str) -> Value {
    let mut spec = base(kind);
    let overlay: Value = if snippet.trim().is_empty() {
        json!({})
    } else {
        serde_saphyr::from_str(snippet).unwrap_or_else(|error| panic!("{snippet}: {error}"))
    };
    for (name, value) in overlay.as_object().expect("the snippet is a map") {
        spec[name] = value.clone();
    }
    json!({
        "apiVersion": "tidemill.dev/v1alpha1",
        "kind": kind.as_str(),
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": spec,
    })
}

/// What a document of a snippet comes to.
pub(crate) fn plan(kind: ResourceKind, snippet: &str) -> Plan {
    let report = manifest::lint(&document(kind, snippet));
    report
        .plan
        .unwrap_or_else(|| panic!("{snippet}: {:#?}", report.errors))
}

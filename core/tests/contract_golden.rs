//! Contracts of version 1 are read for ever: an operator may be newer than a worker, and a worker newer than what it was given.
//!
//! `contract_golden_saga.json` and `contract_golden_projection.json` hold every field. They may never change; a field that is added
//! later has a default, and another file beside them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use serde_json::Value;
use tidemill_core::contract::{Contract, ContractError, Workload};
use tidemill_core::definition::StreamRef;

const SAGA: &str = include_str!("contract_golden_saga.json");
const PROJECTION: &str = include_str!("contract_golden_projection.json");

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_contract_of_version_1_is_read_and_means_the_same() {
    for (text, revision) in [(SAGA, "b1c599f1ef9a851b"), (PROJECTION, "4744d2c4391f7ef7")] {
        let contract = Contract::parse(text.as_bytes()).unwrap();
        assert_eq!(value(&contract.to_json()), value(text), "nothing is lost");
        let found = match &contract.workload {
            Workload::Saga(workload) => workload.definition.revision(),
            Workload::Projection(workload) => workload.definition.revision(),
        };
        assert_eq!(found.as_str(), revision);
    }
}

/// What may be left out.
#[test]
fn a_contract_without_what_has_a_default_is_read() {
    let mut short = value(SAGA);
    short["connection"] = serde_json::json!({"servers": ["nats://nats:4222"]});
    for field in ["suspend", "summaries"] {
        short["workload"]["saga"]
            .as_object_mut()
            .unwrap()
            .remove(field)
            .unwrap();
    }
    let contract = Contract::parse(short.to_string().as_bytes()).unwrap();
    assert_eq!(contract.connection.subject_root, "_tm");
    let inbox = contract.worker_connection().inbox_prefix;
    assert_eq!(inbox.as_deref(), Some("_tm.inbox.shop.saga.fulfilment"));
    let given = Contract::parse(SAGA.as_bytes()).unwrap();
    let inbox = given.worker_connection().inbox_prefix;
    assert_eq!(inbox.as_deref(), Some("_INBOX_shop"));
    let Workload::Saga(workload) = contract.workload else {
        panic!("a saga");
    };
    assert_eq!((workload.suspend, workload.summaries), (false, true));
}

#[test]
fn a_field_that_this_version_does_not_know_is_refused() {
    let mut more = value(SAGA);
    more["connection"]["later"] = Value::from(1);
    let error = Contract::parse(more.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, ContractError::Form(_)), "{error}");
}

/// Every stream that is read or published to must be bound, wherever it is named.
#[test]
fn a_stream_that_is_named_and_not_bound_is_refused() {
    let other = serde_json::json!({"namespace": "shop", "name": "elsewhere"});
    for pointer in [
        "/workload/saga/definition/triggers/0/stream",
        "/workload/saga/definition/steps/2/action/publish/stream",
        "/workload/saga/definition/steps/2/compensation/action/publish/stream",
        "/workload/saga/definition/onCompleted/0/stream",
        "/workload/saga/definition/onCompensated/0/stream",
    ] {
        let mut unbound = value(SAGA);
        *unbound.pointer_mut(pointer).unwrap() = other.clone();
        match Contract::parse(unbound.to_string().as_bytes()) {
            Err(ContractError::UnboundStream(StreamRef { name, .. })) => {
                assert_eq!(name, "elsewhere")
            }
            read => panic!("{pointer}: {read:?}"),
        }
    }
}

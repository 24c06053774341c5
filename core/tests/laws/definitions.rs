//! A definition means what it meant when it was made.

use crate::given;
use tidemill_core::contract::{Contract, ContractError};
use tidemill_core::definition::{ProjectionDefinition, SEMANTICS};
use tidemill_core::projection::Projection;
use tidemill_core::saga::{CompiledSaga, SagaCompileError};

const CONTRACTS: [&str; 2] = [
    include_str!("../contract_golden_projection.json"),
    include_str!("../contract_golden_saga.json"),
];

/// Also of an instance that was started by another version, whose definition is kept.
#[test]
pub(crate) fn a_definition_of_other_semantics_is_refused() {
    let saga = given::saga("reserve, charge");
    let (resource, mut definition) = (saga.resource.clone(), saga.definition.clone());
    assert!(CompiledSaga::new(resource.clone(), definition.clone()).is_ok());
    definition.semantics = SEMANTICS + 1;
    let refused = CompiledSaga::new(resource, definition).map(drop);
    assert_eq!(refused, Err(SagaCompileError::Semantics(SEMANTICS + 1)));

    let projection = r#"{"semantics":1,"sources":[{"namespace":"shop","name":"orders"}],"key":"event.subject","handlers":[{"set":{"a":1}}]}"#;
    let mut projection: ProjectionDefinition = serde_json::from_str(projection).unwrap();
    assert!(Projection::compile(&projection).is_ok());
    projection.semantics = SEMANTICS + 1;
    let refused = Projection::compile(&projection).map(drop).unwrap_err();
    assert_eq!(refused.path, "semantics");
}

#[test]
pub(crate) fn a_contract_of_other_semantics_is_refused() {
    for contract in CONTRACTS {
        assert!(Contract::parse(contract.as_bytes()).is_ok());
        let mut contract: serde_json::Value = serde_json::from_str(contract).unwrap();
        let workload = contract["workload"].as_object_mut().unwrap();
        for part in workload.values_mut() {
            part["definition"]["semantics"] = 2.into();
        }
        match Contract::parse(contract.to_string().as_bytes()) {
            Err(ContractError::Semantics(2)) => {}
            other => panic!("{other:?}"),
        }
    }
}

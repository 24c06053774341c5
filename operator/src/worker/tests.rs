#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use tidemill_core::contract::{Connection, ProjectionWorkload, Workload};
use tidemill_core::definition::{ProjectionDefinition, ProjectionPolicy, StreamRef};
use tidemill_core::names::Kind;

fn contract(name: &str) -> Contract {
    let stream = StreamRef {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
    };
    let resource = ResourceId::new(Kind::Projection, "shop", name);
    Contract {
        version: 1,
        connection: Connection::plain("nats://nats.tidemill:4222"),
        streams: Vec::new(),
        workload: Workload::Projection(ProjectionWorkload {
            definition: ProjectionDefinition::new(vec![stream], "event.subject"),
            policy: ProjectionPolicy::default(),
            starts: Vec::new(),
            rows_bucket: resource.rows_bucket(),
            parked_stream: resource.parked_stream(),
            suspend: false,
        }),
        resource,
    }
}

fn defaults() -> WorkerDefaults {
    serde_json::from_value(json!({"image": "worker:1", "credentialsSecret": "tidemill-worker"}))
        .unwrap()
}

fn made(contract: &Contract, replicas: u32) -> Objects {
    let run = WorkerStatus {
        image: "worker:1".to_owned(),
        contract: contract_name(contract),
        ..WorkerStatus::default()
    };
    objects(&Wanted {
        contract,
        owner: OwnerReference {
            api_version: "tidemill.dev/v1alpha1".to_owned(),
            kind: "Projection".to_owned(),
            name: contract.resource.name.clone(),
            uid: "uid".to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        replicas,
        run: &run,
        resources: None,
        defaults: &defaults(),
        credentials: None,
    })
}

#[test]
fn the_objects_of_a_projection() {
    let Objects {
        mut config_map,
        service_account,
        deployment,
        disruption_budget,
    } = made(&contract("order-status"), 2);
    config_map["data"]["contract.json"] = json!("…");
    let all = [
        config_map,
        service_account,
        deployment,
        disruption_budget.unwrap(),
    ];
    let shown = all.map(|object| serde_json::to_string_pretty(&object).unwrap());
    insta::assert_snapshot!(shown.join("\n---\n"));
    assert_eq!(made(&contract("a"), 1).disruption_budget, None);
}

#[test]
fn another_contract_is_another_config_map_and_rolls_the_pods() {
    let (first, mut changed) = (contract("a"), contract("a"));
    if let Workload::Projection(workload) = &mut changed.workload {
        workload.suspend = true;
    }
    let (one, other) = (made(&first, 1), made(&changed, 1));
    assert_ne!(
        one.config_map["metadata"]["name"],
        other.config_map["metadata"]["name"]
    );
    assert_ne!(
        one.deployment["spec"]["template"],
        other.deployment["spec"]["template"]
    );
    assert_eq!(one, made(&first, 1), "the same contract, the same objects");
    // Only the number of pods: nobody is restarted.
    assert_eq!(
        one.deployment["spec"]["template"],
        made(&first, 5).deployment["spec"]["template"]
    );
}

#[test]
fn the_longest_names_are_names_in_kubernetes() {
    let Objects {
        config_map,
        deployment,
        ..
    } = made(&contract(&"a".repeat(40)), 1);
    let length = |object: &Value| object["metadata"]["name"].as_str().unwrap().len();
    // Pods add 17 characters to a Deployment's name, of which labels take 63 (hash and random part are cut by Kubernetes).
    assert!(length(&deployment) <= 63);
    assert!(length(&config_map) <= 253);
    for value in labels(&contract(&"a".repeat(40)).resource).values() {
        assert!(value.len() <= 63, "{value}");
    }
}

#[test]
fn only_secrets_of_the_resource_are_ever_deleted() {
    let resource = contract("order-status").resource;
    let of = |name: &str| format!("{}{name}", credentials_prefix(&resource));
    let remembered = [
        of("1"),
        of("2"),
        "tidemill-nats-keys".to_owned(),
        String::new(),
    ];
    let account = json!({"metadata": {"annotations": remember_credentials(&remembered)}});
    let volume = |name: &str| json!({"name": "nats", "secret": {"secretName": name}});
    let deployment = |name: &str| json!({"spec": {"template": {"spec": {"volumes": [{"name": "contract"}, volume(name)]}}}});
    let earlier = |account, mounted: &str| {
        earlier_credentials(account, Some(&deployment(mounted)), &resource, &of("2"))
    };
    assert_eq!(earlier(Some(&account), &of("3")), [of("1"), of("3")]);
    assert_eq!(earlier(Some(&account), "somebodys"), [of("1")]);
    assert_eq!(earlier(None, &of("2")), [""; 0]);
}

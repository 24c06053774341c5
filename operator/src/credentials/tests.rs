#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::secrets::of_worker;
use super::*;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use tidemill_core::contract::{SagaWorkload, Workload};
use tidemill_core::definition::SEMANTICS;
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::retry::Retry;

fn seeds() -> Seeds {
    let seed = |kind, byte| {
        KeyPair::new_from_raw(kind, [byte; 32])
            .unwrap()
            .seed()
            .unwrap()
    };
    Seeds {
        operator: seed(KeyPairType::Operator, 1),
        account: seed(KeyPairType::Account, 2),
    }
}

fn issuer(rotation: u32) -> Issuer {
    let issue = Issue {
        prefix: "tidemill-nats".to_owned(),
        rotation,
    };
    let connection = Connection::plain("nats://tidemill-nats.tidemill.svc:4222");
    Issuer::new(&issue, seeds(), &connection).unwrap()
}

/// The claims of a JWT whose signature is good.
fn claims(jwt: &str) -> Value {
    let (text, signature) = jwt.rsplit_once('.').unwrap();
    let claims = BASE64URL_NOPAD.decode(text.split_once('.').unwrap().1.as_bytes());
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    let signer = KeyPair::from_public_key(claims["iss"].as_str().unwrap()).unwrap();
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    signer.verify(text.as_bytes(), &signature).unwrap();
    claims
}

fn jwt(file: &str) -> &str {
    file.lines().nth(1).unwrap()
}

fn saga(request: &str) -> SagaDefinition {
    let step = json!({
        "name": "reserve",
        "after": [],
        "action": {"request": {"subject": request}},
        "timeoutMs": 1_000,
        "stepTimeoutMs": 1_000,
        "retry": Retry::default(),
    });
    serde_json::from_value(json!({"semantics": SEMANTICS, "steps": [step], "timeoutMs": 1_000}))
        .unwrap()
}

fn contract(request: &str) -> Contract {
    let resource = ResourceId::new(Kind::Saga, "shop", "fulfilment");
    Contract {
        version: 1,
        connection: Connection::plain("nats://nats:4222"),
        streams: Vec::new(),
        workload: Workload::Saga(SagaWorkload {
            definition: saga(request),
            starts: Vec::new(),
            log_stream: resource.log_stream(),
            parked_stream: resource.parked_stream(),
            partitions: 8,
            suspend: false,
            closing: None,
            summaries: true,
        }),
        resource,
    }
}

fn publishes(issued: &Issued) -> Vec<String> {
    serde_json::from_value(claims(jwt(&issued.file))["nats"]["pub"]["allow"].clone()).unwrap()
}

#[test]
fn what_is_made_for_an_installation() {
    let issuer = issuer(0);
    let auth = issuer.server().unwrap();
    let jwts = auth
        .split_whitespace()
        .filter(|word| word.starts_with("ey"));
    let jwts: Vec<Value> = jwts.map(claims).collect();
    let shape: Vec<String> = auth
        .split(' ')
        .map(|word| match word.split_once('\n') {
            Some((jwt, rest)) if jwt.starts_with("ey") => format!("…\n{rest}"),
            _ => word.to_owned(),
        })
        .collect();
    let rights = permissions::operator(&issuer.connection, "_tm.inbox._operator");
    let users = [
        issuer
            .user("operator", "tidemill-operator", &rights)
            .unwrap(),
        issuer.admin().unwrap(),
        issuer.application().unwrap(),
    ];
    let users: Vec<Value> = users.iter().map(|file| claims(jwt(file))).collect();
    let shown = serde_json::to_string_pretty(&(jwts, users)).unwrap();
    insta::assert_snapshot!(format!("{}\n{shown}", shape.join(" ")));
}

#[test]
fn the_secrets_of_an_installation() {
    let mut secrets = issuer(3).secrets("tidemill").unwrap();
    for secret in &mut secrets {
        for (_, value) in secret["data"].as_object_mut().unwrap() {
            assert!(
                !BASE64
                    .decode(value.as_str().unwrap().as_bytes())
                    .unwrap()
                    .is_empty()
            );
            *value = json!("…");
        }
    }
    let owner = OwnerReference::default();
    let issued = issuer(0)
        .worker(&contract("inventory.reserve"), Vec::new(), "uid")
        .unwrap();
    let mut worker = of_worker(&issued, &contract("").resource, &owner);
    worker["data"][FILE] = json!("…");
    insta::assert_snapshot!(serde_json::to_string_pretty(&(secrets, worker)).unwrap());
}

#[test]
fn the_same_is_made_each_time_and_another_after_a_rotation() {
    let made = |rotation| {
        let issuer = issuer(rotation);
        let worker = issuer.worker(&contract("inventory.reserve"), Vec::new(), "uid");
        (issuer.secrets("tidemill").unwrap(), worker.unwrap())
    };
    let ((secrets, worker), (again, also), (rotated, another)) = (made(0), made(0), made(1));
    assert_eq!(secrets, again);
    assert_eq!((&worker.name, &worker.file), (&also.name, &also.file));
    // The account, and with it all that is stored, stays.
    assert_eq!(secrets[0], rotated[0]);
    let of = |file: &str, claim: &str| claims(jwt(file))[claim].clone();
    assert_ne!(of(&worker.file, "iss"), of(&another.file, "iss"));
    assert_ne!(of(&worker.file, "sub"), of(&another.file, "sub"));
    assert_ne!(worker.name, another.name);
    assert_eq!(
        claims(jwt(&worker.file))["nats"]["issuer_account"],
        claims(jwt(&another.file))["nats"]["issuer_account"]
    );
}

#[test]
fn workers_have_the_rights_of_every_definition_that_is_stored() {
    let issuer = issuer(0);
    let made = |request: &str, earlier: &[&str]| {
        let earlier = earlier.iter().map(|request| saga(request)).collect();
        issuer.worker(&contract(request), earlier, "uid").unwrap()
    };
    let first = made("inventory.reserve", &[]);
    // That its own definition is stored is no change.
    assert_eq!(
        first.name,
        made("inventory.reserve", &["inventory.reserve"]).name
    );
    let second = made("stock.take", &["inventory.reserve"]);
    assert_ne!(first.name, second.name);
    assert!(!publishes(&first).contains(&"stock.take".to_owned()));
    for request in ["inventory.reserve", "stock.take"] {
        assert!(
            publishes(&second).contains(&request.to_owned()),
            "{request}"
        );
    }
    assert_eq!(
        second.name,
        made("stock.take", &["stock.take", "inventory.reserve"]).name,
        "in whatever order they are stored"
    );
    // One that was applied anew: the Secret of before goes with its owner.
    let anew = issuer.worker(&contract("inventory.reserve"), Vec::new(), "other");
    assert_ne!(anew.unwrap().name, first.name);
}

#[test]
fn more_permissions_than_a_server_reads_are_refused() {
    let many = (0..2_000).map(|number| saga(&format!("inventory.reserve.number-{number}")));
    let refused = issuer(0).worker(&contract("inventory.reserve"), many.collect(), "uid");
    assert!(matches!(refused, Err(IssueError::TooLong(_))));
}

#[test]
fn seeds_are_checked_and_never_shown() {
    let Seeds { operator, account } = seeds();
    let swapped = Seeds {
        operator: account.clone(),
        account: operator.clone(),
    };
    let cut = Seeds {
        operator: operator[..20].to_owned(),
        account: account.clone(),
    };
    let issue = issuer(0).issue;
    for seeds in [swapped, cut] {
        let error = Issuer::new(&issue, seeds, &Connection::plain("nats://nats")).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("operator.seed"), "{said}");
        assert!(
            !said.contains(&operator[..20]) && !said.contains(&account),
            "{said}"
        );
    }
    let shown = format!("{:?}", (issuer(0), issuer(0).operator().unwrap()));
    assert!(
        !shown.contains(&operator) && !shown.contains(&account),
        "{shown}"
    );
    let issued = issuer(0)
        .worker(&contract("a.b"), Vec::new(), "uid")
        .unwrap();
    assert!(
        !format!("{issued:?}").contains("SEED"),
        "the Debug of Issued shows its file"
    );
}

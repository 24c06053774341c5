//! The Secrets: pure.

use super::{FILE, Issue, Issued, Issuer, KeyError, LABEL, Seeds};
use crate::worker;
use data_encoding::BASE64;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use tidemill_core::names::ResourceId;

const OPERATOR: &str = "operator.seed";
const ACCOUNT: &str = "account.seed";
/// What the server includes.
const AUTH: &str = "auth.conf";

/// Names of the Secrets in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of the seeds.
    pub keys: String,
    /// Of what the server reads. After a rotation it is another one, for which the server's pod waits: no server starts with the old.
    pub auth: String,
    /// Of the credentials for people.
    pub admin: String,
    /// Of the credentials for applications.
    pub app: String,
}

impl Names {
    /// Of an installation.
    pub fn of(Issue { prefix, rotation }: &Issue) -> Names {
        let name = |of: &str| format!("{prefix}-{of}");
        Names {
            keys: name("keys"),
            auth: match rotation {
                0 => name("auth"),
                rotation => name(&format!("auth-{rotation}")),
            },
            admin: name("admin"),
            app: name("app"),
        }
    }
}

fn secret(metadata: Value, entry: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> = entry
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(BASE64.encode(text.as_bytes()))))
        .collect();
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data})
}

/// Owned by nobody: they open what the volume holds, and stay as it does.
fn kept(namespace: &str, name: &str, whose: &str, entry: &[(&str, &str)]) -> Value {
    let labels = json!({
        "app.kubernetes.io/managed-by": "tidemill-operator",
        LABEL: whose,
    });
    secret(
        json!({"name": name, "namespace": namespace, "labels": labels}),
        entry,
    )
}

impl Issuer {
    /// The Secrets in the operator's namespace; that with the seeds comes first.
    pub(super) fn secrets(&self, namespace: &str) -> Result<[Value; 4], KeyError> {
        let Names {
            keys,
            auth,
            admin,
            app,
        } = Names::of(&self.issue);
        let Seeds { operator, account } = &self.seeds;
        let mut seeds = kept(
            namespace,
            &keys,
            "keys",
            &[(OPERATOR, operator), (ACCOUNT, account)],
        );
        seeds["immutable"] = json!(true);
        Ok([
            seeds,
            kept(namespace, &auth, "server", &[(AUTH, &self.server()?)]),
            kept(namespace, &admin, "admin", &[(FILE, &self.admin()?)]),
            kept(namespace, &app, "app", &[(FILE, &self.application()?)]),
        ])
    }
}

/// Of the workers of a resource.
pub(crate) fn of_worker(issued: &Issued, resource: &ResourceId, owner: &OwnerReference) -> Value {
    let mut labels = worker::labels(resource);
    labels.insert(LABEL.to_owned(), "worker".to_owned());
    let metadata = json!({
        "name": issued.name,
        "namespace": resource.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    });
    let mut secret = secret(metadata, &[(FILE, &issued.file)]);
    secret["immutable"] = json!(true);
    secret
}

/// The seeds in a Secret.
pub(super) fn seeds(secret: &k8s_openapi::api::core::v1::Secret) -> Result<Seeds, KeyError> {
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.ok_or_else(|| KeyError::new(key, "it isn't in the Secret"))?;
        // The error would show the bytes.
        String::from_utf8(bytes.0.clone()).map_err(|_| KeyError::new(key, "it is no text"))
    };
    Ok(Seeds {
        operator: text(OPERATOR)?,
        account: text(ACCOUNT)?,
    })
}

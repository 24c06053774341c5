//! The Secrets in the operator's namespace: made before anybody can connect, and kept as they shall be.

use super::{Issue, Issuer, KeyError, Names, Seeds, secrets};
use crate::kubernetes::FIELD_MANAGER;
use crate::lease::Claim;
use crate::subset;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::Value;
use std::time::Duration;
use tidemill_core::contract::Connection;

/// How often it is looked whether they are as they shall be.
const INTERVAL: Duration = Duration::from_secs(10);

/// Why the Secrets aren't there.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server.
    #[error("Secret {0}: {1}")]
    Kubernetes(String, Box<kube::Error>),
    /// What is in the Secret with the seeds is of no use.
    #[error("Secret {0}: {1}")]
    Seeds(String, KeyError),
    /// The seeds are gone, the rest is there.
    #[error(
        "Secret {keys} is gone, but {auth} is there: with new keys NATS would see nothing of what it has stored. Bring {keys} back; or, if \
         nothing stored is needed, delete {auth}"
    )]
    Lost {
        /// Of the seeds.
        keys: String,
        /// Of what the server reads.
        auth: String,
    },
}

/// Where Secrets are.
struct Secrets(Api<Secret>);

impl Secrets {
    async fn get(&self, name: &str) -> Result<Option<Secret>, KeepError> {
        let found = self.0.get_opt(name).await;
        found.map_err(|error| KeepError::Kubernetes(name.to_owned(), Box::new(error)))
    }

    /// Makes it; one that is there already stays.
    async fn create(&self, name: &str, wanted: &Value) -> Result<(), KeepError> {
        let failed = |error| KeepError::Kubernetes(name.to_owned(), Box::new(error));
        let secret = serde_json::from_value(wanted.clone());
        let secret: Secret = secret.map_err(|error| failed(kube::Error::SerdeError(error)))?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.0.create(&params, &secret).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn apply(&self, name: &str, wanted: &Value) -> Result<(), KeepError> {
        let ours = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.0.patch(name, &ours, &Patch::Apply(wanted)).await;
        applied
            .map(|_| ())
            .map_err(|error| KeepError::Kubernetes(name.to_owned(), Box::new(error)))
    }
}

fn name(secret: &Value) -> &str {
    let name = secret.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default()
}

/// Makes the Secrets that aren't there, from the seeds that are. Of several operators that do this at once all end with the same.
///
/// # Errors
/// [`KeepError`]
pub async fn prepare(
    client: kube::Client,
    namespace: &str,
    issue: &Issue,
    connection: &Connection,
) -> Result<Issuer, KeepError> {
    let secrets = Secrets(Api::namespaced(client, namespace));
    let names = Names::of(issue);
    let found = match secrets.get(&names.keys).await? {
        Some(found) => found,
        None => first(&secrets, namespace, issue, connection, &names).await?,
    };
    let unusable = |error| KeepError::Seeds(names.keys.clone(), error);
    let seeds = secrets::seeds(&found).map_err(unusable)?;
    let issuer = Issuer::new(issue, seeds, connection).map_err(unusable)?;
    // Others are written by who leads: here an older version may still, and both would write against each other.
    for wanted in issuer.secrets(namespace).map_err(unusable)? {
        let name = name(&wanted);
        if secrets.get(name).await?.is_none() {
            secrets.create(name, &wanted).await?;
        }
    }
    Ok(issuer)
}

/// The first seeds: whoever is first, all take these.
async fn first(
    secrets: &Secrets,
    namespace: &str,
    issue: &Issue,
    connection: &Connection,
    names: &Names,
) -> Result<Secret, KeepError> {
    let lost = || KeepError::Lost {
        keys: names.keys.clone(),
        auth: names.auth.clone(),
    };
    let others = [&names.auth, &names.admin];
    for other in others {
        if secrets.get(other).await?.is_some() {
            // Unless somebody made both meanwhile.
            return secrets.get(&names.keys).await?.ok_or_else(lost);
        }
    }
    let unusable = |error| KeepError::Seeds(names.keys.clone(), error);
    let seeds = Seeds::random().map_err(unusable)?;
    let issuer = Issuer::new(issue, seeds, connection).map_err(unusable)?;
    let [keys, ..] = issuer.secrets(namespace).map_err(unusable)?;
    secrets.create(&names.keys, &keys).await?;
    secrets.get(&names.keys).await?.ok_or_else(lost)
}

/// Keeps them as they shall be for as long as this operator leads. Writes nothing when they are.
pub async fn keep(client: kube::Client, namespace: String, issuer: Issuer, claim: Claim) {
    let secrets = Secrets(Api::namespaced(client, &namespace));
    let mut said = String::new();
    loop {
        let kept = keep_once(&secrets, &namespace, &issuer, &claim).await;
        let problem = kept
            .err()
            .map_or_else(String::new, |error| error.to_string());
        if problem != said {
            if !problem.is_empty() {
                tracing::warn!(error = %problem, "the Secrets with credentials of NATS can't be kept");
            }
            said = problem;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn keep_once(
    secrets: &Secrets,
    namespace: &str,
    issuer: &Issuer,
    claim: &Claim,
) -> Result<(), KeepError> {
    let names = Names::of(&issuer.issue);
    let wanted = issuer.secrets(namespace);
    for wanted in wanted.map_err(|error| KeepError::Seeds(names.keys.clone(), error))? {
        let name = name(&wanted);
        let present = secrets.get(name).await?;
        if !claim.holds() {
            return Ok(());
        }
        match present {
            None => secrets.create(name, &wanted).await?,
            // Seeds that aren't ours were put there by somebody: the next start takes them.
            Some(_) if name == names.keys => {}
            Some(present) => {
                let present = serde_json::to_value(&present).unwrap_or_default();
                if !subset::says(&present, &wanted) {
                    secrets.apply(name, &wanted).await?;
                }
            }
        }
    }
    Ok(())
}

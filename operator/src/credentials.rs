//! Users of the chart's own NATS and their credentials: made once, never while a chart is rendered.
//!
//! | Secret, in the operator's namespace | what is in it |
//! |---|---|
//! | `<prefix>-keys` | the seeds of the server's operator and of the account: random, and all there is to keep |
//! | `<prefix>-auth` | what the server reads besides its configuration: JWTs of operator and accounts; public |
//! | `<prefix>-admin` | `nats.creds` with all rights in the account, for people |
//! | `<prefix>-app` | `nats.creds` for applications and participants |
//!
//! and beside each Projection and Saga one with what its workers need ([`Issuer::worker`]). All but the seeds follow from the seeds and from
//! what is wanted, byte by byte (docs/adr/0005).

mod jwt;
mod keep;
mod keys;
mod secrets;

pub use keep::{KeepError, keep, prepare};
pub use keys::{KeyError, Seeds};
pub use secrets::Names;
pub(crate) use secrets::of_worker;

use crate::worker;
use jwt::Subject;
use keys::Keys;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::definition::SagaDefinition;
use tidemill_nats::Credentials;
use tidemill_nats::permissions::{self, Rights};

/// Label of the Secrets with credentials, by which people and programs find them; its value says whose: `admin`, `app`, `worker`, ….
pub const LABEL: &str = "tidemill.dev/credentials";
/// The key in a Secret, and the file in a pod.
pub const FILE: &str = "nats.creds";
/// Name of the account in which everything is.
const ACCOUNT: &str = "TIDEMILL";
/// Longest line that a client may send: a user's JWT is in one, with all its permissions. The server's default, 4 KiB, is less than a
/// Saga's list.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Longest JWT; the rest of the line is for what else a client says of itself.
const JWT_BYTES_MAX: usize = LINE_BYTES_MAX - (8 << 10);

/// That credentials are made, and how they are named.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issue {
    /// What names of Secrets begin with.
    pub prefix: String,
    /// Another number makes all users' keys anew; those of before are no longer let in once the server has read the new file.
    #[serde(default)]
    pub rotation: u32,
}

/// Why credentials of workers can't be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// See there.
    #[error("NATS credentials: {0}")]
    Key(#[from] KeyError),
    /// More lines than a server reads.
    #[error(
        "the permissions of all definitions that this Saga ever had take {0} bytes, and NATS reads {JWT_BYTES_MAX}: apply it under another name"
    )]
    TooLong(usize),
}

/// Makes credentials. All that it makes is the same each time.
#[derive(Clone, Debug)]
pub struct Issuer {
    issue: Issue,
    keys: Keys,
    seeds: Seeds,
    connection: Connection,
}

/// The credentials of a resource's workers, and the name of their Secret, which is another one with another content.
#[derive(Clone)]
pub struct Issued {
    /// Of the Secret.
    pub name: String,
    /// The file.
    pub(crate) file: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Of an installation whose NATS is reached so.
    ///
    /// # Errors
    /// [`KeyError`]: the seeds aren't some.
    pub fn new(issue: &Issue, seeds: Seeds, connection: &Connection) -> Result<Issuer, KeyError> {
        Ok(Issuer {
            issue: issue.clone(),
            keys: Keys::new(&seeds, issue.rotation)?,
            seeds,
            connection: connection.clone(),
        })
    }

    /// How the operator itself reaches NATS.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn operator(&self) -> Result<(Connection, Credentials), KeyError> {
        // No namespace begins with `_`, so no worker's inboxes are below.
        let inbox = format!("{}.inbox._operator", self.connection.subject_root);
        let rights = permissions::operator(&self.connection, &inbox);
        let connection = Connection {
            inbox_prefix: Some(inbox),
            ..self.connection.clone()
        };
        let file = self.user("operator", "tidemill-operator", &rights)?;
        Ok((connection, Credentials::new(file)))
    }

    /// For people: all rights.
    fn admin(&self) -> Result<String, KeyError> {
        self.user("admin", "admin", &Rights::default())
    }

    /// For applications and participants.
    fn application(&self) -> Result<String, KeyError> {
        self.user("app", "app", &permissions::application(&self.connection))
    }

    /// For the workers of a contract that have instances of earlier definitions. `owner` is the uid of the resource: one that was
    /// applied anew has a Secret of its own, since the one before goes with its owner.
    ///
    /// # Errors
    /// [`IssueError`]
    pub fn worker(
        &self,
        contract: &Contract,
        earlier: Vec<SagaDefinition>,
        owner: &str,
    ) -> Result<Issued, IssueError> {
        let rights = Rights::from(&permissions::worker_with(contract, earlier));
        let user = permissions::user_name(&contract.resource);
        let label = format!("worker {}", contract.resource);
        let file = self.user(&label, &user, &rights)?;
        if file.len() > JWT_BYTES_MAX {
            return Err(IssueError::TooLong(file.len()));
        }
        let digest = Sha256::new()
            .chain_update(&file)
            .chain_update(owner)
            .finalize();
        let digest: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("{}{digest}", worker::credentials_prefix(&contract.resource));
        Ok(Issued { name, file })
    }

    /// What the server reads besides its configuration.
    fn server(&self) -> Result<String, KeyError> {
        let failed = |error: nkeys::error::Error| KeyError::new("a JWT", error);
        let Keys {
            operator,
            account,
            system,
            signing,
        } = &self.keys;
        let (account, system) = (account.public_key(), system.public_key());
        let subject = |key, name| Subject { key, name };
        let operator_jwt = jwt::operator("tidemill", &system, operator).map_err(failed)?;
        let signing = signing.public_key();
        let account_jwt = jwt::account(&subject(&account, ACCOUNT), Some(&signing), true, operator);
        let system_jwt = jwt::account(&subject(&system, "SYS"), None, false, operator);
        let (account_jwt, system_jwt) = (account_jwt.map_err(failed)?, system_jwt.map_err(failed)?);
        Ok(format!(
            "operator: {operator_jwt}\n\
             system_account: {system}\n\
             resolver: MEMORY\n\
             resolver_preload: {{\n  {account}: {account_jwt}\n  {system}: {system_jwt}\n}}\n\
             max_control_line: {LINE_BYTES_MAX}\n"
        ))
    }

    fn user(&self, label: &str, name: &str, rights: &Rights) -> Result<String, KeyError> {
        let failed = |error: nkeys::error::Error| KeyError::new("a user", error);
        let pair = self.keys.user(label)?;
        let (key, account) = (pair.public_key(), self.keys.account.public_key());
        let subject = Subject { key: &key, name };
        let jwt = jwt::user(&subject, &account, rights, &self.keys.signing).map_err(failed)?;
        Ok(jwt::file(&jwt, &pair.seed().map_err(failed)?))
    }
}

#[cfg(test)]
mod tests;

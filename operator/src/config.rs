//! The operator's configuration: one YAML file.

use crate::credentials::{FILE, Issue};
use crate::tenancy::Tenancy;
use crate::worker::{CREDENTIALS_FOLDER, WorkerDefaults};
use serde::Deserialize;
use std::path::Path;
use tidemill_core::contract::Connection;
use tidemill_crds::text::ByteSize;
use tidemill_provision::Installation;

/// What the operator is told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Marks everything that this cluster makes in NATS; two clusters that share a NATS account differ in it.
    #[serde(default = "main")]
    pub cluster_id: String,
    /// Uid of the namespace kube-system of a cluster that had this id and is gone: it needn't be waited for.
    #[serde(default)]
    pub takeover: Option<String>,
    /// Users of NATS and their credentials are made, for the operator itself, for workers, people and applications; absent = they are
    /// made by somebody else, if there are any.
    #[serde(default)]
    pub credentials: Option<Issue>,
    /// How NATS is reached.
    pub nats: Connection,
    /// Copies of streams that don't say how many.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Most bytes of streams that don't say how many, for accounts that demand a limit of every stream. Default: no limit.
    #[serde(default)]
    pub max_stream_bytes: Option<ByteSize>,
    /// What all workers run with.
    pub workers: WorkerDefaults,
    /// How long a resource that goes waits for its data to be deleted, in seconds; then the data stays and the resource goes.
    #[serde(default = "five_minutes")]
    pub deletion_deadline_seconds: u32,
    /// How long, in seconds, nothing may have happened to the unfinished instances of a Saga that is applied anew; if it was longer,
    /// it is held until a person lets it go on.
    #[serde(default = "one_hour")]
    pub resume_limit_seconds: u32,
    /// Which namespaces may use what.
    #[serde(default)]
    pub tenancy: Tenancy,
}

fn main() -> String {
    "main".to_owned()
}

fn one_hour() -> u32 {
    3_600
}

fn five_minutes() -> u32 {
    300
}

fn one() -> u32 {
    1
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("configuration {file}: {problem}")]
pub struct ConfigError {
    file: String,
    problem: String,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`]: what is wrong, and where.
    pub fn read(file: &Path) -> Result<Config, ConfigError> {
        let error = |problem: String| ConfigError {
            file: file.display().to_string(),
            problem,
        };
        let text = std::fs::read_to_string(file).map_err(|problem| error(problem.to_string()))?;
        let config = Config::parse(&text).map_err(|problem| error(problem.to_string()))?;
        // Addresses are shown, and are told to workers.
        if config
            .nats
            .servers
            .iter()
            .any(|server| server.contains('@'))
        {
            let problem = "nats.servers: an address holds a user or a password; put them into a credentials file (nats.credentialsFile)";
            return Err(error(problem.to_owned()));
        }
        if let Some(Err(problem)) = config.max_stream_bytes.as_ref().map(ByteSize::bytes) {
            return Err(error(format!("maxStreamBytes: {problem}")));
        }
        let given = [
            &config.nats.credentials_file,
            &config.workers.credentials_secret,
        ];
        match config.credentials.is_some() && given.iter().any(|given| given.is_some()) {
            true => Err(error(
                "credentials excludes nats.credentialsFile and workers.credentialsSecret: they are made, or they are given".to_owned(),
            )),
            false => Ok(config),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub fn parse(text: &str) -> Result<Config, serde_saphyr::Error> {
        serde_saphyr::from_str(text)
    }

    /// How workers reach NATS: as the operator does, but with the credentials of their own namespace, and with inboxes of their own.
    pub fn worker_connection(&self) -> Connection {
        let has_credentials =
            self.credentials.is_some() || self.workers.credentials_secret.is_some();
        Connection {
            credentials_file: has_credentials.then(|| format!("{CREDENTIALS_FOLDER}/{FILE}")),
            inbox_prefix: None,
            ..self.nats.clone()
        }
    }

    /// What is the same for all resources.
    pub fn installation(&self) -> Installation {
        Installation {
            cluster: self.cluster_id.clone(),
            subject_root: self.nats.subject_root.clone(),
            replicas: self.replicas,
            bytes_max: self
                .max_stream_bytes
                .as_ref()
                .and_then(|size| size.bytes().ok()),
        }
    }
}

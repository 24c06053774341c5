//! The Kubernetes cluster that a kubeconfig names: how it is reached, and how NATS is reached in it.

pub(crate) mod forward;
pub(crate) mod nats;
pub(crate) mod resources;

use crate::args::Global;
use crate::error::{CliError, Exit, Result, chain};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::future::Future;
use std::path::Path;
use std::time::Duration;

/// Who writes what this command writes, in the fields' managers.
pub(crate) const FIELD_MANAGER: &str = "tidemill-cli";
/// Longest try to reach an API server.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for one answer of it.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A cluster, by one context of a kubeconfig.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    /// The context's namespace.
    pub(crate) namespace: String,
    /// For messages.
    shown: String,
}

/// The kubeconfig as kubectl finds it; `None` = there is none.
fn kubeconfig(global: &Global) -> Result<Option<Kubeconfig>> {
    let read = match &global.kubeconfig {
        Some(file) => Kubeconfig::read_from(Path::new(file)),
        None => Kubeconfig::read(),
    };
    let named = global.kubeconfig.is_some()
        || std::env::var_os("KUBECONFIG").is_some_and(|v| !v.is_empty());
    match read {
        Ok(read) => Ok(Some(read)),
        Err(KubeconfigError::FindPath) => Ok(None),
        Err(KubeconfigError::ReadConfig(error, _))
            if !named && error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(KubeconfigError::ReadConfig(error, file)) => Err(CliError::usage(format!(
            "the kubeconfig {} can't be read: {error}",
            file.display()
        ))),
        Err(error) => Err(CliError::usage(format!(
            "the kubeconfig can't be used: {}",
            chain(&error)
        ))),
    }
}

/// Namespace of the context, without asking the cluster; nothing where it names none or there is no such context.
pub(crate) fn namespace(global: &Global) -> Option<String> {
    let kubeconfig = kubeconfig(global).ok()??;
    let wanted = global.context.as_ref();
    let wanted = wanted.or(kubeconfig.current_context.as_ref())?;
    let named = kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == *wanted)?;
    let namespace = named.context.as_ref()?.namespace.clone()?;
    (!namespace.is_empty()).then_some(namespace)
}

impl Cluster {
    /// The cluster that options and environment name; `None` = there is no kubeconfig. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The kubeconfig can't be used, or has no such context.
    pub(crate) async fn find(global: &Global) -> Result<Option<Cluster>> {
        let Some(kubeconfig) = kubeconfig(global)? else {
            return Ok(None);
        };
        let context = global
            .context
            .as_ref()
            .or(kubeconfig.current_context.as_ref())
            .filter(|name| !name.is_empty())
            .cloned();
        let names = kubeconfig.contexts.iter();
        let names: Vec<String> = names.map(|context| context.name.clone()).collect();
        let there = match names.is_empty() {
            true => "it has none".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        let Some(context) = context else {
            return Err(CliError::usage("the kubeconfig has no current context")
                .remedy(format!("name one with --context; {there}")));
        };
        if !names.contains(&context) {
            return Err(
                CliError::not_found(format!("the kubeconfig has no context `{context}`"))
                    .remedy(there),
            );
        }
        let options = KubeConfigOptions {
            context: Some(context.clone()),
            ..KubeConfigOptions::default()
        };
        let unusable = |error: &dyn std::error::Error| {
            CliError::usage(format!(
                "context `{context}` of the kubeconfig can't be used: {}",
                chain(error)
            ))
        };
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(&error))?;
        config.connect_timeout = Some(CONNECT_MAX);
        let shown = format!(
            "the cluster of context `{context}` ({})",
            config.cluster_url
        );
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Some(Cluster {
            client,
            namespace,
            shown,
        }))
    }

    /// Waits for an answer of the API server.
    ///
    /// # Errors
    /// One line: `what` wasn't possible, and why.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        asking: impl Future<Output = kube::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(ANSWER_MAX, asking).await {
            Ok(answer) => answer.map_err(|error| self.error(what, &error)),
            Err(_) => Err(self.away(&format!("no answer within {} s", ANSWER_MAX.as_secs()))),
        }
    }

    fn away(&self, why: &str) -> CliError {
        let what = format!("{} can't be reached: {why}", self.shown);
        CliError::new(Exit::Unreachable, what)
            .remedy("is it up, and is it the one you mean (--kubeconfig, --context)?")
    }

    fn error(&self, what: &str, error: &kube::Error) -> CliError {
        use kube::Error as E;
        match error {
            E::Api(status) => {
                let said = match status.message.trim() {
                    "" => status.reason.clone(),
                    message => message.to_owned(),
                };
                let exit = match status.code {
                    401 | 403 => Exit::Refused,
                    404 => Exit::NotFound,
                    _ => Exit::Failed,
                };
                CliError::new(exit, format!("{}: {what}: {said}", self.shown))
            }
            E::HyperError(error) => self.away(&chain(error)),
            E::Service(error) => self.away(&chain(&**error)),
            E::Auth(_) => CliError::new(
                Exit::Refused,
                format!("{}: no way to log in: {}", self.shown, chain(error)),
            ),
            other => CliError::failed(format!("{}: {what}: {}", self.shown, chain(other))),
        }
    }

    /// As messages name it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

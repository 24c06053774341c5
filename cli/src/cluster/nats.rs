//! The NATS that Tidemill's chart installs: by its labels, with the administrator's credentials if they may be read.

use super::Cluster;
use crate::error::{CliError, Exit, Result};
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// What the chart's NATS carries.
const LABEL: &str = "app.kubernetes.io/name=tidemill-nats";
/// What the Secret with its administrator's credentials carries.
const CREDENTIALS_LABEL: &str = "tidemill.dev/credentials=admin";
/// Its key with the content of a credentials file.
const CREDENTIALS_KEY: &str = "nats.creds";
/// Name of the port where clients connect.
const PORT: &str = "client";

/// Where NATS is in a cluster.
#[derive(Clone)]
pub(crate) struct Place {
    cluster: Cluster,
    /// The namespace.
    pub(crate) namespace: String,
    service: String,
    selector: String,
    port: ServicePort,
}

impl Cluster {
    /// Finds the NATS of the chart, in one namespace or in all.
    ///
    /// # Errors
    /// There is none, or several, or it may not be looked for; with what would do.
    pub(crate) async fn nats(&self, namespace: Option<&str>) -> Result<Place> {
        let services: Api<Service> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let params = ListParams::default().labels(LABEL);
        let found = self.ask("NATS can't be looked for", services.list(&params));
        let found = found.await.map_err(|error| match (error.exit(), namespace) {
            (Exit::Refused, None) => error
                .remedy("say in which namespace it is (--tidemill-namespace), or give --nats nats://HOST:4222"),
            (Exit::Refused, Some(_)) => error.remedy("give --nats nats://HOST:4222"),
            _ => error,
        })?;
        let places = found.items.into_iter();
        let mut places: Vec<Place> = places
            .filter_map(|service| Place::of(self.clone(), service))
            .collect();
        let place = places.pop();
        match place {
            Some(place) if places.is_empty() => Ok(place),
            Some(last) => {
                let all = places.iter().chain([&last]);
                let mut all: Vec<String> = all.map(Place::shown).collect();
                all.sort();
                let what = format!("{} has several NATS: {}", self.shown, all.join(", "));
                Err(CliError::usage(what)
                    .remedy("say which with --tidemill-namespace, or give --nats nats://HOST:4222"))
            }
            None => {
                let place = namespace.map_or_else(
                    || "in any namespace".to_owned(),
                    |namespace| format!("in namespace {namespace}"),
                );
                let what = format!(
                    "{} has no NATS of Tidemill's chart {place} (a Service with label {LABEL})",
                    self.shown
                );
                Err(CliError::new(Exit::Unreachable, what).remedy(
                    "installed with nats.enabled=false, give the address of yours: --nats nats://HOST:4222",
                ))
            }
        }
    }
}

impl Place {
    fn of(cluster: Cluster, service: Service) -> Option<Place> {
        let spec = service.spec?;
        // Gives pods their names; not ready ones too.
        if spec.cluster_ip.as_deref() == Some("None") {
            return None;
        }
        let selector: BTreeMap<String, String> = spec.selector?;
        let selector: Vec<String> = selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let ports = spec.ports.unwrap_or_default();
        let is_it = |port: &&ServicePort| port.name.as_deref() == Some(PORT);
        Some(Place {
            cluster,
            namespace: service.metadata.namespace?,
            service: service.metadata.name?,
            selector: selector.join(","),
            port: ports.iter().find(is_it).or_else(|| ports.first())?.clone(),
        })
    }

    /// As messages name it.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A pod that is ready, and its port.
    ///
    /// # Errors
    /// There is none, or pods may not be listed.
    pub(super) async fn pod(&self) -> Result<(String, u16)> {
        let params = ListParams::default().labels(&self.selector);
        let pods = self.pods();
        let found = self
            .cluster
            .ask("its pods can't be listed", pods.list(&params));
        let found = found.await?;
        let all = found.items.len();
        let ready = found.items.into_iter().find(is_ready);
        let ready = ready.and_then(|pod| Some((pod.metadata.name.clone()?, self.port_of(&pod)?)));
        ready.ok_or_else(|| {
            let what = format!(
                "NATS at service {} isn't ready (0 of {all} pods)",
                self.shown()
            );
            let look = format!("see `kubectl --namespace {} get pods`", self.namespace);
            CliError::new(Exit::Unreachable, what).remedy(look)
        })
    }

    /// The pod's port behind the service's.
    fn port_of(&self, pod: &Pod) -> Option<u16> {
        let number = match &self.port.target_port {
            None => self.port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => {
                let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
                let port = ports.find(|port| port.name.as_deref() == Some(name))?;
                port.container_port
            }
        };
        u16::try_from(number).ok()
    }

    /// Content of the administrator's credentials file; `None` = there is none, or it may not be read.
    ///
    /// # Errors
    /// The API server is away.
    pub(crate) async fn credentials(&self) -> Result<Option<String>> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let params = ListParams::default().labels(CREDENTIALS_LABEL);
        let asked = self
            .cluster
            .ask("Secrets can't be listed", secrets.list(&params));
        let found = match asked.await {
            Ok(found) => found.items,
            Err(error) if error.exit() == Exit::Refused => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut contents = found.into_iter().filter_map(|secret| {
            let bytes = secret.data?.remove(CREDENTIALS_KEY)?;
            String::from_utf8(bytes.0).ok()
        });
        Ok(contents.next())
    }

    /// What would do when NATS refuses whoever comes without credentials.
    pub(crate) fn no_credentials(&self) -> String {
        format!(
            "no Secret with label {CREDENTIALS_LABEL} could be read in namespace {}: give --creds FILE, or --nats as a user of yours",
            self.namespace
        )
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

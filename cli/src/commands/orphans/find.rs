//! Which streams are orphans: those with this cluster's mark, against the resources that the API server lists.

use super::Of;
use crate::catalog::is_name;
use crate::cluster::Cluster;
use crate::cluster::resources::{Named, Type};
use crate::context::{Context, api_error};
use crate::error::{CliError, Exit, Result, chain};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeSet;
use std::time::Duration;
use tidemill_core::names::{OWNERS_BUCKET, bucket_stream, cluster_key};
use tidemill_nats::provision::owner_of;
use tidemill_nats::{ApiError, KvBucket, KvError, Nats, Publisher, ReadError, StreamState};

/// What the operator's ConfigMap carries, and its key.
const CONFIG_LABEL: &str = "app.kubernetes.io/name=tidemill-operator";
const CONFIG_KEY: &str = "config.yaml";
/// How old a heartbeat is when its cluster is taken to be gone, as operators see it.
const ABANDONED: Duration = Duration::from_secs(60);

/// A stream whose resource isn't there.
#[derive(Clone, Debug)]
pub(super) struct Orphan {
    /// As NATS names it: buckets begin with `KV_`.
    pub(super) stream: String,
    /// What its mark names.
    pub(super) resource: Named,
    /// The whole mark.
    pub(super) owner: String,
    pub(super) incarnation: String,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) last_message: Option<String>,
}

impl Serialize for Orphan {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Orphan", 7)?;
        fields.serialize_field("stream", &self.stream)?;
        fields.serialize_field("kind", self.resource.of.word())?;
        fields.serialize_field("namespace", &self.resource.namespace)?;
        fields.serialize_field("name", &self.resource.name)?;
        fields.serialize_field("messages", &self.messages)?;
        fields.serialize_field("bytes", &self.bytes)?;
        fields.serialize_field("lastMessage", &self.last_message)?;
        fields.end()
    }
}

/// All that was found, and where.
pub(super) struct Orphans {
    pub(super) cluster: Cluster,
    pub(super) nats: Nats,
    pub(super) cluster_id: String,
    /// By their streams' names.
    pub(super) orphans: Vec<Orphan>,
    /// Every stream of the account, for saying why one is no orphan.
    pub(super) streams: Vec<StreamState>,
}

impl Orphans {
    /// Looks for them, in the namespace that was given or in all.
    ///
    /// # Errors
    /// Streams or resources can't all be listed, or the cluster id isn't known, or is another live cluster's.
    pub(super) async fn find(of: &Of, context: &Context) -> Result<Orphans> {
        let cluster = context.cluster().await?;
        let cluster_id = match &of.cluster_id {
            Some(id) => id.clone(),
            None => configured_id(&cluster, context.tidemill_namespace()).await?,
        };
        let nats = context.connect_for_cluster().await?;
        refuse_another_live_one(&nats, &cluster, &cluster_id).await?;
        // Streams first: a resource that is applied meanwhile is listed.
        let streams = all_streams(&nats).await?;
        let only = context.given_namespace();
        let mut resources = BTreeSet::new();
        for of in Type::ALL {
            resources.extend(cluster.all(of, only).await?);
        }
        let orphans = orphans(&streams, &cluster_id, only, &resources);
        Ok(Orphans {
            cluster,
            nats,
            cluster_id,
            orphans,
            streams,
        })
    }
}

/// Streams with the cluster's mark, but for those of `resources`.
fn orphans(
    streams: &[StreamState],
    cluster_id: &str,
    namespace: Option<&str>,
    resources: &BTreeSet<Named>,
) -> Vec<Orphan> {
    let marked = streams.iter().filter_map(|stream| {
        let (cluster, resource) = mark_of(stream)?;
        let wanted = cluster == cluster_id
            && namespace.is_none_or(|namespace| namespace == resource.namespace)
            && !resources.contains(&resource);
        wanted.then(|| Orphan {
            stream: stream.name.clone(),
            resource,
            owner: owner_of(&stream.metadata()).unwrap_or_default(),
            incarnation: stream.incarnation.clone(),
            messages: stream.messages,
            bytes: stream.bytes,
            last_message: (stream.last > 0).then(|| stream.last_stored_at.to_string()),
        })
    });
    let mut orphans: Vec<Orphan> = marked.collect();
    orphans.sort_by(|a, b| a.stream.cmp(&b.stream));
    orphans
}

/// The cluster id and the resource that a stream's mark names; nothing where it has none, or one that no resource can have.
pub(super) fn mark_of(stream: &StreamState) -> Option<(String, Named)> {
    let metadata = stream.metadata();
    let part = |part: &str| {
        let value = metadata.get(&format!("tidemill.dev/{part}"));
        value.filter(|value| !value.is_empty()).cloned()
    };
    let (cluster, kind) = (part("cluster")?, part("kind")?);
    let (namespace, name) = (part("namespace")?, part("name")?);
    let of = Type::ALL.into_iter().find(|of| of.word() == kind)?;
    let possible = is_name(&namespace) && is_name(&name);
    possible.then_some((
        cluster,
        Named {
            of,
            namespace,
            name,
        },
    ))
}

pub(super) async fn all_streams(nats: &Nats) -> Result<Vec<StreamState>> {
    let mut all = Vec::new();
    loop {
        let page = nats.streams_from(all.len()).await;
        let page = page.map_err(|error| api_error(&error))?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The id in the operator's configuration.
async fn configured_id(cluster: &Cluster, namespace: Option<&str>) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        cluster_id: String,
    }
    let maps: Api<ConfigMap> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let params = ListParams::default().labels(CONFIG_LABEL);
    let remedy = "say it with --cluster-id, or where the chart is with --tidemill-namespace";
    let what = "the operator's configuration can't be looked for";
    let found = cluster.ask(what, maps.list(&params)).await;
    let found = found.map_err(|error| match error.exit() {
        Exit::Refused => error.remedy(remedy),
        _ => error,
    })?;
    let texts = found.items.into_iter();
    let texts = texts.filter_map(|map| map.data?.remove(CONFIG_KEY));
    let ids: BTreeSet<String> = texts
        .map(|text| serde_saphyr::from_str::<Config>(&text).map(|config| config.cluster_id))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| {
            CliError::failed(format!(
                "the operator's configuration can't be read: {error}"
            ))
            .remedy(remedy)
        })?;
    let mut each = ids.iter();
    match (each.next(), each.next()) {
        (Some(id), None) => Ok(id.clone()),
        (None, _) => Err(CliError::not_found(format!(
            "{} has no configuration of Tidemill's operator (a ConfigMap with label {CONFIG_LABEL}), so its cluster id isn't known",
            cluster.shown()
        ))
        .remedy(remedy)),
        (Some(_), Some(_)) => {
            let ids: Vec<String> = ids.into_iter().collect();
            let what = format!("{} has operators of several ids: {}", cluster.shown(), ids.join(", "));
            Err(CliError::usage(what).remedy(remedy))
        }
    }
}

/// The resources of a cluster that is alive are in that cluster, not here: all that it has would seem to be orphaned.
async fn refuse_another_live_one(nats: &Nats, cluster: &Cluster, id: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Beat {
        uid: String,
    }
    let bucket = KvBucket::new(&Publisher::new(nats, 1), OWNERS_BUCKET);
    let entry = match bucket.get(&cluster_key(id)).await {
        Ok(entry) => entry.filter(|entry| !entry.deleted),
        Err(KvError::Read {
            source: ReadError::StreamMissing(_),
            ..
        }) => None,
        Err(error) => return Err(CliError::failed(chain(&error))),
    };
    let Some(entry) = entry else { return Ok(()) };
    let stream = match nats.stream_state(&bucket_stream(OWNERS_BUCKET)).await {
        Ok(stream) => stream,
        Err(ApiError::StreamMissing(_)) => return Ok(()),
        Err(error) => return Err(api_error(&error)),
    };
    let now = stream.server_time.unwrap_or(stream.last_stored_at);
    let age = Duration::from_millis(now.millis_since(entry.stored_at));
    let beat: Option<Beat> = serde_json::from_slice(&entry.value).ok();
    let Some(beat) = beat.filter(|_| age < ABANDONED) else {
        return Ok(());
    };
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let what = "which cluster this is can't be known (uid of namespace kube-system)";
    let own = cluster
        .ask(what, namespaces.get_metadata("kube-system"))
        .await?;
    if own.metadata.uid.as_deref() == Some(&beat.uid) {
        return Ok(());
    }
    let what = format!(
        "cluster id `{id}` belongs to another cluster than {}, and that one is alive (kube-system uid {}, seen {} s ago)",
        cluster.shown(),
        beat.uid,
        age.as_secs()
    );
    Err(CliError::new(Exit::Refused, what)
        .remedy("ask with the kubeconfig of that cluster; of one that is gone, wait a minute"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidemill_core::timestamp::Timestamp;

    fn stream(name: &str, mark: [&str; 4]) -> StreamState {
        let [cluster, namespace, kind, of] = mark;
        let metadata = json!({
            "tidemill.dev/cluster": cluster,
            "tidemill.dev/namespace": namespace,
            "tidemill.dev/kind": kind,
            "tidemill.dev/name": of,
        });
        StreamState {
            name: name.to_owned(),
            incarnation: "1".to_owned(),
            created: Timestamp::default(),
            first: 1,
            last: 0,
            messages: 0,
            bytes: 0,
            subjects_count: 0,
            last_stored_at: Timestamp::default(),
            server_time: None,
            config: json!({ "metadata": metadata }),
        }
    }

    #[test]
    fn only_this_clusters_without_a_resource_are_orphans() {
        let mut unmarked = stream("unmarked", ["main", "shop", "saga", "old"]);
        unmarked.config = json!({});
        let streams = [
            stream("old_log", ["main", "shop", "saga", "old"]),
            stream("KV_rows", ["main", "shop", "projection", "old"]),
            stream("kept", ["main", "shop", "eventstream", "orders"]),
            stream("of-another-kind", ["main", "shop", "projection", "orders"]),
            stream("elsewhere", ["main", "ware", "eventstream", "orders"]),
            stream("another-cluster's", ["other", "shop", "saga", "old"]),
            stream("shared", ["", "", "shared", ""]),
            stream("later-kind", ["main", "shop", "topic", "old"]),
            stream("no-name", ["main", "shop", "saga", "A.*"]),
            unmarked,
        ];
        let there = BTreeSet::from([Named {
            of: Type::EventStream,
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        }]);
        let found = |namespace| {
            let found = orphans(&streams, "main", namespace, &there).into_iter();
            found.map(|orphan| orphan.stream).collect::<Vec<_>>()
        };
        assert_eq!(
            found(None),
            ["KV_rows", "elsewhere", "of-another-kind", "old_log"]
        );
        assert_eq!(found(Some("ware")), ["elsewhere"]);
    }
}

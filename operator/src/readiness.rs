//! What the operator needs of the API server, and what of it is missing: `/readyz` says it, so that a missing definition or permission
//! is read there instead of guessed from failures.

use crate::credentials::Names;
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tidemill_crds::eventstream::EventStream;
use tidemill_crds::projection::Projection;
use tidemill_crds::saga::Saga;

/// A right: group, resource, subresource, verbs.
type Right = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

/// Rights in every namespace.
const EVERYWHERE: &[Right] = &[
    (
        "tidemill.dev",
        "eventstreams",
        "",
        &["list", "watch", "get", "patch"],
    ),
    (
        "tidemill.dev",
        "projections",
        "",
        &["list", "watch", "patch"],
    ),
    ("tidemill.dev", "sagas", "", &["list", "watch", "patch"]),
    ("tidemill.dev", "eventstreams", "status", &["patch"]),
    ("tidemill.dev", "projections", "status", &["patch"]),
    ("tidemill.dev", "sagas", "status", &["patch"]),
    (
        "",
        "configmaps",
        "",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    (
        "",
        "serviceaccounts",
        "",
        &["get", "list", "watch", "create", "patch"],
    ),
    ("", "pods", "", &["list"]),
    ("", "namespaces", "", &["get", "list", "watch"]),
    (
        "apps",
        "deployments",
        "",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    (
        "policy",
        "poddisruptionbudgets",
        "",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    ("events.k8s.io", "events", "", &["create", "patch"]),
];
/// Rights in the operator's own namespace.
const HERE: &[Right] = &[(
    "coordination.k8s.io",
    "leases",
    "",
    &["create", "get", "update"],
)];

/// Rights in every namespace if credentials are made.
const CREDENTIALS_EVERYWHERE: Right = ("", "secrets", "", &["create", "delete"]);
/// Rights in the operator's own namespace if credentials are made; the Secret with the seeds never changes.
const CREDENTIALS_HERE: Right = ("", "secrets", "", &["get", "patch"]);
const KEYS_HERE: Right = ("", "secrets", "", &["get"]);

/// What is missing, for people; empty = nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Definitions of our kinds, without which nothing can be done.
    pub definitions: Vec<String>,
    /// Permissions, without which some things can't be done.
    pub permissions: Vec<String>,
}

/// Looks what is missing.
///
/// # Errors
/// The API server doesn't answer.
pub async fn missing(
    client: &Client,
    namespace: &str,
    lease: &str,
    secrets: Option<&Names>,
) -> Result<Missing, kube::Error> {
    let definitions = [
        definition::<EventStream>(client).await?,
        definition::<Projection>(client).await?,
        definition::<Saga>(client).await?,
    ];
    let everywhere = EVERYWHERE.iter().map(|right| (right, None, None));
    let here = HERE
        .iter()
        .map(|right| (right, Some(namespace), Some(lease.to_owned())));
    let secrets = secrets.into_iter().flat_map(|names| {
        let here = |right, name: &'_ String| (right, Some(namespace), Some(name.clone()));
        [
            (&CREDENTIALS_EVERYWHERE, None, None),
            here(&KEYS_HERE, &names.keys),
            here(&CREDENTIALS_HERE, &names.auth),
            here(&CREDENTIALS_HERE, &names.admin),
            here(&CREDENTIALS_HERE, &names.app),
        ]
    });
    let asked = everywhere.chain(here).chain(secrets);
    let asked = asked.flat_map(|(right, namespace, name)| {
        let verbs = right.3.iter();
        verbs.map(move |verb| allowed(client, *right, verb, namespace, name.clone()))
    });
    let mut permissions = Vec::new();
    for answer in join_all(asked).await {
        permissions.extend(answer?);
    }
    Ok(Missing {
        definitions: definitions.into_iter().flatten().collect(),
        permissions,
    })
}

/// The definition of a kind, if it isn't there.
async fn definition<K>(client: &Client) -> Result<Option<String>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let objects: Api<PartialObjectMeta<K>> = Api::all(client.clone());
    match objects.list(&ListParams::default().limit(1)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Ok(Some(format!("{}.{}", K::plural(&()), K::group(&()))))
        }
        // That it may not be listed is said with the permissions.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A permission, if it isn't given.
async fn allowed(
    client: &Client,
    (group, resource, subresource, _): Right,
    verb: &str,
    namespace: Option<&str>,
    name: Option<String>,
) -> Result<Option<String>, kube::Error> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: text(group),
                resource: text(resource),
                subresource: text(subresource),
                verb: text(verb),
                namespace: namespace.map(str::to_owned),
                // A name says nothing about what is created.
                name: name.filter(|_| verb != "create"),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = reviews.create(&PostParams::default(), &review).await?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    let (dot, slash) = (
        if group.is_empty() { "" } else { "." },
        if subresource.is_empty() { "" } else { "/" },
    );
    let scope = namespace.map_or_else(
        || "all namespaces".to_owned(),
        |namespace| format!("namespace {namespace}"),
    );
    Ok((!allowed).then(|| format!("{verb} {resource}{slash}{subresource}{dot}{group} in {scope}")))
}

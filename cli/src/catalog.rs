//! From the names of resources to what is behind them in NATS: by `dev.json` where a `tidemill dev` runs, else by the marks
//! (`tidemill.dev/…` metadata) that everything we make carries.

use crate::context::{Context, api_error};
use crate::error::{CliError, Exit, Result, chain};
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::contract::StreamBinding;
use tidemill_core::definition::StreamRef;
use tidemill_core::names::{self, Kind, ResourceId};
use tidemill_nats::kv::stream_of;
use tidemill_nats::provision::owner_of;
use tidemill_nats::{ApiError, Nats};

const KIND: &str = "tidemill.dev/kind";
const NAMESPACE: &str = "tidemill.dev/namespace";
const NAME: &str = "tidemill.dev/name";
const EVENT_STREAM: &str = "eventstream";

/// Where an EventStream (`name` or `namespace/name`) is.
pub(crate) async fn stream(context: &Context, nats: &Nats, name: &str) -> Result<StreamBinding> {
    let (namespace, name) = context.qualify(name);
    if !is_name(&namespace) || !is_name(&name) {
        return Err(
            CliError::usage(format!("`{namespace}/{name}` is no name of an EventStream"))
                .remedy("names have lower-case letters, digits and `-`"),
        );
    }
    let wanted = StreamRef { namespace, name };
    if let Some(dev) = context.dev()
        && let Some(binding) = dev.streams.iter().find(|binding| binding.stream == wanted)
    {
        return Ok(binding.clone());
    }
    // Most streams have the name that follows from their resource; only others need the list of all.
    let usual = names::event_stream(&wanted.namespace, &wanted.name);
    match nats.stream_state(&usual).await {
        Ok(state) => {
            if let Some(binding) = binding_of(&state.name, &state.subjects(), &state.metadata())
                && binding.stream == wanted
            {
                return Ok(binding);
            }
        }
        Err(ApiError::StreamMissing(_)) => {}
        Err(error) => return Err(api_error(&error)),
    }
    let all = marked(nats).await?;
    let known: Vec<StreamBinding> = all
        .iter()
        .filter_map(|(stream, subjects, metadata)| binding_of(stream, subjects, metadata))
        .collect();
    if let Some(binding) = known.iter().find(|binding| binding.stream == wanted) {
        return Ok(binding.clone());
    }
    let names = known.iter().map(|binding| &binding.stream);
    let names = names
        .map(|stream| shown(&wanted.namespace, &stream.namespace, &stream.name))
        .collect();
    Err(missing(
        "EventStream",
        &wanted.namespace,
        &wanted.name,
        names,
    ))
}

/// The Projection or Saga (`name` or `namespace/name`).
pub(crate) async fn resource(
    context: &Context,
    nats: &Nats,
    kind: Kind,
    name: &str,
) -> Result<ResourceId> {
    let (namespace, name) = context.qualify(name);
    let wanted = ResourceId::new(kind, &namespace, &name);
    if context
        .dev()
        .is_some_and(|dev| dev.resources.contains(&wanted))
        || is_there(nats, &wanted).await?
    {
        return Ok(wanted);
    }
    let known = resources(context, nats, kind).await?;
    if known.contains(&wanted) {
        return Ok(wanted);
    }
    let names = known
        .iter()
        .map(|known| shown(&namespace, &known.namespace, &known.name))
        .collect();
    Err(missing(kind_word(kind), &namespace, &name, names))
}

/// By its parked stream, which every one has under a name that follows from its own: that takes no list of all streams.
pub(crate) async fn is_there(nats: &Nats, resource: &ResourceId) -> Result<bool> {
    if !is_name(&resource.namespace) || !is_name(&resource.name) {
        return Ok(false);
    }
    match nats.stream_state(&resource.parked_stream()).await {
        Ok(state) => {
            Ok(state.metadata().get(KIND).map(String::as_str) == Some(resource.kind.as_str()))
        }
        Err(ApiError::StreamMissing(_)) => Ok(false),
        Err(error) => Err(api_error(&error)),
    }
}

/// Whether a text can be the name of a resource, so that it may stand in subjects.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = text.starts_with('-') || text.ends_with('-');
    !text.is_empty() && !ends && text.len() <= 63 && text.bytes().all(allowed)
}

/// The Projections or Sagas that a list shows: all, or those of the namespace that was given.
pub(crate) async fn listed(
    context: &Context,
    nats: &Nats,
    kind: Kind,
) -> Result<BTreeSet<ResourceId>> {
    let mut known = resources(context, nats, kind).await?;
    if let Some(only) = context.given_namespace() {
        known.retain(|resource| resource.namespace == only);
    }
    Ok(known)
}

/// What a list says that has nothing to show.
pub(crate) fn none_listed(context: &Context, kind: Kind) -> String {
    let word = kind_word(kind);
    match context.given_namespace() {
        Some(only) => format!("there is no {word} in namespace {only}"),
        None => format!("there is no {word}"),
    }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Projection => "Projection",
        Kind::Saga => "Saga",
    }
}

/// All Projections or Sagas of the connection.
pub(crate) async fn resources(
    context: &Context,
    nats: &Nats,
    kind: Kind,
) -> Result<BTreeSet<ResourceId>> {
    let mut known = BTreeSet::new();
    if let Some(dev) = context.dev() {
        known.extend(
            dev.resources
                .iter()
                .filter(|resource| resource.kind == kind)
                .cloned(),
        );
    }
    for (_, _, metadata) in marked(nats).await? {
        if metadata.get(KIND).map(String::as_str) == Some(kind.as_str())
            && let (Some(namespace), Some(name)) = (metadata.get(NAMESPACE), metadata.get(NAME))
        {
            known.insert(ResourceId::new(kind, namespace, name));
        }
    }
    Ok(known)
}

/// The KV bucket of a Projection's rows.
pub(crate) async fn rows_bucket(nats: &Nats, projection: &ResourceId) -> Result<String> {
    let usual = projection.rows_bucket();
    match nats.stream_state(&stream_of(&usual)).await {
        Ok(_) => return Ok(usual),
        Err(ApiError::StreamMissing(_)) => {}
        Err(error) => return Err(api_error(&error)),
    }
    // `sink.kv.bucket` may give it another name.
    let is = |metadata: &BTreeMap<String, String>, key: &str, value: &str| {
        metadata.get(key).is_some_and(|found| found == value)
    };
    let all = marked(nats).await?;
    let other = all.into_iter().find_map(|(stream, _, metadata)| {
        let ours = is(&metadata, KIND, projection.kind.as_str())
            && is(&metadata, NAMESPACE, &projection.namespace)
            && is(&metadata, NAME, &projection.name);
        stream
            .strip_prefix(&stream_of(""))
            .filter(|_| ours)
            .map(str::to_owned)
    });
    other.ok_or_else(|| {
        CliError::not_found(format!("{projection} has no rows yet"))
            .remedy("is its manifest applied?")
    })
}

/// The stream that carries an owner's mark, as [`Mark`](tidemill_nats::provision::Mark) shows it.
pub(crate) async fn stream_of_owner(nats: &Nats, owner: &str) -> Result<Option<String>> {
    let all = marked(nats).await?.into_iter();
    let found = all
        .filter(|(_, _, metadata)| owner_of(metadata).as_deref() == Some(owner))
        .map(|(name, _, _)| name);
    // In the same order each time, whatever the server's is.
    Ok(found.min())
}

type Marked = (String, Vec<String>, BTreeMap<String, String>);

/// Name, subjects and metadata of every stream that carries our mark.
async fn marked(nats: &Nats) -> Result<Vec<Marked>> {
    let streams = nats.jetstream().streams().try_collect::<Vec<_>>().await;
    let streams = streams.map_err(|error| {
        CliError::new(
            Exit::Unreachable,
            format!(
                "the streams of NATS at {} can't be listed: {}",
                nats.servers(),
                chain(&error)
            ),
        )
        .remedy("is JetStream enabled there (`nats-server -js`), and may this user list streams?")
    })?;
    let marked = streams
        .into_iter()
        .filter(|info| info.config.metadata.contains_key(KIND))
        .map(|info| {
            let config = info.config;
            let subjects = config.subjects.iter().map(ToString::to_string).collect();
            (config.name, subjects, config.metadata.into_iter().collect())
        });
    Ok(marked.collect())
}

/// The EventStream behind a JetStream stream. What it captures besides its own subjects is only known where its manifest is.
fn binding_of(
    stream: &str,
    subjects: &[String],
    metadata: &BTreeMap<String, String>,
) -> Option<StreamBinding> {
    if metadata.get(KIND).map(String::as_str) != Some(EVENT_STREAM) {
        return None;
    }
    let prefix = subjects
        .iter()
        .find_map(|subject| subject.strip_suffix(".>"))?;
    Some(StreamBinding {
        stream: StreamRef {
            namespace: metadata.get(NAMESPACE)?.clone(),
            name: metadata.get(NAME)?.clone(),
        },
        name: stream.to_owned(),
        prefix: prefix.to_owned(),
        capture: Vec::new(),
    })
}

fn shown(wanted: &str, namespace: &str, name: &str) -> String {
    if wanted == namespace {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

fn missing(kind: &str, namespace: &str, name: &str, known: BTreeSet<String>) -> CliError {
    const SHOWN_MAX: usize = 10;
    let error = CliError::not_found(format!(
        "there is no {kind} `{name}` in namespace {namespace}"
    ));
    if known.is_empty() {
        return error.remedy(format!(
            "there is no {kind} at all: is its manifest applied, and is this the right NATS server?"
        ));
    }
    let more = known.len().saturating_sub(SHOWN_MAX);
    let names: Vec<String> = known.into_iter().take(SHOWN_MAX).collect();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    error.remedy(format!("there are: {}{more}", names.join(", ")))
}

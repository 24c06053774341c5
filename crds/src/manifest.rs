//! From one document of a manifest to a resource: what `tidemill lint` and `tidemill dev` do with each.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::check::{check, closest};
use crate::compile::{self, EventStreamPlan, ProjectionPlan, Report, SagaPlan};
use crate::crd::ResourceKind;
use crate::problem::{FieldPath, Problem, Reason};
use crate::{EventStream, GROUP, Projection, Saga, VERSION};

/// A resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// An EventStream.
    EventStream(Box<EventStream>),
    /// A Projection.
    Projection(Box<Projection>),
    /// A Saga.
    Saga(Box<Saga>),
}

/// What a resource of any kind comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Of an EventStream.
    EventStream(Box<EventStreamPlan>),
    /// Of a Projection.
    Projection(Box<ProjectionPlan>),
    /// Of a Saga.
    Saga(Box<SagaPlan>),
}

impl Resource {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::EventStream(_) => ResourceKind::EventStream,
            Self::Projection(_) => ResourceKind::Projection,
            Self::Saga(_) => ResourceKind::Saga,
        }
    }

    /// Its namespace; `default` where it names none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        let metadata = match self {
            Self::EventStream(resource) => &resource.metadata,
            Self::Projection(resource) => &resource.metadata,
            Self::Saga(resource) => &resource.metadata,
        };
        metadata
            .namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or(compile::DEFAULT_NAMESPACE)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::EventStream(resource) => &resource.metadata,
            Self::Projection(resource) => &resource.metadata,
            Self::Saga(resource) => &resource.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
    }

    /// Compiles it.
    #[must_use]
    pub fn compile(&self) -> Report<Plan> {
        match self {
            Self::EventStream(resource) => {
                compile::event_stream(resource).map(|plan| Plan::EventStream(Box::new(plan)))
            }
            Self::Projection(resource) => {
                compile::projection(resource).map(|plan| Plan::Projection(Box::new(plan)))
            }
            Self::Saga(resource) => compile::saga(resource).map(|plan| Plan::Saga(Box::new(plan))),
        }
    }
}

/// Whether a document claims to be a resource of ours; others (Deployments, Secrets) may stand in the same files.
#[must_use]
pub fn is_ours(document: &Value) -> bool {
    let group = document
        .get("apiVersion")
        .and_then(Value::as_str)
        .and_then(|version| version.split('/').next());
    group == Some(GROUP)
}

/// Reads one document.
///
/// # Errors
/// Everything that the API server would refuse, nulls where values belong besides.
pub fn read(document: &Value) -> Result<Resource, Vec<Problem>> {
    let kind = kind(document).map_err(|problem| vec![problem])?;
    let problems = check(kind, document, None);
    if !problems.is_empty() {
        return Err(problems);
    }
    typed(kind, document).map_err(|problem| vec![problem])
}

/// Reads and compiles one document. Also of a document that the API server would refuse everything is said that can be.
#[must_use]
pub fn lint(document: &Value) -> Report<Plan> {
    let kind = match kind(document) {
        Ok(kind) => kind,
        Err(problem) => {
            return Report {
                plan: None,
                errors: vec![problem],
                warnings: Vec::new(),
                in_cluster: Vec::new(),
            };
        }
    };
    let mut errors = check(kind, document, None);
    let resource = match typed(kind, document) {
        Ok(resource) => resource,
        Err(problem) => {
            // What doesn't fit the types doesn't fit the schema they are made from, which says it better.
            if errors.is_empty() {
                errors.push(problem);
            }
            return Report {
                plan: None,
                errors,
                warnings: Vec::new(),
                in_cluster: Vec::new(),
            };
        }
    };
    let report = resource.compile();
    // A rule and the compiler may say the same of one field; the rule is what the API server says.
    let said: Vec<FieldPath> = errors.iter().map(|problem| problem.path.clone()).collect();
    errors.extend(
        report
            .errors
            .into_iter()
            .filter(|problem| !said.contains(&problem.path)),
    );
    errors.sort();
    Report {
        plan: report.plan.filter(|_| errors.is_empty()),
        errors,
        warnings: report.warnings,
        in_cluster: report.in_cluster,
    }
}

fn kind(document: &Value) -> Result<ResourceKind, Problem> {
    let refuse = |field: &str, message: String| {
        Err(Problem::new(
            FieldPath::root().field(field),
            Reason::Malformed,
            message,
        ))
    };
    let wanted = format!("{GROUP}/{VERSION}");
    match document.get("apiVersion").and_then(Value::as_str) {
        Some(version) if version == wanted => {}
        Some(version) => {
            return refuse(
                "apiVersion",
                format!("`{version}` is not known here: write {wanted}"),
            );
        }
        None => {
            return refuse(
                "apiVersion",
                format!("the field is missing: write apiVersion: {wanted}"),
            );
        }
    }
    let names = ResourceKind::ALL.map(ResourceKind::as_str);
    match document.get("kind").and_then(Value::as_str) {
        Some(kind) => match kind.parse() {
            Ok(kind) => Ok(kind),
            Err(unknown) => {
                let hint = closest(kind, names)
                    .map(|meant| format!("kind `{kind}` is unknown; did you mean {meant}?"));
                refuse("kind", hint.unwrap_or(unknown))
            }
        },
        None => refuse(
            "kind",
            format!("the field is missing: write one of {}", names.join(", ")),
        ),
    }
}

fn typed(kind: ResourceKind, document: &Value) -> Result<Resource, Problem> {
    let mut document = document.clone();
    if let Value::Object(fields) = &mut document {
        // What is applied has no status, and one that was exported may be of another version.
        fields.remove("status");
    }
    match kind {
        ResourceKind::EventStream => {
            parse(document).map(|resource| Resource::EventStream(Box::new(resource)))
        }
        ResourceKind::Projection => {
            parse(document).map(|resource| Resource::Projection(Box::new(resource)))
        }
        ResourceKind::Saga => parse(document).map(|resource| Resource::Saga(Box::new(resource))),
    }
}

fn parse<T: DeserializeOwned>(document: Value) -> Result<T, Problem> {
    serde_json::from_value(document)
        .map_err(|error| Problem::new(FieldPath::root(), Reason::Malformed, error.to_string()))
}

//! `tidemill lint`.

use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use crate::manifests::{Declared, Finding, Manifests, Missing, Options, Severity};
use crate::output::{Text, Tone, count};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tidemill_crds::manifest::Plan;

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill lint manifests/
  tidemill lint orders.yaml payments.yaml -o json
  helm template my-chart | tidemill lint -

Files are read as kubectl reads them. Every error is one line, file:line:column: resource: field: what is wrong; what would do. \
Exit code 1 when there is an error; with --strict, when there is a warning.";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files, folders (with everything below them), or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take warnings for errors, and streams that no file declares too
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    files: usize,
    resources: Vec<Resource<'a>>,
    errors: Vec<&'a Finding>,
    warnings: Vec<&'a Finding>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    file: String,
    line: usize,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
}

impl<'a> From<&'a Declared> for Resource<'a> {
    fn from(declared: &'a Declared) -> Self {
        Resource {
            kind: declared
                .kind
                .map_or("", tidemill_crds::ResourceKind::as_str),
            namespace: &declared.namespace,
            name: &declared.name,
            file: declared.file.display().to_string(),
            line: declared.place.line,
            valid: declared.plan.is_some(),
            revision: match &declared.plan {
                Some(Plan::Projection(plan)) => Some(plan.revision.as_str()),
                Some(Plan::Saga(plan)) => Some(plan.revision.as_str()),
                Some(Plan::EventStream(_)) | None => None,
            },
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<()> {
    let options = Options {
        run_here: false,
        namespace: context.given_namespace().map(str::to_owned),
        missing: if args.strict {
            Missing::Error
        } else {
            Missing::Warning
        },
        declared_before: BTreeSet::new(),
    };
    let manifests = Manifests::load(&args.files, &options)?;
    let (errors, warnings) = (manifests.errors(), manifests.warnings());
    let refused = errors > 0 || (args.strict && warnings > 0);
    let written = if context.for_people() {
        for_people(&manifests, refused, context)
    } else {
        context.output.document(&Report {
            files: manifests.files,
            resources: manifests.resources.iter().map(Resource::from).collect(),
            errors: manifests.of_severity(Severity::Error).collect(),
            warnings: manifests.of_severity(Severity::Warning).collect(),
        })
    };
    match written {
        // `lint … | head` is no reason to let errors pass.
        Err(error) if refused && error.exit() == Exit::Unread => {
            return Err(CliError::said(Exit::Failed));
        }
        written => written?,
    }
    if manifests.resources.is_empty() && errors == 0 {
        return Err(nothing(&args.files));
    }
    match (refused, context.for_people()) {
        (false, _) => Ok(()),
        (true, false) => Err(CliError::said(Exit::Failed)),
        (true, true) => {
            let warnings = if warnings > 0 {
                format!(" and {}", count(warnings as u64, "warning"))
            } else {
                String::new()
            };
            Err(CliError::failed(format!(
                "{}{warnings} in {}",
                count(errors as u64, "error"),
                count(manifests.files as u64, "file")
            )))
        }
    }
}

/// There is no manifest in what was named.
pub(crate) fn nothing(paths: &[PathBuf]) -> CliError {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    CliError::not_found(format!("there is no Tidemill manifest in {}", paths.join(", ")))
        .remedy("a manifest is a .yaml file with apiVersion: tidemill.dev/v1alpha1 and kind EventStream, Projection or Saga")
}

fn for_people(manifests: &Manifests, refused: bool, context: &Context) -> Result<()> {
    for severity in [Severity::Error, Severity::Warning] {
        for finding in manifests.of_severity(severity) {
            context.output.line(finding.to_string())?;
        }
    }
    if refused || manifests.resources.is_empty() {
        return Ok(());
    }
    let rows = manifests.resources.iter().map(|declared| {
        let resource = Resource::from(declared);
        vec![
            resource.kind.into(),
            format!("{}/{}", resource.namespace, resource.name).into(),
            Text::toned(resource.revision.unwrap_or(""), Tone::Faint),
            format!("{}:{}", resource.file, resource.line).into(),
        ]
    });
    context
        .output
        .table(&["kind", "name", "revision", "file"], rows.collect(), "")?;
    let warnings = match manifests.warnings() {
        0 => String::new(),
        warnings => format!(", {}", count(warnings as u64, "warning")),
    };
    let resources = count(manifests.resources.len() as u64, "resource");
    context.output.line(format!(
        "{resources} in {}: no errors{warnings}",
        count(manifests.files as u64, "file")
    ))
}

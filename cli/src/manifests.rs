//! Manifests: from files and folders to resources that are compiled and bound to each other, with everything that is wrong with
//! them, each finding with file, line and column. `lint` prints it, `dev` runs it.

mod files;
mod finding;
mod list;

use crate::error::Result;
use crate::yaml::{self, Node, Place};
pub(crate) use files::{Source, collect, is_manifest, read_all};
pub(crate) use finding::{Finding, Severity};
use list::Found;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tidemill_core::contract::{CONTRACT_VERSION, Connection, Contract, StreamBinding};
use tidemill_core::definition::StreamRef;
use tidemill_crds::compile::InCluster;
use tidemill_crds::compile::together::{self, Streams};
use tidemill_crds::manifest::{self, Plan};
use tidemill_crds::{FieldPath, GROUP, Problem, ResourceKind, VERSION};

/// Whether a stream that no given manifest declares is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The given manifests are everything there is.
    Error,
    /// It may be applied already, or later.
    Warning,
}

/// How manifests are taken.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Namespace of resources that name none.
    pub(crate) namespace: Option<String>,
    /// What a missing stream is.
    pub(crate) missing: Missing,
    /// Whether they are run here, without a cluster.
    pub(crate) run_here: bool,
    /// Files that declared resources when manifests were taken the last time. Such a file that is half written or empty now
    /// is an error: what it declared is removed only if the file is, or holds something else.
    pub(crate) declared_before: BTreeSet<PathBuf>,
}

/// Everything that the given files hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    /// Our resources, in the order of the files.
    pub(crate) resources: Vec<Declared>,
    /// What is wrong or surprising, in the order of the files.
    pub(crate) findings: Vec<Finding>,
    /// Files looked at.
    pub(crate) files: usize,
}

/// A resource as a file declares it.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    /// Its kind; nothing if that is what is wrong.
    pub(crate) kind: Option<ResourceKind>,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// The file that declares it.
    pub(crate) file: PathBuf,
    /// Where in the file.
    pub(crate) place: Place,
    /// What it comes to; nothing if there is an error in it.
    pub(crate) plan: Option<Plan>,
    /// The streams it names; complete only where there is a plan.
    pub(crate) bindings: Vec<StreamBinding>,
    root: Node,
}

impl Declared {
    /// `Saga shop/order-fulfilment`.
    pub(crate) fn shown(&self) -> String {
        let kind = self.kind.map_or("resource", ResourceKind::as_str);
        format!("{kind} {}/{}", self.namespace, self.name)
    }

    /// What workers are told of it; nothing of an EventStream, or if there is an error in it.
    pub(crate) fn contract(&self, connection: &Connection) -> Option<Contract> {
        let (resource, workload) = match self.plan.as_ref()? {
            Plan::EventStream(_) => return None,
            Plan::Projection(plan) => (&plan.resource, plan.workload()),
            Plan::Saga(plan) => (&plan.resource, plan.workload()),
        };
        Some(Contract {
            version: CONTRACT_VERSION,
            resource: resource.clone(),
            connection: connection.clone(),
            streams: self.bindings.clone(),
            workload,
        })
    }

    fn identity(&self) -> (Option<&'static str>, String, String) {
        (
            self.kind.map(ResourceKind::as_str),
            self.namespace.clone(),
            self.name.clone(),
        )
    }

    /// Something about it, with its place.
    pub(crate) fn finding(&self, severity: Severity, problem: &Problem) -> Finding {
        Finding {
            severity,
            file: self.file.clone(),
            place: self.root.place_of(finding::steps(&problem.path)),
            resource: Some(self.shown()),
            path: problem.path.to_string(),
            message: problem.message.clone(),
        }
    }
}

impl Manifests {
    /// Takes files and folders; `-` is standard input.
    ///
    /// # Errors
    /// A path that can't be read. What is wrong inside is a finding.
    pub(crate) fn load(paths: &[PathBuf], options: &Options) -> Result<Self> {
        Ok(Self::of(read_all(collect(paths)?), options))
    }

    /// Takes texts.
    pub(crate) fn of(sources: Vec<Source>, options: &Options) -> Self {
        let mut manifests = Manifests {
            files: sources.len(),
            ..Manifests::default()
        };
        for source in sources {
            manifests.take(source, options);
        }
        manifests.refuse_repeated();
        manifests.bind(options.missing);
        manifests
            .findings
            .sort_by(|a, b| (&a.file, a.place, &a.path).cmp(&(&b.file, b.place, &b.path)));
        manifests.findings.dedup();
        manifests
    }

    /// The files that declare resources.
    pub(crate) fn declaring(&self) -> BTreeSet<PathBuf> {
        let files = self.resources.iter().map(|declared| &declared.file);
        files.cloned().collect()
    }

    /// The findings of one severity.
    pub(crate) fn of_severity(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(move |finding| finding.severity == severity)
    }

    /// How many findings are errors.
    pub(crate) fn errors(&self) -> usize {
        self.of_severity(Severity::Error).count()
    }

    /// How many findings are warnings.
    pub(crate) fn warnings(&self) -> usize {
        self.findings.len() - self.errors()
    }

    fn take(&mut self, source: Source, options: &Options) {
        let Source { file, named, text } = source;
        let text = match text {
            Ok(text) => text,
            Err(message) => {
                self.findings.push(Finding::of_file(
                    &file,
                    Place { line: 1, column: 1 },
                    message,
                ));
                return;
            }
        };
        let before = options.declared_before.contains(&file);
        // Folders hold other people's files too; they are nobody's fault.
        let ours = named || before || looks_like_ours(&text);
        let known = self.resources.len();
        let (mut unreadable, mut complete) = (false, false);
        for document in yaml::read(&text) {
            let Some(root) = document.root else {
                self.unreadable(&file, ours, document.problems);
                unreadable = true;
                if ours {
                    continue;
                }
                break;
            };
            complete |= root.get("kind").and_then(Node::as_text).is_some();
            let found = Found {
                problems: document.problems,
                warnings: document.warnings,
            };
            for (root, found) in list::items(root, found) {
                if claims_to_be_ours(&root) {
                    self.declare(&file, root, found, options);
                }
            }
        }
        if unreadable || self.resources.len() > known {
            return;
        }
        let message = if before && !complete {
            Some("nothing is left of the resources in this file; write them again, or remove the file to stop them".to_owned())
        } else {
            // In a folder other people's files are passed over.
            named.then(|| {
                format!("there is no Tidemill resource in this file; one begins with apiVersion: {GROUP}/{VERSION}")
            })
        };
        if let Some(message) = message {
            self.findings.push(Finding::of_file(
                &file,
                Place { line: 1, column: 1 },
                message,
            ));
        }
    }

    /// A document that is no YAML: an error if it is one of ours, else it is said that it is passed over.
    fn unreadable(&mut self, file: &Path, ours: bool, problems: Vec<yaml::Problem>) {
        if ours {
            let problems = problems.into_iter();
            self.findings
                .extend(problems.map(|problem| Finding::of_yaml(file, None, problem)));
        } else if let Some(mut problem) = problems.into_iter().next() {
            problem.message.push_str(" (the file is skipped)");
            self.findings.push(Finding {
                severity: Severity::Warning,
                ..Finding::of_yaml(file, None, problem)
            });
        }
    }

    fn declare(&mut self, file: &Path, root: Node, found: Found, options: &Options) {
        let mut document = root.value.to_json();
        if let (Some(namespace), Some(metadata)) = (
            &options.namespace,
            document
                .get_mut("metadata")
                .and_then(serde_json::Value::as_object_mut),
        ) {
            metadata
                .entry("namespace")
                .or_insert_with(|| namespace.as_str().into());
        }
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
        };
        let namespace = match text("/metadata/namespace") {
            "" => tidemill_crds::compile::DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        let report = manifest::lint(&document);
        let Found { problems, warnings } = found;
        let mut declared = Declared {
            kind: text("/kind").parse().ok(),
            namespace: namespace.to_owned(),
            name: text("/metadata/name").to_owned(),
            file: file.to_owned(),
            place: root.place,
            plan: report.plan.filter(|_| problems.is_empty()),
            bindings: Vec::new(),
            root,
        };
        let shown = declared.shown();
        // What YAML has eaten isn't judged a second time.
        let eaten: BTreeSet<Place> = problems.iter().map(|problem| problem.place).collect();
        let eaten_paths: BTreeSet<&str> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .filter(|path| !path.is_empty())
            .collect();
        let errors = report
            .errors
            .iter()
            .map(|problem| declared.finding(Severity::Error, problem));
        let errors = errors.filter(|finding| {
            !eaten.contains(&finding.place) && !eaten_paths.contains(finding.path.as_str())
        });
        self.findings.extend(errors);
        self.findings.extend(
            report
                .warnings
                .iter()
                .map(|problem| declared.finding(Severity::Warning, problem)),
        );
        for InCluster { problem, needed } in &report.in_cluster {
            match (options.run_here, needed) {
                (false, _) => {}
                (true, true) => {
                    declared.plan = None;
                    self.findings
                        .push(declared.finding(Severity::Error, problem));
                }
                (true, false) => self
                    .findings
                    .push(declared.finding(Severity::Warning, problem)),
            }
        }
        self.findings.extend(
            problems
                .into_iter()
                .map(|problem| Finding::of_yaml(file, Some(&shown), problem)),
        );
        let warnings = warnings
            .into_iter()
            .map(|problem| Finding::of_yaml(file, Some(&shown), problem));
        self.findings.extend(warnings.map(|finding| Finding {
            severity: Severity::Warning,
            ..finding
        }));
        self.resources.push(declared);
    }

    fn refuse_repeated(&mut self) {
        let mut first: BTreeMap<_, (PathBuf, Place)> = BTreeMap::new();
        for declared in &mut self.resources {
            if declared.kind.is_none() || declared.name.is_empty() {
                continue;
            }
            let here = (declared.file.clone(), declared.place);
            let Some((file, place)) = first.get(&declared.identity()) else {
                first.insert(declared.identity(), here);
                continue;
            };
            declared.plan = None;
            self.findings.push(Finding {
                severity: Severity::Error,
                file: declared.file.clone(),
                place: declared.root.place_of(finding::steps(
                    &FieldPath::root().field("metadata").field("name"),
                )),
                resource: Some(declared.shown()),
                path: "metadata.name".to_owned(),
                message: format!(
                    "{} is declared in {}:{} too; remove one, or give it another name",
                    declared.shown(),
                    file.display(),
                    place.line
                ),
            });
        }
    }

    /// Finds the streams that definitions name, and streams that collide.
    fn bind(&mut self, missing: Missing) {
        let mut streams = Streams::new();
        let mut broken: BTreeSet<StreamRef> = BTreeSet::new();
        for declared in &self.resources {
            match (&declared.plan, declared.kind) {
                (Some(Plan::EventStream(plan)), _) => {
                    streams.insert(plan.stream.clone(), (**plan).clone());
                }
                // A misspelt kind may be this one too: that is said where it stands.
                (None, Some(ResourceKind::EventStream) | None) => {
                    broken.insert(StreamRef {
                        namespace: declared.namespace.clone(),
                        name: declared.name.clone(),
                    });
                }
                _ => {}
            }
        }
        for conflict in together::conflicts(&streams) {
            for declared in &mut self.resources {
                if matches!(&declared.plan, Some(Plan::EventStream(plan)) if plan.stream == conflict.stream)
                {
                    declared.plan = None;
                    self.findings
                        .push(declared.finding(Severity::Error, &conflict.problem));
                }
            }
        }
        self.refuse_taken_names();
        for declared in &mut self.resources {
            let (bound, uses) = match &declared.plan {
                Some(Plan::Projection(plan)) => (
                    together::bind_projection(plan, &streams, None),
                    plan.streams.clone(),
                ),
                Some(Plan::Saga(plan)) => (
                    together::bind_saga(plan, &streams, None),
                    plan.streams.clone(),
                ),
                Some(Plan::EventStream(_)) | None => continue,
            };
            if let Some(Plan::Projection(plan)) = &declared.plan {
                let warned = together::uncountable(plan, &streams);
                let warned = warned
                    .iter()
                    .map(|problem| declared.finding(Severity::Warning, problem));
                self.findings.extend(warned);
            }
            let problems = match bound {
                Ok(bindings) => {
                    declared.bindings = bindings;
                    continue;
                }
                Err(problems) => problems,
            };
            let mut fatal = false;
            for problem in problems {
                let unknown = uses
                    .iter()
                    .find(|used| used.path == problem.path && !streams.contains_key(&used.stream));
                let severity = match unknown {
                    // Its own errors are said where it stands.
                    Some(used) if broken.contains(&used.stream) => {
                        fatal = true;
                        continue;
                    }
                    Some(_) if missing == Missing::Warning => Severity::Warning,
                    _ => Severity::Error,
                };
                fatal |= severity == Severity::Error;
                self.findings.push(declared.finding(severity, &problem));
            }
            if fatal {
                declared.plan = None;
            }
        }
    }
}

impl Manifests {
    /// Refuses streams, logs and rows whose JetStream names are another's.
    fn refuse_taken_names(&mut self) {
        let planned = self.resources.iter().enumerate();
        let planned: Vec<(usize, &Plan)> = planned
            .filter_map(|(index, declared)| Some((index, declared.plan.as_ref()?)))
            .collect();
        let plans: Vec<&Plan> = planned.iter().map(|(_, plan)| *plan).collect();
        let conflicts = together::name_conflicts(&plans).into_iter();
        let conflicts: Vec<(usize, Problem)> = conflicts
            .filter_map(|conflict| Some((planned.get(conflict.index)?.0, conflict.problem)))
            .collect();
        for (index, problem) in conflicts {
            if let Some(declared) = self.resources.get_mut(index) {
                declared.plan = None;
                self.findings
                    .push(declared.finding(Severity::Error, &problem));
            }
        }
    }
}

/// Whether a text is meant as one of ours, readable or not.
fn looks_like_ours(text: &str) -> bool {
    text.contains(GROUP) || text.lines().any(has_our_kind)
}

fn has_our_kind(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '-', '{']);
    let kind = line.strip_prefix("kind:").map(str::trim);
    kind.is_some_and(|kind| {
        kind.trim_matches(['"', '\''])
            .parse::<ResourceKind>()
            .is_ok()
    })
}

/// Ours by its group, or by its kind with a group that is nearly ours or absent.
fn claims_to_be_ours(root: &Node) -> bool {
    let text = |key: &str| root.get(key).and_then(Node::as_text).unwrap_or_default();
    let version = text("apiVersion");
    let our_kind = text("kind").parse::<ResourceKind>().is_ok();
    version.split('/').next() == Some(GROUP)
        || (our_kind && (version.is_empty() || version.contains("tide")))
}

#[cfg(test)]
mod tests;

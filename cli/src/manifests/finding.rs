//! One thing that is wrong or surprising in a manifest.

use crate::yaml::{self, Place, Step};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};
use tidemill_crds::{FieldPath, Segment};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// It doesn't run like this.
    Error,
    /// It runs, and is likely not meant.
    Warning,
}

/// Something found. Shown as `file:line:column: resource: field path: what is wrong; what would do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) file: PathBuf,
    pub(crate) place: Place,
    /// The resource, such as `Saga shop/orders`, if it is known.
    pub(crate) resource: Option<String>,
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Finding {
    pub(super) fn of_file(file: &Path, place: Place, message: String) -> Self {
        Finding {
            severity: Severity::Error,
            file: file.to_owned(),
            place,
            resource: None,
            path: String::new(),
            message,
        }
    }

    pub(super) fn of_yaml(file: &Path, resource: Option<&str>, problem: yaml::Problem) -> Self {
        Finding {
            resource: resource.map(str::to_owned),
            path: problem.path,
            ..Self::of_file(file, problem.place, problem.message)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: ",
            self.file.display(),
            self.place.line,
            self.place.column
        )?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        // One without a name is told by its line only.
        if let Some(resource) = self.resource.as_ref().filter(|shown| !shown.ends_with('/')) {
            write!(f, "{resource}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Finding", 6)?;
        fields.serialize_field("file", &self.file.to_string_lossy())?;
        fields.serialize_field("line", &self.place.line)?;
        fields.serialize_field("column", &self.place.column)?;
        fields.serialize_field("resource", &self.resource)?;
        fields.serialize_field("path", &self.path)?;
        fields.serialize_field("message", &self.message)?;
        fields.end()
    }
}

/// A field path as the tree of values takes it.
pub(super) fn steps(path: &FieldPath) -> impl Iterator<Item = Step<'_>> {
    path.segments().iter().map(|segment| match segment {
        Segment::Field(name) => Step::Key(name),
        Segment::Index(index) => Step::Item(*index),
    })
}

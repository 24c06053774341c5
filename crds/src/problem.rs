//! What is wrong with a resource, and where.

use std::fmt;

/// A place in a document: the fields and indices that lead there from its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// An entry of a list, counted from 0.
    Index(usize),
    /// A field of an object, or a key of a map.
    Field(String),
}

impl FieldPath {
    /// The whole document.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The spec.
    #[must_use]
    pub fn spec() -> Self {
        Self::root().field("spec")
    }

    /// A field of what is here.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    /// An entry of the list that is here, counted from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// What leads here, from the root.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// Reads what the rules of a schema name: fields joined by dots, indices in brackets. Such fields hold neither.
    pub(crate) fn of_rule(text: &str) -> Self {
        let mut segments = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (field, indices) = part.split_once('[').unwrap_or((part, ""));
            if !field.is_empty() {
                segments.push(Segment::Field(field.to_owned()));
            }
            let indices = indices.split('[').map(|index| index.trim_end_matches(']'));
            segments.extend(
                indices
                    .filter_map(|index| index.parse().ok())
                    .map(Segment::Index),
            );
        }
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Field(name) if is_plain(name) && at == 0 => f.write_str(name)?,
                Segment::Field(name) if is_plain(name) => write!(f, ".{name}")?,
                Segment::Field(name) => write!(f, "['{}']", name.escape_debug())?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_')
}

/// What kind of fault a problem is: a stable word for conditions, events and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not of the form that the schema and its rules ask for.
    Malformed,
    /// Good, but this version doesn't run it.
    NotInThisVersion,
    /// An expression doesn't compile.
    Expression,
    /// Names something that isn't there, or may not be used here.
    Reference,
    /// Would run, and go wrong: lose a compensation, read what may not be there, give rows that depend on chance.
    Unsound,
    /// Two things claim the same.
    Conflict,
}

impl Reason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::NotInThisVersion => "NotInThisVersion",
            Self::Expression => "Expression",
            Self::Reference => "Reference",
            Self::Unsound => "Unsound",
            Self::Conflict => "Conflict",
        }
    }
}

/// One thing that is wrong with a resource, or (as a warning) likely to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where, such as `spec.steps[1].request.subject`; the root for the whole document.
    pub path: FieldPath,
    /// What kind of fault it is.
    pub reason: Reason,
    /// What is wrong, and what would do.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(path: FieldPath, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            path,
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.segments().is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_people_write_them() {
        let path = FieldPath::spec().field("steps").index(1).field("request");
        assert_eq!(path.to_string(), "spec.steps[1].request");
        assert_eq!(
            path.field("a-b").field("c").to_string(),
            "spec.steps[1].request['a-b'].c"
        );
        assert_eq!(FieldPath::root().to_string(), "");
        assert_eq!(FieldPath::of_rule("spec.steps[1].request"), path);
        assert_eq!(FieldPath::of_rule(""), FieldPath::root());
    }
}

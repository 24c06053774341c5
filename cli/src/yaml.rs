//! YAML as kubectl reads it, with the place of every value.
//!
//! kubectl reads YAML 1.1 in a dialect of its own: an unquoted key `on` becomes the key `true`, and a column is lost in
//! silence. So whatever YAML 1.1, YAML 1.2 and kubectl don't read alike is refused here, with its place and the cure
//! ([`scalar`]). What is accepted means the same to everybody.
//!
//! Limits, so that no file can exhaust us: [`FILE_BYTES_MAX`], [`NODES_MAX`] (aliases count as often as they are used),
//! [`DEPTH_MAX`], [`DOCUMENTS_MAX`].

mod read;
pub(crate) mod scalar;
pub(crate) mod tree;

pub(crate) use read::read;
pub(crate) use tree::{Node, Place, Step};

/// Largest file read, in bytes. Kubernetes keeps no object above 1.5 MiB.
pub(crate) const FILE_BYTES_MAX: usize = 4 << 20;
/// Most values in one file, each use of an alias counted in full.
pub(crate) const NODES_MAX: usize = 200_000;
/// Deepest nesting; the schemas need about 15 levels, data in templates may have more.
pub(crate) const DEPTH_MAX: usize = 64;
/// Most documents in one file.
pub(crate) const DOCUMENTS_MAX: usize = 1_000;
/// After so many problems the rest of a file is not read: nobody reads more.
pub(crate) const PROBLEMS_MAX: usize = 200;

/// One document of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    /// Its content; nothing if it is empty or could not be read.
    pub(crate) root: Option<Node>,
    /// What is wrong with its YAML.
    pub(crate) problems: Vec<Problem>,
    /// What is right but surprising.
    pub(crate) warnings: Vec<Problem>,
}

/// Something about the YAML itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) place: Place,
    /// The field, such as `spec.handlers[0].set`; empty where there is none.
    pub(crate) path: String,
    /// What is wrong, and what would do.
    pub(crate) message: String,
}

//! Collects what is wrong while a spec is compiled, so that all of it is said at once.

use std::fmt::Display;

use super::{InCluster, Report};
use crate::problem::{FieldPath, Problem, Reason};

#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    in_cluster: Vec<InCluster>,
}

impl Findings {
    pub(super) fn error(&mut self, path: &FieldPath, reason: Reason, message: impl Into<String>) {
        self.errors
            .push(Problem::new(path.clone(), reason, message));
    }

    pub(super) fn warn(&mut self, path: &FieldPath, reason: Reason, message: impl Into<String>) {
        self.warnings
            .push(Problem::new(path.clone(), reason, message));
    }

    /// A field is there that this version doesn't run.
    pub(super) fn not_yet(&mut self, path: &FieldPath, instead: &str) {
        self.error(
            path,
            Reason::NotInThisVersion,
            format!("not in this version: {instead}"),
        );
    }

    /// A field is there that runs in a cluster only; `dev` refuses it.
    pub(super) fn needs_cluster(&mut self, path: &FieldPath, otherwise: &str) {
        self.in_cluster(path, otherwise, true);
    }

    /// A field is there that runs in a cluster only; without one it is `otherwise`.
    pub(super) fn unlike_dev(&mut self, path: &FieldPath, otherwise: &str) {
        self.in_cluster(path, otherwise, false);
    }

    fn in_cluster(&mut self, path: &FieldPath, otherwise: &str, needed: bool) {
        let message = format!("only in a cluster: {otherwise}");
        self.in_cluster.push(InCluster {
            problem: Problem::new(path.clone(), Reason::NotInThisVersion, message),
            needed,
        });
    }

    /// The value of a field, or the error that it is.
    pub(super) fn take<T, E: Display>(
        &mut self,
        path: &FieldPath,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.error(path, Reason::Malformed, error.to_string()))
            .ok()
    }

    /// `plan` is looked at only when there are no errors, so it may hold stand-ins for what couldn't be compiled.
    pub(super) fn report<T>(mut self, plan: T) -> Report<T> {
        self.errors.sort();
        self.errors.dedup();
        self.warnings.sort();
        self.warnings.dedup();
        self.in_cluster.sort();
        let plan = if self.errors.is_empty() {
            Some(plan)
        } else {
            None
        };
        Report {
            plan,
            errors: self.errors,
            warnings: self.warnings,
            in_cluster: self.in_cluster,
        }
    }
}

//! `kind: List`: several resources in one document, as `kubectl get -o yaml` writes them and `kubectl apply` takes them.

use crate::yaml::tree::Value;
use crate::yaml::{Node, Problem};

/// What is wrong with a document's YAML, and what is surprising.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// The items of a list, each with what was found in it; another document is itself. Places are those in the file.
pub(super) fn items(root: Node, mut found: Found) -> Vec<(Node, Found)> {
    if root.get("kind").and_then(Node::as_text) != Some("List") {
        return vec![(root, found)];
    }
    let Some(Value::List(items)) = root.get("items").map(|items| items.value.clone()) else {
        return Vec::new();
    };
    let mut listed = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let of_item = Found {
            problems: taken(&mut found.problems, index),
            warnings: taken(&mut found.warnings, index),
        };
        listed.push((item, of_item));
    }
    // What is wrong around the items is wrong with what kubectl makes of them: it is said with the first.
    if let Some((_, first)) = listed.first_mut() {
        first.problems.append(&mut found.problems);
    }
    listed
}

/// Takes out what is about an item, with its path from there.
fn taken(problems: &mut Vec<Problem>, index: usize) -> Vec<Problem> {
    let prefix = format!("items[{index}]");
    let of_item = |problem: &mut Problem| {
        let rest = problem.path.strip_prefix(&prefix)?;
        let path = match rest.strip_prefix('.') {
            Some(path) => path,
            None if rest.is_empty() || rest.starts_with('[') => rest,
            None => return None,
        };
        Some(path.to_owned())
    };
    let mut of = Vec::new();
    problems.retain_mut(|problem| match of_item(problem) {
        Some(path) => {
            problem.path = path;
            of.push(problem.clone());
            false
        }
        None => true,
    });
    of
}

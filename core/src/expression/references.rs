//! Which paths an expression reads, and which of them something guards.

use super::node::{Loop, Node, Path, Root, push_field};
use crate::json::Value;

/// A path that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The root variable and the constant fields that follow it, such as `["event", "data", "total"]`.
    pub path: Vec<String>,
    /// Whether a computed index follows, so that anything below the path may be read.
    pub dynamic: bool,
    /// Whether it stands only in `has()`, which asks whether the last field is there.
    pub tested: bool,
}

impl Reference {
    fn new(path: &Path) -> Reference {
        let path = std::iter::once(&path.name)
            .chain(&path.fields)
            .map(|part| String::from(&**part))
            .collect();
        Reference {
            path,
            dynamic: false,
            tested: false,
        }
    }

    fn display(&self) -> String {
        let mut text = self.path.first().cloned().unwrap_or_default();
        for field in self.path.iter().skip(1) {
            push_field(&mut text, field);
        }
        if self.dynamic {
            text.push_str("[…]");
        }
        text
    }

    /// Whether reading it may read what is at `prefix`: it lies at or below it, or an index that isn't known may lead there.
    /// (Copying a whole map from above reads nothing that isn't there.)
    fn reaches(&self, prefix: &[&str]) -> bool {
        let common = self
            .path
            .iter()
            .zip(prefix)
            .take_while(|(a, b)| a == *b)
            .count();
        common == prefix.len() || (self.dynamic && common == self.path.len())
    }
}

/// All paths, each once, in the order of the source.
pub(super) fn collect(node: &Node) -> Vec<Reference> {
    let mut references = Vec::new();
    walk(node, &mut |reference| {
        if !references.contains(&reference) {
            references.push(reference);
        }
    });
    references
}

fn walk(node: &Node, found: &mut dyn FnMut(Reference)) {
    if let Some(reference) = own(node) {
        found(reference);
    }
    children(node, &mut |child| walk(child, found));
}

/// The reference that a node itself is, as opposed to those within it.
fn own(node: &Node) -> Option<Reference> {
    match node {
        Node::Path(path) if matches!(path.root, Root::Variable(_)) => Some(Reference::new(path)),
        Node::Has { operand, field } => match &**operand {
            Node::Path(path) if matches!(path.root, Root::Variable(_)) => {
                let mut reference = Reference {
                    tested: true,
                    ..Reference::new(path)
                };
                reference.path.push(String::from(&**field));
                Some(reference)
            }
            _ => None,
        },
        Node::Index { operand, index } => match (&**operand, &**index) {
            (_, Node::Literal(Value::Number(_))) => None,
            (Node::Path(path), _) if matches!(path.root, Root::Variable(_)) => Some(Reference {
                dynamic: true,
                ..Reference::new(path)
            }),
            _ => None,
        },
        _ => None,
    }
}

/// Calls `each` with the nodes within, leaving out a path that is only a part of what [`own`] tells.
fn children(node: &Node, each: &mut dyn FnMut(&Node)) {
    match node {
        Node::Literal(_) | Node::Path(_) => {}
        Node::Has { operand, .. } => {
            if own(node).is_none() {
                each(operand);
            }
        }
        Node::Index { operand, index } => {
            if own(node).is_none() {
                each(operand);
            }
            each(index);
        }
        Node::Field { operand, .. } | Node::Not(operand) | Node::Negate(operand) => each(operand),
        Node::And(left, right) | Node::Or(left, right) | Node::Binary { left, right, .. } => {
            each(left);
            each(right);
        }
        Node::Conditional {
            condition,
            then,
            otherwise,
        } => {
            each(condition);
            each(then);
            each(otherwise);
        }
        Node::Call {
            arguments: nodes, ..
        }
        | Node::List(nodes) => nodes.iter().for_each(each),
        Node::Map(entries) => {
            for (key, value) in entries {
                each(key);
                each(value);
            }
        }
        Node::Loop(turns) => {
            let Loop {
                range,
                condition,
                element,
                ..
            } = &**turns;
            each(range);
            condition.iter().chain(element).for_each(each);
        }
    }
}

/// See [`super::Expression::unguarded`].
pub(super) fn unguarded(node: &Node, prefix: &[&str]) -> Option<String> {
    match node {
        // The rest of the path up to the tested field must be there.
        Node::Has { operand, .. } if own(node).is_some() => unguarded(operand, prefix),
        Node::And(left, right) => beside(left, right, true, prefix),
        Node::Or(left, right) => beside(left, right, false, prefix),
        Node::Conditional {
            condition,
            then,
            otherwise,
        } => unguarded(condition, prefix)
            .or_else(|| {
                if proves(condition, true, prefix) {
                    None
                } else {
                    unguarded(then, prefix)
                }
            })
            .or_else(|| {
                if proves(condition, false, prefix) {
                    None
                } else {
                    unguarded(otherwise, prefix)
                }
            }),
        node => match own(node).filter(|reference| reference.reaches(prefix)) {
            Some(reference) => Some(reference.display()),
            None => {
                let mut first = None;
                children(node, &mut |child| {
                    if first.is_none() {
                        first = unguarded(child, prefix);
                    }
                });
                first
            }
        },
    }
}

/// Operands of `&&` guard each other by what they prove when true, those of `||` by what they prove when false: an error beside a side that
/// decides is absorbed, in either order.
fn beside(left: &Node, right: &Node, when: bool, prefix: &[&str]) -> Option<String> {
    let of_left = if proves(right, when, prefix) {
        None
    } else {
        unguarded(left, prefix)
    };
    of_left.or_else(|| {
        if proves(left, when, prefix) {
            None
        } else {
            unguarded(right, prefix)
        }
    })
}

/// Whether `condition` being `outcome` proves that there is something at `prefix`.
fn proves(condition: &Node, outcome: bool, prefix: &[&str]) -> bool {
    match condition {
        Node::Has { .. } => {
            outcome && own(condition).is_some_and(|reference| reference.reaches(prefix))
        }
        Node::Not(operand) => proves(operand, !outcome, prefix),
        Node::And(left, right) if outcome => {
            proves(left, true, prefix) || proves(right, true, prefix)
        }
        Node::Or(left, right) if !outcome => {
            proves(left, false, prefix) || proves(right, false, prefix)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expression, Scope};

    fn compile(source: &str) -> Expression {
        Expression::compile(source, &Scope::new(&["event", "steps", "input"])).unwrap()
    }

    #[test]
    fn references_are_roots_with_their_constant_fields() {
        let check = |source: &str, expected: &[&str]| {
            let found: Vec<String> = compile(source)
                .references()
                .map(|reference| {
                    format!(
                        "{}{}",
                        if reference.tested { "?" } else { "" },
                        reference.display()
                    )
                })
                .collect();
            assert_eq!(found, expected, "{source}");
        };
        check("1", &[]);
        check(
            "event.data.total > 0 && event.data['order-id'] != ''",
            &["event.data.total", "event.data['order-id']"],
        );
        check("event.a + event.a", &["event.a"]);
        check(
            "event.items.map(i, i.price * event.rate)",
            &["event.items", "event.rate"],
        );
        check("event.items.all(event, event.x)", &["event.items"]);
        check("event.items[0].sku", &["event.items"]);
        check("steps[input.name].output", &["steps[…]", "input.name"]);
        check(
            "has(steps.ship.output) ? steps.ship.output.id : ''",
            &["?steps.ship.output", "steps.ship.output.id"],
        );
        check("{'a': event}", &["event"]);
        check("has(event.a[input.b].c)", &["event.a[…]", "input.b"]);
    }

    #[test]
    fn unguarded_reads_are_found() {
        let check = |source: &str, expected: Option<&str>| {
            assert_eq!(
                compile(source)
                    .unguarded(&["steps", "ship", "output"])
                    .as_deref(),
                expected,
                "{source}"
            );
        };
        // Nothing to guard.
        check("input.a", None);
        check("steps.ship.commandId", None);
        check("steps.reserve.output.id", None);
        check("steps.ship", None);
        check("steps.map(ship, ship)", None);
        // Bare.
        check("steps.ship.output", Some("steps.ship.output"));
        check(
            "{'a': [steps.ship.output.tracking]}",
            Some("steps.ship.output.tracking"),
        );
        check(
            "input.items.all(i, i == steps.ship.output)",
            Some("steps.ship.output"),
        );
        check(
            "size(steps.ship.output.list)",
            Some("steps.ship.output.list"),
        );
        check("steps[input.name].output", Some("steps[…]"));
        check("steps.ship['output'].x", Some("steps.ship.output.x"));
        check("steps.reserve.output[input.name]", None);
        // Guarded.
        check("has(steps.ship.output)", None);
        check(
            "has(steps.ship.output) ? steps.ship.output.tracking : ''",
            None,
        );
        check(
            "!has(steps.ship.output) ? '' : steps.ship.output.tracking",
            None,
        );
        check("has(steps.ship.output) && steps.ship.output.ok", None);
        check("steps.ship.output.ok && has(steps.ship.output)", None);
        check("!has(steps.ship.output) || steps.ship.output.ok", None);
        check(
            "input.a && has(steps.ship.output) ? steps.ship.output : null",
            None,
        );
        check(
            "has(steps.ship.output) && has(steps.ship.output.id) ? steps.ship.output.id : ''",
            None,
        );
        check(
            "has(steps.ship.output) ? (input.a ? steps.ship.output.a : 1) : 2",
            None,
        );
        // Guards that prove nothing, or something else.
        check(
            "has(steps.ship.output) ? '' : steps.ship.output",
            Some("steps.ship.output"),
        );
        check(
            "has(steps.ship.output) || input.a ? steps.ship.output : 1",
            Some("steps.ship.output"),
        );
        check(
            "has(steps.ship.output) || steps.ship.output.ok",
            Some("steps.ship.output.ok"),
        );
        check(
            "has(steps.reserve.output) ? steps.ship.output : 1",
            Some("steps.ship.output"),
        );
        check(
            "has(steps.ship) ? steps.ship.output : 1",
            Some("steps.ship.output"),
        );
        check(
            "(has(steps.ship.output) ? 1 : 2) + steps.ship.output",
            Some("steps.ship.output"),
        );
        // Such a has() fails itself where there is no output.
        check(
            "has(steps.ship.output.id) ? steps.ship.output.id : ''",
            Some("steps.ship.output"),
        );
    }
}

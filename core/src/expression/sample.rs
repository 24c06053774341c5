//! An example of what expressions read: a value in which each finds its fields, of types that it can work with.
//!
//! It is for people to begin with. What can't be told from the expressions is a guess, and an expression may still fail on it.

use super::Expression;
use super::functions::Function;
use super::node::{Loop, LoopKind, Node, Operator, Root};
use crate::json::{Number, Object, Value};
use std::collections::BTreeMap;

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    names: Vec<String>,
    shape: Shape,
}

/// What a value must be.
#[derive(Clone, Debug, Default, PartialEq)]
enum Shape {
    /// Anything.
    #[default]
    Unknown,
    /// Something that has a size.
    Sized,
    Scalar {
        value: Value,
        /// The expression asks for this very value, not for one of its type.
        meant: bool,
    },
    List(Box<Shape>),
    Object(BTreeMap<Box<str>, Shape>),
}

/// A step on the way to a value.
#[derive(Clone, Debug)]
enum Part {
    Field(Box<str>),
    /// Any element of a list.
    Element,
}

/// Where a value stands, from the variable.
type Place = Vec<Part>;

/// What the variables of loops are elements of, by nesting; nothing for what isn't read from the variable.
type Locals = Vec<Option<Place>>;

impl Sample {
    /// An example of what these variables are: all of them the same value.
    #[must_use]
    pub fn of(names: &[&str]) -> Sample {
        Sample {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            shape: Shape::Unknown,
        }
    }

    /// Adds what a condition reads; it should hold.
    pub fn add_condition(&mut self, expression: &Expression) {
        self.walk(
            expression.node(),
            &meant(Value::Bool(true)),
            &mut Vec::new(),
        );
    }

    /// Adds what an expression reads that gives a number.
    pub fn add_number(&mut self, expression: &Expression) {
        self.walk(expression.node(), &number(), &mut Vec::new());
    }

    /// Adds what an expression reads that may give anything.
    pub fn add(&mut self, expression: &Expression) {
        self.walk(expression.node(), &Shape::Unknown, &mut Vec::new());
    }

    /// The example at a field of the variable; an empty object if nothing there is read.
    #[must_use]
    pub fn field(&self, name: &str) -> Value {
        match &self.shape {
            Shape::Object(fields) => fields.get(name).map(|shape| shape.value(name)),
            _ => None,
        }
        .unwrap_or_else(|| Value::Object(Object::new()))
    }

    /// Goes through a node of which `want` is expected.
    fn walk(&mut self, node: &Node, want: &Shape, locals: &mut Locals) {
        if let Some(place) = self.place(node, locals) {
            return self.shape.expect(&place, want.clone());
        }
        match node {
            Node::Literal(_) | Node::Path(_) => {}
            Node::Field { operand, .. } => self.walk(operand, &Shape::Unknown, locals),
            Node::Has { operand, .. } => {
                self.walk(operand, &Shape::Object(BTreeMap::new()), locals)
            }
            Node::Index { operand, index } => {
                self.walk(operand, &Shape::Unknown, locals);
                self.walk(index, &Shape::Unknown, locals);
            }
            Node::Not(operand) => {
                let holds = matches!(
                    want,
                    Shape::Scalar {
                        value: Value::Bool(false),
                        ..
                    }
                );
                self.walk(operand, &meant(Value::Bool(holds)), locals);
            }
            Node::Negate(operand) => self.walk(operand, &number(), locals),
            Node::And(left, right) | Node::Or(left, right) => {
                self.walk(left, want, locals);
                self.walk(right, want, locals);
            }
            Node::Conditional {
                condition,
                then,
                otherwise,
            } => {
                self.walk(condition, &meant(Value::Bool(true)), locals);
                self.walk(then, want, locals);
                self.walk(otherwise, want, locals);
            }
            Node::Binary {
                operator,
                left,
                right,
            } => {
                let (of_left, of_right) = operands(*operator, left, right, want);
                self.walk(left, &of_left, locals);
                self.walk(right, &of_right, locals);
            }
            Node::Call {
                function,
                arguments,
            } => {
                let first = arguments.first();
                for (index, argument) in arguments.iter().enumerate() {
                    let shape = argument_of(*function, index, arguments.len(), arguments.get(1));
                    let listed =
                        index == 0 && first.is_some_and(|node| matches!(node, Node::List(_)));
                    self.walk(
                        argument,
                        if listed { &Shape::Unknown } else { &shape },
                        locals,
                    );
                }
            }
            Node::List(nodes) => {
                for node in nodes {
                    self.walk(node, &Shape::Unknown, locals);
                }
            }
            Node::Map(entries) => {
                for (key, value) in entries {
                    self.walk(key, &text(), locals);
                    self.walk(value, &Shape::Unknown, locals);
                }
            }
            Node::Loop(turns) => self.turns(turns, locals),
        }
    }

    fn turns(&mut self, turns: &Loop, locals: &mut Locals) {
        let list = Shape::List(Box::default());
        self.walk(&turns.range, &list, locals);
        let element = self.place(&turns.range, locals).map(|mut place| {
            place.push(Part::Element);
            place
        });
        locals.truncate(turns.local);
        locals.push(element);
        if let Some(condition) = &turns.condition {
            let holds = match turns.kind {
                LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => meant(Value::Bool(true)),
                LoopKind::Map | LoopKind::Filter => boolean(),
            };
            self.walk(condition, &holds, locals);
        }
        if let Some(element) = &turns.element {
            self.walk(element, &Shape::Unknown, locals);
        }
        locals.truncate(turns.local);
    }

    /// Where a node's value stands, if it is read from the variable by a way that is known.
    fn place(&self, node: &Node, locals: &Locals) -> Option<Place> {
        match node {
            Node::Path(path) => {
                let mut place = match path.root {
                    Root::Variable(_) if self.names.iter().any(|name| **name == *path.name) => {
                        Vec::new()
                    }
                    Root::Variable(_) => return None,
                    Root::Local(nesting) => locals.get(nesting)?.clone()?,
                };
                place.extend(path.fields.iter().cloned().map(Part::Field));
                Some(place)
            }
            Node::Field { operand, field } => {
                let mut place = self.place(operand, locals)?;
                place.push(Part::Field(field.clone()));
                Some(place)
            }
            Node::Index { operand, index } => {
                let mut place = self.place(operand, locals)?;
                place.push(match &**index {
                    Node::Literal(Value::Number(_)) => Part::Element,
                    Node::Literal(Value::String(field)) => Part::Field(field.clone()),
                    _ => return None,
                });
                Some(place)
            }
            _ => None,
        }
    }
}

impl Shape {
    /// What stands at a place is to be this too.
    fn expect(&mut self, place: &[Part], what: Shape) {
        match place.split_first() {
            None => self.merge(what),
            Some((Part::Field(name), rest)) => {
                self.merge(Shape::Object(BTreeMap::new()));
                if let Shape::Object(fields) = self {
                    fields.entry(name.clone()).or_default().expect(rest, what);
                }
            }
            Some((Part::Element, rest)) => {
                self.merge(Shape::List(Box::default()));
                if let Shape::List(element) = self {
                    element.expect(rest, what);
                }
            }
        }
    }

    /// Takes on what is said more exactly; of two that contradict each other, the first holds.
    fn merge(&mut self, other: Shape) {
        let better = match (&*self, &other) {
            (_, Shape::Unknown) => false,
            (Shape::Unknown, _) => true,
            (Shape::Sized, Shape::Scalar { value, .. }) => value.as_str().is_some(),
            (Shape::Sized, Shape::List(_) | Shape::Object(_)) => true,
            (Shape::Scalar { .. }, Shape::List(_) | Shape::Object(_)) => true,
            (Shape::Scalar { meant: false, .. }, Shape::Scalar { meant, .. }) => *meant,
            (Shape::List(mine), Shape::List(other)) => {
                let mut element = mine.clone();
                element.merge((**other).clone());
                *self = Shape::List(element);
                return;
            }
            (Shape::Sized, Shape::Sized)
            | (Shape::Scalar { .. }, _)
            | (Shape::List(_) | Shape::Object(_), _) => false,
        };
        if better {
            *self = other;
        }
    }

    /// An example; the name of its field tells a little of what nothing else does.
    fn value(&self, name: &str) -> Value {
        match self {
            Shape::Unknown => Value::from(1_i64),
            Shape::Sized if name.ends_with('s') => Value::Array(vec![Value::from("text")]),
            Shape::Sized => Value::from("text"),
            Shape::Scalar { value, .. } => value.clone(),
            Shape::List(element) => Value::Array(vec![element.value("")]),
            Shape::Object(fields) => {
                let mut object = Object::new();
                for (name, shape) in fields {
                    object.insert(name.clone(), shape.value(name));
                }
                Value::Object(object)
            }
        }
    }
}

fn meant(value: Value) -> Shape {
    Shape::Scalar { value, meant: true }
}

fn of_type(value: Value) -> Shape {
    Shape::Scalar {
        value,
        meant: false,
    }
}

fn number() -> Shape {
    of_type(Value::from(1_i64))
}

fn text() -> Shape {
    of_type(Value::from("text"))
}

fn boolean() -> Shape {
    of_type(Value::Bool(true))
}

/// What the two sides of an operator are.
fn operands(operator: Operator, left: &Node, right: &Node, want: &Shape) -> (Shape, Shape) {
    let both = |shape: Shape| (shape.clone(), shape);
    match operator {
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            both(number())
        }
        Operator::Add if is_text(left) || is_text(right) => both(text()),
        Operator::Add => match (left, right, want) {
            (Node::List(_) | Node::Literal(Value::Array(_)), ..)
            | (_, Node::List(_) | Node::Literal(Value::Array(_)), _) => {
                both(Shape::List(Box::default()))
            }
            (_, _, Shape::Scalar { value, .. }) if value.as_str().is_some() => both(text()),
            _ => both(number()),
        },
        Operator::In => {
            let of_left = match right {
                Node::Literal(Value::Array(values)) => values
                    .first()
                    .map_or(Shape::Unknown, |value| meant(value.clone())),
                Node::List(nodes) => nodes.first().map_or(Shape::Unknown, same),
                _ => Shape::Unknown,
            };
            (of_left, Shape::List(Box::new(same(left))))
        }
        Operator::Equal => (same(right), same(left)),
        Operator::NotEqual => (other(right), other(left)),
        Operator::Less | Operator::LessOrEqual => (beyond(right, -1.0), beyond(left, 1.0)),
        Operator::Greater | Operator::GreaterOrEqual => (beyond(right, 1.0), beyond(left, -1.0)),
    }
}

/// What equals a node.
fn same(node: &Node) -> Shape {
    match node {
        Node::Literal(value) => meant(value.clone()),
        node if is_text(node) => text(),
        _ => Shape::Unknown,
    }
}

/// What differs from a node and is of its type.
fn other(node: &Node) -> Shape {
    match node {
        Node::Literal(Value::Number(_)) => beyond(node, 1.0),
        Node::Literal(Value::Bool(value)) => meant(Value::Bool(!value)),
        Node::Literal(Value::String(_)) => text(),
        Node::Literal(_) => Shape::Unknown,
        node => same(node),
    }
}

/// What is greater than a node, or less.
fn beyond(node: &Node, by: f64) -> Shape {
    match node {
        Node::Literal(Value::Number(than)) => {
            let value = Number::from_text(&format!("{:.0}", than.as_f64().floor() + by));
            value.map_or_else(number, |value| meant(Value::Number(value)))
        }
        Node::Literal(Value::String(_)) => text(),
        _ => Shape::Unknown,
    }
}

fn is_text(node: &Node) -> bool {
    match node {
        Node::Literal(value) => value.as_str().is_some(),
        Node::Binary {
            operator: Operator::Add,
            left,
            right,
        } => is_text(left) || is_text(right),
        Node::Call { function, .. } => matches!(
            function,
            Function::String
                | Function::LowerAscii
                | Function::UpperAscii
                | Function::Trim
                | Function::Join
                | Function::Replace
                | Function::Substring
        ),
        _ => false,
    }
}

/// What an argument of a function is, the target of a method being the first. `second`: the second one.
fn argument_of(function: Function, index: usize, count: usize, second: Option<&Node>) -> Shape {
    match function {
        Function::Size => Shape::Sized,
        Function::String => Shape::Unknown,
        Function::Min | Function::Max if count == 1 => Shape::List(Box::new(number())),
        Function::Int
        | Function::Double
        | Function::Min
        | Function::Max
        | Function::Abs
        | Function::Round
        | Function::Floor
        | Function::Ceil => number(),
        Function::Contains | Function::StartsWith | Function::EndsWith if index == 0 => {
            // A text that holds it, begins and ends with it.
            match second {
                Some(Node::Literal(part @ Value::String(_))) => meant(part.clone()),
                _ => text(),
            }
        }
        Function::Join if index == 0 => Shape::List(Box::new(text())),
        Function::Substring if index > 0 => number(),
        Function::Contains
        | Function::StartsWith
        | Function::EndsWith
        | Function::LowerAscii
        | Function::UpperAscii
        | Function::Trim
        | Function::Split
        | Function::Join
        | Function::Replace
        | Function::Substring => text(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bindings, Bound, Scope};
    use super::*;

    #[test]
    fn conditions_hold_on_their_example() {
        let mut wrong = Vec::new();
        for (source, data) in [
            ("event.data.total > 0", r#"{"total":1}"#),
            ("100 < event.data.total", r#"{"total":101}"#),
            ("event.data.total <= 0.5", r#"{"total":-1}"#),
            ("event.data.kind == 'gold'", r#"{"kind":"gold"}"#),
            ("event.data.kind != 'gold'", r#"{"kind":"text"}"#),
            ("!event.data.test", r#"{"test":false}"#),
            ("event.data.kind in ['a', 'b']", r#"{"kind":"a"}"#),
            ("'a' in event.data.tags", r#"{"tags":["a"]}"#),
            (
                "event.data.items[0].sku == 'x'",
                r#"{"items":[{"sku":"x"}]}"#,
            ),
            (
                "event.data.items.all(i, i.qty > 1 && i.size.unit.startsWith('c'))",
                r#"{"items":[{"qty":2,"size":{"unit":"c"}}]}"#,
            ),
            (
                "event.data.items.map(i, i.qty * i.price)[0] > 0",
                r#"{"items":[{"price":1,"qty":1}]}"#,
            ),
            (
                "event.data.boxes.exists(b, b.items.exists(i, i == b.best))",
                r#"{"boxes":[{"best":1,"items":[1]}]}"#,
            ),
            ("size(event.data.items) > 0", r#"{"items":["text"]}"#),
            ("size(event.data.book) > 0", r#"{"book":"text"}"#),
            (
                "event.data['order-id'] + '!' != ''",
                r#"{"order-id":"text"}"#,
            ),
            (
                "event.data.city.lowerAscii() + ', ' + event.data.street != ''",
                r#"{"city":"text","street":"text"}"#,
            ),
            (
                "has(event.data.address.country) && event.data.address.city != ''",
                r#"{"address":{"city":"text"}}"#,
            ),
            (
                "has(event.data.a.b) ? event.data.a.b > 3 : event.data.c",
                r#"{"a":{"b":4},"c":true}"#,
            ),
            // First read without knowing its type.
            (
                "event.data.a == event.data.b && event.data.a.x == 1",
                r#"{"a":{"x":1},"b":1}"#,
            ),
            (
                "event.data.n - 1 == 0 && min(event.data.all) < 3",
                r#"{"all":[1],"n":1}"#,
            ),
            ("true", "{}"),
            ("event.subject == 'o-1'", "{}"),
        ] {
            let expression = Expression::compile(source, &Scope::new(&["event"])).unwrap();
            let mut sample = Sample::of(&["event"]);
            sample.add_condition(&expression);
            let example = sample.field("data");
            if example.to_json() != data {
                wrong.push(format!("{source}: {} is not {data}", example.to_json()));
            }
            let mut event = Object::new();
            event.insert("data", example);
            event.insert("subject", "o-1");
            let event = Value::Object(event);
            // It can be worked with, and mostly it holds.
            let slots = [Bound::Value(&event)];
            let held = expression.evaluate_bool(&Bindings::new(&slots));
            let told_apart = source.contains("has(") || source.contains("data.b &&");
            if held != Ok(true) && !(told_apart && held == Ok(false)) {
                wrong.push(format!("{source}: {held:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn several_expressions_and_variables_give_one_example() {
        let scope = Scope::new(&["input", "steps", "event"]);
        let mut sample = Sample::of(&["event", "input"]);
        for source in [
            "input.data.items",
            "event.data.items[0].sku",
            "steps.a.output.x",
        ] {
            sample.add(&Expression::compile(source, &scope).unwrap());
        }
        sample.add_number(&Expression::compile("event.data.customer.credit", &scope).unwrap());
        assert_eq!(
            sample.field("data").to_json(),
            r#"{"customer":{"credit":1},"items":[{"sku":1}]}"#
        );
    }
}

//! The tree that is evaluated.

use super::functions::Function;
use crate::json::Value;

#[derive(Debug)]
pub(super) enum Node {
    Literal(Value),
    /// A variable and the constant fields that follow it.
    Path(Path),
    /// A field of something computed.
    Field {
        operand: Box<Node>,
        field: Box<str>,
    },
    /// `has(operand.field)`
    Has {
        operand: Box<Node>,
        field: Box<str>,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
    },
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    Binary {
        operator: Operator,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// The target of a method is its first argument.
    Call {
        function: Function,
        arguments: Vec<Node>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Loop(Box<Loop>),
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) root: Root,
    /// The root's name in the source.
    pub(super) name: Box<str>,
    pub(super) fields: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// Variable of the scope, by slot.
    Variable(usize),
    /// Variable of the loop at this nesting, from 0.
    Local(usize),
}

#[derive(Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Node,
    /// Nesting of its variable, as in [`Root::Local`].
    pub(super) local: usize,
    /// The condition; absent for `map(x, f)`.
    pub(super) condition: Option<Node>,
    /// What `map` puts into its list.
    pub(super) element: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl LoopKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            LoopKind::All => "all",
            LoopKind::Exists => "exists",
            LoopKind::ExistsOne => "exists_one",
            LoopKind::Map => "map",
            LoopKind::Filter => "filter",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Remainder => "%",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::In => "in",
        }
    }
}

impl Path {
    /// The path up to its field number `last`, as it would stand in a source.
    pub(super) fn until(&self, last: usize) -> String {
        let mut text = String::from(&*self.name);
        for field in self.fields.iter().take(last + 1) {
            push_field(&mut text, field);
        }
        text
    }
}

impl Node {
    /// The node as a path for messages: names and constants of the source, `…` for everything computed.
    pub(super) fn describe(&self) -> String {
        match self {
            Node::Path(path) => path.until(path.fields.len()),
            Node::Field { operand, field } => {
                let mut text = operand.describe();
                push_field(&mut text, field);
                text
            }
            Node::Index { operand, index } => match &**index {
                Node::Literal(Value::Number(number)) => format!("{}[{number}]", operand.describe()),
                _ => format!("{}[…]", operand.describe()),
            },
            _ => "…".to_owned(),
        }
    }
}

/// Appends a field to a path in the form in which a source would have it.
pub(super) fn push_field(path: &mut String, field: &str) {
    let plain = field.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && field
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_');
    if plain {
        path.push('.');
        path.push_str(field);
    } else {
        path.push_str("['");
        path.push_str(field);
        path.push_str("']");
    }
}

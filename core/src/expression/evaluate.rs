//! The evaluator: walks the tree over borrowed values and counts what it does.

use std::rc::Rc;

use super::arithmetic;
use super::bindings::Bindings;
use super::error::{EvaluationError, Limit, Types};
use super::functions::Function;
use super::item::{Item, List, Map, Text};
use super::node::{Loop, LoopKind, Node, Operator, Path, Root, push_field};
use super::{BYTES_MAX, LOOPS_MAX, STEPS_MAX};
use crate::planted::{Bug, planted};

/// What each built value counts, whatever the machine.
const VALUE_BYTES: usize = 16;

/// Text looked through for one step, in bytes.
const TEXT_PER_STEP: usize = 256;

/// One evaluation, or those of one template, with a common budget.
pub(super) struct Evaluator<'a> {
    vars: Bindings<'a>,
    /// Variables of the loops around, by nesting.
    locals: [Item<'a>; LOOPS_MAX],
    steps: u32,
    bytes: usize,
}

type Evaluated<'a> = Result<Item<'a>, EvaluationError>;

impl<'a> Evaluator<'a> {
    pub(super) fn new(vars: &Bindings<'a>) -> Evaluator<'a> {
        Evaluator {
            vars: *vars,
            locals: [const { Item::Null }; LOOPS_MAX],
            steps: 0,
            bytes: 0,
        }
    }

    pub(super) fn step(&mut self) -> Result<(), EvaluationError> {
        self.steps = self.steps.saturating_add(1);
        if self.steps > STEPS_MAX && !planted(Bug::BudgetOff) {
            Err(EvaluationError::BudgetExceeded(Limit::Steps))
        } else {
            Ok(())
        }
    }

    /// Counts text that is searched, counted or compared.
    pub(super) fn look_through(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        let steps = u32::try_from(bytes / TEXT_PER_STEP).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX {
            Err(EvaluationError::BudgetExceeded(Limit::Steps))
        } else {
            Ok(())
        }
    }

    /// Counts a value that is built, with so many bytes of text.
    pub(super) fn charge(&mut self, text: usize) -> Result<(), EvaluationError> {
        self.bytes = self.bytes.saturating_add(VALUE_BYTES).saturating_add(text);
        if self.bytes > BYTES_MAX && !planted(Bug::ResultUnlimited) {
            Err(EvaluationError::BudgetExceeded(Limit::Bytes))
        } else {
            Ok(())
        }
    }

    pub(super) fn evaluate(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.step()?;
        match node {
            Node::Literal(value) => Ok(Item::json(value)),
            Node::Path(path) => self.path(path),
            Node::Field { operand, field } => {
                let item = self.evaluate(operand)?;
                let missing = || {
                    let mut path = operand.describe();
                    push_field(&mut path, field);
                    path
                };
                member(&item, field, missing)
            }
            Node::Has { operand, field } => self.has(operand, field),
            Node::Index { operand, index } => self.index(operand, index),
            Node::Not(operand) => match self.evaluate(operand)? {
                Item::Bool(value) => Ok(Item::Bool(!value)),
                item => Err(EvaluationError::Types {
                    operation: "!",
                    found: Types(item.type_name(), None),
                    hint: "",
                }),
            },
            Node::Negate(operand) => {
                let item = self.evaluate(operand)?;
                arithmetic::negate(&item)
            }
            Node::And(left, right) => self.decide("&&", false, left, right),
            Node::Or(left, right) => self.decide("||", true, left, right),
            Node::Conditional {
                condition,
                then,
                otherwise,
            } => match self.evaluate(condition)? {
                Item::Bool(true) => self.evaluate(then),
                Item::Bool(false) => self.evaluate(otherwise),
                item => Err(EvaluationError::Types {
                    operation: "?:",
                    found: Types(item.type_name(), None),
                    hint: " as its condition",
                }),
            },
            Node::Binary {
                operator,
                left,
                right,
            } => {
                let left = self.evaluate(left)?;
                let right = self.evaluate(right)?;
                self.binary(*operator, &left, &right)
            }
            Node::Call {
                function,
                arguments,
            } => self.call(*function, arguments),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Loop(turns) => self.turns(turns),
        }
    }

    fn path(&mut self, path: &'a Path) -> Evaluated<'a> {
        let mut item = match path.root {
            Root::Local(index) => self.locals.get(index).cloned(),
            Root::Variable(slot) => Item::bound(self.vars.slot(slot)),
        }
        .ok_or_else(|| EvaluationError::NoSuchKey {
            path: String::from(&*path.name),
        })?;
        for (index, field) in path.fields.iter().enumerate() {
            item = member(&item, field, || path.until(index))?;
        }
        Ok(item)
    }

    fn has(&mut self, operand: &'a Node, field: &str) -> Evaluated<'a> {
        match self.evaluate(operand)? {
            Item::Map(map) => Ok(Item::Bool(map.get(field).is_some())),
            item => {
                let mut path = operand.describe();
                push_field(&mut path, field);
                Err(EvaluationError::NoFields {
                    path,
                    found: item.type_name(),
                })
            }
        }
    }

    fn index(&mut self, operand: &'a Node, index: &'a Node) -> Evaluated<'a> {
        let item = self.evaluate(operand)?;
        let key = self.evaluate(index)?;
        match (&item, &key) {
            // A computed key is data, so it isn't named.
            (Item::Map(map), Item::String(name)) => {
                map.get(name.as_str())
                    .ok_or_else(|| EvaluationError::NoSuchKey {
                        path: format!("{}[…]", operand.describe()),
                    })
            }
            (Item::List(list), Item::Int(_) | Item::Number(_)) => {
                let position = match &key {
                    Item::Int(value) => Some(*value),
                    Item::Number(number) => number.as_i64(),
                    _ => None,
                };
                let Some(position) = position else {
                    return Err(EvaluationError::Types {
                        operation: "[]",
                        found: Types("list", Some("double")),
                        hint: "; write int(x)",
                    });
                };
                let element = usize::try_from(position)
                    .ok()
                    .and_then(|position| list.get(position));
                element.ok_or(EvaluationError::NoSuchIndex {
                    index: position,
                    len: list.len(),
                })
            }
            _ => Err(EvaluationError::Types {
                operation: "[]",
                found: Types(item.type_name(), Some(key.type_name())),
                hint: "",
            }),
        }
    }

    /// `&&` (which `false` decides) and `||` (which `true` decides): a side that decides absorbs an error of the other.
    fn decide(
        &mut self,
        operation: &'static str,
        decisive: bool,
        left: &'a Node,
        right: &'a Node,
    ) -> Evaluated<'a> {
        let left = match self.condition(operation, left) {
            Ok(value) if value == decisive => return Ok(Item::Bool(decisive)),
            Err(EvaluationError::BudgetExceeded(limit)) => {
                return Err(EvaluationError::BudgetExceeded(limit));
            }
            left => left,
        };
        match self.condition(operation, right) {
            Ok(value) if value == decisive => Ok(Item::Bool(decisive)),
            Err(EvaluationError::BudgetExceeded(limit)) => {
                Err(EvaluationError::BudgetExceeded(limit))
            }
            // Of two errors the first is told.
            right => left.and(right).map(Item::Bool),
        }
    }

    fn condition(
        &mut self,
        operation: &'static str,
        node: &'a Node,
    ) -> Result<bool, EvaluationError> {
        let item = self.evaluate(node)?;
        item.as_bool().ok_or_else(|| EvaluationError::Types {
            operation,
            found: Types(item.type_name(), None),
            hint: "",
        })
    }

    fn binary(&mut self, operator: Operator, left: &Item<'a>, right: &Item<'a>) -> Evaluated<'a> {
        match operator {
            Operator::Equal => self.equal(left, right).map(Item::Bool),
            Operator::NotEqual => self.equal(left, right).map(|equal| Item::Bool(!equal)),
            Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => self.order(operator, left, right).map(Item::Bool),
            Operator::In => self.contains(left, right).map(Item::Bool),
            Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Remainder => match arithmetic::binary(operator, left, right) {
                Some(result) => result,
                None => self.concatenate(operator, left, right),
            },
        }
    }

    /// `+` of strings and lists.
    fn concatenate(
        &mut self,
        operator: Operator,
        left: &Item<'a>,
        right: &Item<'a>,
    ) -> Evaluated<'a> {
        match (operator, left, right) {
            (Operator::Add, Item::String(left), Item::String(right)) => {
                let (left, right) = (left.as_str(), right.as_str());
                self.charge(left.len() + right.len())?;
                Ok(Item::built([left, right].concat()))
            }
            (Operator::Add, Item::List(left), Item::List(right)) => {
                let mut elements = Vec::new();
                for element in left.iter().chain(right.iter()) {
                    self.charge(0)?;
                    elements.push(element);
                }
                Ok(Item::List(List::Built(Rc::new(elements))))
            }
            _ => {
                let text = matches!(left, Item::String(_)) || matches!(right, Item::String(_));
                let number = left.numeric().is_some() || right.numeric().is_some();
                let hint = if text && number {
                    "; write string(x) or double(x)"
                } else {
                    ""
                };
                let found = Types(left.type_name(), Some(right.type_name()));
                Err(EvaluationError::Types {
                    operation: operator.sign(),
                    found,
                    hint,
                })
            }
        }
    }

    fn call(&mut self, function: Function, nodes: &'a [Node]) -> Evaluated<'a> {
        let mut arguments = Vec::with_capacity(nodes.len());
        for node in nodes {
            arguments.push(self.evaluate(node)?);
        }
        match (function, arguments.as_slice()) {
            (Function::Size, [Item::String(text)]) => {
                self.look_through(text.as_str().len())?;
                Ok(size(text.as_str().chars().count()))
            }
            (Function::Size, [Item::List(list)]) => Ok(size(list.len())),
            (Function::Size, [Item::Map(map)]) => Ok(size(map.len())),
            (Function::Size, [item]) => Err(EvaluationError::Types {
                operation: "size",
                found: Types(item.type_name(), None),
                hint: "",
            }),
            (Function::String, [item]) => {
                let text = arithmetic::to_text(item.clone())?;
                if let Text::Built(built) = &text {
                    self.charge(built.len())?;
                }
                Ok(Item::String(text))
            }
            (Function::Int, [item]) => arithmetic::to_int(item),
            (Function::Double, [item]) => arithmetic::to_double(item),
            (Function::Min | Function::Max, [Item::List(list)]) => {
                for _ in 0..list.len() {
                    self.step()?;
                }
                arithmetic::extreme(function, list.iter())
            }
            (Function::Min | Function::Max, items) => {
                arithmetic::extreme(function, items.iter().cloned())
            }
            (Function::Abs | Function::Round | Function::Floor | Function::Ceil, [item]) => {
                arithmetic::rounded(function, item)
            }
            (Function::Join, items) => self.join(items),
            (function, items) => self.text_function(function, items),
        }
    }

    fn list(&mut self, nodes: &'a [Node]) -> Evaluated<'a> {
        let mut elements = Vec::with_capacity(nodes.len());
        for node in nodes {
            self.charge(0)?;
            elements.push(self.evaluate(node)?);
        }
        Ok(Item::List(List::Built(Rc::new(elements))))
    }

    fn map(&mut self, nodes: &'a [(Node, Node)]) -> Evaluated<'a> {
        let mut entries: Vec<(Text<'a>, Item<'a>)> = Vec::with_capacity(nodes.len());
        for (key, value) in nodes {
            let key = match self.evaluate(key)? {
                Item::String(key) => key,
                item => {
                    return Err(EvaluationError::Types {
                        operation: "{}",
                        found: Types(item.type_name(), None),
                        hint: " as a key",
                    });
                }
            };
            self.charge(key.as_str().len())?;
            entries.push((key, self.evaluate(value)?));
        }
        entries.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        if entries
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.0.as_str() == b.0.as_str()))
        {
            return Err(EvaluationError::DuplicateKey);
        }
        Ok(Item::Map(Map::Built(Rc::new(entries))))
    }

    /// `all`, `exists`, `exists_one`, `map` and `filter`, over the elements of a list or the keys of a map.
    fn turns(&mut self, turns: &'a Loop) -> Evaluated<'a> {
        let list = match self.evaluate(&turns.range)? {
            Item::List(list) => list,
            Item::Map(map) => {
                List::Built(Rc::new(map.keys().into_iter().map(Item::String).collect()))
            }
            item => {
                return Err(EvaluationError::Types {
                    operation: turns.kind.name(),
                    found: Types(item.type_name(), None),
                    hint: "",
                });
            }
        };
        match turns.kind {
            LoopKind::All => self.any(turns, &list, false),
            LoopKind::Exists => self.any(turns, &list, true),
            LoopKind::ExistsOne | LoopKind::Map | LoopKind::Filter => self.every(turns, &list),
        }
    }

    fn turn(&mut self, turns: &'a Loop, element: Item<'a>) -> Result<bool, EvaluationError> {
        self.step()?;
        if let Some(local) = self.locals.get_mut(turns.local) {
            *local = element;
        }
        turns.condition.as_ref().map_or(Ok(true), |condition| {
            self.condition(turns.kind.name(), condition)
        })
    }

    /// Looks for an element that decides; without one, an error counts.
    fn any(&mut self, turns: &'a Loop, list: &List<'a>, decisive: bool) -> Evaluated<'a> {
        let mut failed = None;
        for element in list.iter() {
            match self.turn(turns, element) {
                Ok(value) if value == decisive => return Ok(Item::Bool(decisive)),
                Ok(_) => {}
                Err(EvaluationError::BudgetExceeded(limit)) => {
                    return Err(EvaluationError::BudgetExceeded(limit));
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(Item::Bool(!decisive)), Err)
    }

    fn every(&mut self, turns: &'a Loop, list: &List<'a>) -> Evaluated<'a> {
        let mut kept = Vec::new();
        for element in list.iter() {
            if !self.turn(turns, element.clone())? {
                continue;
            }
            self.charge(0)?;
            kept.push(match &turns.element {
                Some(node) => self.evaluate(node)?,
                None => element,
            });
        }
        Ok(match turns.kind {
            LoopKind::ExistsOne => Item::Bool(kept.len() == 1),
            _ => Item::List(List::Built(Rc::new(kept))),
        })
    }
}

/// A field of a map, or why there is none; `path` names it.
fn member<'a>(item: &Item<'a>, field: &str, path: impl Fn() -> String) -> Evaluated<'a> {
    match item {
        Item::Map(map) => map
            .get(field)
            .ok_or_else(|| EvaluationError::NoSuchKey { path: path() }),
        item => Err(EvaluationError::NoFields {
            path: path(),
            found: item.type_name(),
        }),
    }
}

fn size<'a>(count: usize) -> Item<'a> {
    // A count of things in memory fits.
    Item::Int(count as i64)
}

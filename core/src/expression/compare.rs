//! Equality and order.

use std::cmp::Ordering;

use super::error::{EvaluationError, Types};
use super::evaluate::Evaluator;
use super::item::{Item, List, Map};
use super::node::Operator;

impl<'a> Evaluator<'a> {
    /// Equality across all types: numbers by value, lists and maps by their content, different types are never equal.
    pub(super) fn equal(
        &mut self,
        left: &Item<'a>,
        right: &Item<'a>,
    ) -> Result<bool, EvaluationError> {
        self.step()?;
        if let (Some(left), Some(right)) = (left.numeric(), right.numeric()) {
            return Ok(left.compare(right).is_eq());
        }
        match (left, right) {
            (Item::Null, Item::Null) => Ok(true),
            (Item::Bool(left), Item::Bool(right)) => Ok(left == right),
            (Item::String(left), Item::String(right)) => {
                let (left, right) = (left.as_str(), right.as_str());
                self.look_through(left.len().min(right.len()))?;
                Ok(left == right)
            }
            (Item::List(left), Item::List(right)) => self.equal_lists(left, right),
            (Item::Map(left), Item::Map(right)) => self.equal_maps(left, right),
            _ => Ok(false),
        }
    }

    fn equal_lists(&mut self, left: &List<'a>, right: &List<'a>) -> Result<bool, EvaluationError> {
        if left.len() != right.len() {
            return Ok(false);
        }
        for (left, right) in left.iter().zip(right.iter()) {
            if !self.equal(&left, &right)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn equal_maps(&mut self, left: &Map<'a>, right: &Map<'a>) -> Result<bool, EvaluationError> {
        if left.len() != right.len() {
            return Ok(false);
        }
        for key in left.keys() {
            let same = match (left.get(key.as_str()), right.get(key.as_str())) {
                (Some(left), Some(right)) => self.equal(&left, &right)?,
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `<`, `<=`, `>`, `>=`: numbers by value, strings by code point.
    pub(super) fn order(
        &mut self,
        operator: Operator,
        left: &Item<'a>,
        right: &Item<'a>,
    ) -> Result<bool, EvaluationError> {
        let ordering = match (
            left.numeric(),
            right.numeric(),
            left.as_str(),
            right.as_str(),
        ) {
            (Some(left), Some(right), ..) => left.compare(right),
            (.., Some(left), Some(right)) => {
                self.look_through(left.len().min(right.len()))?;
                // UTF-8 sorts by its bytes as code points do.
                left.cmp(right)
            }
            _ => {
                let found = Types(left.type_name(), Some(right.type_name()));
                return Err(EvaluationError::Types {
                    operation: operator.sign(),
                    found,
                    hint: "",
                });
            }
        };
        Ok(match operator {
            Operator::Less => ordering == Ordering::Less,
            Operator::LessOrEqual => ordering != Ordering::Greater,
            Operator::Greater => ordering == Ordering::Greater,
            _ => ordering != Ordering::Less,
        })
    }

    /// `left in right`: an element of a list, or a key of a map.
    pub(super) fn contains(
        &mut self,
        left: &Item<'a>,
        right: &Item<'a>,
    ) -> Result<bool, EvaluationError> {
        match (left, right) {
            (_, Item::List(list)) => {
                for element in list.iter() {
                    if self.equal(left, &element)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Item::String(key), Item::Map(map)) => Ok(map.get(key.as_str()).is_some()),
            (Item::String(_), Item::String(_)) => {
                let found = Types("string", Some("string"));
                Err(EvaluationError::Types {
                    operation: "in",
                    found,
                    hint: "; write text.contains(part)",
                })
            }
            _ => {
                let found = Types(left.type_name(), Some(right.type_name()));
                Err(EvaluationError::Types {
                    operation: "in",
                    found,
                    hint: "",
                })
            }
        }
    }
}

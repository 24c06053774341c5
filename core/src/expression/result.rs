//! From what an evaluation gave to a value of its own, within the budget.

use super::arithmetic;
use super::error::{EvaluationError, Limit};
use super::evaluate::Evaluator;
use super::item::{Item, List, Map};
use crate::json::{DEPTH_MAX, Object, Value};
use crate::planted::{Bug, planted};

impl<'a> Evaluator<'a> {
    /// The result as a value of its own, standing `depth` levels below the root of what it becomes a part of.
    pub(super) fn finish(
        &mut self,
        item: &Item<'a>,
        depth: usize,
    ) -> Result<Value, EvaluationError> {
        match item {
            Item::Null => self.charge(0).map(|()| Value::Null),
            Item::Bool(value) => self.charge(0).map(|()| Value::Bool(*value)),
            Item::Int(value) => self.charge(0).map(|()| Value::from(*value)),
            Item::Double(value) => {
                self.charge(0)?;
                arithmetic::number(*value).map(Value::Number)
            }
            Item::Number(number) if planted(Bug::DigitsLost) => {
                arithmetic::number(number.as_f64()).map(Value::Number)
            }
            Item::Number(number) => self
                .charge(0)
                .map(|()| Value::Number(number.clone().into_owned())),
            Item::String(text) => self
                .charge(text.as_str().len())
                .map(|()| Value::from(text.as_str())),
            Item::List(List::Json(items)) => {
                let depth = self.deeper(depth)?;
                items.iter().try_for_each(|item| self.weigh(item, depth))?;
                Ok(Value::Array(items.to_vec()))
            }
            Item::List(list) => {
                let depth = self.deeper(depth)?;
                list.iter()
                    .map(|item| self.finish(&item, depth))
                    .collect::<Result<Vec<_>, _>>()
                    .map(Value::Array)
            }
            Item::Map(Map::Json(object)) => {
                let depth = self.deeper(depth)?;
                self.weigh_members(object, depth)?;
                Ok(Value::Object((*object).clone()))
            }
            Item::Map(map) => {
                let depth = self.deeper(depth)?;
                let mut object = Object::new();
                for key in map.keys() {
                    if let Some(value) = map.get(key.as_str()) {
                        self.charge(key.as_str().len())?;
                        object.insert(key.as_str(), self.finish(&value, depth)?);
                    }
                }
                Ok(Value::Object(object))
            }
        }
    }

    fn deeper(&mut self, depth: usize) -> Result<usize, EvaluationError> {
        self.charge(0)?;
        if depth >= DEPTH_MAX {
            Err(EvaluationError::BudgetExceeded(Limit::Depth))
        } else {
            Ok(depth + 1)
        }
    }

    /// Counts what copying `value` builds, before it is copied.
    fn weigh(&mut self, value: &Value, depth: usize) -> Result<(), EvaluationError> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.charge(0),
            Value::String(text) => self.charge(text.len()),
            Value::Array(items) => {
                let depth = self.deeper(depth)?;
                items.iter().try_for_each(|item| self.weigh(item, depth))
            }
            Value::Object(object) => {
                let depth = self.deeper(depth)?;
                self.weigh_members(object, depth)
            }
        }
    }

    fn weigh_members(&mut self, object: &Object, depth: usize) -> Result<(), EvaluationError> {
        object.iter().try_for_each(|(key, value)| {
            self.charge(key.len())?;
            self.weigh(value, depth)
        })
    }
}

//! Functions on strings. Positions and sizes count code points.

use super::error::{EvaluationError, Types};
use super::evaluate::Evaluator;
use super::functions::Function;
use super::item::{Item, List, Text};

impl<'a> Evaluator<'a> {
    /// A function on a string, its first argument.
    pub(super) fn text_function(
        &mut self,
        function: Function,
        arguments: &[Item<'a>],
    ) -> Result<Item<'a>, EvaluationError> {
        let Some((Item::String(target), rest)) = arguments.split_first() else {
            return Err(types(function, arguments));
        };
        self.look_through(target.as_str().len())?;
        match (function, rest) {
            (Function::Contains, [Item::String(part)]) => {
                Ok(Item::Bool(target.as_str().contains(part.as_str())))
            }
            (Function::StartsWith, [Item::String(part)]) => {
                Ok(Item::Bool(target.as_str().starts_with(part.as_str())))
            }
            (Function::EndsWith, [Item::String(part)]) => {
                Ok(Item::Bool(target.as_str().ends_with(part.as_str())))
            }
            (Function::LowerAscii, []) => self.build(target.as_str().to_ascii_lowercase()),
            (Function::UpperAscii, []) => self.build(target.as_str().to_ascii_uppercase()),
            (Function::Trim, []) => self.part(target, str::trim),
            (Function::Split, [Item::String(separator)]) => self.split(target, separator, i64::MAX),
            (Function::Split, [Item::String(separator), most]) => match integer(most) {
                Some(most) => self.split(target, separator, most),
                None => Err(types(function, rest)),
            },
            (Function::Replace, [Item::String(old), Item::String(new)]) => {
                self.replace(target, old, new, i64::MAX)
            }
            (Function::Replace, [Item::String(old), Item::String(new), most]) => {
                match integer(most) {
                    Some(most) => self.replace(target, old, new, most),
                    None => Err(types(function, rest)),
                }
            }
            (Function::Substring, [start]) => match integer(start) {
                Some(start) => self.substring(target, start, None),
                None => Err(types(function, rest)),
            },
            (Function::Substring, [start, end]) => match (integer(start), integer(end)) {
                (Some(start), Some(end)) => self.substring(target, start, Some(end)),
                _ => Err(types(function, rest)),
            },
            (_, rest) => Err(types(function, rest)),
        }
    }

    /// A part of a string; it isn't copied where the string was borrowed.
    fn part(
        &mut self,
        target: &Text<'a>,
        of: impl for<'t> Fn(&'t str) -> &'t str,
    ) -> Result<Item<'a>, EvaluationError> {
        match target {
            Text::Borrowed(text) => Ok(Item::String(Text::Borrowed(of(text)))),
            Text::Built(text) => self.build(of(text)),
        }
    }

    fn build(&mut self, text: impl AsRef<str>) -> Result<Item<'a>, EvaluationError> {
        self.charge(text.as_ref().len())?;
        Ok(Item::built(text.as_ref()))
    }

    /// At most `most` parts, the last one holding the rest; negative is without limit. An empty separator splits into characters.
    fn split(
        &mut self,
        target: &Text<'a>,
        separator: &Text<'a>,
        most: i64,
    ) -> Result<Item<'a>, EvaluationError> {
        let (text, separator) = (target.as_str(), separator.as_str());
        let mut parts: Vec<Item<'a>> = Vec::new();
        let mut from = 0;
        while most < 0 || (parts.len() as i64) < most {
            let rest = text.get(from..).unwrap_or_default();
            let last = most > 0 && parts.len() as i64 == most - 1;
            // Where this part ends, and where the next begins.
            let found = match separator {
                _ if last => None,
                "" => rest
                    .chars()
                    .next()
                    .map(char::len_utf8)
                    .filter(|&len| len < rest.len())
                    .map(|len| (len, len)),
                separator => rest.find(separator).map(|at| (at, at + separator.len())),
            };
            if separator.is_empty() && rest.is_empty() {
                break;
            }
            let (end, next) = found.unwrap_or((rest.len(), rest.len()));
            self.step()?;
            self.charge(0)?;
            let (start, end) = (from, from + end);
            parts.push(self.part(target, |text| text.get(start..end).unwrap_or_default())?);
            if found.is_none() {
                break;
            }
            from += next;
        }
        Ok(Item::List(List::Built(parts.into())))
    }

    /// At most `most` times; negative is without limit. An empty `old` stands before every character and at the end.
    fn replace(
        &mut self,
        target: &Text<'a>,
        old: &Text<'a>,
        new: &Text<'a>,
        most: i64,
    ) -> Result<Item<'a>, EvaluationError> {
        let (target, old, new) = (target.as_str(), old.as_str(), new.as_str());
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // The result could be the product of what is given, so its size is charged before it is made.
        let times = target.matches(old).take(most).count();
        self.look_through(target.len())?;
        self.charge(
            (target.len() - times * old.len()).saturating_add(times.saturating_mul(new.len())),
        )?;
        Ok(Item::built(target.replacen(old, new, times)))
    }

    fn substring(
        &mut self,
        target: &Text<'a>,
        start: i64,
        end: Option<i64>,
    ) -> Result<Item<'a>, EvaluationError> {
        let text = target.as_str();
        let outside = EvaluationError::Argument {
            function: "substring",
            problem: "start or end is outside of the string, or end before start",
        };
        let byte = |position: i64| {
            let position = usize::try_from(position).ok()?;
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .nth(position)
        };
        match (byte(start), end.map_or(Some(text.len()), byte)) {
            (Some(start), Some(end)) if start <= end => {
                self.part(target, |text| text.get(start..end).unwrap_or_default())
            }
            _ => Err(outside),
        }
    }

    /// Strings of a list, with a separator between them.
    pub(super) fn join(&mut self, arguments: &[Item<'a>]) -> Result<Item<'a>, EvaluationError> {
        let (list, separator) = match arguments {
            [Item::List(list)] => (list, ""),
            [Item::List(list), Item::String(separator)] => (list, separator.as_str()),
            arguments => return Err(types(Function::Join, arguments)),
        };
        let mut joined = String::new();
        for (index, item) in list.iter().enumerate() {
            self.step()?;
            let Some(text) = item.as_str() else {
                return Err(EvaluationError::Types {
                    operation: "join",
                    found: Types(item.type_name(), None),
                    hint: "; write string(x)",
                });
            };
            let separator = if index > 0 { separator } else { "" };
            self.charge(separator.len() + text.len())?;
            joined.push_str(separator);
            joined.push_str(text);
        }
        Ok(Item::built(joined))
    }
}

fn integer(item: &Item<'_>) -> Option<i64> {
    match item {
        Item::Int(value) => Some(*value),
        Item::Number(number) => number.as_i64(),
        _ => None,
    }
}

fn types(function: Function, arguments: &[Item<'_>]) -> EvaluationError {
    let mut names = arguments.iter().map(Item::type_name);
    EvaluationError::Types {
        operation: function.name(),
        found: Types(names.next().unwrap_or("nothing"), names.next()),
        hint: "",
    }
}

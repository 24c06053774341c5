//! Which functions there are, and how they are called.

use super::error::Problem;

/// A function, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    String,
    Int,
    Double,
    Min,
    Max,
    Abs,
    Round,
    Floor,
    Ceil,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Split,
    Join,
    Replace,
    Substring,
}

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `f(x)`
    Global,
    /// `x.f()`
    Method,
}

struct Entry {
    function: Function,
    name: &'static str,
    usage: &'static str,
    /// Numbers of arguments of `f(…)`, if it may be called so.
    global: Option<(usize, usize)>,
    /// Numbers of arguments of `x.f(…)`, if it may be called so.
    method: Option<(usize, usize)>,
}

const fn global(
    function: Function,
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
) -> Entry {
    Entry {
        function,
        name,
        usage,
        global: Some((min, max)),
        method: None,
    }
}

const fn method(
    function: Function,
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
) -> Entry {
    Entry {
        function,
        name,
        usage,
        global: None,
        method: Some((min, max)),
    }
}

const FUNCTIONS: [Entry; 20] = [
    Entry {
        function: Function::Size,
        name: "size",
        usage: "size(x) or x.size()",
        global: Some((1, 1)),
        method: Some((0, 0)),
    },
    global(Function::String, "string", "string(x)", 1, 1),
    global(Function::Int, "int", "int(x)", 1, 1),
    global(Function::Double, "double", "double(x)", 1, 1),
    global(
        Function::Min,
        "min",
        "min(a, b, …) or min(list)",
        1,
        usize::MAX,
    ),
    global(
        Function::Max,
        "max",
        "max(a, b, …) or max(list)",
        1,
        usize::MAX,
    ),
    global(Function::Abs, "abs", "abs(x)", 1, 1),
    global(Function::Round, "round", "round(x)", 1, 1),
    global(Function::Floor, "floor", "floor(x)", 1, 1),
    global(Function::Ceil, "ceil", "ceil(x)", 1, 1),
    method(Function::Contains, "contains", "text.contains(part)", 1, 1),
    method(
        Function::StartsWith,
        "startsWith",
        "text.startsWith(part)",
        1,
        1,
    ),
    method(Function::EndsWith, "endsWith", "text.endsWith(part)", 1, 1),
    method(
        Function::LowerAscii,
        "lowerAscii",
        "text.lowerAscii()",
        0,
        0,
    ),
    method(
        Function::UpperAscii,
        "upperAscii",
        "text.upperAscii()",
        0,
        0,
    ),
    method(Function::Trim, "trim", "text.trim()", 0, 0),
    method(
        Function::Split,
        "split",
        "text.split(separator) or text.split(separator, most)",
        1,
        2,
    ),
    method(
        Function::Join,
        "join",
        "list.join() or list.join(separator)",
        0,
        1,
    ),
    method(
        Function::Replace,
        "replace",
        "text.replace(old, new) or text.replace(old, new, most)",
        2,
        3,
    ),
    method(
        Function::Substring,
        "substring",
        "text.substring(start) or text.substring(start, end)",
        1,
        2,
    ),
];

/// Macros, which the parser expands when their arguments are right.
const MACROS: [(&str, &str); 6] = [
    ("has", "has(a.b)"),
    ("all", "list.all(x, condition)"),
    ("exists", "list.exists(x, condition)"),
    ("exists_one", "list.exists_one(x, condition)"),
    ("map", "list.map(x, value) or list.map(x, condition, value)"),
    ("filter", "list.filter(x, condition)"),
];

/// What other CELs and other languages call what we have, and what to write instead.
const ELSEWHERE: [(&str, &str); 14] = [
    ("len", "size"),
    ("length", "size"),
    ("count", "size"),
    ("str", "string"),
    ("toString", "string"),
    ("float", "double"),
    ("number", "double"),
    ("includes", "contains"),
    ("toLowerCase", "lowerAscii"),
    ("lower", "lowerAscii"),
    ("toUpperCase", "upperAscii"),
    ("upper", "upperAscii"),
    ("any", "exists"),
    ("concat", "+"),
];

/// All functions and macros, with the forms in which they are called.
pub fn functions() -> impl Iterator<Item = (&'static str, &'static str)> {
    FUNCTIONS
        .iter()
        .map(|entry| (entry.name, entry.usage))
        .chain(MACROS)
}

impl Function {
    pub(super) fn name(self) -> &'static str {
        FUNCTIONS
            .iter()
            .find(|entry| entry.function == self)
            .map_or("", |entry| entry.name)
    }
}

pub(super) fn find(name: &str, form: Form, arguments: usize) -> Result<Function, Problem> {
    if let Some(entry) = FUNCTIONS.iter().find(|entry| entry.name == name) {
        let bounds = match form {
            Form::Global => entry.global,
            Form::Method => entry.method,
        };
        return match bounds {
            Some((min, max)) if (min..=max).contains(&arguments) => Ok(entry.function),
            _ => Err(Problem::Usage {
                function: entry.name,
                usage: entry.usage,
            }),
        };
    }
    if let Some((function, usage)) = MACROS.iter().find(|(macro_name, _)| *macro_name == name) {
        return Err(Problem::Usage { function, usage });
    }
    match name {
        "matches" | "find" | "findAll" => {
            return Err(Problem::NotInThisVersion("regular expressions"));
        }
        "timestamp" | "duration" | "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth"
        | "getDayOfWeek" | "getDayOfYear" | "getHours" | "getMinutes" | "getSeconds"
        | "getMilliseconds" => {
            return Err(Problem::NotInThisVersion("times and durations as types"));
        }
        "uint" => return Err(Problem::NotInThisVersion("unsigned numbers")),
        "bytes" => return Err(Problem::NotInThisVersion("bytes")),
        "type" | "dyn" => return Err(Problem::NotInThisVersion("types as values")),
        _ => {}
    }
    let hint = match ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == name) {
        Some((_, ours)) => format!("; it is `{ours}` here"),
        None if matches!(name, "now" | "today") => {
            "; expressions have no clock, use the event's time".to_owned()
        }
        None => nearest(name, functions().map(|(name, _)| name))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?")),
    };
    Err(Problem::UnknownFunction {
        name: name.to_owned(),
        hint,
    })
}

/// The candidate that differs from `name` by at most two letters, and by less than half of them.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Names that long are no typing errors, and the distance costs their product.
    if name.len() > 64 {
        return None;
    }
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Fewest letters to add, remove or change, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, from) in a.bytes().map(|byte| byte.to_ascii_lowercase()).enumerate() {
        let mut left = index + 1;
        let mut next = vec![left];
        for (above, to) in row.windows(2).zip(&b) {
            if let [diagonal, above] = above {
                left = (diagonal + usize::from(from != *to))
                    .min(above + 1)
                    .min(left + 1);
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_row_of_its_own() {
        for entry in &FUNCTIONS {
            assert_eq!(entry.function.name(), entry.name);
        }
    }

    #[test]
    fn typing_errors_are_recognised() {
        let near = |name| nearest(name, ["event", "row", "startsWith"].into_iter());
        assert_eq!(near("evnt"), Some("event"));
        assert_eq!(near("startswith"), Some("startsWith"));
        assert_eq!(near("Row"), Some("row"));
        assert_eq!(near("x"), None);
        assert_eq!(near("order"), None);
    }
}

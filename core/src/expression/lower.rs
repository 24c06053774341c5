//! From the parser's tree to ours: names become slots, macros become loops again, everything unknown becomes an error with a place.

use cel::common::ast::operators;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr,
};
use cel::parser::{ParseErrors, PrattParser};

use super::error::{CompileError, Problem};
use super::functions::{self, Form};
use super::node::{Loop, LoopKind, Node, Operator, Path, Root};
use super::source::{Source, Use};
use super::{LOOPS_MAX, NESTING_MAX, Scope};
use crate::json::{Number, Value};
use crate::planted::{Bug, planted};

/// Longest part of a source that a message repeats, in characters.
const QUOTE_MAX: usize = 60;

pub(super) fn compile(text: &str, scope: &Scope) -> Result<Node, CompileError> {
    let source = Source::new(text)?;
    let tree = PrattParser::new()
        .parse(text)
        .map_err(|errors| syntax(&source, text, &errors))?;
    let mut lowering = Lowering {
        source,
        scope,
        locals: Vec::new(),
    };
    lowering.node(&tree, NESTING_MAX)
}

/// The parser's first error that has a place.
fn syntax(source: &Source<'_>, text: &str, errors: &ParseErrors) -> CompileError {
    let error = errors
        .errors
        .iter()
        .find(|error| error.pos.0 > 0)
        .or_else(|| errors.errors.first());
    let (line, column) = error.map_or((1, 1), |error| error.pos);
    let before: usize = text
        .split_inclusive('\n')
        .take(usize::try_from(line - 1).unwrap_or(0))
        .map(str::len)
        .sum();
    let message = error.map_or("not an expression", |error| &error.msg);
    let message = message
        .trim_start_matches("Syntax error: ")
        .replace("mismatched input '<EOF>'", "the end came too early,");
    let message = message
        .replace("mismatched input", "unexpected")
        .replace("<EOF>", "the end");
    source.error(
        before + usize::try_from(column - 1).unwrap_or(0),
        Problem::Syntax(quote(&message)),
    )
}

/// Text for a message, cut to a bounded length.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTE_MAX).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

struct Lowering<'a> {
    source: Source<'a>,
    scope: &'a Scope,
    /// Variables of the loops around, outermost first.
    locals: Vec<String>,
}

impl Lowering<'_> {
    /// `levels` is how much deeper the tree may become.
    fn node(&mut self, tree: &IdedExpr, levels: usize) -> Result<Node, CompileError> {
        let Some(levels) = levels.checked_sub(1) else {
            return Err(self
                .source
                .error(0, Problem::TooLarge("operators nested more than 64 deep")));
        };
        match &tree.expr {
            Expr::Literal(literal) => self.literal(literal).map(Node::Literal),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) if select.test => {
                self.source.next(operators::HAS, Use::Function);
                let operand = Box::new(self.node(&select.operand, levels)?);
                Ok(Node::Has {
                    operand,
                    field: select.field.as_str().into(),
                })
            }
            Expr::Select(select) => {
                let operand = self.node(&select.operand, levels)?;
                Ok(field(operand, &select.field))
            }
            Expr::Call(call) => self.call(call, levels),
            Expr::List(list) => {
                let elements = list
                    .elements
                    .iter()
                    .map(|element| self.node(element, levels))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(constant_list(elements))
            }
            Expr::Map(map) => self.map(map, levels),
            Expr::Comprehension(comprehension) => self.turns(comprehension, levels),
            Expr::Struct(_) => Err(self.source.error(0, Problem::NotInThisVersion("messages"))),
            Expr::Unspecified => Err(self
                .source
                .error(0, Problem::Syntax("not an expression".to_owned()))),
        }
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Value, CompileError> {
        match literal {
            LiteralValue::Null => Ok(Value::Null),
            LiteralValue::Boolean(value) => Ok(Value::Bool(*value.inner())),
            LiteralValue::Int(value) => Ok(Value::from(*value.inner())),
            // The parser refuses what isn't finite.
            LiteralValue::Double(value) => Ok(Number::from_f64(*value.inner()).into()),
            LiteralValue::String(value) => Ok(Value::from(value.inner())),
            LiteralValue::UInt(_) => Err(self
                .source
                .error(0, Problem::NotInThisVersion("unsigned numbers"))),
            LiteralValue::Bytes(_) => Err(self.source.error(0, Problem::NotInThisVersion("bytes"))),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Node, CompileError> {
        // `.name` is CEL's way to name the outermost `name`; there are no containers here, so it is the same.
        let name = name.trim_start_matches('.');
        let at = self.source.next(name, Use::Variable);
        let local = self
            .locals
            .iter()
            .rposition(|local| local == name)
            .map(Root::Local);
        let root = local.or_else(|| {
            self.scope
                .names()
                .position(|variable| variable == name)
                .map(Root::Variable)
        });
        match root {
            Some(root) => Ok(Node::Path(Path {
                root,
                name: name.into(),
                fields: Vec::new(),
            })),
            None if planted(Bug::UndeclaredNameAccepted) => Ok(Node::Literal(Value::Null)),
            None => {
                let declared: Vec<&str> = self
                    .scope
                    .names()
                    .chain(self.locals.iter().map(String::as_str))
                    .collect();
                let hint = match functions::nearest(name, declared.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if declared.is_empty() => "no variables are known here".to_owned(),
                    None => format!(
                        "known here: {}; a text is written in quotes",
                        declared.join(", ")
                    ),
                };
                Err(self.source.error(
                    at,
                    Problem::UndeclaredName {
                        name: quote(name),
                        hint,
                    },
                ))
            }
        }
    }

    fn call(&mut self, call: &CallExpr, levels: usize) -> Result<Node, CompileError> {
        if let (None, [operand]) = (&call.target, call.args.as_slice()) {
            match call.func_name.as_str() {
                operators::LOGICAL_NOT => {
                    return Ok(Node::Not(Box::new(self.node(operand, levels)?)));
                }
                operators::NEGATE => {
                    return Ok(Node::Negate(Box::new(self.node(operand, levels)?)));
                }
                _ => {}
            }
        }
        if let (None, [left, right]) = (&call.target, call.args.as_slice()) {
            match (call.func_name.as_str(), operator(&call.func_name)) {
                (operators::LOGICAL_AND, _) => {
                    return Ok(Node::And(
                        Box::new(self.node(left, levels)?),
                        Box::new(self.node(right, levels)?),
                    ));
                }
                (operators::LOGICAL_OR, _) => {
                    return Ok(Node::Or(
                        Box::new(self.node(left, levels)?),
                        Box::new(self.node(right, levels)?),
                    ));
                }
                (operators::INDEX, _) => {
                    let operand = self.node(left, levels)?;
                    return Ok(match self.node(right, levels)? {
                        Node::Literal(Value::String(name)) => field(operand, &name),
                        index => Node::Index {
                            operand: Box::new(operand),
                            index: Box::new(index),
                        },
                    });
                }
                (_, Some(operator)) => {
                    let (left, right) = (
                        Box::new(self.node(left, levels)?),
                        Box::new(self.node(right, levels)?),
                    );
                    return Ok(Node::Binary {
                        operator,
                        left,
                        right,
                    });
                }
                _ => {}
            }
        }
        if let (None, operators::CONDITIONAL, [condition, then, otherwise]) =
            (&call.target, call.func_name.as_str(), call.args.as_slice())
        {
            return Ok(Node::Conditional {
                condition: Box::new(self.node(condition, levels)?),
                then: Box::new(self.node(then, levels)?),
                otherwise: Box::new(self.node(otherwise, levels)?),
            });
        }
        self.function(call, levels)
    }

    fn function(&mut self, call: &CallExpr, levels: usize) -> Result<Node, CompileError> {
        let target = call
            .target
            .as_ref()
            .map(|target| self.node(target, levels))
            .transpose()?;
        let at = self.source.next(&call.func_name, Use::Function);
        let form = if target.is_some() {
            Form::Method
        } else {
            Form::Global
        };
        let function = functions::find(&call.func_name, form, call.args.len()).map_err(
            |problem| match problem {
                Problem::UnknownFunction { name, hint } => self.source.error(
                    at,
                    Problem::UnknownFunction {
                        name: quote(&name),
                        hint,
                    },
                ),
                problem => self.source.error(at, problem),
            },
        )?;
        let mut arguments: Vec<Node> = target.into_iter().collect();
        for argument in &call.args {
            arguments.push(self.node(argument, levels)?);
        }
        Ok(Node::Call {
            function,
            arguments,
        })
    }

    fn map(&mut self, map: &MapExpr, levels: usize) -> Result<Node, CompileError> {
        let at = self.source.next("{", Use::Map);
        let mut entries: Vec<(Node, Node)> = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                return Err(self.source.error(at, Problem::NotInThisVersion("messages")));
            };
            let key = self.node(&entry.key, levels)?;
            if let Node::Literal(literal) = &key {
                let twice = entries
                    .iter()
                    .any(|(other, _)| matches!(other, Node::Literal(other) if other == literal));
                if twice || literal.as_str().is_none() {
                    return Err(self.source.error(at, Problem::MapKey));
                }
            }
            entries.push((key, self.node(&entry.value, levels)?));
        }
        Ok(Node::Map(entries))
    }

    /// The parser has expanded a macro into a fold over `@result`, a name that no source can hold; this recognises each by its fold.
    fn turns(&mut self, fold: &ComprehensionExpr, levels: usize) -> Result<Node, CompileError> {
        let range = self.node(&fold.iter_range, levels)?;
        let Expr::Call(step) = &fold.loop_step.expr else {
            return Err(self
                .source
                .error(0, Problem::Syntax("not an expression".to_owned())));
        };
        let (kind, condition, element) = match (
            step.func_name.as_str(),
            step.args.as_slice(),
            &fold.accu_init.expr,
        ) {
            (operators::LOGICAL_OR, [_, condition], _) => (LoopKind::Exists, Some(condition), None),
            (operators::LOGICAL_AND, [_, condition], _) => (LoopKind::All, Some(condition), None),
            (operators::CONDITIONAL, [condition, ..], Expr::Literal(_)) => {
                (LoopKind::ExistsOne, Some(condition), None)
            }
            (operators::CONDITIONAL, [condition, added, _], _) => match appended(added) {
                // `map(x, p, x)` is the same as `filter(x, p)`.
                Some(element) if element.expr == Expr::Ident(fold.iter_var.clone()) => {
                    (LoopKind::Filter, Some(condition), None)
                }
                element => (LoopKind::Map, Some(condition), element),
            },
            _ => (LoopKind::Map, None, appended(&fold.loop_step)),
        };
        let at = self.source.next(kind.name(), Use::Function);
        self.source.next(&fold.iter_var, Use::Variable);
        let local = self.locals.len();
        if local >= LOOPS_MAX && !planted(Bug::NestingUnlimited) {
            return Err(self
                .source
                .error(at, Problem::TooLarge("loops nested more than two deep")));
        }
        self.locals.push(fold.iter_var.clone());
        let condition = condition
            .map(|condition| self.node(condition, levels))
            .transpose()?;
        let element = element
            .map(|element| self.node(element, levels))
            .transpose()?;
        self.locals.pop();
        Ok(Node::Loop(Box::new(Loop {
            kind,
            range,
            local,
            condition,
            element,
        })))
    }
}

/// The `f` of `@result + [f]`.
fn appended(step: &IdedExpr) -> Option<&IdedExpr> {
    match &step.expr {
        Expr::Call(call) => match call.args.last().map(|list| &list.expr) {
            Some(Expr::List(list)) => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}

/// `operand.field`, or `operand['field']`, which is the same.
fn field(operand: Node, field: &str) -> Node {
    match operand {
        Node::Path(mut path) => {
            path.fields.push(field.into());
            Node::Path(path)
        }
        operand => Node::Field {
            operand: Box::new(operand),
            field: field.into(),
        },
    }
}

/// A list of constants is made once, not at each evaluation: `x in ['a', 'b']` is common.
fn constant_list(elements: Vec<Node>) -> Node {
    if !elements
        .iter()
        .all(|element| matches!(element, Node::Literal(_)))
    {
        return Node::List(elements);
    }
    let values = elements.into_iter().filter_map(|element| match element {
        Node::Literal(value) => Some(value),
        _ => None,
    });
    Node::Literal(Value::Array(values.collect()))
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Remainder,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessOrEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterOrEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}

//! A definition with its expressions compiled.

use crate::definition::{
    Action, Compensation, HttpMethod, PublishDefinition, SEMANTICS, SagaDefinition, StepDefinition,
};
use crate::expression::{CompileError, Expression, Scope, Template, TemplateError};
use crate::json::Value;
use crate::names::{ResourceId, Side};
use crate::planted::{Bug, planted};

/// A saga ready to run. Immutable; shared by all instances of its revision.
#[derive(Clone, Debug)]
pub struct CompiledSaga {
    /// Whose it is.
    pub resource: ResourceId,
    /// What it was compiled from.
    pub definition: SagaDefinition,
    pub(super) steps: Vec<CompiledStep>,
    pub(super) on_completed: Vec<CompiledPublish>,
    pub(super) on_compensated: Vec<CompiledPublish>,
}

#[derive(Clone, Debug)]
pub(super) struct CompiledStep {
    pub after: Vec<usize>,
    pub when: Option<Expression>,
    pub action: CompiledAction,
    pub compensation: Option<CompiledAction>,
}

#[derive(Clone, Debug)]
pub(super) enum CompiledAction {
    Request {
        subject: String,
        data: Template,
    },
    Http {
        method: HttpMethod,
        url: Template,
        headers: Vec<(String, Template)>,
        body: Option<Template>,
    },
    Publish(CompiledPublish),
}

#[derive(Clone, Debug)]
pub(super) struct CompiledPublish {
    pub definition: PublishDefinition,
    pub entity: Template,
    pub data: Template,
}

/// Why a definition can't be run. Compiling the resource finds all of these first, with the path in the resource.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SagaCompileError {
    /// Made by another version, whose expressions mean something else.
    #[error("semantics: this version knows expression semantics {SEMANTICS}, not {0}")]
    Semantics(u32),
    /// An expression doesn't compile.
    #[error("{path}: {error}")]
    Expression {
        /// Field of the definition.
        path: String,
        /// Why.
        error: CompileError,
    },
    /// An expression within a JSON value doesn't compile.
    #[error("{path}{error}")]
    Template {
        /// Field of the definition.
        path: String,
        /// Where in the value, and why.
        error: TemplateError<CompileError>,
    },
    /// `after` names a step that doesn't stand before this one.
    #[error("{path}: step `{step}` is not one of the steps before")]
    After {
        /// Field of the definition.
        path: String,
        /// The step.
        step: String,
    },
}

/// Names that expressions of actions, of `when` and of `onCompleted` may use.
pub fn step_scope() -> Scope {
    Scope::new(&["input", "steps", "saga"])
}

/// Names that expressions of compensations and of `onCompensated` may use.
pub fn compensation_scope() -> Scope {
    Scope::new(&["input", "steps", "saga", "failure"])
}

impl CompiledSaga {
    /// Compiles a definition.
    ///
    /// # Errors
    /// [`SagaCompileError`]
    pub fn new(resource: ResourceId, definition: SagaDefinition) -> Result<Self, SagaCompileError> {
        if definition.semantics != SEMANTICS && !planted(Bug::SemanticsUnchecked) {
            return Err(SagaCompileError::Semantics(definition.semantics));
        }
        let mut steps = Vec::with_capacity(definition.steps.len());
        for (index, step) in definition.steps.iter().enumerate() {
            steps.push(compile_step(&definition.steps, index, step)?);
        }
        let publishes = |field: &str, publishes: &[PublishDefinition], scope: &Scope| {
            let compiled = publishes.iter().enumerate();
            compiled
                .map(|(index, publish)| {
                    compile_publish(publish, &format!("{field}[{index}].publish"), scope)
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let on_completed = publishes("onCompleted", &definition.on_completed, &step_scope());
        let on_compensated = publishes(
            "onCompensated",
            &definition.on_compensated,
            &compensation_scope(),
        );
        Ok(CompiledSaga {
            resource,
            steps,
            on_completed: on_completed?,
            on_compensated: on_compensated?,
            definition,
        })
    }

    /// Index of a step.
    pub fn step_index(&self, name: &str) -> Option<usize> {
        self.definition
            .steps
            .iter()
            .position(|step| step.name == name)
    }

    pub(super) fn action(&self, step: usize, side: Side) -> Option<&CompiledAction> {
        let step = self.steps.get(step)?;
        match side {
            Side::Action => Some(&step.action),
            Side::Compensation => step.compensation.as_ref(),
        }
    }

    pub(super) fn compensation(&self, step: usize) -> Option<&Compensation> {
        self.definition.steps.get(step)?.compensation.as_ref()
    }
}

fn compile_step(
    steps: &[StepDefinition],
    index: usize,
    step: &StepDefinition,
) -> Result<CompiledStep, SagaCompileError> {
    let path = format!("steps[{index}]");
    let position = |name: &String| {
        let before = steps.iter().take(index).position(|step| &step.name == name);
        before.ok_or_else(|| SagaCompileError::After {
            path: format!("{path}.after"),
            step: name.clone(),
        })
    };
    let when = step.when.as_ref().map(|source| {
        Expression::compile(source, &step_scope()).map_err(|error| SagaCompileError::Expression {
            path: format!("{path}.when"),
            error,
        })
    });
    let compensation = step.compensation.as_ref().map(|compensation| {
        compile_action(
            &compensation.action,
            &format!("{path}.compensate"),
            &compensation_scope(),
        )
    });
    Ok(CompiledStep {
        after: step.after.iter().map(position).collect::<Result<_, _>>()?,
        when: when.transpose()?,
        action: compile_action(&step.action, &path, &step_scope())?,
        compensation: compensation.transpose()?,
    })
}

fn template(value: &Value, path: &str, scope: &Scope) -> Result<Template, SagaCompileError> {
    Template::compile(value, scope).map_err(|error| SagaCompileError::Template {
        path: path.to_owned(),
        error,
    })
}

fn compile_action(
    action: &Action,
    path: &str,
    scope: &Scope,
) -> Result<CompiledAction, SagaCompileError> {
    match action {
        Action::Request { subject, data } => Ok(CompiledAction::Request {
            subject: subject.clone(),
            data: template(data, &format!("{path}.request.data"), scope)?,
        }),
        Action::Http {
            method,
            url,
            headers,
            body,
        } => {
            let compile = |(name, value): (&String, &Value)| {
                Ok((
                    name.clone(),
                    template(value, &format!("{path}.http.headers.{name}"), scope)?,
                ))
            };
            let body_template = match body {
                Value::Null => None,
                body => Some(template(body, &format!("{path}.http.body"), scope)?),
            };
            Ok(CompiledAction::Http {
                method: *method,
                url: template(url, &format!("{path}.http.url"), scope)?,
                headers: headers
                    .iter()
                    .map(compile)
                    .collect::<Result<_, SagaCompileError>>()?,
                body: body_template,
            })
        }
        Action::Publish(publish) => Ok(CompiledAction::Publish(compile_publish(
            publish,
            &format!("{path}.publish"),
            scope,
        )?)),
    }
}

fn compile_publish(
    publish: &PublishDefinition,
    path: &str,
    scope: &Scope,
) -> Result<CompiledPublish, SagaCompileError> {
    Ok(CompiledPublish {
        definition: publish.clone(),
        entity: template(&publish.entity, &format!("{path}.entity"), scope)?,
        data: template(&publish.data, &format!("{path}.data"), scope)?,
    })
}

//! Effects: what a worker is to do for an instance. They are made from the state alone, so that a worker which takes
//! over makes the very same ones.

use super::compiled::{CompiledAction, CompiledPublish, CompiledSaga};
use super::state::{Instance, Outcome, Phase, Progress, PublishProgress};
use super::variables::Variables;
use crate::definition::{HttpMethod, StreamRef};
use crate::envelope::{Event, percent_encode};
use crate::expression::{EvaluationError, Template, TemplateError};
use crate::json::Value;
use crate::names::{LogKind, Side, command_id, headers, hex};
use crate::planted::{Bug, planted, whim};
use crate::timestamp::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Something a worker is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make an attempt by NATS request.
    Request(RequestEffect),
    /// Make an attempt by HTTP request.
    Http(HttpEffect),
    /// Publish an event and append where it was stored.
    Publish(PublishEffect),
}

/// A NATS request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestEffect {
    /// Name of the step.
    pub step: String,
    /// Action or compensation.
    pub side: Side,
    /// Number of the attempt.
    pub attempt: u32,
    /// Where the answer belongs in the log.
    pub reply: LogKind,
    /// Subject of the request.
    pub subject: String,
    /// Headers; never one that begins with `Nats-`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub payload: Vec<u8>,
}

/// An HTTP request. What comes of it is appended as [`LogKind::Observed`].
#[derive(Clone, Debug, PartialEq)]
pub struct HttpEffect {
    /// Name of the step.
    pub step: String,
    /// Action or compensation.
    pub side: Side,
    /// Number of the attempt.
    pub attempt: u32,
    /// Method.
    pub method: HttpMethod,
    /// URL.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// JSON; absent for no body.
    pub body: Option<Vec<u8>>,
    /// Longest wait for the answer, in milliseconds.
    pub timeout_ms: u64,
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishEffect {
    /// Id of the effect, as [`LogKind::Published`] carries it.
    pub effect: String,
    /// Name of the step, side and number of the attempt, as [`LogKind::Observed`] carries them; an outcome's publish
    /// has its effect's id for a step.
    pub attempt: (String, Side, u32),
    /// Where it goes.
    pub stream: StreamRef,
    /// The event.
    pub event: Event,
}

/// Why an effect can't be made. Deterministic: trying again gives the same.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum EffectError {
    #[error("{field}{error}")]
    Template {
        field: &'static str,
        error: TemplateError<EvaluationError>,
    },
    #[error("{0} is not a text")]
    NotText(&'static str),
}

/// Id of the effect of a step's publish.
pub(super) fn step_publish_id(step: &str, side: Side) -> String {
    format!("{step}-{side}")
}

/// Id of the effect of an outcome's publish. No step name holds a `-`, so the two kinds can't meet.
pub(super) fn outcome_publish_id(outcome: Outcome, index: usize) -> String {
    match outcome {
        Outcome::Completed => format!("completed-{index}"),
        Outcome::Compensated => format!("compensated-{index}"),
    }
}

impl Instance {
    /// Every effect that is in flight: what a worker that takes over has to do (again).
    pub fn outstanding(&self, saga: &CompiledSaga) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            for side in [Side::Action, Side::Compensation] {
                if side == Side::Compensation && planted(Bug::OutstandingForgotten) {
                    continue;
                }
                if let Progress::InFlight(_) = step.side(side).progress {
                    effects.extend(self.attempt_effect(saga, index, side).ok());
                }
            }
        }
        if let Phase::Concluding(outcome) = self.phase {
            for (index, publish) in self.publishes.iter().enumerate() {
                if *publish == PublishProgress::Outstanding {
                    effects.extend(self.outcome_effect(saga, outcome, index).ok());
                }
            }
        }
        effects
    }

    /// The effect of the present attempt of a step.
    pub(super) fn attempt_effect(
        &self,
        saga: &CompiledSaga,
        index: usize,
        side: Side,
    ) -> Result<Effect, EffectError> {
        let (Some(step), Some(action)) =
            (saga.definition.steps.get(index), saga.action(index, side))
        else {
            return Err(EffectError::NotText("step"));
        };
        let attempt = self
            .steps
            .get(index)
            .map_or(0, |state| state.side(side).attempt);
        let variables = Variables::new(self, saga);
        match action {
            CompiledAction::Request { subject, data } => {
                // Left out is nothing; an expression that gives null is null.
                let payload = match data.source() {
                    Value::Null => Vec::new(),
                    _ => evaluate(&variables, data, "request.data")?
                        .to_json()
                        .into_bytes(),
                };
                let command = match planted(Bug::CommandIdPerAttempt) {
                    true => format!("{attempt}-{}", self.command(saga, &step.name, side)),
                    false => self.command(saga, &step.name, side),
                };
                let mut headers = vec![(headers::COMMAND_ID, command)];
                if planted(Bug::ServerHeaderSent) {
                    headers.push(("Nats-Msg-Id", self.command(saga, &step.name, side)));
                }
                if side == Side::Compensation && !planted(Bug::CompensatesNothing) {
                    headers.push((
                        headers::COMPENSATES,
                        self.command(saga, &step.name, Side::Action),
                    ));
                }
                headers.push((headers::CORRELATION_ID, self.correlation_header()));
                headers.push(("traceparent", self.traceparent(&step.name, side, attempt)));
                headers.extend(self.tracestate().map(|state| ("tracestate", state)));
                let token = self.run.reply_token(&step.name, side, attempt);
                let reply = LogKind::Reply {
                    step: step.name.clone(),
                    side,
                    attempt,
                    token,
                };
                let (step, subject) = (step.name.clone(), subject.clone());
                Ok(Effect::Request(RequestEffect {
                    step,
                    side,
                    attempt,
                    reply,
                    subject,
                    headers,
                    payload,
                }))
            }
            CompiledAction::Http {
                method,
                url,
                headers,
                body,
            } => {
                let mut sent = vec![(
                    "Idempotency-Key".to_owned(),
                    self.command(saga, &step.name, side),
                )];
                if side == Side::Compensation {
                    sent.push((
                        headers::COMPENSATES.to_owned(),
                        self.command(saga, &step.name, Side::Action),
                    ));
                }
                sent.push((
                    headers::CORRELATION_ID.to_owned(),
                    self.correlation_header(),
                ));
                sent.push((
                    "traceparent".to_owned(),
                    self.traceparent(&step.name, side, attempt),
                ));
                let state = self.tracestate();
                sent.extend(state.map(|state| ("tracestate".to_owned(), state)));
                for (name, value) in headers {
                    sent.push((
                        name.clone(),
                        text(evaluate(&variables, value, "http.headers")?, "http.headers")?,
                    ));
                }
                let body = match body {
                    Some(body) => Some(
                        evaluate(&variables, body, "http.body")?
                            .to_json()
                            .into_bytes(),
                    ),
                    None => None,
                };
                let timeout_ms = match side {
                    Side::Action => step.timeout_ms,
                    Side::Compensation => step
                        .compensation
                        .as_ref()
                        .map_or(step.timeout_ms, |c| c.timeout_ms),
                };
                Ok(Effect::Http(HttpEffect {
                    step: step.name.clone(),
                    side,
                    attempt,
                    method: *method,
                    url: text(evaluate(&variables, url, "http.url")?, "http.url")?,
                    headers: sent,
                    body,
                    timeout_ms,
                }))
            }
            CompiledAction::Publish(publish) => {
                let effect = step_publish_id(&step.name, side);
                let state = self.steps.get(index);
                let at = match state.map(|state| state.side(side).begun_at) {
                    Some(begun_at) if !planted(Bug::PublishTimeIsNow) => begun_at,
                    _ => self.at,
                };
                Ok(Effect::Publish(self.publish_effect(
                    saga,
                    &variables,
                    publish,
                    effect,
                    (step.name.clone(), side, attempt),
                    at,
                )?))
            }
        }
    }

    pub(super) fn outcome_effect(
        &self,
        saga: &CompiledSaga,
        outcome: Outcome,
        index: usize,
    ) -> Result<Effect, EffectError> {
        let publishes = match outcome {
            Outcome::Completed => &saga.on_completed,
            Outcome::Compensated => &saga.on_compensated,
        };
        let publish = publishes
            .get(index)
            .ok_or(EffectError::NotText("publish"))?;
        let effect = outcome_publish_id(outcome, index);
        let attempt = (effect.clone(), Side::Action, 1);
        Ok(Effect::Publish(self.publish_effect(
            saga,
            &Variables::new(self, saga),
            publish,
            effect,
            attempt,
            self.concluded_at.unwrap_or(self.at),
        )?))
    }

    fn publish_effect(
        &self,
        saga: &CompiledSaga,
        variables: &Variables<'_>,
        publish: &CompiledPublish,
        effect: String,
        attempt: (String, Side, u32),
        at: Timestamp,
    ) -> Result<PublishEffect, EffectError> {
        let entity = text(
            evaluate(variables, &publish.entity, "publish.entity")?,
            "publish.entity",
        )?;
        let data = evaluate(variables, &publish.data, "publish.data")?;
        let mut extensions = BTreeMap::from([
            ("correlationid".to_owned(), self.correlation_id.clone()),
            ("causationid".to_owned(), self.input.id.clone()),
            (
                "traceparent".to_owned(),
                self.traceparent(&effect, Side::Action, 1),
            ),
        ]);
        let state = self.tracestate();
        extensions.extend(state.map(|state| ("tracestate".to_owned(), state)));
        extensions.retain(|_, value| !value.is_empty());
        let event = Event {
            id: match planted(Bug::PublishIdPerTime) {
                true => format!("{effect}-{}", whim()),
                false => self.command(saga, &effect, Side::Action),
            },
            source: saga.resource.source(),
            event_type: publish.definition.event_type.clone(),
            subject: Some(entity),
            // Not the present time: whoever publishes it, and whenever, publishes the same event.
            time: Some(at.to_string()),
            extensions,
            data,
            stored_at: at,
        };
        Ok(PublishEffect {
            effect,
            attempt,
            stream: publish.definition.stream.clone(),
            event,
        })
    }

    fn correlation_header(&self) -> String {
        match planted(Bug::HeadersUnencoded) {
            true => self.correlation_id.clone(),
            false => percent_encode(&self.correlation_id),
        }
    }

    fn command(&self, saga: &CompiledSaga, step: &str, side: Side) -> String {
        let run8 = match planted(Bug::CommandIdWithoutRun) {
            true => "",
            false => self.run8.as_str(),
        };
        let side = match planted(Bug::CompensationIsSameCommand) {
            true => Side::Action,
            false => side,
        };
        command_id(&saga.resource, &self.id, run8, step, side)
    }

    /// W3C trace context of an attempt: the trace of the input, or one derived from the run, and a span derived
    /// from the attempt, so that every replay names the same span.
    /// What vendors say in the trace that started the instance, unchanged; without that trace it means nothing.
    fn tracestate(&self) -> Option<String> {
        let traceparent = self.input.extension("traceparent");
        let state = self.input.extension("tracestate");
        traceparent.filter(|text| is_traceparent(text))?;
        Some(state.filter(|text| is_tracestate(text))?.to_owned())
    }

    fn traceparent(&self, step: &str, side: Side, attempt: u32) -> String {
        let incoming = self
            .input
            .extension("traceparent")
            .filter(|text| is_traceparent(text));
        let trace = match incoming.and_then(|text| text.get(3..35)) {
            Some(trace) => trace.to_owned(),
            None => hex(&Sha256::digest(format!("trace {}", self.run8)), 32),
        };
        let flags = incoming.and_then(|text| text.get(53..55)).unwrap_or("01");
        let span = hex(
            &Sha256::digest(format!("{trace} {} {step}.{side}.{attempt}", self.run8)),
            16,
        );
        format!("00-{trace}-{span}-{flags}")
    }
}

fn is_tracestate(text: &str) -> bool {
    // W3C Trace Context §3.3.1.5: at least 512 characters are to be passed on.
    !text.is_empty() && text.len() <= 512 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_traceparent(text: &str) -> bool {
    let hex_at = |from: usize, to: usize| {
        text.get(from..to).is_some_and(|part| {
            part.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    text.len() == 55
        && text.starts_with("00-")
        && hex_at(3, 35)
        && text.get(35..36) == Some("-")
        && hex_at(36, 52)
        && text.get(52..53) == Some("-")
        && hex_at(53, 55)
}

fn evaluate(
    variables: &Variables<'_>,
    template: &Template,
    field: &'static str,
) -> Result<Value, EffectError> {
    variables
        .with(|bindings| template.evaluate(bindings))
        .map_err(|error| EffectError::Template { field, error })
}

fn text(value: Value, field: &'static str) -> Result<String, EffectError> {
    match value {
        Value::String(text) => Ok(text.to_string()),
        value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_json()),
        _ => Err(EffectError::NotText(field)),
    }
}

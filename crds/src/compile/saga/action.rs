//! What a step or a compensation does.

use std::collections::BTreeMap;

use tidemill_core::definition::{Action, HttpMethod, PublishDefinition};
use tidemill_core::json::Value;
use tidemill_core::names::TOKEN_SOURCE_BYTES_MAX;
use tidemill_core::planted::{Bug, planted};

use crate::common::{Header, Publish};
use crate::compile::constants::Gives;
use crate::compile::expressions::{Names, template, text_template};
use crate::compile::findings::Findings;
use crate::compile::values;
use crate::compile::{Access, StreamUse};
use crate::problem::{FieldPath, Reason};
use crate::saga::{Command, Http, Method, Request};
use crate::text::{CONNECTION_HEADER, Template};

/// How long the server lets a participant answer by default, in milliseconds: the life of a reply permission.
const REPLY_PERMISSION_MS: u64 = 120_000;

/// What is gathered over all actions of a saga.
pub(super) struct Context<'a> {
    pub(super) namespace: &'a str,
    pub(super) streams: &'a mut Vec<StreamUse>,
    pub(super) requests: Vec<(FieldPath, String)>,
}

/// The action of a step: one of these.
pub(super) struct Actions<'a> {
    pub(super) request: Option<&'a Request>,
    pub(super) command: Option<&'a Command>,
    pub(super) http: Option<&'a Http>,
    pub(super) publish: Option<&'a Publish>,
    /// The step has an action of another kind.
    pub(super) elsewhere: bool,
}

pub(super) fn compile(
    findings: &mut Findings,
    context: &mut Context<'_>,
    path: &FieldPath,
    actions: Actions<'_>,
    timeout_ms: u64,
    names: &Names<'_>,
) -> Option<Action> {
    let Actions {
        request,
        command,
        http,
        publish: publish_action,
        elsewhere,
    } = actions;
    if command.is_some() {
        findings.not_yet(
            &path.field("command"),
            "use `request` and a participant that is there, or `http`",
        );
    }
    let compiled = [
        request.map(|action| {
            compile_request(
                findings,
                context,
                &path.field("request"),
                action,
                timeout_ms,
                names,
            )
        }),
        http.map(|action| compile_http(findings, &path.field("http"), action, names)),
        publish_action.map(|action| {
            Action::Publish(publish(
                findings,
                context,
                &path.field("publish"),
                action,
                names,
            ))
        }),
    ];
    let mut compiled = compiled.into_iter().flatten();
    let action = compiled.next();
    let others = usize::from(command.is_some()) + usize::from(elsewhere) + compiled.count();
    if usize::from(action.is_some()) + others != 1 {
        findings.error(
            path,
            Reason::Malformed,
            "exactly one action is needed: request, http or publish",
        );
    }
    action
}

fn compile_request(
    findings: &mut Findings,
    context: &mut Context<'_>,
    path: &FieldPath,
    request: &Request,
    timeout_ms: u64,
    names: &Names<'_>,
) -> Action {
    let Request {
        subject,
        data,
        headers,
        allow_long_replies,
    } = request;
    if !headers.is_empty() {
        findings.not_yet(
            &path.field("headers"),
            "put what the participant needs into `data`",
        );
    }
    if timeout_ms > REPLY_PERMISSION_MS && !allow_long_replies.unwrap_or(false) {
        let message = "the timeout is above 2m, and by default the server lets a participant answer for 2 minutes only: give participants `allow_responses` with a longer `expires` and set allowLongReplies: true, or shorten the timeout";
        findings.warn(path, Reason::Unsound, message);
    }
    context
        .requests
        .push((path.field("subject"), subject.0.clone()));
    Action::Request {
        subject: subject.0.clone(),
        data: json(findings, &path.field("data"), data.as_ref(), names),
    }
}

fn compile_http(
    findings: &mut Findings,
    path: &FieldPath,
    http: &Http,
    names: &Names<'_>,
) -> Action {
    let Http {
        url,
        method,
        headers,
        body,
    } = http;
    text_template(findings, &path.field("url"), url, names, Gives::Text);
    let method = match method.unwrap_or_default() {
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
        Method::Get => HttpMethod::Get,
    };
    Action::Http {
        method,
        url: Value::from(url.as_str()),
        headers: compile_headers(findings, &path.field("headers"), headers, names),
        body: json(findings, &path.field("body"), body.as_ref(), names),
    }
}

fn compile_headers(
    findings: &mut Findings,
    path: &FieldPath,
    headers: &[Header],
    names: &Names<'_>,
) -> BTreeMap<String, Value> {
    let mut compiled: BTreeMap<String, Value> = BTreeMap::new();
    for (
        index,
        Header {
            name,
            value,
            value_from,
        },
    ) in headers.iter().enumerate()
    {
        let path = path.index(index);
        if value_from.is_some() {
            findings.not_yet(
                &path.field("valueFrom"),
                "use `value`, for what is no secret",
            );
        }
        if name.is_of_connection() && !planted(Bug::ConnectionHeaderSet) {
            findings.error(&path.field("name"), Reason::Malformed, CONNECTION_HEADER);
        }
        let value = value.as_deref().unwrap_or_default();
        text_template(findings, &path.field("value"), value, names, Gives::Text);
        if let Some(other) = compiled
            .keys()
            .find(|other| other.eq_ignore_ascii_case(name.as_str()))
        {
            let message = format!(
                "`{name}` stands here twice (`{other}`): case makes no difference in headers"
            );
            findings.error(&path.field("name"), Reason::Conflict, message);
        }
        compiled.insert(name.0.clone(), Value::from(value));
    }
    compiled
}

/// Compiles the publishing of an event.
pub(super) fn publish(
    findings: &mut Findings,
    context: &mut Context<'_>,
    path: &FieldPath,
    publish: &Publish,
    names: &Names<'_>,
) -> PublishDefinition {
    let Publish {
        stream,
        event_type,
        entity,
        data,
    } = publish;
    text_template(findings, &path.field("entity"), entity, names, Gives::Text);
    for (field, text) in [("type", event_type.as_str()), ("entity", entity.as_str())] {
        let literal = field == "type" || !text.starts_with('=');
        if literal && text.len() > TOKEN_SOURCE_BYTES_MAX {
            let message = format!(
                "{} bytes are too many for a part of a subject, at most {TOKEN_SOURCE_BYTES_MAX} are",
                text.len()
            );
            findings.error(&path.field(field), Reason::Malformed, message);
        }
    }
    let stream = values::stream(stream, context.namespace);
    context.streams.push(StreamUse {
        path: path.field("stream"),
        stream: stream.clone(),
        access: Access::Publish,
    });
    PublishDefinition {
        stream,
        event_type: event_type.0.clone(),
        entity: Value::from(entity.as_str()),
        data: json(findings, &path.field("data"), data.as_ref(), names),
    }
}

fn json(
    findings: &mut Findings,
    path: &FieldPath,
    value: Option<&Template>,
    names: &Names<'_>,
) -> Value {
    let Some(value) = value else {
        return Value::Null;
    };
    template(findings, path, &value.0, names);
    Value::from(value.0.clone())
}

//! Sagas of every shape that the machine knows, for simulation.

use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::definition::{
    Action, Compensation, HttpMethod, OnUnknown, PublishDefinition, Replies, SEMANTICS,
    SagaDefinition, StepDefinition, StreamRef,
};
use tidemill_core::envelope::Event;
use tidemill_core::json::{Object, Value};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_core::retry::Retry;
use tidemill_core::saga::CompiledSaga;
use tidemill_core::timestamp::Timestamp;

/// Every shape, by name.
///
/// # Panics
/// If one of them doesn't compile.
pub fn all() -> Vec<(&'static str, Arc<CompiledSaga>)> {
    let chain = || {
        vec![
            step("reserve", &[]),
            step("charge", &["reserve"]),
            http("ship", &["charge"]),
        ]
    };
    let diamond = || {
        vec![
            step("open", &[]),
            step("left", &["open"]),
            http("right", &["open"]),
            step("close", &["left", "right"]),
        ]
    };
    let with = |mut steps: Vec<StepDefinition>, change: &dyn Fn(&mut Vec<StepDefinition>)| {
        change(&mut steps);
        steps
    };
    let wide = || {
        vec![
            step("left", &[]),
            http("right", &[]),
            step("close", &["left", "right"]),
        ]
    };
    let shapes = vec![
        ("chain", chain()),
        (
            "requests",
            vec![
                step("reserve", &[]),
                step("charge", &["reserve"]),
                step("ship", &["charge"]),
            ],
        ),
        ("diamond", diamond()),
        (
            "pivot",
            with(chain(), &|steps| {
                steps[1].pivot = true;
                steps[1].compensation = None;
                steps[2].compensation = None;
            }),
        ),
        (
            "park-unknown",
            with(chain(), &|steps| steps[1].on_unknown = OnUnknown::Park),
        ),
        (
            "conditional",
            with(chain(), &|steps| {
                steps[1].when = Some("input.data.total > 5000".to_owned())
            }),
        ),
        (
            "publishing",
            with(chain(), &|steps| {
                steps[1].action = Action::Publish(publish("Charged"));
                steps[1].compensation = Some(compensation(Action::Publish(publish("Refunded"))));
            }),
        ),
        (
            "no-compensation",
            with(chain(), &|steps| steps[0].compensation = None),
        ),
        (
            "park-both",
            with(wide(), &|steps| {
                steps[0].on_unknown = OnUnknown::Park;
                steps[1].on_unknown = OnUnknown::Park;
            }),
        ),
        (
            "wide-after-pivot",
            with(diamond(), &|steps| {
                steps[0].pivot = true;
                steps[3].when = Some("has(steps.left.output.done)".to_owned());
                for step in steps {
                    step.compensation = None;
                }
            }),
        ),
        (
            "pivot-beside",
            with(wide(), &|steps| {
                steps[1].pivot = true;
                steps[1].compensation = None;
                steps[2].compensation = None;
            }),
        ),
        (
            "publishing-beside",
            with(wide(), &|steps| {
                steps[1].action = Action::Publish(publish("Charged"));
                steps[1].compensation = Some(compensation(Action::Publish(publish("Refunded"))));
            }),
        ),
    ];
    shapes
        .into_iter()
        .map(|(name, steps)| (name, compile(steps)))
        .collect()
}

/// An event that starts an instance.
pub fn event(id: &str, entity: &str, data: Value) -> Event {
    Event {
        id: id.to_owned(),
        source: "/simulation".to_owned(),
        event_type: "OrderPlaced".to_owned(),
        subject: Some(entity.to_owned()),
        time: None,
        extensions: BTreeMap::new(),
        data,
        stored_at: Timestamp::from_millis(0),
    }
}

fn compile(steps: Vec<StepDefinition>) -> Arc<CompiledSaga> {
    let definition = SagaDefinition {
        semantics: SEMANTICS,
        triggers: Vec::new(),
        steps,
        on_completed: vec![publish("OrderConfirmed")],
        on_compensated: vec![publish("OrderRejected")],
        timeout_ms: 3_600_000,
        replies: Replies::Direct,
    };
    let resource = ResourceId::new(Kind::Saga, "shop", "simulated");
    Arc::new(CompiledSaga::new(resource, definition).expect("a shape compiles"))
}

fn object(entries: &[(&str, &str)]) -> Value {
    Value::Object(
        entries
            .iter()
            .map(|(name, value)| (*name, Value::from(*value)))
            .collect::<Object>(),
    )
}

fn publish(event_type: &str) -> PublishDefinition {
    PublishDefinition {
        stream: StreamRef {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        },
        event_type: event_type.to_owned(),
        entity: Value::from("=input.subject"),
        data: object(&[("total", "=input.data.total")]),
    }
}

fn compensation(action: Action) -> Compensation {
    let retry = Retry {
        max_attempts: 50,
        initial_backoff_ms: 200,
        max_backoff_ms: 5_000,
    };
    Compensation {
        action,
        timeout_ms: 2_000,
        step_timeout_ms: 3_600_000,
        retry,
    }
}

fn request(name: &str, verb: &str) -> Action {
    Action::Request {
        subject: format!("{name}.{verb}"),
        data: object(&[
            ("order", "=input.data.orderId"),
            ("command", &format!("=steps.{name}.commandId")),
        ]),
    }
}

fn step(name: &str, after: &[&str]) -> StepDefinition {
    StepDefinition {
        name: name.to_owned(),
        after: after.iter().map(|&step| step.to_owned()).collect(),
        when: None,
        action: request(name, "do"),
        compensation: Some(compensation(request(name, "undo"))),
        timeout_ms: 1_000,
        step_timeout_ms: 300_000,
        retry: Retry {
            max_attempts: 4,
            initial_backoff_ms: 100,
            max_backoff_ms: 2_000,
        },
        pivot: false,
        on_unknown: OnUnknown::Compensate,
    }
}

fn http(name: &str, after: &[&str]) -> StepDefinition {
    let call = |verb: &str| Action::Http {
        method: HttpMethod::Post,
        url: Value::from(format!("http://{name}/{verb}").as_str()),
        headers: BTreeMap::new(),
        body: object(&[("order", "=input.data.orderId")]),
    };
    StepDefinition {
        action: call("do"),
        compensation: Some(compensation(call("undo"))),
        ..step(name, after)
    }
}

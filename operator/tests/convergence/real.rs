//! The model answers as the real server does.

use crate::model::Model;
use serde_json::json;
use tidemill_core::contract::Connection;
use tidemill_nats::provision::{Mark, StreamPlan, decide};
use tidemill_nats::{ApiError, Nats};
use tidemill_operator::jetstream::JetStream;
use tidemill_testbed::NatsServer;

fn plan(name: &str, subject: &str, messages_max: Option<u64>) -> StreamPlan {
    let mark = Mark::event_stream("main", "shop", name, "i-1");
    let mut plan = StreamPlan::new(name, vec![subject.to_owned()], mark);
    plan.limits.messages_max = messages_max;
    plan
}

/// What became of each of the same calls.
async fn story(jetstream: &impl JetStream) -> Vec<String> {
    let mut told = Vec::new();
    let code = |result: Result<(), ApiError>| match result {
        Ok(()) => "ok".to_owned(),
        Err(ApiError::Refused { code, .. }) => format!("refused {code}"),
        Err(ApiError::StreamMissing(_)) => "missing".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    let (first, wider) = (plan("a", "x.>", None), plan("a", "x.>", Some(5)));
    let (overlapping, other) = (plan("b", "x.y", None), plan("b", "y.>", None));
    for (what, name, plan) in [
        ("update", "a", &first),
        ("create", "a", &first),
        ("create", "a", &first),
        ("create", "a", &wider),
        ("create", "b", &overlapping),
        ("create", "b", &other),
        ("update", "b", &overlapping),
        ("update", "a", &wider),
    ] {
        let config = plan.config();
        let result = match what {
            "create" => jetstream.create(name, &config).await,
            _ => jetstream.update(name, &config).await,
        };
        told.push(format!("{what} {name}: {}", code(result)));
    }
    for subject in ["x.y", "x.>", "y.z", "z"] {
        let streams = jetstream.streams_on(subject).await.unwrap();
        told.push(format!("{subject}: {streams:?}"));
    }
    for (name, plan) in [("a", &wider), ("b", &other), ("c", &first)] {
        let state = jetstream.stream(name).await.unwrap();
        let seen = state.map(|state| (format!("{:?}", decide(plan, &state)), state.incarnation));
        told.push(format!("{name}: {}", json!(seen)));
    }
    told
}

#[tokio::test]
async fn jetstream_does_the_same() {
    let server = NatsServer::start().await.unwrap();
    let nats = Nats::connect(&Connection::plain(&server.url()), "test")
        .await
        .unwrap();
    let real = story(&nats).await;
    assert_eq!(story(&Model::default()).await, real);
    assert!(
        real.iter().any(|line| line.ends_with("refused 10065")),
        "{real:#?}"
    );
}

//! Where a saga's worker meets what isn't its own: targets that can't be published to, a definition that is gone, an event that
//! can't be read, the trace context of others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidemill_core::contract::{StreamBinding, Workload};
use tidemill_core::control::{Described, InstanceRequest};
use tidemill_core::definition::{
    Action, HttpMethod, PublishDefinition, Revision, SagaDefinition, StepDefinition, StreamRef,
};
use tidemill_core::json::Value;
use tidemill_core::names::{ParkedSubject, REVISIONS_BUCKET};
use tidemill_core::parked::{Kept, Parked};
use tidemill_core::status::InstanceState;
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{KvWrite, Publish, Publisher};
use tidemill_testbed::fulfilment::{
    CAP, counted, definition, done, order, participants, settled, start,
};
use tidemill_testbed::http::{HttpAnswer, HttpServer};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, eventually};

/// `traceparent` and `tracestate` as they were received.
type Context = (Option<String>, Option<String>);

/// Until the worker says this of an instance.
async fn described(lab: &Lab, id: &str, state: InstanceState) -> Described {
    let request = InstanceRequest { id: id.to_owned() };
    eventually(&format!("{id}: {state:?}"), CAP, || async {
        let described: Described = lab.ask("describe", &request).await?;
        match described.summary.state == state {
            true => Ok(described),
            false => Err(anyhow::anyhow!("{described:?}")),
        }
    })
    .await
}

/// Instance `<target>` publishes to stream `<target>` and does nothing else.
fn publishing(targets: &[&str]) -> SagaDefinition {
    let mut definition = definition();
    let like = definition.steps.remove(0);
    let step = |target: &&str| StepDefinition {
        name: (*target).to_owned(),
        after: Vec::new(),
        when: Some(format!("saga.id == '{target}'")),
        action: Action::Publish(PublishDefinition {
            stream: stream(target),
            event_type: "Told".to_owned(),
            entity: Value::from("=saga.id"),
            data: Value::Null,
        }),
        compensation: None,
        ..like.clone()
    };
    definition.steps = targets.iter().map(step).collect();
    definition.on_completed.clear();
    definition.on_compensated.clear();
    definition
}

fn stream(name: &str) -> StreamRef {
    StreamRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_in_which_an_event_can_t_be_found_again_is_refused() {
    let transform = serde_json::json!({"src": "shop.moved.>", "dest": "elsewhere.>"});
    let unfit = [
        ("moved", "subject_transform", transform, "subject transform"),
        (
            "last",
            "max_msgs_per_subject",
            1.into(),
            "limits the messages of a subject",
        ),
        (
            "queue",
            "retention",
            "workqueue".into(),
            "WorkQueue or Interest retention",
        ),
        ("silent", "no_ack", true.into(), "doesn't acknowledge"),
    ];
    let targets: Vec<&str> = unfit.iter().map(|(name, ..)| *name).collect();
    let mut lab = Lab::saga("fulfilment", publishing(&targets))
        .await
        .expect("a lab");
    for (name, setting, value, _) in &unfit {
        let prefix = format!("shop.{name}");
        let mark = Mark::event_stream("test", "shop", name, "1");
        let mut plan = StreamPlan::new(&format!("shop_{name}"), vec![format!("{prefix}.>")], mark);
        match *setting {
            "max_msgs_per_subject" => plan.limits.messages_per_subject_max = Some(1),
            _ => {
                plan.further.insert((*setting).to_owned(), value.clone());
            }
        }
        ensure(&lab.nats, &plan).await.expect("a stream");
        lab.contract.streams.push(StreamBinding {
            stream: stream(name),
            name: plan.name.clone(),
            prefix,
            capture: Vec::new(),
        });
    }
    let _worker = lab.worker("a").expect("a worker");
    for (name, _, _, why) in &unfit {
        assert!(start(&lab, name).await);
        let parked = described(&lab, name, InstanceState::Parked).await.summary;
        assert_eq!(
            parked.reason.as_deref(),
            Some("PublishRefused"),
            "{parked:?}"
        );
        let message = parked.message.unwrap_or_default();
        assert!(message.contains(why), "{name}: {message}");
        let kept = lab.messages(&format!("shop_{name}"), Vec::new()).await;
        assert!(
            kept.is_err() || kept.is_ok_and(|kept| kept.is_empty()),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_definition_is_gone_is_shown_and_goes_on_when_it_is_there() {
    let mut lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    // The first step is answered once the definition is back, by a later attempt; the others at once.
    let participants = participants(&lab, |command| match command.ends_with("/reserve") {
        true => Conduct::HoldFirstAnswer,
        false => Conduct::Do,
    })
    .await;
    let mut first = lab.worker("a").expect("a worker");
    assert!(start(&lab, "o-1").await);
    done(&participants, "a request", |ledger| ledger.held() == 1).await;
    first.kill9();
    let bucket = lab.bucket(REVISIONS_BUCKET);
    let revision: Revision = definition().revision();
    let key = lab.contract.resource.revision_key(&revision);
    let kept = bucket.get(&key).await.expect("read").expect("kept");
    let write = |value| KvWrite {
        key: key.clone(),
        value,
        ..KvWrite::default()
    };
    bucket.write(write(None)).await.expect("deleted");
    // The new worker knows another definition.
    if let Workload::Saga(workload) = &mut lab.contract.workload {
        workload.definition.timeout_ms += 1;
    }
    let _second = lab.worker("b").expect("a worker");
    let shown = eventually("the instance shown", CAP, || async {
        let summary = lab.summaries().await?.remove("o-1");
        summary
            .filter(|summary| summary.state == InstanceState::Parked)
            .ok_or_else(|| anyhow::anyhow!("not yet"))
    })
    .await;
    assert_eq!(
        shown.reason.as_deref(),
        Some("DefinitionMissing"),
        "{shown:?}"
    );
    assert_eq!(shown.revision, revision);
    let message = shown.message.unwrap_or_default();
    assert!(message.contains(revision.as_str()), "{message}");
    bucket
        .write(write(Some(kept.value)))
        .await
        .expect("put back");
    // The attempt that was under way has gone unanswered: another is made.
    let end = settled(&lab, "o-1").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    assert_eq!(end.summary.revision, revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_t_start_anything_is_kept_as_every_parked_event_is() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let _worker = lab.worker("a").expect("a worker");
    let publisher = Publisher::new(&lab.nats, 8);
    // `when` reads what isn't there.
    let mut bad = order(1);
    bad.payload = "{}".into();
    publisher.publish(bad).await.await.expect("stored");
    let nothing = Publish::new("shop.orders.o-2.OrderPlaced".to_owned(), "{}");
    publisher.publish(nothing).await.await.expect("stored");
    counted(&lab, "both parked", |counters| {
        counters
            .triggers
            .get("shop/orders")
            .is_some_and(|trigger| trigger.parked == 2)
    })
    .await;
    let resource = &lab.contract.resource;
    let stored = lab.events().await.expect("events");
    let mut found = BTreeMap::new();
    for message in lab
        .messages(&resource.parked_stream(), Vec::new())
        .await
        .expect("parked")
    {
        let headers = message.headers.as_ref().expect("headers");
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| (name.as_ref(), value.as_str()))
            })
            .collect();
        let parked = Parked::read(&headers, &message.payload).expect("a parked event");
        let subject = ParkedSubject::parse(&message.subject, resource, lab.nats.root());
        let Some(ParkedSubject::Trigger { position, .. }) = subject else {
            panic!("{}", message.subject);
        };
        assert_eq!(position, parked.position);
        let event = &stored[usize::try_from(position.sequence).expect("small") - 1];
        assert_eq!(parked.stored_at, event.stored_at);
        let Kept::Copied {
            subject,
            headers,
            payload,
        } = parked.kept
        else {
            panic!("copied");
        };
        assert_eq!(
            (subject.as_str(), &payload[..]),
            (event.subject.as_str(), &event.payload[..])
        );
        let id = headers.into_iter().find(|(name, _)| name == "ce-id");
        let reason = parked
            .failure
            .map(|failure| failure.reason)
            .unwrap_or_default();
        found.insert(position.sequence, (reason, id.map(|(_, id)| id)));
    }
    let expected = BTreeMap::from([
        (1, ("NoSuchKey".to_owned(), Some("e-1".to_owned()))),
        (2, ("Undecodable".to_owned(), None)),
    ]);
    assert_eq!(found, expected);
}

/// Trace contexts of other systems go from the event through every request to the outcome's event.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_over_nats_http_and_the_outcome() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const STATE: &str = "vendor=1,other=a:b";
    let seen: Arc<Mutex<Vec<Context>>> = Arc::default();
    let server = {
        let seen = Arc::clone(&seen);
        HttpServer::start(move |request| {
            let header = |name: &str| request.header(name).map(str::to_owned);
            let pair = (header("traceparent"), header("tracestate"));
            seen.lock().expect("the list").push(pair);
            HttpAnswer::json(200, "{}")
        })
        .await
    };
    let server = server.expect("a server");
    let mut definition = definition();
    definition.steps[2].action = Action::Http {
        method: HttpMethod::Post,
        url: Value::from(server.url("/ship").as_str()),
        headers: BTreeMap::new(),
        body: Value::Null,
    };
    let lab = Lab::saga("fulfilment", definition).await.expect("a lab");
    let participants = participants(&lab, |_| Conduct::Do).await;
    let _worker = lab.worker("a").expect("a worker");
    let mut event = order(1);
    event.headers.insert(
        "ce-traceparent",
        format!("00-{TRACE}-00f067aa0ba902b7-01").as_str(),
    );
    event.headers.insert("ce-tracestate", STATE);
    Publisher::new(&lab.nats, 1)
        .publish(event)
        .await
        .await
        .expect("stored");
    let end = settled(&lab, "o-1").await;
    assert_eq!(end.summary.state, InstanceState::Completed, "{end:#?}");
    let mut spans: Vec<Context> = participants.ledger(|ledger| {
        let of = |headers: &BTreeMap<String, String>| {
            let header = |name: &str| headers.get(name).cloned();
            (header("traceparent"), header("tracestate"))
        };
        ledger.headers.values().map(of).collect()
    });
    spans.append(&mut seen.lock().expect("the list"));
    let events = lab.events().await.expect("events");
    let outcome = events
        .iter()
        .find(|event| event.subject.ends_with(".OrderConfirmed"));
    let headers = outcome
        .and_then(|event| event.headers.as_ref())
        .expect("an outcome");
    let header = |name: &str| headers.get(name).map(|value| value.to_string());
    spans.push((header("ce-traceparent"), header("ce-tracestate")));
    assert_eq!(spans.len(), 4, "{spans:?}");
    let mut parents: Vec<String> = Vec::new();
    for (parent, state) in &spans {
        let parent = parent.clone().unwrap_or_default();
        assert!(parent.starts_with(&format!("00-{TRACE}-")), "{spans:?}");
        assert_eq!(state.as_deref(), Some(STATE), "{spans:?}");
        parents.push(parent);
    }
    parents.sort();
    parents.dedup();
    assert_eq!(parents.len(), 4, "a span of its own each: {spans:?}");
}

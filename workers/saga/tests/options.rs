//! Limits and intervals that no test could wait for, made small: the worker in this process, on a real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;
use tidemill_core::control::{StartReply, StartRequest};
use tidemill_core::json::Value;
use tidemill_testbed::fulfilment::{CAP, counted, definition, participants, place};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, eventually};
use tidemill_worker_runtime::{Health, Metrics, WorkerContext};
use tidemill_worker_saga::{Options, RunError, run_with};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Worker {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Worker {
    async fn start(lab: &Lab, options: Options) -> Worker {
        let (health, shutdown) = (Health::new(), CancellationToken::new());
        let connection = &lab.contract.connection;
        let context = WorkerContext {
            contract: Arc::new(lab.contract.clone()),
            nats: tidemill_nats::Nats::connect(connection, "a").await.unwrap(),
            pod: "a".to_owned(),
            health: health.clone(),
            metrics: Metrics::new(),
            shutdown: shutdown.clone(),
        };
        Worker {
            health,
            shutdown,
            task: tokio::spawn(run_with(context, options)),
        }
    }

    async fn says(&self, what: &str, wanted: impl Fn(bool, &str) -> bool) {
        eventually(what, CAP, async || {
            let report = self.health.report();
            let reasons = format!("{:?}", report.reasons);
            match wanted(report.ready, &reasons) {
                true => Ok(()),
                false => Err(reasons),
            }
        })
        .await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_while_as_many_run_as_may_and_at_twice_as_many_requests_are_refused() {
    let lab = Lab::saga("fulfilment", definition()).await.unwrap();
    let options = Options::default().with_running_max(5);
    let worker = Worker::start(&lab, options).await;
    // Nobody does anything for them.
    place(&lab, 0..5).await;
    counted(&lab, "as many as may run", |counters| counters.running == 5).await;
    // A trigger that was waiting when the last one was counted takes one batch more.
    place(&lab, 5..1_005).await;
    let mut accepted = 0;
    let refused = loop {
        assert!(accepted < 20, "requests are refused");
        let request = StartRequest {
            id: format!("by-request-{accepted}"),
            data: Value::parse(br#"{"orderId":"x","total":25}"#).unwrap(),
            subject: None,
            correlation_id: None,
        };
        match lab.ask::<StartReply>("start", &request).await {
            Ok(reply) => accepted += u64::from(reply.started),
            Err(refused) => break refused,
        }
    };
    let expected = "Unavailable: 10 instances are running in this worker: ask again later";
    assert_eq!(refused.to_string(), expected);
    counted(&lab, "the events wait", |counters| {
        (10..600).contains(&counters.started) && counters.running == counters.started
    })
    .await;

    let _participants = participants(&lab, |_| Conduct::Do).await;
    // One event in ten starts nothing.
    counted(&lab, "all of them", |counters| {
        (counters.completed, counters.running) == (counters.started, 0) && counters.started > 800
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_a_requests_subject_is_found_while_nothing_happens() {
    let lab = Lab::saga("fulfilment", definition()).await.unwrap();
    let options = Options::default().with_look_interval(Duration::from_millis(100));
    let worker = Worker::start(&lab, options).await;
    worker.says("ready", |ready, _| ready).await;
    let jetstream = lab.nats.jetstream();
    let captor = async_nats::jetstream::stream::Config {
        name: "captor".to_owned(),
        subjects: vec!["ship.do".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(captor).await.unwrap();
    let captured = |_, reasons: &str| reasons.contains("stream captor takes ship.do");
    worker.says("SubjectCaptured", captured).await;
    jetstream.delete_stream("captor").await.unwrap();
    worker.says("ready again", |ready, _| ready).await;
    worker.stop().await;
}

#[test]
fn the_guide_says_what_the_defaults_are() {
    let said = include_str!("../../../docs/guide/operations.md");
    let options = Options::default();
    let running = options.running_max / 1000;
    let limit = format!("| {running},000; twice as many |");
    assert!(said.contains(&limit), "{limit}");
    let said = include_str!("../../../docs/guide/sagas.md");
    assert_eq!(options.look_interval, Duration::from_secs(60));
    assert!(said.contains("looked for at the start and every\nminute"));
}

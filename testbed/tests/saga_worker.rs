//! Saga workers as processes on a real server.

use tidemill_core::control::{Described, InstanceRequest, StartReply, StartRequest};
use tidemill_core::json::Value;
use tidemill_core::names::Kind;
use tidemill_core::status::InstanceState;
use tidemill_testbed::Lab;
use tidemill_testbed::fulfilment::{
    CAP, by_number, check, completed, definition, participants, place,
};

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_carried_through_whatever_dies() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, by_number).await;
    let mut first = lab.worker("a").expect("a worker");
    place(&lab, 0..200).await;
    completed(&lab, 20).await;
    first.kill9();
    let mut second = lab.worker("b").expect("a worker");
    place(&lab, 200..400).await;
    check(&lab, &participants, 400).await;

    // Asked for, not triggered.
    let started: StartReply = lab
        .ask(
            "start",
            &StartRequest {
                id: "by-hand".to_owned(),
                data: Value::parse(b"{\"total\":5}").expect("JSON"),
                subject: None,
                correlation_id: None,
            },
        )
        .await
        .expect("started");
    assert!(started.started);
    let request = InstanceRequest {
        id: "by-hand".to_owned(),
    };
    let described: Described = lab.ask("await", &request).await.expect("an end");
    // `input.data.orderId` isn't there.
    assert_eq!(
        described.summary.reason.as_deref(),
        Some("ExpressionError"),
        "{described:#?}"
    );
    assert_eq!(described.summary.state, InstanceState::Compensated);
    assert_eq!(lab.contract.resource.kind, Kind::Saga);

    second.terminate().expect("SIGTERM");
    assert!(
        second.wait_exit(CAP).await.expect("an end").success(),
        "{}",
        second.stderr()
    );
}

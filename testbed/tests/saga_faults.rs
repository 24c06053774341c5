//! A saga under load while the server and its workers die, freeze, come and go: every instance ends as it must, every
//! event of an outcome is there once, and the figures are exact.

use async_nats::jetstream::stream::Config;
use futures::future::join;
use std::time::Duration;
use tidemill_nats::Publisher;
use tidemill_testbed::fulfilment::{
    CAP, by_number, check, completed, definition, number, order, participants, place, said,
};
use tidemill_testbed::{Lab, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_costs_nothing_but_time() {
    let mut lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, by_number).await;
    let _worker = lab.worker("a").expect("a worker");
    place(&lab, 0..150).await;
    completed(&lab, 10).await;
    lab.server.kill9();
    said(&lab, "a", "nats: NATS at").await;
    lab.server.restart().await.expect("the server again");
    place(&lab, 150..300).await;
    completed(&lab, 150).await;
    lab.server.kill9();
    lab.server.restart().await.expect("the server again");
    check(&lab, &participants, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_that_goes_on_beside_its_successor_does_nothing_twice() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, by_number).await;
    let mut frozen = lab.worker("a").expect("a worker");
    place(&lab, 0..150).await;
    completed(&lab, 10).await;
    frozen.sigstop().await.expect("frozen");
    place(&lab, 150..250).await;
    let _successor = lab.worker("b").expect("a worker");
    // Nothing but a successor can bring this about.
    completed(&lab, 140).await;
    // Both believe that they are the owner now, and both have work.
    let going_on = async { frozen.sigcont().expect("it goes on") };
    join(place(&lab, 250..400), going_on).await;
    check(&lab, &participants, 400).await;
    assert!(frozen.ended().is_none(), "{}", frozen.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_join_leave_and_die_while_orders_come() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, by_number).await;
    let _stays = lab.worker("a").expect("a worker");
    let mut leaves = lab.worker("b").expect("a worker");
    let mut dies = lab.worker("c").expect("a worker");
    place(&lab, 0..150).await;
    completed(&lab, 10).await;
    let _joins = lab.worker("d").expect("a worker");
    place(&lab, 150..250).await;
    leaves.terminate().expect("SIGTERM");
    place(&lab, 250..350).await;
    dies.kill9();
    place(&lab, 350..400).await;
    check(&lab, &participants, 400).await;
    let end = leaves.wait_exit(CAP).await.expect("an end");
    assert!(end.success(), "{}", leaves.stderr());
}

/// An event counts with the position that passes it: one that was read and not dealt with is read again by the next owner.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_killed_worker_had_under_way_are_counted_once() {
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let participants = participants(&lab, by_number).await;
    let mut dies = lab.worker("a").expect("a worker");
    place(&lab, 0..1).await;
    completed(&lab, 1).await;
    let jetstream = async_nats::jetstream::new(lab.server.client().await.expect("a client"));
    let log = "shop_fulfilment_log";
    let open = jetstream
        .get_stream(log)
        .await
        .expect("the log")
        .cached_info()
        .config
        .clone();
    let full = async_nats::jetstream::stream::Config {
        max_bytes: 1,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..open.clone()
    };
    jetstream
        .update_stream(&full)
        .await
        .expect("a log that takes nothing");
    place(&lab, 1..20).await;
    // `o-9` and `o-19` start nothing; what was counted before they were is written with them or earlier.
    eventually("what starts nothing is counted", CAP, || async {
        match lab.counters().await?.triggers["shop/orders"].skipped {
            3 => Ok(()),
            skipped => Err(anyhow::anyhow!("{skipped}")),
        }
    })
    .await;
    dies.kill9();
    jetstream
        .update_stream(&open)
        .await
        .expect("a log as it was");
    let _worker = lab.worker("b").expect("a worker");
    check(&lab, &participants, 20).await;
    // Of what was finished before, whoever folds the log later asks nobody again.
    participants.ledger(|ledger| {
        let asked = ledger.asked.iter().filter(|(id, _)| number(id) == 0);
        for (command, asked) in asked {
            assert_eq!(*asked, 1, "{command}");
        }
    });
    // The same event once more is not the same instance once more.
    let mut again = order(5);
    again.message_id = None;
    again.headers.insert("ce-id", "another");
    let publisher = Publisher::new(&lab.nats, 1);
    publisher.publish(again).await.await.expect("stored");
    eventually("it is there already", CAP, || async {
        let counters = lab.counters().await?;
        match (counters.triggers["shop/orders"].existing, counters.started) {
            (1, 18) => Ok(()),
            other => Err(anyhow::anyhow!("{other:?}")),
        }
    })
    .await;
}

/// What the server's own memory of message ids doesn't hold any more is held by the stream itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_published_once_long_after_the_duplicate_window() {
    const WINDOW: Duration = Duration::from_millis(200);
    let lab = Lab::saga("fulfilment", definition()).await.expect("a lab");
    let jetstream = async_nats::jetstream::new(lab.server.client().await.expect("a client"));
    let config = async |stream: &str| {
        let stream = jetstream.get_stream(stream).await.expect("the stream");
        stream.cached_info().config.clone()
    };
    let short = Config {
        duplicate_window: WINDOW,
        ..config("shop_orders").await
    };
    jetstream
        .update_stream(&short)
        .await
        .expect("a short window");
    let log = config("shop_fulfilment_log").await;
    // All kinds of inputs but `p`: that an event is stored can't be said in the log.
    let without_p = Config {
        subjects: ["s", "r.>", "x.>", "t.>", "c", "d"]
            .iter()
            .map(|kind| format!("_tm.log.shop.fulfilment.*.*.{kind}"))
            .collect(),
        ..log.clone()
    };
    jetstream
        .update_stream(&without_p)
        .await
        .expect("a log without p");
    let participants = participants(&lab, by_number).await;
    let mut sleeps = lab.worker("a").expect("a worker");
    place(&lab, 0..29).await;
    // 27 of the 29 start an instance.
    let last = eventually("every outcome stored", CAP, || async {
        let events = lab.events().await?;
        match events.last() {
            Some(last) if events.len() == 29 + 27 => Ok(last.clone()),
            _ => Err(anyhow::anyhow!("{} events", events.len())),
        }
    })
    .await;
    let none = lab.messages(
        "shop_fulfilment_log",
        vec!["_tm.log.shop.fulfilment.*.*.p.>".into()],
    );
    assert!(none.await.expect("the log").is_empty());
    sleeps.kill9();
    jetstream.update_stream(&log).await.expect("the whole log");
    let headers = last.headers.expect("headers");
    let mut probe = order(29);
    probe.message_id = headers.get("Nats-Msg-Id").map(|id| id.as_str().to_owned());
    assert!(probe.message_id.is_some());
    let publisher = Publisher::new(&lab.nats, 1);
    eventually("the id of the last outcome is forgotten", CAP, || async {
        match publisher.publish(probe.clone()).await.await {
            Ok(acked) if !acked.duplicate => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let _wakes = lab.worker("b").expect("a worker");
    check(&lab, &participants, 30).await;
}

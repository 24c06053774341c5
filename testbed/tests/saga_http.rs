//! `http` steps against a server that answers, refuses, fails, hangs, talks nonsense or is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemill_core::control::Described;
use tidemill_core::definition::{Action, HttpMethod, SagaDefinition};
use tidemill_core::json::Value;
use tidemill_core::status::InstanceState;
use tidemill_testbed::fulfilment::{CAP, definition, participants, settled, start};
use tidemill_testbed::http::{HttpAnswer, HttpRequest, HttpServer};
use tidemill_testbed::participants::Conduct;
use tidemill_testbed::{Lab, Process, eventually};

/// As docs/guide/operations.md says.
const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// When each path was asked by each idempotency key.
type Asked = Arc<Mutex<BTreeMap<(String, String), Vec<Instant>>>>;

/// Only `ship`, over HTTP, with a compensation.
fn shipping(address: &str) -> SagaDefinition {
    let mut definition = definition();
    let mut ship = definition.steps.remove(2);
    let http = |path: &str| Action::Http {
        method: HttpMethod::Post,
        url: Value::from(format!("http://{address}{path}").as_str()),
        headers: BTreeMap::new(),
        body: Value::parse(br#"{"order":"=input.data.orderId"}"#).expect("JSON"),
    };
    ship.action = http("/do");
    ship.after = Vec::new();
    ship.timeout_ms = 500;
    ship.retry.max_attempts = 3;
    if let Some(compensation) = &mut ship.compensation {
        compensation.action = http("/undo");
    }
    definition.steps = vec![ship];
    definition
}

/// What the server says to an order's `nth` request (from 1).
fn conduct(order: &str, nth: usize) -> HttpAnswer {
    let fine = || HttpAnswer::json(200, "{\"tracking\":7}");
    let first = |answer: HttpAnswer| if nth == 1 { answer } else { fine() };
    match order {
        "no-content" => HttpAnswer::Status(204, Vec::new(), Vec::new()),
        "bad-request" => HttpAnswer::json(400, "{\"error\":\"no such street\"}"),
        "conflict" => HttpAnswer::json(409, "no JSON"),
        "not-found" => first(HttpAnswer::json(404, "{}")),
        "broken" => first(HttpAnswer::json(500, "{}")),
        "busy" => first(HttpAnswer::Status(
            503,
            vec![("retry-after", "2".to_owned())],
            Vec::new(),
        )),
        "hangs" => first(HttpAnswer::Hang),
        "html" => first(HttpAnswer::json(200, "<html>")),
        "no-http" => first(HttpAnswer::Raw(b"SSH-2.0-server\r\n".to_vec())),
        "half" => first(HttpAnswer::Raw(
            b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{\"trac".to_vec(),
        )),
        "closes" => first(HttpAnswer::Close),
        "elsewhere" => first(HttpAnswer::Status(
            307,
            vec![("location", "/elsewhere".to_owned())],
            Vec::new(),
        )),
        "largest" => HttpAnswer::json(200, &padded(ANSWER_BYTES_MAX)),
        "too-large" => HttpAnswer::json(200, &padded(ANSWER_BYTES_MAX + 1)),
        // More than the log takes.
        "huge" => HttpAnswer::json(200, &format!("\"{}\"", "x".repeat(1 << 20))),
        _ => fine(),
    }
}

/// A good answer of so many bytes.
fn padded(bytes: usize) -> String {
    let around = "{\"tracking\":7,\"and\":\"\"}".len();
    format!(
        "{{\"tracking\":7,\"and\":\"{}\"}}",
        "x".repeat(bytes - around)
    )
}

fn answer(asked: &Asked, request: &HttpRequest) -> HttpAnswer {
    let key = request.header("idempotency-key").unwrap_or("none");
    let mut asked = asked.lock().expect("the list");
    let times = asked
        .entry((request.path.clone(), key.to_owned()))
        .or_default();
    times.push(Instant::now());
    let body = Value::parse(&request.body).unwrap_or(Value::Null);
    let order = body.get("order").and_then(Value::as_str).unwrap_or("");
    match request.path.as_str() {
        "/do" => conduct(order, times.len()),
        _ => HttpAnswer::json(200, "{}"),
    }
}

struct World {
    lab: Lab,
    asked: Asked,
    worker: Process,
}

impl World {
    async fn with(address: &str, asked: &Asked) -> World {
        let lab = Lab::saga("fulfilment", shipping(address))
            .await
            .expect("a lab");
        let worker = lab.worker("a").expect("a worker");
        let asked = Arc::clone(asked);
        World { lab, asked, worker }
    }

    async fn end_of(&self, order: &str, state: InstanceState) -> Described {
        let end = settled(&self.lab, order).await;
        assert_eq!(end.summary.state, state, "{order}: {end:#?}");
        end
    }

    /// When an order's path was asked, which must have been with one key.
    fn times(&self, order: &str, path: &str) -> Vec<Instant> {
        let asked = self.asked.lock().expect("the list");
        let mut of = asked
            .iter()
            .filter(|((asked, key), _)| asked == path && key.split('/').nth(2) == Some(order));
        let times = of.next().map(|(_, times)| times.clone());
        assert_eq!(of.next(), None, "{order}: one idempotency key");
        times.unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_means_what_the_contract_says() {
    let asked = Asked::default();
    let server = {
        let asked = Arc::clone(&asked);
        HttpServer::start(move |request| answer(&asked, request)).await
    };
    let server = server.expect("a server");
    let world = World::with(server.address(), &asked).await;
    let once = ["fine", "no-content", "largest"];
    let unread = ["too-large", "huge"];
    let refused = ["bad-request", "conflict"];
    let twice = [
        "not-found",
        "broken",
        "busy",
        "hangs",
        "html",
        "no-http",
        "half",
        "closes",
        "elsewhere",
    ];
    for order in once.iter().chain(&refused).chain(&twice).chain(&unread) {
        assert!(start(&world.lab, order).await, "{order}");
    }
    for order in once {
        world.end_of(order, InstanceState::Completed).await;
        assert_eq!(world.times(order, "/do").len(), 1, "{order}");
    }
    let fine = world.end_of("fine", InstanceState::Completed).await;
    assert_eq!(fine.steps[0].output.to_json(), "{\"tracking\":7}");
    for order in refused {
        let end = world.end_of(order, InstanceState::Compensated).await;
        assert_eq!(end.summary.reason.as_deref(), Some("Refused"), "{end:#?}");
        // It didn't happen, so nothing is taken back.
        assert_eq!(world.times(order, "/do").len(), 1, "{order}");
        assert_eq!(world.times(order, "/undo").len(), 0, "{order}");
    }
    for order in twice {
        let end = world.end_of(order, InstanceState::Completed).await;
        assert_eq!(world.times(order, "/do").len(), 2, "{order}");
        assert_eq!(end.steps[0].output.to_json(), "{\"tracking\":7}", "{order}");
    }
    let busy = world.times("busy", "/do");
    let waited = busy[1] - busy[0];
    assert!(waited >= Duration::from_secs(2), "Retry-After: {waited:?}");
    assert_eq!(world.times("elsewhere", "/elsewhere").len(), 0);
    // Nobody knows what a server whose answer can't be read has done.
    for order in unread {
        let end = world.end_of(order, InstanceState::Compensated).await;
        let reason = end.summary.reason.as_deref();
        assert_eq!(reason, Some("Exhausted"), "{order}: {end:#?}");
        assert_eq!(world.times(order, "/do").len(), 3, "{order}");
        assert_eq!(world.times(order, "/undo").len(), 1, "{order}");
    }
    assert!(!world.worker.stderr().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_uses_up_no_attempt() {
    let asked = Asked::default();
    let gone = HttpServer::start(|_| HttpAnswer::Close)
        .await
        .expect("a server");
    let address = gone.address().to_owned();
    drop(gone);
    let world = World::with(&address, &asked).await;
    assert!(start(&world.lab, "early").await);
    eventually("more connections refused than attempts", CAP, || async {
        let log = world
            .lab
            .messages("shop_fulfilment_log", Vec::new())
            .await?;
        let refused = log
            .iter()
            .filter(|message| String::from_utf8_lossy(&message.payload).contains("unreachable"));
        match refused.count() {
            seen if seen > 4 => Ok(()),
            seen => Err(anyhow::anyhow!("{seen}")),
        }
    })
    .await;
    let list = Arc::clone(&asked);
    let _server = HttpServer::start_on(&address, move |request| answer(&list, request))
        .await
        .expect("a server");
    world.end_of("early", InstanceState::Completed).await;
    assert_eq!(world.times("early", "/do").len(), 1);
}

/// A worker that dies with a request under way: the next one asks with the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_request_is_made_again_with_the_same_key() {
    let asked = Asked::default();
    let list = Arc::clone(&asked);
    let server = HttpServer::start(move |request| answer(&list, request)).await;
    let server = server.expect("a server");
    let mut world = World::with(server.address(), &asked).await;
    let _nobody = participants(&world.lab, |_| Conduct::Do).await;
    assert!(start(&world.lab, "hangs").await);
    eventually("the first request", CAP, || async {
        match world.times("hangs", "/do").len() {
            0 => Err("none"),
            _ => Ok(()),
        }
    })
    .await;
    world.worker.kill9();
    world.worker = world.lab.worker("b").expect("a worker");
    world.end_of("hangs", InstanceState::Completed).await;
    assert!(world.times("hangs", "/do").len() >= 2);
    assert_eq!(world.times("hangs", "/undo").len(), 0);
}

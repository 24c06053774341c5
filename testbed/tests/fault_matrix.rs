//! The fault matrix of the order example: every step and every compensation, failing in every way, one at a time; and
//! each of those again with the owner crashing after every single input, before and after it ran the effects.
//!
//! `docs/reference/fault-matrix.md` shows what comes of it. `TIDEMILL_GENERATE=1` writes that file anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, also outside of its #[test] functions"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use tidemill_core::control::Decision;
use tidemill_core::envelope::Event;
use tidemill_core::json::Value;
use tidemill_core::names::Side;
use tidemill_core::saga::CompiledSaga;
use tidemill_testbed::binaries::workspace_root;
use tidemill_testbed::simulation::matrix::{Cost, Ending, Fault, Script, Struck, run};
use tidemill_testbed::simulation::shapes;

const STEPS: [&str; 3] = ["reserve", "charge", "ship"];

/// A row: what goes wrong, in words and as a script.
struct Case {
    words: String,
    script: Script,
}

fn saga() -> Arc<CompiledSaga> {
    let path = workspace_root().join("k8s/examples/orders/manifests/order-fulfilment.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let resource = serde_saphyr::from_str(&text).unwrap();
    let report = tidemill_crds::compile::saga(&resource);
    let plan = report.plan.unwrap_or_else(|| panic!("{:?}", report.errors));
    Arc::new(CompiledSaga::new(plan.resource, plan.definition).unwrap())
}

fn order() -> Event {
    let data = br#"{"orderId":"o-1","customer":{"id":"c-1"},"items":[{"sku":"lamp","qty":1}],"total":19.90,"address":{"city":"Bergen"}}"#;
    shapes::event("e-1", "o-1", Value::parse(data).unwrap())
}

fn with(faults: &[(&str, Side, Fault, Struck)]) -> Script {
    let faults = faults.iter();
    Script {
        faults: faults
            .map(|(step, side, fault, struck)| ((*step).to_owned(), *side, *fault, *struck))
            .collect(),
        ..Script::default()
    }
}

/// The ways in which an attempt goes wrong, as a person would say it of a participant.
const WAYS: [(Fault, Struck, &str); 12] = [
    (Fault::Fails, Struck::First, "fails once"),
    (Fault::Fails, Struck::All, "fails every time"),
    (Fault::Refuses, Struck::All, "refuses"),
    (
        Fault::RequestLost,
        Struck::First,
        "doesn't get the first request",
    ),
    (Fault::RequestLost, Struck::All, "gets no request"),
    (
        Fault::ReplyLost,
        Struck::First,
        "does it, the first answer is lost",
    ),
    (
        Fault::ReplyLost,
        Struck::All,
        "does it, every answer is lost",
    ),
    (
        Fault::ReplyLate,
        Struck::All,
        "does it and answers hours later",
    ),
    (
        Fault::BadReply,
        Struck::First,
        "does it, the first answer is no JSON",
    ),
    (Fault::BadReply, Struck::All, "does it, no answer is JSON"),
    (Fault::Nobody, Struck::First, "isn't there at first"),
    (Fault::Nobody, Struck::All, "isn't there"),
];

fn actions() -> Vec<Case> {
    let mut cases = vec![Case {
        words: "nothing".to_owned(),
        script: Script::default(),
    }];
    for step in STEPS {
        for (fault, struck, words) in WAYS {
            cases.push(Case {
                words: format!("**{step}** {words}"),
                script: with(&[(step, Side::Action, fault, struck)]),
            });
        }
    }
    for step in STEPS {
        cases.push(Case {
            words: format!("somebody cancels while **{step}** is under way"),
            script: Script {
                cancelled_at: Some(step.to_owned()),
                ..Script::default()
            },
        });
    }
    cases.push(Case {
        words: "the stream refuses the outcome's event".to_owned(),
        script: Script {
            event_refused: true,
            ..Script::default()
        },
    });
    cases
}

/// What makes a compensation necessary: a refusal behind it, and for the last step that nobody heard of its success.
fn compensations() -> Vec<Case> {
    let mut cases = Vec::new();
    for step in STEPS {
        let cause = match step {
            "ship" => ("ship", Side::Action, Fault::ReplyLost, Struck::All),
            _ => ("ship", Side::Action, Fault::Refuses, Struck::All),
        };
        for (fault, struck, words) in WAYS {
            cases.push(Case {
                words: format!("**{step}**'s compensation {words}"),
                script: with(&[cause, (step, Side::Compensation, fault, struck)]),
            });
        }
    }
    cases
}

#[test]
fn the_fault_matrix_is_as_documented() {
    let saga = saga();
    let mut text = HEAD.to_owned();
    let mut runs = 0;
    text.push_str("\n## What goes wrong on the way forward\n\n");
    table(&mut text, &saga, &actions(), &mut runs);
    text.push_str(BACK);
    table(&mut text, &saga, &compensations(), &mut runs);
    text.push_str(PARKED);
    decisions(&mut text, &saga, &mut runs);
    println!("{runs} runs");
    let path = workspace_root().join("docs/reference/fault-matrix.md");
    if std::env::var_os("TIDEMILL_GENERATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let documented = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (line, wanted)) in documented.lines().zip(text.lines()).enumerate() {
        assert_eq!(
            line,
            wanted,
            "line {} is stale: `make generate`",
            number + 1
        );
    }
    assert_eq!(documented, text, "the file is stale: `make generate`");
}

fn table(text: &mut String, saga: &Arc<CompiledSaga>, cases: &[Case], runs: &mut usize) {
    text.push_str("| What goes wrong | The saga ends | Because | reserve | charge | ship | Event | Attempts |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for case in cases {
        let (ending, cost) = tried(saga, case, runs);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            case.words,
            ending.state,
            ending.reason.as_deref().unwrap_or("—"),
            ending.ledgers.join(" | "),
            told(&ending),
            attempts(&cost),
        );
    }
}

/// Runs a case, then again with a crash after each of its inputs, and holds each ending against the laws.
fn tried(saga: &Arc<CompiledSaga>, case: &Case, runs: &mut usize) -> (Ending, Cost) {
    let (ending, cost) = run(saga, &order(), &case.script);
    check_ending(&case.words, &ending);
    for input in 1..=cost.inputs {
        for effects_were_run in [false, true] {
            let script = Script {
                crash: Some((input, effects_were_run)),
                ..case.script.clone()
            };
            let (after, _) = run(saga, &order(), &script);
            assert_eq!(
                after, ending,
                "{}, with a crash after input {input} (effects run: {effects_were_run})",
                case.words
            );
            *runs += 1;
        }
    }
    *runs += 1;
    (ending, cost)
}

/// Whatever goes wrong: all or nothing is done, and exactly one event says which.
fn check_ending(words: &str, ending: &Ending) {
    let all = |wanted: &[&str]| ending.ledgers.iter().all(|ledger| wanted.contains(ledger));
    let event = |wanted: &str| match &ending.events[..] {
        [event] => event.starts_with(wanted),
        _ => false,
    };
    let holds = match ending.state.as_str() {
        "completed" => all(&["stands"]) && event("OrderConfirmed"),
        "compensated" => all(&["taken back", "not done"]) && event("OrderRejected"),
        _ => ending.state.starts_with("parked: ") && ending.events.is_empty(),
    };
    assert!(holds, "{words}: {ending:?}");
}

fn told(ending: &Ending) -> String {
    let names = ending
        .events
        .iter()
        .map(|event| match event.split_once(' ') {
            Some((name, _)) => name.to_owned(),
            None => event.clone(),
        });
    let names: Vec<String> = names.collect();
    match names.is_empty() {
        true => "—".to_owned(),
        false => names.join(", "),
    }
}

fn attempts(cost: &Cost) -> String {
    let of = |side: Side| {
        STEPS.map(|step| {
            let made = cost.attempts.get(&(step.to_owned(), side));
            made.copied().unwrap_or(0).to_string()
        })
    };
    let (actions, compensations) = (of(Side::Action), of(Side::Compensation));
    match compensations.iter().all(|made| made == "0") {
        true => actions.join(" "),
        false => format!("{}, back {}", actions.join(" "), compensations.join(" ")),
    }
}

/// Every parked case, and what a decision comes to once what went wrong is mended.
fn decisions(text: &mut String, saga: &Arc<CompiledSaga>, runs: &mut usize) {
    text.push_str("| Parked | After `retry` | After `skip` |\n|---|---|---|\n");
    for case in actions().into_iter().chain(compensations()) {
        let (parked, _) = run(saga, &order(), &case.script);
        if !parked.state.starts_with("parked: ") {
            continue;
        }
        let mut row = format!(
            "| {}: {}",
            case.words,
            parked.state.trim_start_matches("parked: ")
        );
        for decision in [Decision::Retry, Decision::Skip] {
            let script = Script {
                decision: Some(decision),
                ..case.script.clone()
            };
            let decided = Case {
                words: format!("{}, {decision:?}", case.words),
                script,
            };
            let (ending, _) = match decision {
                Decision::Retry => tried(saga, &decided, runs),
                // Whoever skips says that it was done by hand, so the ledgers may say otherwise.
                Decision::Skip => run(saga, &order(), &decided.script),
            };
            let _ = write!(row, " | {}: {}", ending.state, ending.ledgers.join(", "));
        }
        row.push_str(" |\n");
        text.push_str(&row);
    }
}

const HEAD: &str = "\
# What becomes of an order when something goes wrong

<!-- Written by testbed/tests/fault_matrix.rs; `make generate` writes it anew. -->

The saga `order-fulfilment` of the [order example](../../k8s/examples/orders/README.md), run by the engine's own state
machine against participants that hold the [participant contract](../guide/participants.md). Each row is one run in
which exactly one thing goes wrong, and was run again with the worker crashing after every single input, once before
and once after it had sent what follows from it: none of those crashes changes what stands in the row.

*Ends*: `completed`, `compensated`, or `parked` with the question that waits for a person. *reserve*, *charge*, *ship*
say what the participants' ledgers hold in the end. *Attempts*: how many were made of reserve, charge and ship, and on
the way back. A step tries 5 times and waits 5 minutes for a participant that isn't there.
";

const BACK: &str = "
## What goes wrong on the way back

reserve and charge are taken back because ship was refused; ship is taken back because it was done and none of its
answers arrived, so that nobody knows whether it happened.

";

const PARKED: &str = "
## What is parked, and what a decision comes to

`tidemill parked redrive` tries again, here after what went wrong was mended; `tidemill parked skip` goes on without it,
which says that a person has seen to it by hand (here nobody has, so the ledger still shows it).

";

use super::*;
use proptest::prelude::*;

const SAGA: &str = include_str!("../../../k8s/examples/orders/manifests/order-fulfilment.yaml");
const PROJECTION: &str =
    include_str!("../../../k8s/examples/orders/manifests/customer-orders.yaml");
const STREAM: &str = include_str!("../../../k8s/examples/orders/manifests/stream.yaml");

fn load(texts: &[&str]) -> Manifests {
    let options = Options {
        run_here: false,
        namespace: None,
        missing: Missing::Error,
        declared_before: BTreeSet::new(),
    };
    let sources = texts.iter().enumerate().map(|(index, text)| Source {
        file: PathBuf::from(format!("{index}.yaml")),
        named: true,
        text: Ok((*text).to_owned()),
    });
    Manifests::of(sources.collect(), &options)
}

fn shown(manifests: &Manifests) -> Vec<String> {
    manifests.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn resources_are_bound_to_their_streams() {
    let manifests = load(&[SAGA, PROJECTION, STREAM]);
    assert_eq!(shown(&manifests), Vec::<String>::new());
    let bound: Vec<_> = manifests
        .resources
        .iter()
        .map(|declared| (declared.shown(), declared.bindings.len()))
        .collect();
    assert_eq!(
        bound,
        [
            ("Saga default/order-fulfilment".to_owned(), 1),
            ("Projection default/customer-orders".to_owned(), 1),
            ("EventStream default/orders".to_owned(), 0),
        ]
    );
}

#[test]
fn a_stream_with_an_error_is_the_only_thing_that_is_said_to_be_wrong() {
    let broken = STREAM.replace("storage: File", "storage: Flie");
    let manifests = load(&[PROJECTION, &broken]);
    let found = shown(&manifests);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("1.yaml:7:3: EventStream default/orders: spec.storage: "),
        "{found:?}"
    );
    assert!(
        manifests
            .resources
            .iter()
            .all(|declared| declared.plan.is_none())
    );
}

#[test]
fn a_namespace_is_given_to_those_that_name_none() {
    let options = Options {
        run_here: false,
        namespace: Some("shop".to_owned()),
        missing: Missing::Error,
        declared_before: BTreeSet::new(),
    };
    let own = STREAM.replace("name: orders", "name: orders\n  namespace: own");
    let source = |text: &str| Source {
        file: "a.yaml".into(),
        named: true,
        text: Ok(text.to_owned()),
    };
    let manifests = Manifests::of(vec![source(STREAM), source(&own)], &options);
    let names: Vec<_> = manifests.resources.iter().map(Declared::shown).collect();
    assert_eq!(names, ["EventStream shop/orders", "EventStream own/orders"]);
}

#[test]
fn streams_that_collide_are_refused() {
    let other = STREAM
        .replace("name: orders", "name: others")
        .replace("spec:", "spec:\n  prefix: default.orders.eu");
    let manifests = load(&[STREAM, &other]);
    assert_eq!(manifests.errors(), 1, "{:?}", shown(&manifests));
    let valid = manifests
        .resources
        .iter()
        .filter(|declared| declared.plan.is_some())
        .count();
    assert_eq!(valid, 1);
}

#[test]
fn a_name_that_another_resource_s_stream_has_is_refused() {
    let other = STREAM.replace("name: orders", "name: others").replace(
        "spec:",
        "spec:\n  streamName: KV_default_customer-orders_rows",
    );
    let manifests = load(&[STREAM, PROJECTION, &other]);
    assert_eq!(
        shown(&manifests),
        [
            "2.yaml:7:3: EventStream default/others: spec.streamName: Projection default/customer-orders has as its rows the JetStream \
             stream `KV_default_customer-orders_rows` too: give this one another name"
        ]
    );
}

#[test]
fn what_counts_events_of_a_stream_that_drops_some_is_warned_of() {
    let short = STREAM.replace("spec:", "spec:\n  maxMessagesPerSubject: 1");
    let counting = "\
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata: {name: counts}
spec:
  from: [{stream: {name: orders}}, {stream: {name: whole}}]
  key: event.subject
  handlers:
    - {type: OrderPlaced, stream: {name: orders}, set: {status: placed}}
    - {type: OrderPaid, increment: {payments: 1}}
    - {type: OrderPaid, stream: {name: whole}, increment: {paid: =event.data.total}}
  sink: {kv: {}}
";
    let whole =
        "{apiVersion: tidemill.dev/v1alpha1, kind: EventStream, metadata: {name: whole}, spec: {}}";
    let manifests = load(&[counting, &short, whole]);
    assert_eq!(
        shown(&manifests),
        [
            "0.yaml:9:25: warning: Projection default/counts: spec.handlers[1].increment: EventStream default/orders drops older events \
             of each subject (maxMessagesPerSubject: 1), so rows made anew would count less than the present ones: remove that limit, or \
             `set` what each event says of the whole"
        ]
    );
    assert!(
        manifests
            .resources
            .iter()
            .all(|declared| declared.plan.is_some())
    );
    assert_eq!(
        shown(&load(&[counting, STREAM, whole])),
        Vec::<String>::new()
    );
}

/// The same as files that were found in a folder.
fn found_in_a_folder(texts: &[&str]) -> Manifests {
    let options = Options {
        run_here: false,
        namespace: None,
        missing: Missing::Error,
        declared_before: BTreeSet::new(),
    };
    let sources = texts.iter().enumerate().map(|(index, text)| Source {
        file: PathBuf::from(format!("{index}.yaml")),
        named: false,
        text: Ok((*text).to_owned()),
    });
    Manifests::of(sources.collect(), &options)
}

#[test]
fn what_is_not_yaml_is_said_and_is_an_error_where_it_is_ours() {
    for (text, expected) in [
        ("a: 1", &[][..]),
        ("kind: Deployment\napiVersion: apps/v1", &[]),
        ("x: [", &["1.yaml:1:4: warning: x[0]: this is not YAML: "]),
        // Said once, whatever follows.
        ("x: [\n---\ny: ]\n", &["1.yaml:"]),
        (
            "kind: Saga\nx: [",
            &["1.yaml:2:4: x[0]: this is not YAML: "],
        ),
        (
            "apiVersion: tidemill.dev/v1alpha1\nx: [",
            &["1.yaml:2:4: x[0]: this is not YAML: "],
        ),
        (
            "kind: EventStream\nmetadata: {name: others}\nspec: {}",
            &["1.yaml:1:1: EventStream default/others: apiVersion: the field is missing"],
        ),
    ] {
        let manifests = found_in_a_folder(&[STREAM, text]);
        let said = shown(&manifests);
        assert_eq!(said.len(), expected.len(), "{text}: {said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{text}: {said}");
            assert_eq!(
                said.ends_with("(the file is skipped)"),
                said.contains("warning: "),
                "{said}"
            );
        }
    }
}

#[test]
fn a_list_is_its_items() {
    let indented = |text: &str| {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        let rest = lines.map(|line| format!("    {line}\n"));
        format!("  - {first}\n{}", rest.collect::<String>())
    };
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n  - {{apiVersion: v1, kind: Secret, metadata: {{name: a}}, data: {{on: x}}}}\n{}{}",
        indented(STREAM),
        indented(&PROJECTION.replace("orders: 1,", "orders: on,"))
    );
    let manifests = found_in_a_folder(&[&list]);
    let names: Vec<_> = manifests.resources.iter().map(Declared::shown).collect();
    assert_eq!(
        names,
        [
            "EventStream default/orders",
            "Projection default/customer-orders"
        ]
    );
    let said = shown(&manifests);
    let line = list
        .lines()
        .position(|line| line.contains("orders: on"))
        .unwrap()
        + 1;
    let path =
        "Projection default/customer-orders: spec.handlers[0].increment.orders: unquoted `on`";
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(&format!("0.yaml:{line}:")) && said[0].contains(path),
        "{said:?}"
    );
    assert!(
        found_in_a_folder(&["kind: List\nitems: 3", "kind: List"])
            .resources
            .is_empty()
    );
}

/// A manifest with pieces cut out, repeated, or replaced.
fn mutilated() -> impl Strategy<Value = String> {
    let texts = prop::sample::select(vec![SAGA, PROJECTION, STREAM]);
    let pieces = prop::sample::select(vec![
        "",
        "=",
        "\"",
        "'",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "null",
        "0777",
        "yes",
        "1e309",
        "-1",
        "99999999999999999999",
        "=steps.",
        "=((((((((((",
        "event.data.a[0].b",
        "\n",
        "  ",
        "#",
        "9999d",
        "1ns",
        "*",
        ">",
        ".",
        "_tm.x",
        "$JS.x",
        "é\u{301}",
        "\u{0}",
        "true",
    ]);
    (
        texts,
        prop::collection::vec((any::<prop::sample::Index>(), 0..30_usize, pieces), 1..4),
    )
        .prop_map(|(text, edits)| {
            let mut characters: Vec<char> = text.chars().collect();
            for (at, length, piece) in edits {
                let from = at.index(characters.len().max(1)).min(characters.len());
                let to = (from + length).min(characters.len());
                characters.splice(from..to, piece.chars());
            }
            characters.into_iter().collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // A fiftieth of FUZZ_CASES: the schema's check of a whole manifest takes some milliseconds. Texts and documents are
        // tried in full number, each by itself: cli/src/yaml/read/tests.rs, crds/tests/totality.rs.
        cases: std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse::<u32>().ok()).map_or(256, |cases| cases / 50),
        failure_persistence: None,
        // The default one takes a third of the time without optimisation.
        rng_algorithm: proptest::test_runner::RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_manifest_panics_and_what_is_refused_is_said(text in mutilated()) {
        let manifests = load(&[STREAM, &text]);
        let lines = text.lines().count() + 2;
        for finding in &manifests.findings {
            prop_assert!(finding.place.line <= lines, "{finding}");
            prop_assert!(!finding.message.is_empty());
        }
        if manifests.resources.iter().any(|declared| declared.plan.is_none()) {
            prop_assert!(manifests.errors() > 0, "{text}");
        }
    }
}

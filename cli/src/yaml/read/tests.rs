mod kubectl;

use super::*;
use crate::yaml::tree::Step;
use proptest::prelude::*;

fn problems(text: &str) -> Vec<String> {
    let documents = read(text);
    let problems = documents.iter().flat_map(|document| &document.problems);
    problems
        .map(
            |Problem {
                 place,
                 path,
                 message,
             }| format!("{}:{}: {path}: {message}", place.line, place.column),
        )
        .collect()
}

fn json(text: &str) -> serde_json::Value {
    assert_eq!(problems(text), Vec::<String>::new(), "{text}");
    let documents = read(text);
    documents[0].root.as_ref().unwrap().value.to_json()
}

#[test]
fn values_and_their_places() {
    let text = "\
spec:
  key: event.subject
  steps:
    - name: one
      data: {a: [1, 2.50], 'on': \"y\"}
    - name: two
  labels:
    app.kubernetes.io/name: x
  text: |
    two
    lines
";
    let documents = read(text);
    let root = documents[0].root.as_ref().unwrap();
    assert_eq!(
        root.value.to_json(),
        serde_json::json!({"spec": {
            "key": "event.subject",
            "steps": [{"name": "one", "data": {"a": [1, 2.5], "on": "y"}}, {"name": "two"}],
            "labels": {"app.kubernetes.io/name": "x"},
            "text": "two\nlines\n",
        }})
    );
    let (spec, steps) = (Step::Key("spec"), Step::Key("steps"));
    for (path, line, column) in [
        (&[spec][..], 1, 1),
        (&[spec, Step::Key("key")], 2, 3),
        (&[spec, steps, Step::Item(0), Step::Key("name")], 4, 7),
        (
            &[
                spec,
                steps,
                Step::Item(0),
                Step::Key("data"),
                Step::Key("a"),
                Step::Item(1),
            ],
            5,
            21,
        ),
        (
            &[
                spec,
                steps,
                Step::Item(0),
                Step::Key("data"),
                Step::Key("on"),
            ],
            5,
            28,
        ),
        (&[spec, steps, Step::Item(1)], 6, 7),
        (
            &[
                spec,
                steps,
                Step::Item(1),
                Step::Key("request"),
                Step::Key("subject"),
            ],
            6,
            7,
        ),
        (&[spec, steps, Step::Item(9)], 3, 3),
        (
            &[
                spec,
                Step::Key("labels"),
                Step::Key("app.kubernetes.io/name"),
            ],
            8,
            5,
        ),
        (&[], 1, 1),
        (&[Step::Key("nothing")], 1, 1),
    ] {
        assert_eq!(
            root.place_of(path.iter().copied()),
            Place { line, column },
            "{path:?}"
        );
    }
}

#[test]
fn what_is_refused_and_how() {
    for (text, expected) in [
        (
            "set:\n  on: 1\n",
            "2:3: set.on: the unquoted key `on` is true to kubectl and the text \"on\" to YAML 1.2; write \"on\"",
        ),
        (
            "a: {y: 1}",
            "1:5: a.y: the unquoted key `y` is true to kubectl and the text \"y\" to YAML 1.2; write \"y\"",
        ),
        (
            "mode: 0777",
            "1:7: mode: unquoted `0777` is the number 511 to kubectl and the number 777 to YAML 1.2; write 511 or 777, or \"0777\" for the text",
        ),
        (
            "v: yes",
            "1:4: v: unquoted `yes` is true to kubectl and the text \"yes\" to YAML 1.2; write true, or \"yes\" for the text",
        ),
        (
            "at: 1:30",
            "1:5: at: unquoted `1:30` is the text \"1:30\" to kubectl and the number 90 to YAML 1.1; write 90, or \"1:30\" for the text",
        ),
        (
            "a: {<<: {b: 1}}",
            "1:5: a.<<: `<<` merges maps in YAML 1.1 and is an ordinary key in YAML 1.2; write the fields out",
        ),
        (
            "null: 1",
            "1:1: null: the unquoted key `null` is read as null, which is no text; write \"null\"",
        ),
        (
            "1.0: 1",
            "1:1: 1.0: the unquoted key `1.0` is read as the number 1, which is no text; write \"1.0\"",
        ),
        (
            "a: 1\nb: 2\na: 3\n",
            "3:1: a: the key `a` is there already, in line 1; remove one of them",
        ),
        (
            "a: .nan",
            "1:4: a: `.nan` is a number that JSON has not; write \".nan\" if the text is meant",
        ),
        (
            "when: !event.data.ok",
            "1:7: when: YAML takes `!event.data.ok` for a tag, not for text; put the whole value in quotes",
        ),
        (
            "a: !!int \"3\"",
            "1:4: a: YAML takes `!!int` for a tag, not for text; put the whole value in quotes",
        ),
        (
            "? [a]\n: 1",
            "1:3: : a key must be a text, not a list or a map",
        ),
        (
            "a: &a [*a]",
            "1:8: a[0]: the alias stands within what it refers to; write the value out",
        ),
        (
            "a: \"\\/\"",
            "1:4: a: YAML 1.1 has no escape `\\/`; write `/`",
        ),
        (
            "{a:, b: 1}",
            "1:3: a: a value is missing here; write null if that is meant",
        ),
        (
            "-\ta",
            "1:2: [0]: a tab may not indent anything in YAML; use spaces",
        ),
        (
            "--- a\n",
            "1:1: : a line that begins with `---` parts documents and may hold nothing else; put the rest into the next line",
        ),
        (
            "a: 1\n...\nb: 1\n",
            "3:1: : kubectl reads nothing after `...` unless a line `---` comes first; add it",
        ),
        (
            "a: b\u{7}",
            "1:5: : character U+0007 may not stand in YAML; write it as an escape in double quotes, or remove it",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn values_in_quotes_are_text_and_aliases_are_what_they_stand_for() {
    assert_eq!(
        json("a: 'y'\nb: \"0777\"\nc: !!str 12\n\"on\": 1\n1: x\ntrue: x\n"),
        serde_json::json!({"a": "y", "b": "0777", "c": "12", "on": 1, "1": "x", "true": "x"})
    );
    assert_eq!(
        json("a: &x {b: 1}\nc: *x\n"),
        serde_json::json!({"a": {"b": 1}, "c": {"b": 1}})
    );
    assert_eq!(json("\u{feff}a: 1.0\n"), serde_json::json!({"a": 1}));
}

#[test]
fn documents_are_told_apart_and_a_broken_one_hides_no_other() {
    let documents = read("# only a comment\n---\na: 1\n---\nb: {\n---\nc: 3\n---\n");
    let read: Vec<_> = documents
        .iter()
        .map(|document| {
            (
                document.root.as_ref().map(|root| root.value.to_json()),
                document.problems.len(),
            )
        })
        .collect();
    assert_eq!(read[0], (Some(serde_json::json!({"a": 1})), 0));
    assert_eq!(read[1], (None, 1));
    assert_eq!(read[2], (Some(serde_json::json!({"c": 3})), 0));
    assert_eq!(read.len(), 3);
}

#[test]
fn a_mistake_in_quoting_is_explained() {
    for text in [
        "when: a ? b : c",
        "key: 'x' + event.subject",
        "when: @x",
        "a: [1",
    ] {
        let found = problems(text);
        assert!(
            found.len() == 1 && found[0].contains("put the whole of it in quotes"),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn no_file_exhausts_us() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        laughs.push_str(&format!(
            "a{n}: &a{n} [{}]\n",
            vec![format!("*a{}", n - 1); 10].join(", ")
        ));
    }
    let found = problems(&laughs);
    assert!(
        found.len() == 1 && found[0].contains("200000 values"),
        "{found:?}"
    );

    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(problems(&deep).len(), 1);

    let mut deep_by_alias = "a0: &a0 [x]\n".to_owned();
    for n in 1..100 {
        deep_by_alias.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    let found = problems(&deep_by_alias);
    assert!(found[0].contains("deeper than 64"), "{found:?}");

    let large = "a: 1\n".repeat(FILE_BYTES_MAX / 5 + 1);
    assert!(
        problems(&large)[0].contains("bytes"),
        "{:?}",
        problems(&large)
    );

    let many = "---\na: 1\n".repeat(DOCUMENTS_MAX + 10);
    assert!(problems(&many)[0].contains("documents"));

    let wide: String = (0..95_000).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(problems(&wide), Vec::<String>::new());
}

#[test]
fn digits_that_are_lost_are_said() {
    let documents = read("a: 3.14159265358979323846\nb: 12.50\nc: 0.1\n");
    let warnings: Vec<_> = documents[0]
        .warnings
        .iter()
        .map(|warning| warning.message.as_str())
        .collect();
    assert_eq!(
        warnings,
        [
            "the number 3.14159265358979323846 is kept as 3.141592653589793; quote it if every digit matters"
        ]
    );
}

/// Pieces that YAML gives a meaning to, so that random texts reach deep into the reader.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "a: ", "- ", "? ", ": ", "{", "}", "[", "]", ", ", "\n", "\n  ", "\n    ", "---\n", "...\n", "&x ", "*x", "!t ", "!!str ",
            "\"", "'", "|\n", ">-\n", "# c\n", "%YAML 1.1\n", "<<: ", "y", "0777", "1:30", ".nan", "\t", "\r\n", "~", "\u{feff}", "\\", "é",
        ])
        .prop_map(str::to_owned),
        1 => ".{0,4}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        // FUZZ_CASES sets the number; CI runs 100,000.
        cases: std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256),
        failure_persistence: None,
        // The default one takes a third of the time without optimisation.
        rng_algorithm: proptest::test_runner::RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_text_panics_and_every_place_is_in_the_text(text in yaml_like()) {
        // To YAML a carriage return alone ends a line, too.
        let lines = text.matches(['\n', '\r']).count() + 2;
        for document in read(&text) {
            for problem in document.problems {
                prop_assert!(problem.place.line >= 1 && problem.place.line <= lines, "{problem:?}");
                prop_assert!(problem.place.column >= 1);
            }
            if let Some(root) = document.root {
                root.value.to_json();
                root.place_of([Step::Key("a"), Step::Item(0), Step::Key("a")]);
            }
        }
    }
}

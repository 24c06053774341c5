//! From the text of a file to documents.

mod differences;
mod wording;

use super::scalar::{Plain, Reading, read_plain};
use super::tree::{Entry, Node, Place, Value};
use super::{DEPTH_MAX, DOCUMENTS_MAX, Document, FILE_BYTES_MAX, NODES_MAX, PROBLEMS_MAX, Problem};
use differences::{forbidden_character, is_text_tag, separator_with_content};
use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, StructureStyle};
use std::collections::HashMap;
use wording::{cure, rounded, shorten, syntax_hint};

/// Reads all documents of a file. Empty documents are left out. Never fails as a whole: what can't be read is a problem of its document.
pub(crate) fn read(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > FILE_BYTES_MAX {
        return vec![broken(
            Place { line: 1, column: 1 },
            format!(
                "the file has {} bytes, at most {FILE_BYTES_MAX} are read; split it",
                text.len()
            ),
        )];
    }
    if let Some(problem) = forbidden_character(text).or_else(|| separator_with_content(text)) {
        return vec![Document {
            problems: vec![problem],
            ..Document::default()
        }];
    }
    let mut reader = Reader::new(text);
    while reader.step() {}
    reader.documents
}

fn broken(place: Place, message: String) -> Document {
    let problem = Problem {
        place,
        path: String::new(),
        message,
    };
    Document {
        problems: vec![problem],
        ..Document::default()
    }
}

/// A value with what limits need to know about it.
struct Sized {
    node: Node,
    /// Values in it, itself included, aliases in full.
    nodes: usize,
    /// Levels of nesting, itself included.
    height: usize,
}

impl Sized {
    fn scalar(place: Place, value: Value) -> Self {
        Sized {
            node: Node { place, value },
            nodes: 1,
            height: 1,
        }
    }
}

/// A collection that is being read.
struct Frame {
    place: Place,
    anchor: usize,
    style: StructureStyle,
    nodes: usize,
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        lines: HashMap<String, usize>,
        key: Option<(String, Place)>,
    },
}

struct Reader<'t> {
    text: &'t str,
    lines: Vec<&'t str>,
    parser: Parser<'t, StrInput<'t>>,
    documents: Vec<Document>,
    current: Document,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Sized>,
    nodes: usize,
    /// Whether a document was begun.
    begun: bool,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let options = granit_parser::options! {
            emit_comments: false,
            emit_anchor_events: true,
            disallow_directives: true,
            flow_nesting_limit: DEPTH_MAX,
            block_nesting_limit: DEPTH_MAX,
        };
        Reader {
            text,
            lines: text.lines().collect(),
            parser: Parser::new_from_str_with_options(text, options),
            documents: Vec::new(),
            current: Document::default(),
            frames: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            begun: false,
        }
    }

    /// Handles one event; false at the end.
    fn step(&mut self) -> bool {
        let (event, span) = match self.parser.next_event() {
            None => return false,
            Some(Ok(event)) => event,
            Some(Err(error)) => return self.syntax_error(&error),
        };
        let place = place(&span.start);
        let tag_place = span.tag_start().map_or(place, |start| self::place(&start));
        match event {
            Event::DocumentStart(explicit, _) => {
                if self.begun && !explicit {
                    let message =
                        "kubectl reads nothing after `...` unless a line `---` comes first; add it"
                            .to_owned();
                    self.problem(place, message);
                }
                self.begun = true;
            }
            Event::DocumentEnd => {
                self.end_document();
                return true;
            }
            Event::StreamEnd => {
                self.end_document();
                return false;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let forced = tag.as_deref().is_some_and(is_text_tag);
                self.refuse_tag(tag_place, tag.as_deref().filter(|_| !forced), "str");
                self.refuse_what_only_1_2_has(&text, style, &span);
                let plain = style == ScalarStyle::Plain && tag.is_none();
                self.scalar(place, &text, plain, anchor);
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.refuse_tag(tag_place, tag.as_deref(), "seq");
                self.refuse_tab_before(place);
                self.begin(place, anchor, style, Content::List(Vec::new()));
            }
            Event::MappingStart(style, anchor, tag) => {
                self.refuse_tag(tag_place, tag.as_deref(), "map");
                self.refuse_tab_before(place);
                let content = Content::Map {
                    entries: Vec::new(),
                    lines: HashMap::new(),
                    key: None,
                };
                self.begin(place, anchor, style, content);
            }
            Event::Anchor(_, name) => self.check_anchor_name(place, &name),
            Event::SequenceEnd | Event::MappingEnd => self.end_collection(),
            Event::Alias(anchor) => {
                self.check_anchor_name(
                    place,
                    span.slice(self.text)
                        .and_then(|text| text.strip_prefix('*'))
                        .unwrap_or("x"),
                );
                self.alias(place, anchor);
            }
            _ => {}
        }
        self.within_limits(place)
    }

    fn within_limits(&mut self, place: Place) -> bool {
        let message = if self.nodes > NODES_MAX {
            format!(
                "the file has more than {NODES_MAX} values, aliases counted as often as they are used; split it"
            )
        } else if self.current.problems.len() > PROBLEMS_MAX {
            "too many problems; the rest was not read".to_owned()
        } else if self.documents.len() >= DOCUMENTS_MAX {
            format!("the file has more than {DOCUMENTS_MAX} documents; split it")
        } else {
            return true;
        };
        self.frames.clear();
        self.problem(place, message);
        self.current.root = None;
        self.end_document();
        false
    }

    fn end_document(&mut self) {
        self.frames.clear();
        self.anchors.clear();
        let document = std::mem::take(&mut self.current);
        let content = document
            .root
            .as_ref()
            .is_some_and(|root| root.value != Value::Null);
        if content || !document.problems.is_empty() {
            self.documents.push(document);
        }
    }

    fn syntax_error(&mut self, error: &ScanError) -> bool {
        let place = place(error.marker());
        let line = self
            .lines
            .get(place.line.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        let hint = syntax_hint(&error.info(), line, place.column);
        let message = format!("this is not YAML: {}{hint}", error.info());
        self.problem(place, message);
        self.current.root = None;
        self.end_document();
        // What stands behind the next `---` can be read all the same.
        self.documents.len() < DOCUMENTS_MAX
            && matches!(self.parser.proceed_next_document(), Ok(true))
    }

    fn begin(&mut self, place: Place, anchor: usize, style: StructureStyle, content: Content) {
        self.nodes += 1;
        self.frames.push(Frame {
            place,
            anchor,
            style,
            nodes: 1,
            height: 1,
            content,
        });
    }

    fn end_collection(&mut self) {
        let Some(Frame {
            place,
            anchor,
            nodes,
            height,
            content,
            ..
        }) = self.frames.pop()
        else {
            return;
        };
        if self.wants_key() {
            self.problem(
                place,
                "a key must be a text, not a list or a map".to_owned(),
            );
            return self.set_key(place, String::new());
        }
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        self.put(
            Sized {
                node: Node { place, value },
                nodes,
                height,
            },
            anchor,
        );
    }

    fn scalar(&mut self, place: Place, text: &str, plain: bool, anchor: usize) {
        self.nodes += 1;
        if self.wants_key() {
            if plain {
                self.check_plain_key(place, text);
            }
            if anchor != 0 {
                self.problem(
                    place,
                    "an anchor on a key is not read alike everywhere; remove it".to_owned(),
                );
            }
            return self.set_key(place, text.to_owned());
        }
        let value = if plain {
            self.plain_value(place, text)
        } else {
            Value::Text(text.to_owned())
        };
        self.put(Sized::scalar(place, value), anchor);
    }

    fn alias(&mut self, place: Place, anchor: usize) {
        if self.wants_key() {
            self.problem(
                place,
                "an alias can't be a key; write the key out".to_owned(),
            );
            return self.set_key(place, String::new());
        }
        let Some(Sized {
            node,
            nodes,
            height,
        }) = self.anchors.get(&anchor)
        else {
            self.problem(
                place,
                "the alias stands within what it refers to; write the value out".to_owned(),
            );
            return self.put(Sized::scalar(place, Value::Null), 0);
        };
        // The limits are looked at before anything is copied: aliases of aliases grow exponentially.
        self.nodes = self.nodes.saturating_add(*nodes);
        if self.nodes > NODES_MAX {
            return;
        }
        if self.frames.len() + height > DEPTH_MAX {
            let message = format!(
                "with what the alias stands for, values are nested deeper than {DEPTH_MAX}"
            );
            self.problem(place, message);
            return self.put(Sized::scalar(place, Value::Null), 0);
        }
        let copy = Sized {
            node: Node {
                place,
                value: node.value.clone(),
            },
            nodes: *nodes,
            height: *height,
        };
        self.put(copy, 0);
    }

    /// Puts a complete value where it belongs.
    fn put(&mut self, sized: Sized, anchor: usize) {
        let Sized {
            node,
            nodes,
            height,
        } = sized;
        if anchor != 0 {
            self.anchors.insert(
                anchor,
                Sized {
                    node: node.clone(),
                    nodes,
                    height,
                },
            );
        }
        let Some(frame) = self.frames.last_mut() else {
            self.current.root = Some(node);
            return;
        };
        frame.nodes = frame.nodes.saturating_add(nodes);
        frame.height = frame.height.max(height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key, .. } => {
                let (key, place) = key.take().unwrap_or_default();
                entries.push(Entry {
                    key,
                    place,
                    value: node,
                });
            }
        }
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.frames.last(),
            Some(Frame {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    fn set_key(&mut self, place: Place, name: String) {
        let Some(Frame {
            content: Content::Map { lines, key, .. },
            ..
        }) = self.frames.last_mut()
        else {
            return;
        };
        let first = lines.get(&name).copied();
        lines.entry(name.clone()).or_insert(place.line);
        *key = Some((name.clone(), place));
        // An empty key stands for one that could not be read, which has been said.
        if let Some(line) = first.filter(|_| !name.is_empty()) {
            self.problem(
                place,
                format!("the key `{name}` is there already, in line {line}; remove one of them"),
            );
        }
    }

    fn check_plain_key(&mut self, place: Place, text: &str) {
        let shown = shorten(text);
        let message = match read_plain(text) {
            Plain::Agreed(Reading::Text) => return,
            // Keys of JSON are texts, and these come out as they were written.
            Plain::Agreed(Reading::Bool(value)) if value.to_string() == text => return,
            Plain::Agreed(Reading::Int(value)) if value.to_string() == text && i64::try_from(value).is_ok() => return,
            Plain::Disputed { .. } if text == "<<" => {
                "`<<` merges maps in YAML 1.1 and is an ordinary key in YAML 1.2; write the fields out".to_owned()
            }
            Plain::Disputed { kubectl, other, whose } => {
                let (kubectl, other) = (kubectl.describe(&shown), other.describe(&shown));
                format!("the unquoted key `{shown}` is {kubectl} to kubectl and {other} to {whose}; write \"{shown}\"")
            }
            Plain::Agreed(reading) => {
                let reading = reading.describe(&shown);
                format!("the unquoted key `{shown}` is read as {reading}, which is no text; write \"{shown}\"")
            }
        };
        self.problem_at_key(place, text, message);
    }

    fn plain_value(&mut self, place: Place, text: &str) -> Value {
        let shown = shorten(text);
        let reading = match read_plain(text) {
            Plain::Agreed(reading) => reading,
            Plain::Disputed {
                kubectl,
                other,
                whose,
            } => {
                let (one, two) = (kubectl.describe(&shown), other.describe(&shown));
                let cure = cure(&shown, &kubectl, &other);
                self.problem(
                    place,
                    format!("unquoted `{shown}` is {one} to kubectl and {two} to {whose}; {cure}"),
                );
                kubectl
            }
        };
        if let Reading::Float(value) = reading
            && let Some(kept) = rounded(text, value)
        {
            let path = self.path();
            let message =
                format!("the number {shown} is kept as {kept}; quote it if every digit matters");
            self.current.warnings.push(Problem {
                place,
                path,
                message,
            });
        }
        Value::from_reading(&reading, text).unwrap_or_else(|| {
            self.problem(place, format!("`{shown}` is a number that JSON has not; write \"{shown}\" if the text is meant"));
            Value::Null
        })
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.content {
                Content::List(items) => path.push_str(&format!("[{}]", items.len())),
                Content::Map { key, .. } => {
                    if let Some((key, _)) = key {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(key);
                    }
                }
            }
        }
        path
    }

    fn problem(&mut self, place: Place, message: String) {
        let path = self.path();
        self.current.problems.push(Problem {
            place,
            path,
            message,
        });
    }

    fn problem_at_key(&mut self, place: Place, key: &str, message: String) {
        let mut path = self.path();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        self.current.problems.push(Problem {
            place,
            path,
            message,
        });
    }
}

fn place(marker: &Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

#[cfg(test)]
mod tests;

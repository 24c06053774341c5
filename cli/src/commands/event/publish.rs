//! `tidemill event publish`.

mod lines;
mod progress;

use crate::catalog;
use crate::context::Context;
use crate::error::{CliError, Exit, Result, chain};
use crate::output::{count, grouped, visible};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lines::{Line, Lines};
use progress::Progress;
use serde::Serialize;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use tidemill_core::contract::StreamBinding;
use tidemill_core::envelope::Event;
use tidemill_core::json::{Object, Reason, Value};
use tidemill_core::timestamp::Timestamp;
use tidemill_nats::{Acked, HeaderMap, Nats, Publish, PublishError, Publisher};

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill event publish orders --file events.jsonl
  generate-orders | tidemill event publish orders
  tidemill event publish orders --type OrderPlaced --subject o-1 --data '{\"total\": 12.50}'

A line is an event in the JSON form of CloudEvents:
  {\"type\": \"OrderPlaced\", \"subject\": \"o-1\", \"data\": {\"total\": 12.50}}

Left out, `specversion` is 1.0, `source` is --source, and `id` is random, or made of the line and its number with --file: so a file \
can be published again, and what is there already (within the stream's duplicateWindow) is not stored twice.";

/// Source of events that name none.
const SOURCE: &str = "/tidemill/cli";
/// Publishes without an acknowledgement. More than some 1,000 give nothing.
const IN_FLIGHT: usize = 1024;
/// Longest line read besides the largest message of the server: names and quotes around it.
const LINE_EXTRA_BYTES: usize = 64 << 10;
/// Refused lines that are shown one by one; the others are counted.
const SHOWN_MAX: u64 = 20;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The EventStream: NAME or NAMESPACE/NAME
    stream: String,
    /// File with one event per line; `-` is standard input, which is the default without --type
    #[arg(short, long, value_name = "FILE", conflicts_with = "event_type")]
    file: Option<PathBuf>,
    /// Type of a single event
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Its entity: what it is about
    #[arg(
        short,
        long,
        // As `event get` and `event tail` call it.
        visible_alias = "entity",
        visible_short_alias = 'e',
        value_name = "ENTITY",
        requires = "event_type"
    )]
    subject: Option<String>,
    /// Its data, JSON
    #[arg(short, long, value_name = "JSON", requires = "event_type")]
    data: Option<String>,
    /// Its id [default: random]
    #[arg(long, value_name = "ID", requires = "event_type")]
    id: Option<String>,
    /// Its time, RFC 3339 [default: none, which means when it was stored]
    #[arg(long, value_name = "TIME", requires = "event_type")]
    time: Option<String>,
    /// A further attribute, such as correlationid=abc; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", requires = "event_type")]
    attribute: Vec<String>,
    /// Source of events that name none
    #[arg(long, value_name = "URI", default_value = SOURCE)]
    source: String,
}

/// What became of the events.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    stream: String,
    stored: u64,
    duplicates: u64,
    refused: u64,
    /// Whether these are stored is unknown.
    unknown: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_position: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<LineError>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LineError {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    reason: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    // What is wrong with the arguments is said before anything is connected to.
    let single = args
        .event_type
        .as_ref()
        .map(|_| single_event(&args))
        .transpose()?;
    let lines = match single {
        Some(_) => None,
        None => Some(Lines::open(args.file.as_deref()).await?),
    };
    let nats = context.connect().await?;
    let binding = catalog::stream(context, &nats, &args.stream).await?;
    let mut session = Session::new(&nats, &binding, context);
    match (single, lines) {
        (Some(event), _) => session.publish(None, event).await,
        (None, Some(mut lines)) => {
            let largest = nats.max_payload() + LINE_EXTRA_BYTES;
            let derive_ids = lines.repeatable();
            while let Some(line) = lines.next(largest).await? {
                let number = lines.number();
                match line {
                    Line::Text(text) => {
                        match event_of_line(&text, derive_ids.then_some(number), &args.source) {
                            Ok(event) => session.publish(Some(number), event).await,
                            Err(reason) => session.refuse(Some(number), reason),
                        }
                    }
                    Line::TooLong => {
                        let reason = format!(
                            "the line is longer than {} bytes, which no message may be",
                            grouped(largest as u64)
                        );
                        session.refuse(Some(number), reason);
                    }
                }
            }
        }
        (None, None) => {}
    }
    session.finish().await?.report(context)
}

/// The event that the options describe.
fn single_event(args: &Args) -> Result<Event> {
    let mut object = Object::new();
    let texts = [
        ("type", &args.event_type),
        ("subject", &args.subject),
        ("id", &args.id),
        ("time", &args.time),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            object.insert(name, text.as_str());
        }
    }
    for attribute in &args.attribute {
        let Some((name, value)) = attribute.split_once('=') else {
            return Err(CliError::usage(format!("`{attribute}` is no attribute"))
                .remedy("write --attribute NAME=VALUE"));
        };
        // By its own option: else the event would be another than the options say, or data no JSON.
        if let Some(option) = option_of(name) {
            return Err(CliError::usage(format!("`{name}` is no further attribute"))
                .remedy(format!("give it by {option}")));
        }
        if object.insert(name, value).is_some() {
            return Err(CliError::usage(format!(
                "the attribute `{name}` is given twice"
            )));
        }
    }
    if let Some(data) = &args.data {
        let data = Value::parse_unique(data.as_bytes()).map_err(|error| {
            let not = match error.reason {
                Reason::Doubled => "",
                _ => " is not JSON",
            };
            CliError::usage(format!("--data{not}: {}", chain(&error)))
                .remedy("put texts in double quotes and the whole in single ones")
        })?;
        object.insert("data", data);
    }
    event_of(object, None, &args.source).map_err(CliError::usage)
}

/// The option that gives what isn't an attribute like others.
fn option_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "type" => "--type",
        "subject" => "--subject",
        "id" => "--id",
        "time" => "--time",
        "source" => "--source",
        "data" => "--data",
        "data_base64" => "--data, as data is JSON",
        "datacontenttype" => "--data, which is JSON",
        _ => return None,
    })
}

fn event_of_line(
    text: &[u8],
    derive_id: Option<u64>,
    source: &str,
) -> std::result::Result<Event, String> {
    let value = Value::parse_unique(text).map_err(|error| match error.reason {
        Reason::Doubled => chain(&error),
        _ => format!("not JSON: {}", chain(&error)),
    })?;
    let Value::Object(object) = value else {
        return Err(format!(
            "an event is a JSON object, this is {}",
            value.type_name()
        ));
    };
    event_of(object, derive_id.map(|number| (number, text)), source)
}

fn event_of(
    mut object: Object,
    line: Option<(u64, &[u8])>,
    source: &str,
) -> std::result::Result<Event, String> {
    let missing = |object: &Object, name: &str| object.get(name).is_none_or(Value::is_null);
    if missing(&object, "specversion") {
        object.insert("specversion", "1.0");
    }
    if missing(&object, "source") {
        object.insert("source", source);
    }
    if missing(&object, "id") {
        object.insert(
            "id",
            line.map_or_else(random_id, |(number, text)| derived_id(number, text)),
        );
    }
    Event::from_value(Value::Object(object), Timestamp::default()).map_err(|error| chain(&error))
}

fn derived_id(number: u64, line: &[u8]) -> String {
    // FNV-1a, 64 bits: ids only need to differ from line to line, and the number sees to that.
    let hash = line
        .trim_ascii()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("line-{number}-{hash:016x}")
}

fn random_id() -> String {
    let bits: u128 = rand::random();
    format!("{bits:032x}")
}

type Pending =
    Pin<Box<dyn Future<Output = (Option<u64>, std::result::Result<Acked, PublishError>)> + Send>>;

/// Publishing to one stream.
struct Session<'a> {
    publisher: Publisher,
    binding: &'a StreamBinding,
    pending: FuturesUnordered<Pending>,
    summary: Summary,
    progress: Progress,
    for_people: bool,
}

impl<'a> Session<'a> {
    fn new(nats: &Nats, binding: &'a StreamBinding, context: &Context) -> Self {
        Session {
            publisher: Publisher::new(nats, IN_FLIGHT),
            binding,
            pending: FuturesUnordered::new(),
            summary: Summary {
                stream: binding.stream.to_string(),
                ..Summary::default()
            },
            progress: Progress::new(),
            for_people: context.for_people(),
        }
    }

    async fn publish(&mut self, line: Option<u64>, event: Event) {
        let message = match message_of(&event, &self.binding.prefix) {
            Ok(message) => message,
            Err(reason) => return self.refuse(line, reason),
        };
        while self.pending.len() >= IN_FLIGHT {
            self.take_one().await;
        }
        let ack = self.publisher.publish(message).await;
        self.pending
            .push(Box::pin(async move { (line, ack.await) }));
    }

    async fn take_one(&mut self) {
        let Some((line, answer)) = self.pending.next().await else {
            return;
        };
        match answer {
            Ok(acked) => {
                if acked.duplicate {
                    self.summary.duplicates += 1;
                } else {
                    self.summary.stored += 1;
                    let (first, last) = (
                        &mut self.summary.first_position,
                        &mut self.summary.last_position,
                    );
                    *first = Some(first.map_or(acked.sequence, |first| first.min(acked.sequence)));
                    *last = Some(last.map_or(acked.sequence, |last| last.max(acked.sequence)));
                }
            }
            Err(error @ PublishError::Unknown(_)) => {
                self.summary.unknown += 1;
                self.say(line, chain(&error));
            }
            Err(error) => self.refuse(line, chain(&error)),
        }
        self.progress
            .show(self.summary.stored + self.summary.duplicates);
    }

    fn refuse(&mut self, line: Option<u64>, reason: String) {
        self.summary.refused += 1;
        self.say(line, reason);
    }

    fn say(&mut self, line: Option<u64>, reason: String) {
        let shown = self.summary.refused + self.summary.unknown <= SHOWN_MAX;
        if shown && self.for_people {
            self.progress.clear();
            let reason = visible(&reason);
            match line {
                Some(line) => eprintln!("line {line}: {reason}"),
                None => eprintln!("refused: {reason}"),
            }
        }
        if shown {
            self.summary.errors.push(LineError { line, reason });
        }
    }

    async fn finish(mut self) -> Result<Summary> {
        while !self.pending.is_empty() {
            self.take_one().await;
        }
        self.progress.clear();
        Ok(self.summary)
    }
}

fn message_of(event: &Event, prefix: &str) -> std::result::Result<Publish, String> {
    let encoded = event.encode(prefix).map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &encoded.headers {
        let (Ok(header), Ok(value)) = (
            name.parse::<async_nats::HeaderName>(),
            value.parse::<async_nats::HeaderValue>(),
        ) else {
            return Err(format!("attribute `{name}` can't be a header of a message"));
        };
        headers.insert(header, value);
    }
    Ok(Publish {
        headers,
        message_id: Some(encoded.message_id),
        ..Publish::new(encoded.subject, encoded.payload)
    })
}

impl Summary {
    fn report(self, context: &Context) -> Result<()> {
        if context.for_people() {
            let positions = match (self.first_position, self.last_position) {
                (Some(first), Some(last)) if first == last => format!(" at position {first}"),
                (Some(first), Some(last)) => format!(" at positions {first} to {last}"),
                _ => String::new(),
            };
            let mut text = format!(
                "{} stored in {}{positions}",
                count(self.stored, "event"),
                self.stream
            );
            let duplicates = format!("{} there already (same id)", grouped(self.duplicates));
            let refused = format!("{} refused", grouped(self.refused));
            let unknown = format!("{} perhaps stored", grouped(self.unknown));
            for (number, part) in [
                (self.duplicates, duplicates),
                (self.refused, refused),
                (self.unknown, unknown),
            ] {
                if number > 0 {
                    text.push_str(", ");
                    text.push_str(&part);
                }
            }
            context.output.line(text)?;
        } else {
            context.output.document(&self)?;
        }
        let wrong = self.refused + self.unknown;
        if wrong == 0 {
            return Ok(());
        }
        if wrong > SHOWN_MAX && context.for_people() {
            eprintln!("… and {} more", grouped(wrong - SHOWN_MAX));
        }
        if self.unknown > 0 && context.for_people() {
            eprintln!(
                "publish the same file again: what is stored already is known by its id within the stream's duplicateWindow"
            );
        }
        Err(CliError::said(Exit::Failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_leaves_out_is_filled_in() {
        let event = event_of_line(
            br#"{"type": "A", "subject": "o-1", "data": {"total": 12.50}}"#,
            Some(3),
            SOURCE,
        )
        .unwrap();
        assert_eq!(event.source, SOURCE);
        assert!(event.id.starts_with("line-3-"), "{}", event.id);
        assert_eq!(event.data.to_json(), r#"{"total":12.50}"#);
        let again = event_of_line(
            br#"{"type": "A", "subject": "o-1", "data": {"total": 12.50}}"#,
            Some(3),
            SOURCE,
        )
        .unwrap();
        assert_eq!(event.id, again.id);
        let random = event_of_line(br#"{"type": "A"}"#, None, SOURCE).unwrap();
        assert_ne!(
            random.id,
            event_of_line(br#"{"type": "A"}"#, None, SOURCE).unwrap().id
        );
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_reason() {
        for (line, part) in [
            ("{", "not JSON"),
            ("[]", "an event is a JSON object"),
            ("{}", "no CloudEvents attribute `type`"),
            (
                r#"{"type": "A", "time": "yesterday"}"#,
                "`time` is not a time",
            ),
            (r#"{"type": "A", "eventId": "1"}"#, "eventId"),
            (
                r#"{"type": "A", "data": {"total": 1, "total": 2}}"#,
                "invalid JSON at byte 22: an object that begins here has a key twice",
            ),
            (r#"{"type": "A", "type": "B"}"#, "at byte 0"),
        ] {
            let error = event_of_line(line.as_bytes(), None, SOURCE).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}

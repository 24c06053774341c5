//! `tidemill event tail` and `tidemill event get`.

use super::from::From;
use crate::catalog;
use crate::context::{Context, api_error};
use crate::error::{CliError, Exit, Result, chain};
use crate::output::{Format, Text, Tone, grouped};
use tidemill_core::contract::StreamBinding;
use tidemill_core::envelope::{Decoder, Event, RawMessage};
use tidemill_core::json::{Object, Value};
use tidemill_core::names::encode_token;
use tidemill_nats::{Nats, ReadError, Reader, StoredMessage, StreamState};

/// Shown at the end of the help of `tail`.
pub(crate) const TAIL_EXAMPLES: &str = "\
Examples:
  tidemill event tail orders
  tidemill event tail orders --type OrderPlaced --from 15m
  tidemill event tail orders --entity o-1 --from beginning -o json";

/// Shown at the end of the help of `get`.
pub(crate) const GET_EXAMPLES: &str = "\
Examples:
  tidemill event get orders
  tidemill event get orders --entity o-1
  tidemill event get orders --type OrderPlaced --type OrderPaid --from 2026-01-31T12:00:00Z --limit 10
  tidemill event get orders --from 1200 -o json";

/// Events shown to people unless they say otherwise.
const LIMIT_FOR_PEOPLE: u64 = 100;
/// Events read at a time.
const BATCH: usize = 500;
/// Longest data shown in a table, in characters.
const DATA_CHARACTERS: usize = 100;

/// Which events.
#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// The EventStream: NAME or NAMESPACE/NAME
    stream: String,
    /// Only events about this entity (their subject)
    #[arg(
        short,
        long,
        visible_alias = "subject",
        visible_short_alias = 's',
        value_name = "ENTITY"
    )]
    entity: Option<String>,
    /// Only events of this type; may be repeated
    #[arg(short, long = "type", value_name = "TYPE")]
    types: Vec<String>,
}

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    filter: Filter,
    /// Where to begin: beginning, end, a position, a time, or how long ago (15m)
    #[arg(long, value_name = "WHERE", default_value = "end")]
    from: From,
    /// Ends after so many events
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    #[command(flatten)]
    filter: Filter,
    /// Where to begin: beginning, end, a position, a time, or how long ago (15m)
    #[arg(long, value_name = "WHERE", default_value = "beginning")]
    from: From,
    /// At most so many events; 0 = all [default: 100 in a table, all in JSON and YAML]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
}

pub(crate) async fn tail(args: Tail, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    let selection = Selection::new(context, &nats, &args.filter).await?;
    let name = &selection.binding.name;
    selection.holds(&nats, args.from).await?;
    let mut reader = Reader::open(
        &nats,
        name,
        selection.subjects.clone(),
        args.from.read_from(),
    )
    .await
    .map_err(|error| read_error(&error))?;
    if context.for_people() {
        // Said when the reader stands: whatever is stored from now on is shown.
        eprintln!("following {}; Ctrl-C ends", selection.binding.stream);
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut batch = Vec::new();
    while left > 0 {
        let read = reader.next_batch(BATCH, &mut batch).await;
        read.map_err(|error| read_error(&error))?;
        for message in batch.drain(..) {
            let Some(shown) = selection.decode(&message) else {
                continue;
            };
            if left == 0 {
                break;
            }
            left -= 1;
            match context.output.format {
                Format::Table => context.output.line(shown.line())?,
                _ => shown.stream_out(context)?,
            }
        }
    }
    Ok(())
}

pub(crate) async fn get(args: Get, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    let selection = Selection::new(context, &nats, &args.filter).await?;
    let name = &selection.binding.name;
    selection.holds(&nats, args.from).await?;
    let mut reader = Reader::open_to_end(
        &nats,
        name,
        selection.subjects.clone(),
        args.from.read_from(),
    )
    .await
    .map_err(|error| read_error(&error))?;
    let limit = match args.limit {
        Some(0) => u64::MAX,
        Some(limit) => limit,
        None if context.for_people() => LIMIT_FOR_PEOPLE,
        None => u64::MAX,
    };
    let (mut rows, mut matched, mut more) = (Vec::new(), 0, false);
    let (mut read_here, mut last_shown) = (0, 0);
    let mut batch = Vec::new();
    'reading: loop {
        let read = reader.next_batch(BATCH, &mut batch).await;
        if read.map_err(|error| read_error(&error))? == 0 {
            break;
        }
        for message in batch.drain(..) {
            let shown = selection.decode(&message);
            if shown.is_some() && matched == limit {
                more = true;
                break 'reading;
            }
            read_here += 1;
            let Some(shown) = shown else {
                continue;
            };
            matched += 1;
            last_shown = message.sequence;
            match context.output.format {
                Format::Table => rows.push(shown.row()),
                _ => shown.stream_out(context)?,
            }
        }
    }
    let state = reader.state();
    let seen = match selection.subjects.is_empty() {
        true => Some(read_here),
        false => seen_between(state, args.from, more.then_some(last_shown)),
    };
    let stream = &selection.binding.stream;
    let in_stream = grouped(state.messages);
    let counted = match seen {
        Some(seen) => format!(
            "seen {}, matched {}, skipped {}",
            grouped(seen),
            grouped(matched),
            grouped(seen.saturating_sub(matched))
        ),
        // The server has chosen, and doesn't say out of how many.
        None => format!("matched {}", grouped(matched)),
    };
    let mut line = format!("{counted}; {stream} holds {in_stream}");
    if more {
        line = format!(
            "the first {} that match: {line}; --limit 0 shows all",
            grouped(matched)
        );
    }
    if !context.for_people() {
        eprintln!("{line}");
        return Ok(());
    }
    if !rows.is_empty() {
        context.output.table(
            &["position", "stored", "type", "entity", "id", "data"],
            rows,
            "",
        )?;
    }
    context.output.line(line)
}

/// How many events there are from where reading began to its end, or to the last one shown; nothing if that can't be told.
fn seen_between(state: &StreamState, from: From, last_shown: Option<u64>) -> Option<u64> {
    let whole = state.messages == (state.last + 1).saturating_sub(state.first);
    let begin = match from {
        From::Beginning => state.first,
        From::Position(position) => position.max(state.first),
        From::End => return Some(0),
        From::Time(_) | From::Ago(_) => return None,
    };
    match last_shown {
        // Also of one with gaps.
        None if from == From::Beginning => Some(state.messages),
        _ if !whole => None,
        last => Some((last.unwrap_or(state.last) + 1).saturating_sub(begin)),
    }
}

/// The events that were asked for.
struct Selection {
    binding: StreamBinding,
    decoder: Decoder,
    /// Filters for the server; none where only the events' own attributes tell.
    subjects: Vec<String>,
    entity: Option<String>,
    types: Vec<String>,
}

impl Selection {
    async fn new(context: &Context, nats: &Nats, filter: &Filter) -> Result<Self> {
        let binding = catalog::stream(context, nats, &filter.stream).await?;
        let decoder = Decoder::new(&binding).map_err(|error| {
            CliError::failed(format!(
                "the captures of {} don't compile: {}",
                binding.stream,
                chain(&error)
            ))
        })?;
        let (entity, types) = (filter.entity.clone(), filter.types.clone());
        let asked = entity.is_some() || !types.is_empty();
        // Captured messages are on subjects of their own, so there only the attributes tell.
        let subjects = if asked && binding.capture.is_empty() {
            subjects(&binding.prefix, entity.as_deref(), &types).map_err(CliError::usage)?
        } else {
            Vec::new()
        };
        Ok(Selection {
            binding,
            decoder,
            subjects,
            entity,
            types,
        })
    }

    /// Whether there is anything at a position, or will be next: beyond that, somebody means another stream or another number.
    async fn holds(&self, nats: &Nats, from: From) -> Result<()> {
        let From::Position(position) = from else {
            return Ok(());
        };
        let state = nats.stream_state(&self.binding.name).await;
        let last = state.map_err(|error| api_error(&error))?.last;
        if position <= last.saturating_add(1) {
            return Ok(());
        }
        let stream = &self.binding.stream;
        let (end, remedy) = match last {
            0 => ("it has held no event yet".to_owned(), "leave --from out"),
            last => (
                format!("its last event is at {last}"),
                "give a position up to there; `tidemill event tail` shows what comes",
            ),
        };
        let error = format!("position {position} lies after the end of {stream}: {end}");
        Err(CliError::not_found(error).remedy(remedy))
    }

    /// The event in a message, or why it is none; nothing if it wasn't asked for.
    fn decode(&self, message: &StoredMessage) -> Option<Shown> {
        let headers = message.headers.as_ref();
        let headers: Vec<(&str, &str)> = headers
            .into_iter()
            .flat_map(|headers| headers.iter())
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| (name.as_ref(), value.as_str()))
            })
            .collect();
        let raw = RawMessage {
            subject: &message.subject,
            headers: &headers,
            payload: &message.payload,
            sequence: message.sequence,
            stored_at: message.stored_at,
        };
        let content = match self.decoder.decode(&raw) {
            Ok(event) if self.wants(&event) => Content::Event(Box::new(event)),
            // With a filter by subject the server has chosen; a message that can't be read is shown all the same.
            Err(error)
                if !self.subjects.is_empty()
                    || (self.entity.is_none() && self.types.is_empty()) =>
            {
                Content::Unreadable {
                    reason: chain(&error),
                    subject: message.subject.to_string(),
                }
            }
            Ok(_) | Err(_) => return None,
        };
        Some(Shown {
            position: message.sequence,
            stored_at: message.stored_at.to_string(),
            content,
        })
    }

    fn wants(&self, event: &Event) -> bool {
        if !self.subjects.is_empty() {
            return true;
        }
        self.entity
            .as_deref()
            .is_none_or(|entity| event.entity() == entity)
            && (self.types.is_empty() || self.types.contains(&event.event_type))
    }
}

fn subjects(
    prefix: &str,
    entity: Option<&str>,
    types: &[String],
) -> std::result::Result<Vec<String>, String> {
    let token = |text: Option<&str>| match text {
        Some(text) => encode_token(text).map_err(|error| error.to_string()),
        None => Ok("*".to_owned()),
    };
    let entity = token(entity)?;
    if types.is_empty() {
        return Ok(vec![format!("{prefix}.{entity}.*")]);
    }
    types
        .iter()
        .map(|event_type| Ok(format!("{prefix}.{entity}.{}", token(Some(event_type))?)))
        .collect()
}

/// One message as it is shown.
struct Shown {
    position: u64,
    stored_at: String,
    content: Content,
}

enum Content {
    Event(Box<Event>),
    Unreadable { reason: String, subject: String },
}

impl Shown {
    /// The event's JSON form with its position.
    fn to_value(&self) -> Value {
        let mut value = match &self.content {
            Content::Event(event) => event.to_value(),
            Content::Unreadable { reason, subject } => {
                let mut object = Object::new();
                object.insert("error", reason.as_str());
                object.insert("natsSubject", subject.as_str());
                Value::Object(object)
            }
        };
        if let Value::Object(object) = &mut value {
            object.insert("position", self.position);
        }
        value
    }

    /// One line of JSON, or one document of YAML.
    fn stream_out(&self, context: &Context) -> Result<()> {
        let value = self.to_value();
        if context.output.format == Format::Yaml {
            context.output.line("---")?;
            return context.output.document(&serde_json::Value::from(value));
        }
        context.output.line(value.to_json())
    }

    fn row(self) -> Vec<Text> {
        let mut row = vec![self.position.into(), self.stored_at.into()];
        match self.content {
            Content::Event(event) => {
                let data = shorten(&event.data);
                row.extend([
                    event.event_type.as_str().into(),
                    Text::id(event.entity()),
                    Text::id(&event.id).faint(),
                    data.into(),
                ]);
            }
            Content::Unreadable { reason, subject } => {
                row.extend([
                    Text::toned("no event", Tone::Bad),
                    "".into(),
                    "".into(),
                    format!("{reason} (on {subject})").into(),
                ]);
            }
        }
        row
    }

    /// For `tail`, where no table can be laid out.
    fn line(&self) -> String {
        let text = match &self.content {
            Content::Event(event) => {
                format!(
                    "{}  {}  {}",
                    event.event_type,
                    event.entity(),
                    shorten(&event.data)
                )
            }
            Content::Unreadable { reason, subject } => format!("no event: {reason} (on {subject})"),
        };
        format!("{}  {}  {}", self.position, self.stored_at, text.trim_end())
    }
}

fn shorten(data: &Value) -> String {
    if data.is_null() {
        return String::new();
    }
    let text = data.to_json();
    if text.chars().count() <= DATA_CHARACTERS {
        return text;
    }
    let mut short: String = text.chars().take(DATA_CHARACTERS).collect();
    short.push('…');
    short
}

fn read_error(error: &ReadError) -> CliError {
    let exit = match error {
        ReadError::StreamMissing(_) => Exit::NotFound,
        ReadError::Denied(_) => Exit::Refused,
        ReadError::Lost { .. } | ReadError::Refused { .. } => Exit::Failed,
    };
    CliError::new(exit, chain(error))
}

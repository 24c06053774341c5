//! `tidemill query`.

use crate::catalog;
use crate::commands::projection;
use crate::context::Context;
use crate::error::{CliError, Exit, Result, chain};
use crate::figures::{self, Figures};
use crate::output::{Format, Text, Tone, grouped, visible};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::figures::ProjectionFigures;
use tidemill_core::json::{Object, Value};
use tidemill_core::names::{Kind, ResourceId, decode_token, encode_token};
use tidemill_core::projection::{KeySpace, LIVE_KEY};
use tidemill_nats::{KvBucket, KvEntry, KvError, Nats, Publisher, ReadError};

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill query order-status
  tidemill query order-status o-1
  tidemill query order-status o-1 -o json
  tidemill query customer-orders --limit 0 -o json

JSON is an array of {\"key\", \"row\"}; with KEY, the row alone. A key that has no row gives exit code 3.";

/// A worker that stands by while others fold: that isn't what people mean by stopped.
const NO_PARTITIONS: &str = "NoPartitions";
/// Rows shown to people unless they say otherwise.
const LIMIT_FOR_PEOPLE: usize = 100;
/// Columns a table may have; with more, each row is shown as JSON.
const COLUMNS_MAX: usize = 8;
/// Longest value of a table, in characters.
const VALUE_CHARACTERS: usize = 40;
/// Entries taken at once.
const BATCH: usize = 1000;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Projection: NAME or NAMESPACE/NAME
    projection: String,
    /// Key of one row
    key: Option<String>,
    /// At most so many rows; 0 = all [default: 100 in a table, all in JSON and YAML]
    #[arg(long, value_name = "NUMBER", conflicts_with = "key")]
    limit: Option<usize>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<()> {
    let nats = context.connect().await?;
    let projection = catalog::resource(context, &nats, Kind::Projection, &args.projection).await?;
    let bucket = KvBucket::new(
        &Publisher::new(&nats, 1),
        &catalog::rows_bucket(&nats, &projection).await?,
    );
    let rows = Rows {
        nats: &nats,
        projection: &projection,
        bucket,
        context,
    };
    let space = rows.live().await?;
    let shown = match &args.key {
        Some(key) => rows.one(space.as_ref(), key).await,
        None => rows.all(space.as_ref(), args.limit).await,
    };
    // Whoever may only read rows gets no answer.
    if let Ok(Some(status)) = projection::status(&nats, &projection).await
        && let Some(stopped) = status
            .stopped
            .filter(|stopped| stopped.reason != NO_PARTITIONS)
    {
        eprintln!(
            "warning: {projection} is stopped ({}): {}",
            visible(&stopped.reason),
            visible(&stopped.message)
        );
    }
    shown
}

struct Rows<'a> {
    nats: &'a Nats,
    projection: &'a ResourceId,
    bucket: KvBucket,
    context: &'a Context,
}

impl Rows<'_> {
    /// The key space that readers follow; nothing before the first rows are complete.
    async fn live(&self) -> Result<Option<KeySpace>> {
        let entry = self
            .bucket
            .get(LIVE_KEY)
            .await
            .map_err(|error| self.failed(&error))?;
        let Some(entry) = entry.filter(|entry| !entry.deleted) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&entry.value);
        let space = KeySpace::parse(&text);
        space.map(Some).ok_or_else(|| {
            CliError::failed(format!(
                "the rows of {} are of a version that this command doesn't read",
                self.projection
            ))
        })
    }

    async fn one(&self, space: Option<&KeySpace>, key: &str) -> Result<()> {
        let token = encode_token(key).map_err(CliError::usage)?;
        let entry = match space {
            Some(space) => self
                .bucket
                .get(&space.row_key(&token))
                .await
                .map_err(|error| self.failed(&error))?,
            None => None,
        };
        let Some(entry) = entry.filter(|entry| !entry.deleted) else {
            let figures = figures::read(self.nats, self.projection).await?;
            let seen = self.counted(&figures).await;
            return Err(
                CliError::not_found(format!("{} has no row `{key}`", self.projection)).remedy(seen),
            );
        };
        let row = self.parse(&entry)?;
        match self.context.output.format {
            Format::Json => self.context.output.line(row.to_json()),
            Format::Yaml => self.context.output.document(&serde_json::Value::from(row)),
            Format::Table => {
                let columns = row.as_object().into_iter().flat_map(Object::iter);
                let rows = columns.map(|(column, value)| vec![column.into(), plain(value).into()]);
                self.context.output.table(
                    &["column", "value"],
                    rows.collect(),
                    "the row has no columns",
                )
            }
        }
    }

    async fn all(&self, space: Option<&KeySpace>, limit: Option<usize>) -> Result<()> {
        let people = self.context.for_people();
        let limit = match limit {
            Some(0) => usize::MAX,
            Some(limit) => limit,
            None if people => LIMIT_FOR_PEOPLE,
            None => usize::MAX,
        };
        let rows = match space {
            Some(space) => self.read(space).await?,
            None => BTreeMap::new(),
        };
        let all = rows.len();
        let shown = rows.into_iter().take(limit);
        match self.context.output.format {
            Format::Json => {
                self.json(shown)?;
                figures::note(self.nats, self.projection).await;
                return Ok(());
            }
            Format::Yaml => {
                let rows = shown.map(|(key, row)| serde_json::json!({"key": key, "row": serde_json::Value::from(row)}));
                self.context.output.document(&rows.collect::<Vec<_>>())?;
                figures::note(self.nats, self.projection).await;
                return Ok(());
            }
            Format::Table => {}
        }
        self.table(shown.collect())?;
        if all > limit {
            self.context.output.line(format!(
                "the first {limit} of {} rows; --limit 0 shows all",
                grouped(all as u64)
            ))?;
        }
        let figures = figures::read(self.nats, self.projection).await?;
        let building = if space.is_none() {
            "nothing is complete yet: "
        } else {
            ""
        };
        self.context
            .output
            .line(format!("{building}{}", self.counted(&figures).await))?;
        figures
            .hint()
            .map_or(Ok(()), |hint| self.context.output.line(hint))
    }

    /// Figures in one line, which says so where they may be old.
    async fn counted(&self, figures: &Figures) -> String {
        match projection::status(self.nats, self.projection).await {
            Ok(Some(status)) => match (&status.stopped, figures) {
                // What was counted was counted before it stopped.
                (Some(_), Figures::Projection(counted)) => {
                    let lag = projection::lag(&status);
                    Figures::Projection(ProjectionFigures {
                        lag,
                        ..counted.clone()
                    })
                    .line()
                }
                _ => figures.line(),
            },
            // Whoever may only read rows gets no answer either.
            Ok(None) | Err(_) => format!("no worker answers; as last counted: {}", figures.line()),
        }
    }

    /// By key, since a row that changes while we read comes twice.
    async fn read(&self, space: &KeySpace) -> Result<BTreeMap<String, Value>> {
        let prefix = space.to_string();
        let mut reader = match self.bucket.read(&prefix).await {
            Ok(reader) => reader,
            Err(error) => return Err(self.failed(&error)),
        };
        let mut rows = BTreeMap::new();
        let mut batch: Vec<KvEntry> = Vec::new();
        while reader
            .next_batch(BATCH, &mut batch)
            .await
            .map_err(|error| self.failed(&error))?
            > 0
        {
            for entry in batch.drain(..) {
                // Checkpoints have a token more.
                let token = entry
                    .key
                    .strip_prefix(&prefix)
                    .and_then(|rest| rest.strip_prefix('.'));
                let Some(key) = token.and_then(|token| decode_token(token).ok()) else {
                    continue;
                };
                if entry.deleted {
                    rows.remove(&key);
                } else {
                    let row = self.parse(&entry)?;
                    rows.insert(key, row);
                }
            }
        }
        Ok(rows)
    }

    fn parse(&self, entry: &KvEntry) -> Result<Value> {
        Value::parse(&entry.value).map_err(|error| {
            CliError::failed(format!(
                "row {} of {} can't be read: {}",
                entry.key,
                self.projection,
                chain(&error)
            ))
        })
    }

    /// One row per line, so that a million of them is one array and still can be read line by line.
    fn json(&self, rows: impl Iterator<Item = (String, Value)>) -> Result<()> {
        let mut text = String::from("[");
        for (index, (key, row)) in rows.enumerate() {
            let mut object = Object::new();
            object.insert("key", key.as_str());
            object.insert("row", row);
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            Value::Object(object).write_json(&mut text);
        }
        text.push_str("\n]");
        self.context.output.line(text)
    }

    fn table(&self, rows: Vec<(String, Value)>) -> Result<()> {
        let columns: BTreeSet<String> = rows
            .iter()
            .filter_map(|(_, row)| row.as_object())
            .flat_map(Object::keys)
            .map(str::to_owned)
            .collect();
        if columns.len() > COLUMNS_MAX {
            let rows = rows
                .into_iter()
                .map(|(key, row)| vec![Text::id(&key), row.to_json().into()]);
            return self
                .context
                .output
                .table(&["key", "row"], rows.collect(), "");
        }
        // Columns are the user's words: in capitals they would be others.
        let mut heads = vec!["key".to_owned()];
        heads.extend(columns.iter().cloned());
        let rows = rows.into_iter().map(|(key, row)| {
            let mut cells: Vec<Text> = vec![Text::id(&key)];
            cells.extend(columns.iter().map(|column| match row.get(column) {
                Some(value) => shorten(&plain(value)).into(),
                None => Text::toned("", Tone::Faint),
            }));
            cells
        });
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        self.context
            .output
            .table_as_named(&heads, rows.collect(), "there is no row")
    }

    fn failed(&self, error: &KvError) -> CliError {
        let exit = match error {
            KvError::Read {
                source: ReadError::StreamMissing(_),
                ..
            } => Exit::NotFound,
            _ => Exit::Failed,
        };
        CliError::new(
            exit,
            format!(
                "the rows of {} can't be read: {}",
                self.projection,
                chain(error)
            ),
        )
    }
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_json(), str::to_owned)
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= VALUE_CHARACTERS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(VALUE_CHARACTERS).collect();
    short.push('…');
    short
}

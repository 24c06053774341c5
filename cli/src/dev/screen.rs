//! What a person sees of `dev`: on a terminal a table that is drawn over, elsewhere one line per change.

mod live;

use super::log::Said;
use super::observe::StreamFigures;
use super::workers::State;
use crate::error::Result;
use crate::figures::Figures;
use crate::output::{Output, Text, Tone, count, grouped, visible};
use live::Region;
use std::collections::{BTreeMap, VecDeque};
use tidemill_core::definition::StreamRef;
use tidemill_core::names::{Kind, ResourceId};

/// Messages kept below the table.
const MESSAGES_KEPT: usize = 8;

/// Everything there is to see at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Board {
    /// EventStreams and what they hold.
    pub(crate) streams: BTreeMap<StreamRef, StreamFigures>,
    /// Projections and Sagas.
    pub(crate) workers: BTreeMap<ResourceId, (State, Figures)>,
    /// What is wrong now: manifests that don't pass, resources that can't be had.
    pub(crate) problems: Vec<String>,
}

/// Shows boards and messages.
pub(crate) struct Screen<'a> {
    output: &'a Output,
    region: Option<Region>,
    shown: Board,
    messages: VecDeque<Said>,
}

impl<'a> Screen<'a> {
    /// A screen; `live` = drawn over.
    pub(crate) fn new(output: &'a Output, live: bool) -> Self {
        Screen {
            output,
            region: live.then(Region::new),
            shown: Board::default(),
            messages: VecDeque::new(),
        }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        if let Some(region) = &mut self.region {
            region.clear();
        }
        self.output.line(line)?;
        self.redraw();
        Ok(())
    }

    /// Shows how things are now, and what workers complained of since.
    pub(crate) fn show(&mut self, board: Board, said: Vec<Said>) -> Result<()> {
        if self.region.is_some() {
            if board == self.shown && said.is_empty() {
                return Ok(());
            }
            self.messages.extend(said);
            while self.messages.len() > MESSAGES_KEPT {
                self.messages.pop_front();
            }
            self.shown = board;
            self.redraw();
            return Ok(());
        }
        for line in changes(&self.shown, &board) {
            self.output.line(line)?;
        }
        for Said { error, text } in said {
            self.output.line(format!(
                "{}: {text}",
                if error { "error" } else { "warning" }
            ))?;
        }
        self.shown = board;
        Ok(())
    }

    /// Leaves what is shown where it is.
    pub(crate) fn end(&mut self) {
        if let Some(mut region) = self.region.take() {
            region.end();
        }
    }

    fn redraw(&mut self) {
        let Some(region) = &mut self.region else {
            return;
        };
        if self.shown == Board::default() && self.messages.is_empty() {
            return;
        }
        let mut lines = vec![String::new()];
        let table = self.output.render(
            &["KIND", "NAME", "STATE", "SEEN", "MATCHED", "SKIPPED", "NOW"],
            rows(&self.shown),
        );
        lines.extend(table.lines().map(str::to_owned));
        if !self.shown.problems.is_empty() {
            lines.push(String::new());
            let problems = self.shown.problems.iter();
            lines.extend(problems.map(|problem| visible(problem).into_owned()));
        }
        if !self.messages.is_empty() {
            lines.push(String::new());
            let said = self.messages.iter();
            lines.extend(said.map(|said| {
                format!(
                    "{}: {}",
                    if said.error { "error" } else { "warning" },
                    visible(&said.text)
                )
            }));
        }
        region.draw(&lines);
    }
}

fn rows(board: &Board) -> Vec<Vec<Text>> {
    let mut rows = Vec::new();
    for (stream, figures) in &board.streams {
        let [kind, name] = ["EventStream".into(), stream.to_string().into()];
        rows.push(vec![
            kind,
            name,
            Text::toned("ready", Tone::Good),
            "".into(),
            "".into(),
            "".into(),
            holds(*figures).into(),
        ]);
    }
    for (resource, (state, figures)) in &board.workers {
        let [seen, matched, skipped] = figures.reading().map(|figure| Text::from(grouped(figure)));
        let name = format!("{}/{}", resource.namespace, resource.name);
        let (state, now) = match state {
            State::Ready => (Text::toned("ready", Tone::Good), figures.detail()),
            State::NotReady(why) => (Text::toned("not ready", Tone::Attention), why.clone()),
            State::Failed(why) => (Text::toned("failed", Tone::Bad), why.clone()),
        };
        rows.push(vec![
            kind_of(resource).into(),
            name.into(),
            state,
            seen,
            matched,
            skipped,
            now.into(),
        ]);
    }
    rows
}

/// A resource as lines begin with it.
pub(super) fn shown(resource: &ResourceId) -> String {
    let ResourceId {
        namespace, name, ..
    } = resource;
    format!("{} {namespace}/{name}", kind_of(resource))
}

/// One line for each thing that is other than before.
fn changes(before: &Board, now: &Board) -> Vec<String> {
    let mut lines = Vec::new();
    for (stream, figures) in &now.streams {
        if before.streams.get(stream) != Some(figures) {
            lines.push(format!("EventStream {stream}: {}", holds(*figures)));
        }
    }
    for (resource, (state, figures)) in &now.workers {
        let known = before.workers.get(resource);
        let shown = shown(resource);
        if known.map(|(state, _)| state) != Some(state) {
            lines.push(match state {
                State::Ready => format!("{shown}: ready"),
                State::NotReady(why) => format!("{shown}: not ready: {why}"),
                State::Failed(why) => format!("{shown}: failed: {why}"),
            });
        }
        let nothing_yet = known.is_none() && *figures == Figures::none(resource.kind);
        // Not every figure is in the line.
        if !nothing_yet && known.map(|(_, figures)| figures.line()) != Some(figures.line()) {
            lines.push(format!("{shown}: {}", figures.line()));
        }
    }
    lines.extend(
        now.problems
            .iter()
            .filter(|problem| !before.problems.contains(problem))
            .cloned(),
    );
    if now.problems.is_empty() && !before.problems.is_empty() {
        lines.push("all manifests are in force".to_owned());
    }
    lines
}

fn holds(figures: StreamFigures) -> String {
    format!(
        "{}, {} KiB",
        count(figures.messages, "event"),
        grouped(figures.bytes.div_ceil(1024))
    )
}

fn kind_of(resource: &ResourceId) -> &'static str {
    match resource.kind {
        Kind::Projection => "Projection",
        Kind::Saga => "Saga",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::figures::SagaFigures;

    fn board(state: State, completed: u64) -> Board {
        let saga = ResourceId::new(Kind::Saga, "shop", "orders");
        let figures = SagaFigures {
            seen: completed,
            matched: completed,
            started: completed,
            completed,
            ..SagaFigures::default()
        };
        Board {
            workers: BTreeMap::from([(saga, (state, Figures::Saga(figures)))]),
            ..Board::default()
        }
    }

    #[test]
    fn only_what_changed_is_said() {
        let starting = board(State::NotReady("starting".to_owned()), 0);
        assert_eq!(
            changes(&Board::default(), &starting),
            ["Saga shop/orders: not ready: starting"]
        );
        assert_eq!(changes(&starting, &starting), Vec::<String>::new());
        assert_eq!(
            changes(&starting, &board(State::Ready, 0)),
            ["Saga shop/orders: ready"]
        );
        assert_eq!(
            changes(&board(State::Ready, 0), &board(State::Ready, 2)),
            [
                "Saga shop/orders: seen 2, matched 2, skipped 0, started 2, running 0, completed 2, compensated 0, parked 0"
            ]
        );
        let broken = Board {
            problems: vec!["a.yaml:1:1: wrong".to_owned()],
            ..starting.clone()
        };
        assert_eq!(changes(&starting, &broken), ["a.yaml:1:1: wrong"]);
        assert_eq!(changes(&broken, &starting), ["all manifests are in force"]);
    }
}

//! What must be true at the end.

use super::plain::{Cell, Plain, plain};
use super::{Report, World};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use tidemill_core::json::Value;
use tidemill_core::projection::{Checkpoint, Tally};

impl World {
    pub(super) fn is_done(&self) -> bool {
        self.owners.iter().all(|owner| owner.is_done(self))
    }

    pub(super) fn judge(mut self) -> Report {
        if self.problems.is_empty() {
            let plain = plain(&self.streams);
            self.judge_rows(&plain);
            self.judge_parked(&plain);
            self.judge_checkpoints(&plain);
            let _ = writeln!(self.trace, "{:?}", self.disk);
        }
        Report {
            trace: self.trace,
            counts: self.counts,
            problems: self.problems,
        }
    }

    fn judge_rows(&mut self, plain: &Plain) {
        let stored = self.disk.rows.iter();
        let found: BTreeMap<&String, &String> = stored
            .filter_map(|(token, row)| Some((token, row.value.as_ref()?)))
            .collect();
        let tokens: BTreeSet<&String> = found.keys().copied().chain(plain.rows.keys()).collect();
        for token in tokens {
            let same = match (found.get(token), plain.rows.get(token)) {
                (Some(found), Some(expected)) => is_same(found, expected),
                (None, None) => true,
                _ => false,
            };
            if !same {
                self.problems.push(format!(
                    "row {token} is {:?}, it must be {:?}",
                    found.get(token),
                    plain.rows.get(token)
                ));
            }
        }
    }

    /// Whatever can't be folded was asked about, nothing else was, and nothing waits any more.
    fn judge_parked(&mut self, plain: &Plain) {
        let decided = self.disk.decisions.iter();
        let decided: BTreeSet<(usize, u64, String)> = decided
            .map(|(source, position, token)| (*source, position.sequence, token.clone()))
            .collect();
        if decided != plain.failing {
            self.problems.push(format!(
                "decided without need: {:?}; never decided: {:?}",
                decided.difference(&plain.failing).collect::<Vec<_>>(),
                plain.failing.difference(&decided).collect::<Vec<_>>()
            ));
        }
        if !self.disk.parked.is_empty() {
            self.problems
                .push(format!("left in the parked stream: {:?}", self.disk.parked));
        }
    }

    fn judge_checkpoints(&mut self, plain: &Plain) {
        let mut sum = Tally::default();
        for (partition, (_, json)) in &self.disk.checkpoints {
            let Ok(checkpoint) = Checkpoint::parse(&self.sources, json.as_bytes()) else {
                self.problems
                    .push(format!("checkpoint {partition}: {json}"));
                continue;
            };
            sum.seen += checkpoint.tally.seen;
            sum.matched += checkpoint.tally.matched;
            sum.skipped += checkpoint.tally.skipped;
            let ends = self.streams.iter().map(Vec::len);
            for (source, end) in ends.enumerate() {
                let position = checkpoint.source(source).position;
                if position.sequence != end as u64 {
                    self.problems.push(format!(
                        "partition {partition} is at {position} of {end} in source {source}"
                    ));
                }
            }
        }
        let found = (sum.seen, sum.matched, sum.skipped);
        let must = (plain.matched + plain.skipped, plain.matched, plain.skipped);
        if found != must {
            self.problems.push(format!(
                "(seen, matched, skipped) is {found:?}, it must be {must:?}"
            ));
        }
    }
}

fn is_same(found: &str, expected: &BTreeMap<String, Cell>) -> bool {
    let Ok(Value::Object(found)) = Value::parse(found.as_bytes()) else {
        return false;
    };
    found.len() == expected.len()
        && expected.iter().all(|(column, expected)| {
            let found = found.get(column).map(Value::to_json);
            match (found, expected) {
                (Some(found), Cell::Text(text)) => found == *text,
                (Some(found), Cell::Cents(sum)) => cents(&found) == Some(*sum),
                (None, _) => false,
            }
        })
}

/// A decimal number in hundredths, read by itself.
fn cents(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = format!("{part:0<2}");
    if part.len() != 2 {
        return None;
    }
    Some(sign * (whole.parse::<i64>().ok()? * 100 + part.parse::<i64>().ok()?))
}

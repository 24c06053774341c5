//! The stock, who holds what of it, and every command ever answered. Pure: no files, no network.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::Answer;

/// More is a mistake of the caller, and sums stay far from the limits of the type.
const QTY_MAX: u64 = 1_000_000;
const ITEMS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    Reserve,
    Release,
}

impl Op {
    pub(crate) fn subject(self) -> &'static str {
        match self {
            Self::Reserve => "inventory.reserve",
            Self::Release => "inventory.release",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    sku: String,
    qty: u64,
}

/// One line of the ledger: a command, what it asked, what it was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    op: Op,
    command: String,
    /// The order a request named; for the ledger's readers only.
    order: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    items: Vec<Item>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compensates: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undone: Option<bool>,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum StockError {
    #[error("{command} took {qty} of {sku}, and only {left} were left")]
    TooMany {
        command: String,
        sku: String,
        qty: u64,
        left: u64,
    },
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "orderId")]
    order: String,
    items: Vec<Item>,
}

struct Reservation {
    order: Option<String>,
    items: Vec<Item>,
}

pub(crate) struct Stock {
    left: BTreeMap<String, u64>,
    answers: HashMap<(Op, String), Answer>,
    /// Reservations that stand, by their command id.
    standing: HashMap<String, Reservation>,
    /// Commands whose compensation came, whether they had come themselves or not.
    taken_back: HashSet<String>,
}

impl Stock {
    pub(crate) fn new(left: BTreeMap<String, u64>) -> Self {
        Self {
            left,
            answers: HashMap::new(),
            standing: HashMap::new(),
            taken_back: HashSet::new(),
        }
    }

    pub(crate) fn left(&self, sku: &str) -> u64 {
        self.left.get(sku).copied().unwrap_or(0)
    }

    /// What this command was answered before: the answer it gets for ever.
    pub(crate) fn answered(&self, op: Op, command: &str) -> Option<&Answer> {
        self.answers.get(&(op, command.to_owned()))
    }

    /// What reserving comes to now; changes nothing. All items or none.
    pub(crate) fn reserve(&self, command: &str, body: &[u8]) -> Entry {
        let (order, items, answer) = match serde_json::from_slice::<Request>(body) {
            Ok(request) => {
                let answer = self.decide(command, &request.items);
                (Some(request.order), request.items, answer)
            }
            Err(error) => {
                let text =
                    format!("expected {{\"orderId\", \"items\": [{{\"sku\", \"qty\"}}]}}: {error}");
                (None, Vec::new(), Answer::refused(400, text))
            }
        };
        Entry {
            op: Op::Reserve,
            command: command.to_owned(),
            order,
            items,
            compensates: None,
            undone: None,
            answer,
        }
    }

    fn decide(&self, command: &str, items: &[Item]) -> Answer {
        if self.taken_back.contains(command) {
            return Answer::refused(409, "taken back before it arrived");
        }
        if items.is_empty() || items.len() > ITEMS_MAX {
            return Answer::refused(400, format!("expected 1 to {ITEMS_MAX} items"));
        }
        if items.iter().any(|item| item.qty == 0 || item.qty > QTY_MAX) {
            return Answer::refused(400, format!("qty must be 1 to {QTY_MAX}"));
        }
        for (sku, qty) in by_sku(items) {
            if qty > self.left(sku) {
                return Answer::refused(409, format!("out of stock: {sku}"));
            }
        }
        Answer::Done(json!({"reserved": items.iter().map(|item| item.qty).sum::<u64>()}))
    }

    /// What releasing comes to now; changes nothing. It always succeeds: what was never reserved, or was
    /// refused, is as the caller wants it already.
    pub(crate) fn release(&self, command: &str, compensates: &str) -> Entry {
        let reservation = self.standing.get(compensates);
        let undone = reservation.is_some();
        Entry {
            op: Op::Release,
            command: command.to_owned(),
            order: reservation.and_then(|reservation| reservation.order.clone()),
            items: Vec::new(),
            compensates: Some(compensates.to_owned()),
            undone: Some(undone),
            answer: Answer::Done(json!({"undone": undone})),
        }
    }

    /// Lets a decision count, and returns its answer. The only way state changes, for new entries and for
    /// those read at start alike.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Answer, StockError> {
        if entry.op == Op::Reserve && matches!(entry.answer, Answer::Done(_)) {
            let taken = by_sku(&entry.items);
            for (sku, qty) in &taken {
                let left = self.left(sku);
                if *qty > left {
                    return Err(StockError::TooMany {
                        command: entry.command.clone(),
                        sku: (*sku).to_owned(),
                        qty: *qty,
                        left,
                    });
                }
            }
            for (sku, qty) in taken {
                *self.left.entry(sku.to_owned()).or_default() -= qty;
            }
            let reservation = Reservation {
                order: entry.order.clone(),
                items: entry.items.clone(),
            };
            self.standing.insert(entry.command.clone(), reservation);
        }
        if let (Op::Release, Some(compensates)) = (entry.op, &entry.compensates) {
            self.taken_back.insert(compensates.clone());
            if let Some(reservation) = self.standing.remove(compensates) {
                for (sku, qty) in by_sku(&reservation.items) {
                    *self.left.entry(sku.to_owned()).or_default() += qty;
                }
            }
        }
        self.answers
            .insert((entry.op, entry.command.clone()), entry.answer.clone());
        Ok(entry.answer.clone())
    }
}

/// Units per SKU: an order may name one SKU twice. Saturating, because a ledger is data from outside too.
fn by_sku(items: &[Item]) -> BTreeMap<&str, u64> {
    let mut units = BTreeMap::new();
    for item in items {
        let sum: &mut u64 = units.entry(item.sku.as_str()).or_default();
        *sum = sum.saturating_add(item.qty);
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE_OF_A: &[u8] =
        br#"{"orderId":"o1","items":[{"sku":"A","qty":2},{"sku":"A","qty":1}]}"#;

    fn stock() -> Stock {
        Stock::new(BTreeMap::from([("A".to_owned(), 5), ("B".to_owned(), 1)]))
    }

    fn reserve(stock: &mut Stock, command: &str, body: &[u8]) -> Answer {
        let entry = stock.reserve(command, body);
        stock.apply(&entry).unwrap()
    }

    fn release(stock: &mut Stock, command: &str, compensates: &str) -> Answer {
        let entry = stock.release(command, compensates);
        stock.apply(&entry).unwrap()
    }

    #[test]
    fn stock_is_taken_until_it_is_short_and_given_back_once() {
        let mut stock = stock();
        let answer = reserve(&mut stock, "c1", THREE_OF_A);
        assert_eq!(answer, Answer::Done(json!({"reserved": 3})));
        let answer = reserve(&mut stock, "c2", THREE_OF_A);
        assert_eq!(answer, Answer::refused(409, "out of stock: A"));
        assert_eq!(stock.left("A"), 2);
        let undone = |undone| Answer::Done(json!({"undone": undone}));
        assert_eq!(release(&mut stock, "c1/compensate", "c1"), undone(true));
        assert_eq!(release(&mut stock, "again", "c1"), undone(false));
        assert_eq!(release(&mut stock, "c2/compensate", "c2"), undone(false));
        assert_eq!(stock.left("A"), 5);
        assert_eq!(
            stock.answered(Op::Reserve, "c1"),
            Some(&Answer::Done(json!({"reserved": 3})))
        );
    }

    #[test]
    fn nothing_is_taken_when_one_item_is_short() {
        let mut stock = stock();
        let body = br#"{"orderId":"o1","items":[{"sku":"A","qty":1},{"sku":"B","qty":2}]}"#;
        let answer = reserve(&mut stock, "c1", body);
        assert_eq!(answer, Answer::refused(409, "out of stock: B"));
        assert_eq!((stock.left("A"), stock.left("B")), (5, 1));
    }

    #[test]
    fn a_reservation_that_comes_after_its_release_is_refused() {
        let mut stock = stock();
        release(&mut stock, "c1/compensate", "c1");
        let answer = reserve(&mut stock, "c1", THREE_OF_A);
        assert_eq!(answer, Answer::refused(409, "taken back before it arrived"));
        assert_eq!(stock.left("A"), 5);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in [
            "",
            "null",
            "[]",
            r#"{"orderId":1,"items":[]}"#,
            r#"{"orderId":"o","items":[]}"#,
            r#"{"orderId":"o","items":[{"sku":"A","qty":0}]}"#,
            r#"{"orderId":"o","items":[{"sku":"A","qty":-1}]}"#,
            r#"{"orderId":"o","items":[{"sku":"A","qty":1000001}]}"#,
        ] {
            let answer = reserve(&mut stock(), "c1", body.as_bytes());
            assert!(
                matches!(answer, Answer::Refused { code: 400, .. }),
                "{body}: {answer:?}"
            );
        }
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let book = stock();
        for entry in [
            book.reserve("c1", THREE_OF_A),
            book.reserve("c2", b"{}"),
            book.release("c1/compensate", "c1"),
        ] {
            let line = serde_json::to_string(&entry).unwrap();
            assert_eq!(
                serde_json::from_str::<Entry>(&line).unwrap(),
                entry,
                "{line}"
            );
        }
    }
}

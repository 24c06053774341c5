//! The ledger file: one JSON object per line, written before a command is answered.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::stock::{Entry, Stock, StockError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("can't use the ledger {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: another inventory is using this ledger; stop it or name another file")]
    InUse { path: PathBuf },
    #[error("{path}:{line}: not a ledger line; move the file away to start afresh")]
    BadLine {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}:{line}: does not fit the stock; was the stock file changed since?")]
    Stock {
        path: PathBuf,
        line: usize,
        #[source]
        source: StockError,
    },
}

pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens or makes the file, locks it and applies what it holds to `stock`, oldest first. A last line
    /// without its end was never answered: it is cut off.
    pub(crate) fn open(path: &Path, stock: &mut Stock) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(io)?;
        // Two processes on one ledger would each remember half of the commands.
        file.try_lock().map_err(|_| LedgerError::InUse {
            path: path.to_owned(),
        })?;
        let mut data = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.read_to_end(&mut data).map_err(io)?;
        let whole = data
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(io)?;
        data.truncate(whole);
        let lines = data
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        for (index, text) in lines.enumerate() {
            let line = index + 1;
            let path = || path.to_owned();
            let entry: Entry =
                serde_json::from_slice(text).map_err(|source| LedgerError::BadLine {
                    path: path(),
                    line,
                    source,
                })?;
            stock.apply(&entry).map_err(|source| LedgerError::Stock {
                path: path(),
                line,
                source,
            })?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// The line is whole in the kernel when this returns, so that killing the process loses nothing; a power
    /// loss may lose the last lines (no fsync: this is an example). After an error the process must end: a
    /// torn line is cut off at the next start, going on would glue the next one to it.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let io = |source| LedgerError::Io {
            path: self.path.clone(),
            source,
        };
        let mut line = serde_json::to_vec(entry).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stock::Op;

    fn stock() -> Stock {
        Stock::new(BTreeMap::from([("A".to_owned(), 5)]))
    }

    #[test]
    fn what_was_written_is_known_after_a_restart_and_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let mut book = stock();
        let mut ledger = Ledger::open(&path, &mut book).unwrap();
        let entry = book.reserve("c1", br#"{"orderId":"o","items":[{"sku":"A","qty":3}]}"#);
        ledger.append(&entry).unwrap();
        let answer = book.apply(&entry).unwrap();
        drop(ledger);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(br#"{"op":"rese"#)
            .unwrap();

        let mut again = stock();
        let mut ledger = Ledger::open(&path, &mut again).unwrap();
        assert_eq!(again.left("A"), 2);
        assert_eq!(again.answered(Op::Reserve, "c1"), Some(&answer));
        let entry = again.release("c1/compensate", "c1");
        ledger.append(&entry).unwrap();
        drop(ledger);

        let mut third = stock();
        Ledger::open(&path, &mut third).unwrap();
        assert_eq!(third.left("A"), 5);
    }

    #[test]
    fn a_ledger_in_use_or_of_something_else_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let _ledger = Ledger::open(&path, &mut stock()).unwrap();
        let error = Ledger::open(&path, &mut stock()).err().unwrap();
        assert!(matches!(error, LedgerError::InUse { .. }), "{error}");

        let other = dir.path().join("other");
        std::fs::write(&other, "{}\n").unwrap();
        let error = Ledger::open(&other, &mut stock()).err().unwrap();
        assert!(
            matches!(error, LedgerError::BadLine { line: 1, .. }),
            "{error}"
        );
    }
}

//! Participants over NATS that hold their contract and keep a ledger, in the test's own process, which workers and
//! servers come and go around.

use async_nats::{Client, HeaderMap, Message};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What participants do besides their work, decided by the command id.
pub type Decide = dyn Fn(&str) -> Conduct + Send + Sync;

/// How a participant treats one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// Does it.
    Do,
    /// Refuses it for good.
    Refuse,
    /// Does it and loses the first answer.
    LoseFirstAnswer,
    /// Answers the first attempt with an error that passes.
    FailFirst,
}

/// Their common ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Commands that were done, with how often each was asked for.
    pub done: BTreeMap<String, u32>,
    /// Commands that were refused.
    pub refused: BTreeSet<String>,
    /// Commands that were taken back.
    pub taken_back: BTreeSet<String>,
    seen: BTreeMap<String, u32>,
}

impl Ledger {
    /// Commands done and not taken back.
    pub fn standing(&self) -> impl Iterator<Item = &str> {
        self.done
            .keys()
            .map(String::as_str)
            .filter(|command| !self.taken_back.contains(*command))
    }
}

/// Participants that answer on subjects until dropped.
pub struct Participants {
    ledger: Arc<Mutex<Ledger>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Participants {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Participants {
    /// Answers on these subjects.
    ///
    /// # Errors
    /// If a subject can't be subscribed to.
    pub async fn start(
        client: &Client,
        subjects: &[String],
        decide: Arc<Decide>,
    ) -> anyhow::Result<Self> {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut tasks = Vec::new();
        for subject in subjects {
            let mut requests = client.subscribe(subject.clone()).await?;
            let (client, ledger, decide) =
                (client.clone(), Arc::clone(&ledger), Arc::clone(&decide));
            tasks.push(tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    if let Some((reply, headers, body)) = handle(&ledger, &*decide, &request) {
                        let _ = client
                            .publish_with_headers(reply, headers, body.into())
                            .await;
                    }
                }
            }));
        }
        client.flush().await?;
        Ok(Participants { ledger, tasks })
    }

    /// Looks at the ledger.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn handle(
    ledger: &Mutex<Ledger>,
    decide: &Decide,
    request: &Message,
) -> Option<(async_nats::Subject, HeaderMap, String)> {
    let reply = request.reply.clone()?;
    let header = |name: &str| {
        request
            .headers
            .as_ref()?
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    let command = header("Tidemill-Command-Id")?;
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let error = |code: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Error", "no");
        headers.insert("Nats-Service-Error-Code", code);
        Some((reply.clone(), headers, String::new()))
    };
    let answer = |command: &str| {
        Some((
            reply.clone(),
            HeaderMap::new(),
            format!("{{\"done\":{command:?}}}"),
        ))
    };
    if let Some(compensated) = header("Tidemill-Compensates") {
        ledger.taken_back.insert(compensated);
        return answer(&command);
    }
    let conduct = decide(&command);
    let seen = ledger.seen.entry(command.clone()).or_insert(0);
    *seen += 1;
    let first = *seen == 1;
    if ledger.refused.contains(&command) || conduct == Conduct::Refuse {
        ledger.refused.insert(command);
        return error("422");
    }
    if conduct == Conduct::FailFirst && first {
        return error("503");
    }
    if ledger.taken_back.contains(&command) {
        return error("409");
    }
    *ledger.done.entry(command.clone()).or_insert(0) += 1;
    if conduct == Conduct::LoseFirstAnswer && first {
        return None;
    }
    answer(&command)
}

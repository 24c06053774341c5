//! Participants over NATS that hold their contract and keep a ledger, in the test's own process, which workers and
//! servers come and go around.

use async_nats::{Client, HeaderMap, Message, Subject};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What participants do besides their work, decided by the command id (`…/compensate` for a compensation).
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
    /// Does it and keeps the first answer back until [`Participants::release`].
    HoldFirstAnswer,
    /// Does it and keeps every answer back until [`Participants::release`].
    HoldAnswers,
    /// Does it and answers something that is no JSON.
    Garble,
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
    /// Commands in the order in which they were first taken back.
    pub taken_back_order: Vec<String>,
    /// Requests of each command, answered or not.
    pub asked: BTreeMap<String, u32>,
    /// Headers of the last request of each command.
    pub headers: BTreeMap<String, BTreeMap<String, String>>,
    /// Reply subjects of all requests; each holds a token that nobody else may see.
    pub replies: Vec<String>,
    held: Vec<Answer>,
}

impl Ledger {
    /// Commands done and not taken back.
    pub fn standing(&self) -> impl Iterator<Item = &str> {
        self.done
            .keys()
            .map(String::as_str)
            .filter(|command| !self.taken_back.contains(*command))
    }

    /// How many of an instance's commands stand.
    pub fn standing_of(&self, instance: &str) -> usize {
        let of = |command: &&str| command.split('/').nth(2) == Some(instance);
        self.standing().filter(of).count()
    }

    /// Answers kept back.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// Participants that answer on subjects until dropped.
pub struct Participants {
    ledger: Arc<Mutex<Ledger>>,
    client: Client,
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
                    if let Some(answer) = handle(&ledger, &*decide, &request) {
                        answer.send(&client).await;
                    }
                }
            }));
        }
        client.flush().await?;
        Ok(Participants {
            ledger,
            client: client.clone(),
            tasks,
        })
    }

    /// Looks at the ledger.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends the answers that were kept back; gives their number.
    ///
    /// # Errors
    /// If the server is away.
    pub async fn release(&self) -> anyhow::Result<usize> {
        let held = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut ledger.held)
        };
        let count = held.len();
        for answer in held {
            answer.send(&self.client).await;
        }
        self.client.flush().await?;
        Ok(count)
    }
}

#[derive(Debug)]
struct Answer {
    reply: Subject,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn send(self, client: &Client) {
        let Answer {
            reply,
            headers,
            body,
        } = self;
        // A server that is away loses the answer, as it would a participant's.
        let _ = client
            .publish_with_headers(reply, headers, body.into())
            .await;
    }

    fn error(reply: Subject, code: &str) -> Option<Self> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Error", "no");
        headers.insert("Nats-Service-Error-Code", code);
        Some(Answer {
            reply,
            headers,
            body: String::new(),
        })
    }
}

fn handle(ledger: &Mutex<Ledger>, decide: &Decide, request: &Message) -> Option<Answer> {
    let reply = request.reply.clone()?;
    let texts = request
        .headers
        .iter()
        .flat_map(HeaderMap::iter)
        .filter_map(|(name, values)| {
            let value = values.first()?.as_str();
            Some((name.to_string(), value.to_owned()))
        });
    let headers: BTreeMap<String, String> = texts.collect();
    let command = headers.get("Tidemill-Command-Id")?.clone();
    let compensates = headers.get("Tidemill-Compensates").cloned();

    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    ledger.replies.push(reply.to_string());
    ledger.headers.insert(command.clone(), headers);
    let asked = ledger.asked.entry(command.clone()).or_insert(0);
    *asked += 1;
    let first = *asked == 1;
    let conduct = decide(&command);
    match conduct {
        Conduct::FailFirst if first => return Answer::error(reply, "503"),
        Conduct::Refuse if compensates.is_some() => return Answer::error(reply, "422"),
        Conduct::Refuse => {
            ledger.refused.insert(command);
            return Answer::error(reply, "422");
        }
        _ => {}
    }
    match compensates {
        Some(compensated) => {
            if ledger.taken_back.insert(compensated.clone()) {
                ledger.taken_back_order.push(compensated);
            }
        }
        None if ledger.refused.contains(&command) => return Answer::error(reply, "422"),
        None if ledger.taken_back.contains(&command) => return Answer::error(reply, "409"),
        None => *ledger.done.entry(command.clone()).or_insert(0) += 1,
    }
    let answer = Answer {
        reply,
        headers: HeaderMap::new(),
        body: match conduct {
            Conduct::Garble => "<html>".to_owned(),
            _ => format!("{{\"done\":{command:?}}}"),
        },
    };
    match conduct {
        Conduct::LoseFirstAnswer if first => None,
        Conduct::HoldFirstAnswer if first => {
            ledger.held.push(answer);
            None
        }
        Conduct::HoldAnswers => {
            ledger.held.push(answer);
            None
        }
        _ => Some(answer),
    }
}

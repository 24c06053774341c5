//! A participant that holds its contract: it remembers command ids, answers the same again, and refuses an action whose
//! compensation came first.

use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::json::Value;
use tidemill_core::names::Side;
use tidemill_core::saga::{Effect, Observed};

#[derive(Default)]
pub(crate) struct Participant {
    /// What it answered to each action it decided about.
    decided: BTreeMap<String, Given>,
    /// Actions that were taken back, done before or not.
    taken_back: BTreeSet<String>,
}

#[derive(Clone)]
pub(crate) enum Given {
    Done(String),
    Refused(u32),
    Error,
}

impl Given {
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let code = match self {
            Given::Done(_) => return Vec::new(),
            Given::Refused(code) => *code,
            Given::Error => 500,
        };
        vec![
            ("Nats-Service-Error-Code".to_owned(), code.to_string()),
            ("Nats-Service-Error".to_owned(), "no".to_owned()),
        ]
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        match self {
            Given::Done(command) => {
                let body = format!("{{\"done\":\"{command}\",\"tracking\":\"T-1\"}}");
                body.into_bytes()
            }
            Given::Refused(_) | Given::Error => Vec::new(),
        }
    }

    pub(crate) fn observed(&self) -> Observed {
        let (status, body) = match self {
            Given::Done(_) => (200, Value::parse(&self.body()).ok()),
            Given::Refused(code) => (*code, Some(Value::Null)),
            Given::Error => (503, None),
        };
        Observed::Http {
            status,
            body,
            retry_after_ms: None,
        }
    }
}

impl Participant {
    /// Handles a request. `service_error` and `refuse` are what it would like to do; a decision once made stays.
    pub(crate) fn handle(
        &mut self,
        effect: &Effect,
        side: Side,
        service_error: bool,
        refuse: bool,
    ) -> Given {
        let header = |name: &str| -> String {
            let found = match effect {
                Effect::Request(request) => request
                    .headers
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value),
                Effect::Http(http) => http
                    .headers
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value),
                Effect::Publish(_) => None,
            };
            found.cloned().unwrap_or_default()
        };
        let command = match effect {
            Effect::Request(_) => header("Tidemill-Command-Id"),
            Effect::Http(_) | Effect::Publish(_) => header("Idempotency-Key"),
        };
        match side {
            Side::Action => {
                if let Some(given) = self.decided.get(&command) {
                    return given.clone();
                }
                if service_error {
                    return Given::Error;
                }
                let given = if self.taken_back.contains(&command) {
                    Given::Refused(409)
                } else if refuse {
                    Given::Refused(422)
                } else {
                    Given::Done(command.clone())
                };
                self.decided.insert(command, given.clone());
                given
            }
            Side::Compensation => {
                if service_error {
                    return Given::Error;
                }
                // Against its contract; the instance is parked for it.
                if refuse {
                    return Given::Refused(409);
                }
                self.taken_back.insert(header("Tidemill-Compensates"));
                Given::Done(command)
            }
        }
    }

    /// Somebody takes a command back by hand, done or not.
    pub(crate) fn take_back(&mut self, command: String) {
        self.taken_back.insert(command);
    }

    /// Whether anything was ever done.
    pub(crate) fn has_done(&self) -> bool {
        let mut given = self.decided.values();
        given.any(|given| matches!(given, Given::Done(_)))
    }

    /// Commands that were done and not taken back.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &str> {
        let done = self
            .decided
            .iter()
            .filter(|(_, given)| matches!(given, Given::Done(_)));
        done.map(|(command, _)| command.as_str())
            .filter(|command| !self.taken_back.contains(*command))
    }
}

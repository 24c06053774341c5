//! What a command was answered, in the form the ledger keeps.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// Success, with the body.
    #[serde(rename = "answer")]
    Done(Value),
    /// 400-499: for good, and nothing was done.
    Refused { code: u16, text: String },
}

impl Answer {
    pub(crate) fn refused(code: u16, text: impl Into<String>) -> Self {
        Self::Refused {
            code,
            text: text.into(),
        }
    }

    /// The JSON body of the reply. A refusal says why in the body too, for people who look at messages.
    pub(crate) fn body(&self) -> Value {
        match self {
            Self::Done(body) => body.clone(),
            Self::Refused { text, .. } => json!({"error": text}),
        }
    }
}

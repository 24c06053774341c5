//! The credentials file of a connection. Three forms are read:
//!
//! * a NATS `.creds` file, with a user's JWT and seed;
//! * JSON: `{"user": "…", "password": "…"}` or `{"token": "…"}`;
//! * plain text: `user:password` on one line, or the user on the first line and the password on the second.

use async_nats::ConnectOptions;
use serde::Deserialize;
use std::fmt;

/// Longest credentials file read; a `.creds` file has about 1 KiB.
const BYTES_MAX: u64 = 64 << 10;

/// Credentials that aren't in a file: the text that would stand there. Not shown by `Debug`.
#[derive(Clone)]
pub struct Credentials(String);

impl Credentials {
    /// Of the text of a credentials file.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// Options with the credentials of a file; the error says what is wrong, never what the file holds.
pub(crate) async fn from_file(path: &str) -> Result<ConnectOptions, String> {
    let size = tokio::fs::metadata(path)
        .await
        .map_err(|error| error.to_string())?
        .len();
    if size > BYTES_MAX {
        return Err(format!("{size} bytes are no credentials file"));
    }
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| error.to_string())?;
    from_text(&text)
}

pub(crate) fn from_text(text: &str) -> Result<ConnectOptions, String> {
    let text = text.trim();
    if text.contains("-----BEGIN") {
        // The client wants the last line to end.
        return ConnectOptions::with_credentials(&format!("{text}\n")).map_err(|_| {
            "it begins like a .creds file but holds no usable JWT and seed".to_owned()
        });
    }
    if text.starts_with('{') {
        // serde's message could quote a secret, so it isn't passed on.
        let json: Json = serde_json::from_str(text)
            .map_err(|_| "it is JSON but not {\"user\", \"password\"} or {\"token\"}".to_owned())?;
        return match json {
            Json {
                user: Some(user),
                password: Some(password),
                token: None,
            } => Ok(ConnectOptions::with_user_and_password(user, password)),
            Json {
                user: None,
                password: None,
                token: Some(token),
            } => Ok(ConnectOptions::with_token(token)),
            _ => Err("its JSON needs either `user` and `password` or `token`".to_owned()),
        };
    }
    let mut lines = text.lines().map(str::trim);
    match (lines.next(), lines.next(), lines.next()) {
        (Some(user), Some(password), None) if !user.is_empty() && !password.is_empty() => Ok(
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()),
        ),
        (Some(line), None, None) => match line.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(
                ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()),
            ),
            _ => Err("one line must be `user:password`".to_owned()),
        },
        _ => Err(
            "it must be a .creds file, JSON, `user:password`, or a line with the user and one with the password"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_are_read_and_refused() {
        for good in [
            "me:secret",
            "me:sec:ret\n",
            "me\nsecret\n",
            "me\r\nsecret\r\n",
            r#"{"user": "me", "password": "secret"}"#,
            r#"{"token": "secret"}"#,
        ] {
            assert!(from_text(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "secret",
            ":secret",
            "a\nb\nc",
            "{",
            r#"{"user": "secret"}"#,
            r#"{"user": "secret", "token": "secret"}"#,
            r#"{"pasword": "secret"}"#,
            "-----BEGIN NATS USER JWT-----\nsecret",
        ] {
            let error = from_text(bad).map(|_| ()).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
